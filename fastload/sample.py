"""Draw a small data set of flowers to try everything with: `python -m fastload.sample data/`.

Ten species, long-tailed, in train, val and test. Some twelve files are spoiled on purpose, one for
each thing that the cleaner should notice.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from fastload.console.command import run_command
from fastload.console.terminal import say
from fastload.cores import usable_cores
from fastload.prepare.flowers import SPECIES
from fastload.prepare.sample_folder import SMALLEST, class_counts, write_sample


def _run(options: argparse.Namespace) -> int:
    spoiled = write_sample(
        options.folder, images=options.images, seed=options.seed, workers=options.workers
    )
    if spoiled is None:
        say(f"{options.folder} already holds this sample")
        return 0
    counts = class_counts(options.images)
    say(
        f"{options.images:,} images of {len(SPECIES)} species ({counts[0]} of the commonest, "
        f"{counts[-1]} of the rarest) and {spoiled} files spoiled on purpose are in "
        f"{options.folder}",
        f"next: python -m fastload.shard {shlex.quote(str(options.folder))}",
    )
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m fastload.sample",
        description="Draw a small, long-tailed data set of flowers to try everything with.",
    )
    parser.add_argument("folder", type=Path, help="folder to write, such as data/")
    parser.add_argument("--images", type=int, default=1200, help="in all (default 1200)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other flowers")
    parser.add_argument("--workers", type=int, default=usable_cores(), help="processes")
    options = parser.parse_args(argv)
    if options.images < SMALLEST:
        parser.error(f"--images must be at least {SMALLEST}, got {options.images}")
    if options.workers < 1 or options.seed < 0:
        parser.error("--workers must be at least 1, --seed at least 0")

    return run_command("fastload.sample", lambda: _run(options))


if __name__ == "__main__":
    sys.exit(main())
