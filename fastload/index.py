"""Images where they lie -> an index to train from: `python -m fastload.index data/`.

    read_source ─▶ examine what is not known ─▶ without duplicates ─▶ DATA/.fastload/index.json

`Loader("data/")` reads the images through the index, and no image is copied or changed. A second
run takes only what changed. A run that was killed goes on where it stopped. Where the data cannot
be written, the index lies in the user's cache. That of `s3://bucket/photos` is made there, and put
beside the data.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fastload.console.interrupt import leave_to_system

if __name__ == "__main__":
    leave_to_system()

from fastload.clean import (
    add_data_argument,
    add_engine_options,
    add_layout_options,
    add_missing_classes_option,
    add_rule_options,
    check_engine,
    engine,
    parse_layout,
    parse_rules,
)
from fastload.console.command import run_command
from fastload.console.parser import CommandParser, add_seed_option, local_folder
from fastload.console.shell import module_command, program
from fastload.console.terminal import counted, say
from fastload.errors import ShardError, StalledError
from fastload.pixels import native
from fastload.prepare.indexing import (
    IndexOptions,
    IndexOutcome,
    folder_for,
    held,
    refuse_foreign,
    write_index_of,
)
from fastload.prepare.layout import LayoutOptions
from fastload.prepare.publish import publish_index
from fastload.prepare.reasons import Rules
from fastload.prepare.report import REPORT_NAME, reason_table
from fastload.prepare.source import read_source
from fastload.store.places import FOLDER_NAME, KINDS, PlacedData, cache_folder, find_index


def closing_lines(
    outcome: IndexOutcome, named: Sequence[Path | str], place: Path | str
) -> list[str]:
    """What a run did and what to type next; `place` is where the index is now."""
    places, folder = outcome.data.places, outcome.data.path
    splits = ", ".join(f"{name} {split.samples:,}" for name, split in places.splits.items())
    count = sum(places.stored.values())
    aside = sum(places.cleaning.values())
    lines = [
        f"indexed     {counted(count, 'image')} of {counted(len(places.classes), 'class')}",
        f"splits      {splits}",
        f"speed       {outcome.images_per_second:,.0f} images/s, {outcome.examined:,} were read",
        f"left out    {counted(aside, 'file')}",
        *reason_table(places.cleaning),
        *([f"            {outcome.remedy}"] if outcome.remedy else []),
        *(f"repeats     {line}" for line in outcome.repeats),
        *_slow_lines(places.stored, named),
        f"report      {folder / REPORT_NAME}",
        f"index       {place}",
    ]
    return [*lines, *_next_lines(outcome, named)]


def _slow_lines(stored: dict[str, int], named: Sequence[Path | str]) -> list[str]:
    """How many images the core does not decode, and what to do where they are many."""
    slow = {name: stored[name] for name in KINDS[1:] if stored.get(name)}
    if not slow:
        return []
    kinds = ", ".join(f"{count:,} of {name}" for name, count in slow.items())
    return [
        f"slower      {kinds}: decoded whole, 9 (JPEG) to 19 (PNG) times the CPU;",
        f"            `{module_command('fastload.shard', *named)}` stores them for the fast one",
    ]


def _next_lines(outcome: IndexOutcome, named: Sequence[Path | str]) -> list[str]:
    val = outcome.data.places.splits.get("val")
    if "train" not in outcome.data.places.splits:
        return ["no train    for evaluation only: --val-data of training, or Loader(split=…)"]
    if val is None or not val.samples:
        return ["no val      training needs it; --val-fraction 0.1 takes it from train"]
    found = len(named) == 1 and _belongs_to(outcome.data, named[0])
    data = named[0] if found else outcome.data.path  # the index of --out is named itself
    return [f"next        {module_command('train.run', '--loader', 'dali', '--data', data)}"]


def _belongs_to(data: PlacedData, named: Path | str) -> bool:
    """Whether the word that names a source is enough to find its index."""
    if data.bucket is not None:
        return named == data.root and data.path == cache_folder(named)
    return find_index(named) == data.path


def _published(outcome: IndexOutcome, named: Sequence[Path | str]) -> Path | str:
    """Where an index is at the end: beside the data in an object store, as they can be written."""
    data = outcome.data
    if data.bucket is None or len(named) != 1 or not _belongs_to(data, named[0]):
        return data.path
    try:
        return publish_index(data, data.bucket)
    except (ShardError, StalledError) as error:
        said = f"{data.root}/{FOLDER_NAME} cannot be written: the index stays in {data.path}"
        say(f"{said} ({error})", error=True)
        return data.path


def _run(arguments: argparse.Namespace, rules: Rules, layout: LayoutOptions) -> int:
    named: list[Path | str] = arguments.data
    source = read_source(named, seed=arguments.seed, options=layout)
    if arguments.out:
        refuse_foreign(source, arguments.out)
    folder = arguments.out or folder_for(named)
    options = IndexOptions(
        rules=rules,
        seed=arguments.seed,
        allow_missing_classes=arguments.allow_missing_classes,
        words=deciding_words(arguments),
    )
    with held(folder) as waited:
        if waited:  # the other run may have found other files
            source = read_source(named, seed=arguments.seed, options=layout)
        say(*source.described(), error=True)
        if not native.is_available():
            why = native.why_unavailable()
            say(f"without the native core ({why}): slower", error=True)
        try:
            with engine(arguments):
                outcome = write_index_of(
                    source,
                    named,
                    options,
                    folder,
                    workers=arguments.workers,
                    on_nodes=arguments.engine == "ray",
                )
            place = _published(outcome, named)
        except KeyboardInterrupt:
            say("what was read is kept: the same command goes on from there", error=True)
            raise
    if outcome.fresh:
        say(f"{place} already holds this index", *_next_lines(outcome, named))
    else:
        say(*closing_lines(outcome, named, place))
    return 0


def deciding_words(arguments: argparse.Namespace) -> tuple[str, ...]:
    """The options that decide what is taken, as words of a command line; defaults are left out."""
    switches = ("convert", "allow_missing_classes")
    words = [f"--{name.replace('_', '-')}" for name in switches if getattr(arguments, name)]
    fields = dict.fromkeys(("image_field", "label_field", "split_field"), "")
    defaults = {"min_side": Rules().min_side, "layout": "auto", "seed": 0, **fields}
    for name in ("min_side", "layout", "val_fraction", "test_fraction", "seed", *fields):
        value = getattr(arguments, name)
        if value is not None and value != defaults.get(name):
            words.append(f"--{name.replace('_', '-')}={value}")
    return (*words, *(f"--exclude={name}" for name in arguments.exclude))


def command_line() -> CommandParser:
    """What the command takes."""
    parser = CommandParser(
        prog=program("fastload.index"),
        description="Index images where they lie, to train from them without a copy.",
    )
    add_data_argument(parser)
    parser.add_argument(
        "--out",
        type=local_folder,
        metavar="DIR",
        help="where the index goes, on this machine (default DATA/.fastload, in a bucket too, or"
        " the user's cache)",
    )
    add_rule_options(parser)
    add_layout_options(parser)
    add_seed_option(parser, "of the order, and of the split where there is none")
    add_missing_classes_option(parser)
    add_engine_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = command_line()
    words = sys.argv[1:] if argv is None else argv
    options = parser.read(words)
    check_engine(parser, options, words)
    rules, layout = parse_rules(parser, options), parse_layout(parser, options)
    rules = Rules(store="in place", convert=rules.convert, min_side=rules.min_side)
    return run_command(parser.name, lambda: _run(options, rules, layout))


if __name__ == "__main__":
    sys.exit(main())
