"""Find what must not be trained on, and say why: `python -m fastload.clean data/`.

    files ─▶ examine: read once, in processes ─▶ Kept or Dropped
                                                  └▶ find_duplicates: across splits and classes

Whether a file is a duplicate is known when all were read, and depends on nothing but the stored
bytes, the splits and the classes: not on the order, nor on how many processes read. Sources are
never changed, unless the user asks for `--quarantine`, which moves and never overwrites.
"""

from __future__ import annotations

import argparse
import csv
import errno
import hashlib
import os
import shlex
import shutil
import stat
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fastload.errors import LayoutError, OutputError, run_command
from fastload.index import write_atomically
from fastload.progress import Progress
from fastload.source import File, Source, read_source
from fastload.transcode import MAX_FILE_BYTES, Reason, Rules, SetAsideError, store_image
from fastload.workers import Lost, available_cores, run_chunks

CHUNK_FILES = 16
CHUNK_BYTES = 4 << 20  # so that 12-megapixel photographs do not fill the memory
REPORT_NAME = "cleaning.csv"
REPORT_FIELDS = ("path", "reason", "detail", "action")
_KEEP_FIRST = ("test", "val", "train")  # of the same image in several splits: evaluation stays


@dataclass(frozen=True, slots=True)
class Kept:
    """An image that is stored.

    Attributes:
        jpeg: The file as stored; b"" where only its facts were asked for.
        size: Bytes of the file as stored.
        crc32: Of the same bytes.
        digest: 128 bits of the same bytes: equal digests, equal images.
        height: In pixels, upright.
        width: In pixels.
        how: "lossless", "near-lossless", "re-encoded" or "original".
        change: What its owner may want to know, or "".
    """

    jpeg: bytes
    size: int
    crc32: int
    digest: bytes
    height: int
    width: int
    how: str
    change: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """A file that is set aside."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the report. `reason` is a slug, or "changed" for an image that is stored."""

    path: str
    reason: str
    detail: str
    action: str


def examine_file(file: File, *, root: Path, rules: Rules, with_jpeg: bool) -> Kept | Dropped:
    """Read one file, once, and decide about it; runs in a worker.

    Raises:
        LayoutError: If the file is gone: the folder changes while it is read.
    """
    if file.bytes > MAX_FILE_BYTES:
        detail = f"has {file.bytes:,} bytes, more than {MAX_FILE_BYTES:,}"
        return Dropped(Reason.LARGE, detail)
    try:
        data = _read_file(root / file.path)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ESTALE, errno.ENOTDIR}:
            raise LayoutError(
                f"{root / file.path} has vanished; run again when the folder no longer changes"
            ) from error
        return Dropped(Reason.UNREADABLE, f"cannot be read: {error.strerror}")
    try:
        stored = store_image(data, extension=_extension_of(file.path), rules=rules)
    except SetAsideError as error:
        return Dropped(error.kind, error.reason)
    jpeg = stored.jpeg
    return Kept(
        jpeg if with_jpeg else b"",
        len(jpeg),
        zlib.crc32(jpeg),
        hashlib.blake2b(jpeg, digest_size=16).digest(),
        stored.height,
        stored.width,
        stored.how,
        stored.change,
    )


def _read_file(path: Path) -> bytes:
    """All bytes of a regular file; a pipe put in its place since is not waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123  a descriptor, not a path
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "is no regular file", str(path))
        return file.read()


def _extension_of(path: str) -> str:
    name = path.rpartition("/")[2]
    return f".{name.rpartition('.')[2]}" if "." in name else ""


def examine(
    files: Iterable[File], *, root: Path, rules: Rules, workers: int, with_jpeg: bool
) -> Iterator[tuple[File, Kept | Dropped]]:
    """Examine files in processes; yields them in the order given."""
    function = partial(examine_file, root=root, rules=rules, with_jpeg=with_jpeg)
    for file, result in run_chunks(function, _chunks(files), workers=workers):
        if isinstance(result, Lost):
            reason = Reason.SLOW if result.slow else Reason.CRASH
            yield file, Dropped(reason, result.reason)
        else:
            yield file, result


def _chunks(files: Iterable[File]) -> Iterator[list[File]]:
    chunk: list[File] = []
    total = 0
    for file in files:
        if chunk and (len(chunk) == CHUNK_FILES or total + file.bytes > CHUNK_BYTES):
            yield chunk
            chunk, total = [], 0
        chunk.append(file)
        total += file.bytes
    if chunk:
        yield chunk


def find_duplicates(images: Iterable[tuple[File, bytes]]) -> dict[str, Dropped]:
    """What must go because the same image stands elsewhere.

    Under several classes, in whatever splits: all of them, since nobody knows which class is
    right. In several splits of one class: all but those of test, or of val where none is in test,
    so that evaluation stays as it was published. Repeats within one class and split stay.

    Args:
        images: Each file with the digest of its stored bytes.

    Returns:
        Path -> why it goes, the other path named.
    """
    groups: dict[bytes, list[File]] = {}
    for file, digest in images:
        groups.setdefault(digest, []).append(file)
    dropped = {}
    for group in groups.values():
        group.sort(key=lambda file: (_KEEP_FIRST.index(file.split), file.path))
        first = group[0]
        stranger = next((file for file in group if file.label != first.label), None)
        if stranger is not None:
            for file in group:
                other = stranger if file.label == first.label else first
                dropped[file.path] = Dropped(Reason.TWO_CLASSES, f"is also {printable(other.path)}")
        else:
            for file in group:
                if file.split != first.split:
                    detail = f"is also {printable(first.path)}"
                    dropped[file.path] = Dropped(Reason.TWO_SPLITS, detail)
    return dropped


def report_rows(
    source: Source, dropped: Mapping[str, Dropped], changed: Mapping[str, str]
) -> list[Row]:
    """The lines of the report, sorted by path.

    Args:
        source: Its oddities are set aside too.
        dropped: Path -> why it is set aside.
        changed: Path -> what was done to an image that is stored.
    """
    rows = [Row(path, why.reason.slug, why.detail, "set aside") for path, why in dropped.items()]
    rows += [Row(odd.path, odd.slug, odd.detail, "set aside") for odd in source.oddities]
    rows += [Row(path, "changed", change, "stored") for path, change in changed.items()]
    return sorted(rows, key=lambda row: row.path)


def count_reasons(rows: Iterable[Row]) -> dict[str, int]:
    """How many files were set aside for each reason, the commonest first."""
    counts = Counter(row.reason for row in rows if row.action != "stored")
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def write_report(path: Path, rows: Iterable[Row]) -> None:
    """Write the report as CSV in UTF-8; names that are no UTF-8 keep their bytes.

    Raises:
        OSError: If it cannot be written.
    """
    lines = _Lines()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(REPORT_FIELDS)
    writer.writerows((row.path, row.reason, row.detail, row.action) for row in rows)
    write_atomically(path, "".join(lines.text).encode("utf-8", "surrogateescape"))


class _Lines:
    """What csv.writer writes to."""

    def __init__(self) -> None:
        self.text: list[str] = []

    def write(self, line: str) -> None:
        self.text.append(line)


def printable(text: str) -> str:
    """Text that any terminal and UTF-8 file takes, on one line."""
    clean = text.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in clean)


def reason_table(counts: Mapping[str, int]) -> list[str]:
    """One line for each reason: count, slug, words."""
    words = {reason.slug: reason.words for reason in Reason}
    return [f"  {count:>9,}  {slug:<13}{words[slug]}" for slug, count in counts.items()]


def quarantine(root: Path, folder: Path, rows: Sequence[Row]) -> list[Row]:
    """Move what was set aside to `folder`, each under its path relative to the source.

    What cannot be moved stays and says so: a name that is taken, a folder that a link leads to
    outside the source.

    Returns:
        The rows, with what was done.

    Raises:
        OutputError: If the folder lies within the source.
    """
    inside = folder.resolve()
    if inside == root.resolve() or root.resolve() in inside.parents:
        raise OutputError(f"{folder} lies within {root}; choose a folder outside it")
    return [_moved(root, folder, row) if row.action == "set aside" else row for row in rows]


def _moved(root: Path, folder: Path, row: Row) -> Row:
    origin, target = root / row.path, folder / row.path
    home = origin.parent.resolve()
    if home != root.resolve() and root.resolve() not in home.parents:
        return Row(
            row.path, row.reason, row.detail, "set aside, not moved: lies outside the source"
        )
    if target.exists() or target.is_symlink():
        return Row(row.path, row.reason, row.detail, "set aside, not moved: name is taken")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(origin, target)
    except OSError as error:
        words = f"set aside, not moved: {error.strerror or error}"
        return Row(row.path, row.reason, row.detail, words)
    return Row(row.path, row.reason, row.detail, "moved")


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
        default=available_cores(),
        metavar="N",
        help="processes (default: one for each core)",
    )


def clean_folder(source: Source, *, rules: Rules, workers: int) -> list[Row]:
    """Examine a whole folder without storing anything; returns the rows of the report."""
    dropped: dict[str, Dropped] = {}
    changed: dict[str, str] = {}
    digests: list[tuple[File, bytes]] = []
    with Progress(len(source.files), "images") as progress:
        for file, result in examine(
            source.files, root=source.root, rules=rules, workers=workers, with_jpeg=False
        ):
            if isinstance(result, Dropped):
                dropped[file.path] = result
            else:
                digests.append((file, result.digest))
                if result.change:
                    changed[file.path] = result.change
            progress.add(note=f"{len(dropped):,} set aside")
    duplicates = find_duplicates(digests)
    changed = {path: change for path, change in changed.items() if path not in duplicates}
    return report_rows(source, dropped | duplicates, changed)


def _run(options: argparse.Namespace, rules: Rules) -> int:
    _refuse_foreign_report(options.report)
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
    print(printable_lines(lines))  # noqa: T201  a command's own words
    return 0


def printable_lines(lines: Iterable[str]) -> str:
    """Lines that any terminal takes."""
    return "\n".join(printable(line) for line in lines)


def _refuse_foreign_report(path: Path) -> None:
    """A report may replace an older report, and nothing else."""
    if path.exists():
        with path.open("rb") as file:
            if file.readline().strip() != ",".join(REPORT_FIELDS).encode():
                raise OutputError(
                    f"{path} is there and is no cleaning report; choose --report FILE"
                )


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
    from fastload import clean  # under this name its worker processes find its functions

    sys.exit(clean.main())
