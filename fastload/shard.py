"""Images -> tars of even size with an index: `python -m fastload.shard data/ --out shards/`.

    read_source ─▶ plan: permute, cut into shards                       (a function of the options)
    examine ─▶ write NAME.tar.partial, then its journal                 phase 1, once for each shard
    journals ─▶ without_duplicates ─▶ NAME.tar ─▶ indexes ─▶ manifest   phase 2, once

A shard with a journal is finished: after a kill, the next run goes on with the shard behind it.
What is written depends neither on the number of workers nor on where a run was stopped. No file
gets its final name before it is complete, and the manifest comes last. The state of an unfinished
run lies in `OUT/.fastload`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from fastload.console.interrupt import leave_to_system

if __name__ == "__main__":
    leave_to_system()

from fastload.clean import (
    add_cleaning_options,
    add_data_argument,
    add_engine_options,
    add_layout_options,
    add_missing_classes_option,
    check_engine,
    engine,
    parse_layout,
    parse_rules,
    place,
    without_option,
)
from fastload.console.command import run_command
from fastload.console.parser import CommandParser, add_seed_option, local_folder
from fastload.console.shell import module_command, program, with_options
from fastload.console.terminal import byte_size, counted, say
from fastload.pixels import native
from fastload.prepare.bucket import LARGEST_SHARD, bucket_target
from fastload.prepare.folder import (
    ShardOutcome,
    complete_manifest,
    refuse_nested,
    shard_folder,
)
from fastload.prepare.journal import StateFolder
from fastload.prepare.layout import LayoutOptions
from fastload.prepare.plan import DEFAULT_SHARD_BYTES, ShardOptions, make_plan
from fastload.prepare.reasons import NEW_QUALITY, Rules
from fastload.prepare.report import (
    REPORT_NAME,
    quarantine,
    reason_table,
    refuse_to_move,
    repeat_lines,
    write_report,
)
from fastload.prepare.source import read_source
from fastload.prepare.target import Target
from fastload.store.manifest import Manifest
from fastload.store.misplaced import is_address
from fastload.store.remote import is_remote

SMALLEST_SHARD = 10_000  # one small photograph


def parse_bytes(text: str) -> int:
    """A size such as "256MB", "1GiB" or "300000000", in bytes.

    Raises:
        argparse.ArgumentTypeError: If the text is no size, or too small for a shard.
    """
    units = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
    number = text.strip().lower().removesuffix("b")
    unit = number.lstrip("0123456789.")
    try:
        size = int(float(number.removesuffix(unit)) * units[unit.strip()])
    except (KeyError, ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"must be a size such as 256MB, got {text!r}") from None
    if size < SMALLEST_SHARD:
        raise argparse.ArgumentTypeError(f"must be at least {SMALLEST_SHARD:,} bytes, got {text!r}")
    return size


def _place_to_write(text: str) -> Path | str:
    """A folder, or an address of an object store.

    Raises:
        argparse.ArgumentTypeError: If the text is another address, or was meant as one: a folder
            `s3:` would be made of it.
    """
    out = place(text)
    if is_address(text) and not is_remote(text):
        raise argparse.ArgumentTypeError(
            f"must be a folder, or an address such as s3://bucket/shards, got {text!r}"
        )
    return out


def closing_lines(outcome: ShardOutcome, out: Path | str, words: Sequence[str]) -> list[str]:
    """What a run did and what to type next; `words` are the arguments of the command."""
    manifest = outcome.manifest
    stored, classes = sum(manifest.stored.values()), len(manifest.classes)
    how = ", ".join(f"{count:,} {name}" for name, count in manifest.stored.items() if count)
    size = sum(shard.bytes for split in manifest.splits.values() for shard in split.shards)
    shards = counted(sum(len(split.shards) for split in manifest.splits.values()), "shard")
    splits = ", ".join(f"{name} {split.samples:,}" for name, split in manifest.splits.items())
    aside = sum(manifest.cleaning.values())
    return [
        f"stored      {counted(stored, 'image')} of {counted(classes, 'class')} ({how})",
        f"splits      {splits}",
        f"size        {byte_size(outcome.source_bytes)} -> {byte_size(size)}, {shards}",
        f"speed       {outcome.images_per_second:,.0f} images/s",
        f"set aside   {counted(aside, 'file')}",
        *reason_table(manifest.cleaning),
        *([f"            {outcome.remedy}"] if outcome.remedy else []),
        *(f"repeats     {line}" for line in repeat_lines(outcome.rows)),
        f"report      {out}/{REPORT_NAME}",
        *next_lines(manifest, out, words),
    ]


def next_lines(manifest: Manifest, out: Path | str, words: Sequence[str]) -> list[str]:
    """The next command: training, or sharding again where there is no val to choose an epoch by."""
    val = manifest.splits.get("val")
    if "train" not in manifest.splits:
        return ["no train    for evaluation only: --val-data of training, or Loader(split=…)"]
    if val is not None and val.samples:
        return [f"next        {module_command('train.run', '--loader', 'dali', '--data', out)}"]
    if val is not None:
        return [f"no val      all its images were set aside, {out}/{REPORT_NAME} says why"]
    other = type(out)(f"{out}-with-val")
    again = with_options(without_option(words, "--out"), "--val-fraction", "0.1", "--out", other)
    return [
        "no val      training needs it, to choose its best epoch; take it from train:",
        f"next        {module_command('fastload.shard', *again)}",
    ]


def _target(arguments: argparse.Namespace) -> AbstractContextManager[Target]:
    """Where the shards go."""
    if isinstance(arguments.out, Path):
        return nullcontext(StateFolder(arguments.out))
    return bucket_target(arguments.out, arguments.staging)


def _check_out(parser: CommandParser, options: argparse.Namespace) -> None:
    """End the command where the options make no sense for where the shards go."""
    if isinstance(options.out, Path):
        if options.staging is not None:
            parser.error("--staging is for an --out in an object store; leave it out")
    elif options.shard_size > LARGEST_SHARD:
        parser.error("--shard-size must be at most 4GiB in an object store")


def _run(
    arguments: argparse.Namespace,
    target: Target,
    rules: Rules,
    layout: LayoutOptions,
    words: Sequence[str],
) -> int:
    out = target.place
    source = read_source(arguments.data, seed=arguments.seed, options=layout)
    refuse_nested(source, target.out, "--out" if target.out == out else "--staging")
    refuse_nested(source, out)
    refuse_to_move(source, arguments.quarantine)
    options = ShardOptions(
        rules=rules,
        seed=arguments.seed,
        shard_bytes=arguments.shard_size,
        allow_missing_classes=arguments.allow_missing_classes,
        layout=layout,
    )
    plan = make_plan(source, options)
    if manifest := complete_manifest(plan, target):
        target.remove()  # there is no state, unless a run was killed at its very end
        say(f"{out} already holds these shards, complete")
        say(*next_lines(manifest, out, words))
        return 0
    say(*source.described(), error=True)
    if "val" not in source.folders and "train" in source.folders:
        say("  no val: training needs it; --val-fraction 0.1 takes it from train", error=True)
    if not native.is_available():
        why = native.why_unavailable()
        say(f"without the native core ({why}): slower, near-lossless", error=True)
    try:
        with engine(arguments):
            on_nodes = arguments.engine == "ray"
            outcome = shard_folder(plan, target, workers=arguments.workers, on_nodes=on_nodes)
    except KeyboardInterrupt:
        say("finished shards are kept: the same command goes on from there", error=True)
        raise
    if arguments.quarantine:
        rows = quarantine(source.folder, arguments.quarantine, outcome.rows)
        write_report(target.out / REPORT_NAME, rows)
        target.publish()
    say(*closing_lines(outcome, out, words))
    return 0


def command_line() -> CommandParser:
    """What the command takes."""
    parser = CommandParser(
        prog=program("fastload.shard"),
        description="Clean a set of images and store it as shards to train from.",
    )
    add_data_argument(parser)
    parser.add_argument(
        "--out",
        type=_place_to_write,
        default=Path("shards"),
        metavar="DIR",
        help="folder, or address such as s3://bucket/shards; default shards/",
    )
    parser.add_argument(
        "--staging",
        type=local_folder,
        metavar="DIR",
        help="folder for the shards that are being written, where --out is an address (default: "
        "that of temporary files)",
    )
    parser.add_argument(
        "--store",
        choices=("seekable", "original"),
        default="seekable",
        help="seekable: the same picture, faster to read (default); original: the same bytes",
    )
    parser.add_argument("--max-side", type=int, metavar="N", help="shrink images longer than this")
    parser.add_argument(
        "--quality",
        type=int,
        default=NEW_QUALITY,
        metavar="Q",
        help=f"of images that must be encoded anew (default {NEW_QUALITY})",
    )
    add_cleaning_options(parser)
    add_layout_options(parser)
    parser.add_argument(
        "--shard-size",
        type=parse_bytes,
        default=DEFAULT_SHARD_BYTES,
        metavar="SIZE",
        help="bytes of images in a shard, such as 256MB (default 256MiB)",
    )
    add_seed_option(parser, "of the order within the shards")
    add_missing_classes_option(parser)
    add_engine_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = command_line()
    words = sys.argv[1:] if argv is None else argv
    options = parser.read(words)
    check_engine(parser, options, words)
    _check_out(parser, options)
    rules, layout = parse_rules(parser, options), parse_layout(parser, options)

    def run() -> int:
        with _target(options) as target:
            return _run(options, target, rules, layout, words)

    return run_command(parser.name, run)


if __name__ == "__main__":
    sys.exit(main())
