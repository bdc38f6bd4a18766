"""Which back-ends work here, whether their pixels are right, how fast they are, what to install.

    python -m fastload.doctor            # with ten photographs made on the spot
    python -m fastload.doctor shards/    # with ten of yours

The back-ends are tried in another process, so that one that crashes is a line of the report and not
the end of it. Right means: within one grey of Pillow's decoder and Pillow's resize, on average over
each image. The exit status is 0 where every back-end that runs here is right, else 1; one that is
merely not installed is no fault.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from fastload.advise.backends import (
    BACKENDS,
    Apart,
    made_examples,
    report,
    stored_examples,
    versions,
)
from fastload.console.command import run_command


def _gpu_name(text: str) -> str:
    try:
        device = torch.device(text)
    except RuntimeError:
        device = None
    if device is None or device.type != "cuda":
        raise argparse.ArgumentTypeError(f"{text!r} is no GPU such as cuda:0")
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """The command: prints the report; see the module's docstring for the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m fastload.doctor", description="Try every back-end on ten images."
    )
    parser.add_argument("shards", type=Path, nargs="?", help="a shard directory to take them from")
    parser.add_argument(
        "--device", type=_gpu_name, default="cuda:0", help="the GPU for the back-end dali"
    )
    options = parser.parse_args(argv)

    def body() -> int:
        examples = stored_examples(options.shards) if options.shards else made_examples()
        width = max(len(name) for name, _ in versions())
        for name, what in versions():
            print(f"{name:<{width}}  {what}")  # noqa: T201  a command's own words
        print(f"{'images':<{width}}  {len(examples.jpegs)}, {examples.origin}\n", flush=True)  # noqa: T201
        apart = Apart()
        try:
            findings = [apart.examine(name, examples, options.device) for name in BACKENDS]
        finally:
            apart.close()
        print("\n".join(report(findings)))  # noqa: T201
        return 1 if any(finding.fault for finding in findings) else 0

    return run_command("fastload.doctor", body)


if __name__ == "__main__":
    sys.exit(main())
