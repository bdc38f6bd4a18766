"""Find what must not be trained on, and say why: `python -m fastload.clean data/`.

    files ─▶ examine: read once, in processes ─▶ Kept or Dropped
                                                  └▶ without_duplicates: across splits and classes

Whether a file is a duplicate is known when all files were read. No file of the source is changed.
`--quarantine` moves files out of the source and never overwrites.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from fastload.console.command import run_command
from fastload.console.terminal import say
from fastload.cores import usable_cores
from fastload.prepare.folder import clean_folder
from fastload.prepare.reasons import Rules
from fastload.prepare.report import (
    REPORT_NAME,
    count_reasons,
    quarantine,
    reason_table,
    refuse_foreign_report,
    write_report,
)
from fastload.prepare.source import read_source


def add_cleaning_options(parser: argparse.ArgumentParser) -> None:
    """The options that cleaning and sharding share."""
    parser.add_argument(
        "--convert",
        action="store_true",
        help="turn grey, CMYK, palette and alpha images, and sound images with a wrong extension, "
        "into RGB instead of setting them aside",
    )
    parser.add_argument(
        "--min-side", type=int, default=32, metavar="N", help="smallest side in pixels (default 32)"
    )
    parser.add_argument(
        "--quarantine", type=Path, metavar="DIR", help="move what is set aside there, at the end"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=usable_cores(),
        metavar="N",
        help="processes (default: one for each core)",
    )


def _run(options: argparse.Namespace, rules: Rules) -> int:
    refuse_foreign_report(options.report)
    source = read_source(options.folder, seed=options.seed)
    begin = time.monotonic()
    rows = clean_folder(source, rules=rules, workers=options.workers)
    seconds = time.monotonic() - begin
    if options.quarantine:
        rows = quarantine(source.root, options.quarantine, rows)
    write_report(options.report, rows)
    counts = count_reasons(rows)
    bad = sum(counts.values())
    rate = len(source.files) / max(seconds, 1e-9)
    lines = [
        f"{len(source.files):,} files of {len(source.classes):,} classes, {source.layout}",
        f"read in {seconds:.1f} s, {rate:,.0f} images/s",
        f"{len(source.files) + len(source.oddities) - bad:,} are fit to train on, {bad:,} are not:",
        *reason_table(counts),
        f"each of them is in {options.report}",
        f"next: python -m fastload.shard {shlex.quote(str(options.folder))}",
    ]
    say(*lines)
    return 0


def parse_rules(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Rules:
    """The rules that the options ask for; ends the command where they make no sense."""
    if options.workers < 1:
        parser.error(f"--workers must be at least 1, got {options.workers}")
    if not 0 <= options.seed < 2**63:
        parser.error(f"--seed must be in [0, 2**63), got {options.seed}")
    names = ("store", "max_side", "quality", "convert", "min_side")
    given = {name: getattr(options, name) for name in names if hasattr(options, name)}
    try:
        return Rules(**given)
    except ValueError as error:
        parser.error(str(error).replace("_", "-"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m fastload.clean",
        description="Say which files of a folder of images must not be trained on, and why.",
    )
    parser.add_argument("folder", type=Path, help="folder of class folders, such as data/")
    add_cleaning_options(parser)
    parser.add_argument("--seed", type=int, default=0, help="of the split, where there is none")
    parser.add_argument(
        "--report",
        type=Path,
        default=Path(REPORT_NAME),
        metavar="FILE",
        help=f"where to list them (default {REPORT_NAME})",
    )
    options = parser.parse_args(argv)
    rules = parse_rules(parser, options)
    return run_command("fastload.clean", lambda: _run(options, rules))


if __name__ == "__main__":
    sys.exit(main())
