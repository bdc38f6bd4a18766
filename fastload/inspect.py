"""Look at a shard directory, or at data in place: `python -m fastload.inspect shards/`.

Prints what is in it: splits, the classes of one split from the most to the least frequent, sizes of
the images, how they were stored and what was set aside. Writes one page that shows the same in a
browser, with augmented samples of each class and thumbnails of what was set aside. With `--sheet`
it draws a contact sheet too: samples in the order of an epoch, to the pixel as a model gets them.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from fastload.console.interrupt import leave_to_system

if __name__ == "__main__":
    leave_to_system()

import numpy as np

from fastload.advise.contents import report
from fastload.advise.sheet import draw_sheet
from fastload.advise.survey import draw_page, read_report
from fastload.console.command import run_command
from fastload.console.parser import CommandParser, add_seed_option, local_folder, whole_number
from fastload.console.shell import program
from fastload.console.terminal import counted, say
from fastload.errors import FastloadError, ShardError
from fastload.files import expect_writable, write_atomically
from fastload.load.augment import Augment
from fastload.load.reweighting import class_weights
from fastload.prepare.report import repeat_lines
from fastload.store.collection import find_data, open_collection, read_contents
from fastload.store.making import make_missing_indexes
from fastload.store.remote import name_of

SHEET_IMAGES = 48
AUGMENTS: dict[str, Callable[[int], Augment]] = {
    "train": Augment.train,
    "plantnet": lambda size: Augment.plantnet().resized(size),
    "eval": Augment.eval,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = command_line()
    options = parser.read(argv)
    for name in ("count", "reweight"):
        if getattr(options, name) is not None and options.sheet is None:
            parser.error(f"--{name} is about the contact sheet; name its file with --sheet")
    options.out = options.out or Path(f"{name_of(options.shards)}-inspect.html")
    if options.sheet and options.sheet.absolute() == options.out.absolute():
        parser.error("--sheet must be another file than the page of --out")
    return run_command(parser.name, lambda: _inspect(options))


def _inspect(options: argparse.Namespace) -> int:
    directory: str = options.shards
    for path in filter(None, (options.out, options.sheet)):
        expect_writable(path)
    if options.source and not options.source.is_dir():
        raise FastloadError(f"{options.source}: is no folder; --source names that of the images")
    make_missing_indexes(directory)
    contents = read_contents(directory)
    split = options.split or next((name for name in contents.splits), "train")
    index = open_collection(directory, split).index
    width = shutil.get_terminal_size().columns
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"  # None where it is closed
    say(
        *report(
            contents,
            split,
            index,
            width=width,
            whole=options.all,
            encoding=encoding,
            repeats=_repeats(directory),
        )
    )
    if not len(index):
        raise ShardError(f"split {split!r} has no images to draw", where=directory)
    augment = AUGMENTS[options.augment](options.size)
    page = draw_page(directory, split, augment=augment, seed=options.seed, source=options.source)
    write_atomically(options.out, page.encode())
    say("", f"{options.out}: counts, sizes, samples and what was set aside; open it in a browser")
    if options.sheet:
        count = options.count or SHEET_IMAGES
        sheet = draw_sheet(
            directory,
            split,
            augment=augment,
            count=count,
            seed=options.seed,
            reweight=options.reweight,
        )
        write_atomically(options.sheet, sheet.encode())
        shown = counted(min(count, len(index)), "sample")
        say(f"{options.sheet}: a contact sheet of {shown}")
    return 0


def _repeats(directory: str) -> list[str]:
    """What is said of images that a class has several times."""
    try:
        return repeat_lines(read_report(find_data(directory)) or [])
    except ShardError:  # the page says what is wrong with the report
        return []


def command_line() -> CommandParser:
    """What the command takes."""
    parser = CommandParser(
        prog=program("fastload.inspect"),
        description="Print what is in shards or a folder of images, and draw it for a browser.",
    )
    parser.add_argument(
        "shards",
        help="a shard directory, its address such as s3://bucket/shards, or a folder, tar or table"
        " of images",
    )
    parser.add_argument("--split", help="whose classes are listed and drawn; the first by default")
    parser.add_argument("--all", action="store_true", help="list every class")
    parser.add_argument(
        "--out",
        type=_page,
        metavar="FILE.html",
        help="the page (default SHARDS-inspect.html, here)",
    )
    parser.add_argument(
        "--source",
        type=local_folder,
        metavar="DIR",
        help="the folder that shards were made from, to show what was set aside",
    )
    parser.add_argument(
        "--sheet",
        type=_page,
        metavar="FILE.html",
        help="draw the first samples of an epoch too, on a page of their own",
    )
    parser.add_argument(
        "--augment",
        choices=tuple(AUGMENTS),
        default="train",
        help="how the images are varied (default train)",
    )
    parser.add_argument(
        "--size",
        type=whole_number(16, 1024),
        default=160,
        metavar="N",
        help="side of each image in pixels (default 160)",
    )
    parser.add_argument(
        "--count",
        type=whole_number(1, 1000),
        metavar="N",
        help=f"number of images of --sheet (default {SHEET_IMAGES})",
    )
    add_seed_option(parser, "of order and crops")
    parser.add_argument(
        "--reweight",
        type=_rule,
        metavar="RULE",
        help="draw --sheet as Loader(reweight=RULE) would: inverse, sqrt or effective:BETA",
    )
    return parser


def _rule(text: str) -> str:
    try:
        class_weights(np.zeros(1, np.int64), text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"must be inverse, sqrt or effective:BETA with BETA in [0, 1), got {text!r}"
        ) from error
    return text


def _page(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() != ".html":
        raise argparse.ArgumentTypeError(f"must end in .html, as it is an HTML page, got {text!r}")
    return path


if __name__ == "__main__":
    sys.exit(main())
