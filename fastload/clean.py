"""Find what must not be trained on, and say why: `python -m fastload.clean data/`.

    files ─▶ examine: read once, in processes ─▶ Kept or Dropped
                                                  └▶ without_duplicates: across splits and classes

Whether a file is a duplicate is known when all files were read. No file of the source is changed.
`--quarantine` moves files out of the source and never overwrites.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from fastload.console.interrupt import leave_to_system

if __name__ == "__main__":
    leave_to_system()

from fastload.console.command import run_command
from fastload.console.parser import CommandParser, add_seed_option, add_workers_option
from fastload.console.shell import module_command, program, with_options
from fastload.console.terminal import say
from fastload.prepare.cluster import is_address, joined
from fastload.prepare.folder import clean_folder
from fastload.prepare.layout import LAYOUTS, LayoutOptions
from fastload.prepare.reasons import Rules
from fastload.prepare.remedies import options_to_shard, remedy_line
from fastload.prepare.report import (
    REPORT_NAME,
    count_reasons,
    quarantine,
    reason_table,
    refuse_foreign_report,
    refuse_to_move,
    repeat_lines,
    write_report,
)
from fastload.prepare.source import read_source


def place(text: str) -> Path | str:
    """What names a place: a path, or an address of an object store, without a slash at its end."""
    if "://" not in text:
        return Path(text)
    return text if text.endswith("://") else text.rstrip("/")


def add_data_argument(parser: argparse.ArgumentParser) -> None:
    """The source, of one word or several."""
    parser.add_argument(
        "data",
        type=place,
        nargs="+",
        help="folder of class folders, such as data/; tars or a pattern of tars, such as "
        "'train-{0000..1023}.tar'; a table of paths and labels (.csv, .tsv, .jsonl); a catalogue "
        "(.json), or parquet",
    )


def add_cleaning_options(parser: argparse.ArgumentParser) -> None:
    """The options that cleaning and sharding share."""
    add_rule_options(parser)
    parser.add_argument(
        "--quarantine", type=Path, metavar="DIR", help="move what is set aside there, at the end"
    )


def add_rule_options(parser: argparse.ArgumentParser) -> None:
    """The options that say what is taken, and with how many processes."""
    parser.add_argument(
        "--convert",
        action="store_true",
        help="turn grey, CMYK, palette and alpha images, and sound images with a wrong extension, "
        "into RGB instead of setting them aside",
    )
    parser.add_argument(
        "--min-side", type=int, default=32, metavar="N", help="smallest side in pixels (default 32)"
    )
    add_workers_option(parser)


def add_layout_options(parser: argparse.ArgumentParser) -> None:
    """The options that say how the folder is understood."""
    parser.add_argument(
        "--layout",
        choices=LAYOUTS,
        default="auto",
        help="splits: folders that are no split are left out; classes: every folder is a class, "
        "even one called train; auto (default): decide, and refuse what has two readings",
    )
    parser.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="NAME",
        help="pass over files and folders of this name, relative path or pattern; may be repeated",
    )
    parser.add_argument(
        "--val-fraction",
        type=float,
        metavar="F",
        help="take val from train, this fraction of each class (default 0.1 without splits)",
    )
    parser.add_argument(
        "--test-fraction", type=float, metavar="F", help="the same for test; 0 takes none"
    )
    parser.add_argument(
        "--image-field",
        default="",
        metavar="NAME",
        help="column of a table, or member of a sample in a tar, that holds the image or its path",
    )
    parser.add_argument(
        "--label-field",
        default="",
        metavar="NAME",
        help="the same for the class; in a tar also a field of the sample's JSON",
    )
    parser.add_argument(
        "--split-field", default="", metavar="NAME", help="column of a table that names the split"
    )


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """The options that say whether this machine works, or the nodes of a cluster."""
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="local: processes of this machine (default); ray: the nodes of a Ray cluster, which "
        "see the same files",
    )
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="of the cluster (default auto: the one that this machine is a node of)",
    )


def check_engine(parser: CommandParser, options: argparse.Namespace, words: Sequence[str]) -> None:
    """End the command where the options of the engine make no sense together."""
    if options.engine == "local":
        if options.address is not None:
            parser.error("--address is of a cluster; add --engine ray, or leave it out")
        return
    options.address = options.address or "auto"
    if not is_address(options.address):
        parser.error(f"--address must be HOST:PORT or auto, got {options.address!r}")
    if any(word.partition("=")[0] == "--workers" for word in words):
        parser.error(
            "--workers is of one machine; Ray has a worker for each CPU of its nodes, see "
            "`ray start --num-cpus`"
        )


def engine(options: argparse.Namespace) -> AbstractContextManager[None]:
    """What the work goes on in: a cluster that is joined, or nothing."""
    return joined(options.address) if options.engine == "ray" else nullcontext()


def add_missing_classes_option(parser: argparse.ArgumentParser) -> None:
    """The option that takes classes without training images."""
    parser.add_argument(
        "--allow-missing-classes",
        action="store_true",
        help="keep classes that have no image in train",
    )


def without_option(words: Sequence[str], *names: str) -> list[str]:
    """The arguments of a command without options that take a value, such as --out."""
    kept: list[str] = []
    skipped = False
    for word in words:
        if not skipped and word not in names and word.partition("=")[0] not in names:
            kept.append(word)
        skipped = word in names and not skipped
    return kept


def _run(
    options: argparse.Namespace, rules: Rules, layout: LayoutOptions, words: Sequence[str]
) -> int:
    refuse_foreign_report(options.report)
    source = read_source(options.data, seed=options.seed, options=layout)
    refuse_to_move(source, options.quarantine)
    say(*source.described())
    begin = time.monotonic()
    rows = clean_folder(source, rules=rules, workers=options.workers)
    seconds = time.monotonic() - begin
    if options.quarantine:
        rows = quarantine(source.folder, options.quarantine, rows)
    write_report(options.report, rows)
    counts = count_reasons(rows)
    bad = sum(counts.values())
    remedy, more = remedy_line(rows, rules), options_to_shard(source, rows, rules)
    rate = len(source.files) / max(seconds, 1e-9)
    fit = len(source.files) + len(source.oddities) - bad
    lines = [
        f"read in {seconds:.1f} s, {rate:,.0f} images/s",
        f"{_are(fit)} fit to train on, {_are(bad)} not{':' if bad else ''}",
        *reason_table(counts),
        *([remedy] if remedy else []),
        *repeat_lines(rows),
        f"each of them is in {options.report}",
    ]
    if more is None:
        lines.append("next: nothing is left to train on")
    else:
        left_out = {"--report", "--quarantine", *({"--min-side"} & set(more))}
        again = [
            Path(word) if Path(word) in options.data else word  # without a slash at its end
            for word in without_option(words, *left_out)
        ]
        lines.append(f"next: {module_command('fastload.shard', *with_options(again, *more))}")
    say(*lines)
    return 0


def _are(count: int) -> str:
    return f"{count:,} {'is' if count == 1 else 'are'}"


def parse_rules(parser: CommandParser, options: argparse.Namespace) -> Rules:
    """The rules that the options ask for; ends the command where they make no sense."""
    names = ("store", "max_side", "quality", "convert", "min_side")
    given = {name: getattr(options, name) for name in names if hasattr(options, name)}
    try:
        return Rules(**given)
    except ValueError as error:
        parser.refuse(error)


def parse_layout(parser: CommandParser, options: argparse.Namespace) -> LayoutOptions:
    """How the folder is to be understood; ends the command where the options make no sense."""
    try:
        return LayoutOptions(
            layout=options.layout,
            exclude=tuple(options.exclude),
            val_fraction=options.val_fraction,
            test_fraction=options.test_fraction,
            image_field=options.image_field,
            label_field=options.label_field,
            split_field=options.split_field,
        )
    except ValueError as error:
        parser.refuse(error)


def command_line() -> CommandParser:
    """What the command takes."""
    parser = CommandParser(
        prog=program("fastload.clean"),
        description="Say which images must not be trained on, and why.",
    )
    add_data_argument(parser)
    add_cleaning_options(parser)
    add_layout_options(parser)
    add_seed_option(parser, "of the split, where there is none")
    parser.add_argument(
        "--report",
        type=Path,
        default=Path(REPORT_NAME),
        metavar="FILE",
        help=f"where to list them (default {REPORT_NAME})",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = command_line()
    words = sys.argv[1:] if argv is None else argv
    options = parser.read(words)
    rules, layout = parse_rules(parser, options), parse_layout(parser, options)
    return run_command(parser.name, lambda: _run(options, rules, layout, words))


if __name__ == "__main__":
    sys.exit(main())
