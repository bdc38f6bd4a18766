"""Which back-ends work here, whether their pixels are right, how fast they are, what to install.

    python -m fastload.doctor            # with ten photographs made on the spot
    python -m fastload.doctor shards/    # with ten of yours

Each back-end is tried in another process: a back-end that crashes is a line of the report, and the
next one is tried. Pixels are right where each image differs from Pillow's decoder and Pillow's
resize by at most one grey on average. The exit status is 0 where every back-end that runs here is
right, else 1. A back-end that is not installed is no fault.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from fastload.console.interrupt import leave_to_system

if __name__ == "__main__":
    leave_to_system()

import torch

from fastload.advise.backends import BACKENDS, examine_apart, report
from fastload.advise.examples import made_examples, stored_examples
from fastload.advise.versions import installed_versions
from fastload.console.command import run_command
from fastload.console.parser import CommandParser
from fastload.console.shell import program
from fastload.console.terminal import say
from fastload.store.making import make_missing_indexes


def command_line() -> CommandParser:
    """What the command takes."""
    parser = CommandParser(
        prog=program("fastload.doctor"), description="Try every back-end on ten images."
    )
    parser.add_argument(
        "shards",
        nargs="?",
        help="a shard directory, its address such as s3://bucket/shards, or a folder, tar or table"
        " of images, to take them from",
    )
    parser.add_argument(
        "--device",
        type=_gpu_name,
        default="cuda:0",
        help="the GPU for the back-end dali (default cuda:0)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = command_line()
    options = parser.read(argv)
    return run_command(parser.name, lambda: _doctor(options))


def _doctor(options: argparse.Namespace) -> int:
    if options.shards:
        make_missing_indexes(options.shards)
    examples = stored_examples(options.shards) if options.shards else made_examples()
    facts = [*installed_versions(), ("images", f"{len(examples.jpegs)}, {examples.origin}")]
    width = max(len(name) for name, _ in facts)
    say(*(f"{name:<{width}}  {what}" for name, what in facts), "")
    findings = examine_apart(BACKENDS, examples, options.device)
    say(*report(findings))
    return 1 if any(finding.fault for finding in findings) else 0


def _gpu_name(text: str) -> str:
    try:
        device = torch.device(text)
    except RuntimeError:
        device = None
    if device is None or device.type != "cuda":
        raise argparse.ArgumentTypeError(f"must be a GPU such as cuda:0, got {text!r}")
    return text


if __name__ == "__main__":
    sys.exit(main())
