"""Draw a small data set of flowers to try everything with: `python -m fastload.sample data/`.

Ten species, long-tailed, in train, val and test. Some twelve files are spoiled on purpose, one for
each thing that the cleaner should notice.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fastload.console.interrupt import leave_to_system

if __name__ == "__main__":
    leave_to_system()

from fastload.console.command import run_command
from fastload.console.parser import CommandParser, add_workers_option, whole_number
from fastload.console.shell import module_command, program
from fastload.console.terminal import counted, say
from fastload.prepare.flowers import SPECIES
from fastload.prepare.sample_folder import SMALLEST, class_counts, write_sample


def _run(options: argparse.Namespace) -> int:
    spoiled = write_sample(
        options.folder, images=options.images, seed=options.seed, workers=options.workers
    )
    following = f"next: {module_command('fastload.inspect', options.folder)}"
    if spoiled is None:
        say(f"{options.folder} already holds this sample", following)
        return 0
    counts = class_counts(options.images)
    say(
        f"{counted(options.images, 'image')} of {len(SPECIES)} species ({counts[0]:,} of the "
        f"commonest, {counts[-1]:,} of the rarest) and {counted(spoiled, 'file')} spoiled on "
        f"purpose are in {options.folder}",
        following,
    )
    return 0


def command_line() -> CommandParser:
    """What the command takes."""
    parser = CommandParser(
        prog=program("fastload.sample"),
        description="Draw a small, long-tailed data set of flowers to try everything with.",
    )
    parser.add_argument("folder", type=Path, help="folder to write, such as data/")
    parser.add_argument(
        "--images",
        type=whole_number(SMALLEST),
        default=1200,
        metavar="N",
        help="images in all (default 1200)",
    )
    parser.add_argument(
        "--seed",
        type=whole_number(0),
        default=0,
        metavar="N",
        help="another seed, other flowers (default 0)",
    )
    add_workers_option(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = command_line()
    options = parser.read(argv)
    return run_command(parser.name, lambda: _run(options))


if __name__ == "__main__":
    sys.exit(main())
