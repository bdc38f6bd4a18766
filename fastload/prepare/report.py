"""cleaning.csv: what was set aside and why; quarantine: the folder it may be moved to."""

from __future__ import annotations

import codecs
import csv
import io
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from fastload.errors import OutputError, ShardError
from fastload.files import lies_within, text_of_cell, write_spreadsheet
from fastload.prepare.reasons import Reason
from fastload.prepare.source import File, Source
from fastload.prepare.verdict import Dropped, Verdict
from fastload.store.object_paths import ObjectPath

REPORT_NAME = "cleaning.csv"
REPORT_FIELDS = ("path", "reason", "detail", "action")
REPEAT = "repeat"


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the report.

    `reason` is a slug; for an image that is stored "changed", or `REPEAT` where its class and split
    have the same image under another path. An image that is both has two lines.
    """

    path: str
    reason: str
    detail: str
    action: str


def report_rows(
    source: Source, examined: Iterable[tuple[File, Verdict]], repeats: Mapping[str, str]
) -> list[Row]:
    """The lines of the report, sorted by path.

    Args:
        source: The source of the files; its oddities are set aside too.
        examined: Each file with what became of it.
        repeats: See `duplicates.Copies`.
    """
    rows = [Row(odd.path, odd.reason.slug, odd.detail, "set aside") for odd in source.oddities]
    for file, verdict in examined:
        if isinstance(verdict, Dropped):
            rows.append(Row(file.path, verdict.reason.slug, verdict.detail, "set aside"))
        elif verdict.change:
            rows.append(Row(file.path, "changed", verdict.change, "stored"))
    rows += [Row(path, REPEAT, other, "stored") for path, other in repeats.items()]
    return sorted(rows, key=lambda row: row.path)


def count_reasons(rows: Iterable[Row]) -> dict[str, int]:
    """How many files were set aside for each reason, the commonest first."""
    counts = Counter(row.reason for row in rows if row.action != "stored")
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def repeat_lines(rows: Iterable[Row]) -> list[str]:
    """One line about images that stand several times in a class of a split; none without such."""
    count = sum(row.reason == REPEAT for row in rows)
    if not count:
        return []
    if count == 1:
        return ["1 image that stays is a copy of another of its class and split"]
    return [f"{count:,} images that stay are copies of others of their class and split"]


def write_report(path: Path, rows: Iterable[Row]) -> None:
    """Write the report.

    Raises:
        OSError: If the report cannot be written.
    """
    lines = ((row.path, row.reason, row.detail, row.action) for row in rows)
    write_spreadsheet(path, REPORT_FIELDS, lines)


def rows_in(report: bytes, where: str) -> list[Row]:
    """The lines of a report that `write_report` wrote, whatever the file holds.

    Args:
        report: The whole file.
        where: Where it lies, for messages.

    Raises:
        ShardError: If it is no cleaning report.
    """
    text = report.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        if tuple(next(reader, ())) != REPORT_FIELDS:
            raise ShardError(
                f"is no cleaning report: expected {','.join(REPORT_FIELDS)} in line 1", where=where
            )
        return [Row(*map(text_of_cell, cells)) for cells in reader]
    except (csv.Error, TypeError) as error:  # TypeError: another number of cells
        what = f"line {reader.line_num:,} of it is damaged"
        raise ShardError(f"{what}; make the data ready again", where=where) from error


def reason_table(counts: Mapping[str, int]) -> list[str]:
    """One line for each reason: count, slug, words."""
    return [f"  {count:>9,}  {slug:<13}{Reason(slug).words}" for slug, count in counts.items()]


def quarantine(root: Path, folder: Path, rows: Sequence[Row]) -> list[Row]:
    """Move what was set aside to `folder`, each file under its path relative to the source.

    A file that cannot be moved stays, and its row says why: its name is taken, or a link leads to
    it outside the source.

    Returns:
        The rows, with what was done.

    Raises:
        OutputError: If the folder lies within the source.
    """
    if lies_within(folder, root):
        raise OutputError(f"{folder} lies within {root}; choose a folder outside it")
    return [
        replace(row, action=_move(root, folder, row.path)) if row.action == "set aside" else row
        for row in rows
    ]


def refuse_to_move(source: Source, folder: Path | None) -> None:
    """See that what is set aside can be moved to `folder`; None: nothing is to be moved.

    Raises:
        OutputError: If the images lie in files that hold others, or in an object store.
    """
    if folder is not None and isinstance(source.root, ObjectPath):
        raise OutputError(
            f"--quarantine {folder} moves files, but {source.root} lies in an object store, which "
            f"is not changed; leave the option out: {REPORT_NAME} lists what is set aside"
        )
    if folder is not None and any(file.container for file in source.files):
        raise OutputError(
            f"--quarantine {folder} moves files, but these images lie in tars or parquet files, "
            f"which are not changed; leave the option out: {REPORT_NAME} lists what is set aside"
        )


def _move(root: Path, folder: Path, path: str) -> str:
    """Move one file; returns the action that its row reports."""
    origin, target = root / path, folder / path
    if not lies_within(origin.parent, root):
        return "set aside, not moved: lies outside the source"
    if target.exists() or target.is_symlink():
        return "set aside, not moved: name is taken"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(origin, target, copy_function=_copy)
    except OSError as error:
        if os.path.lexists(origin):  # what was copied to another file system is half of it
            with suppress(OSError):
                target.unlink()
        return f"set aside, not moved: {error.strerror or error}"
    return "moved"


def _copy(origin: str, target: str) -> None:
    """Copy a file, and its times and permissions where the file system has such."""
    shutil.copyfile(origin, target)
    with suppress(OSError):
        shutil.copystat(origin, target)


def refuse_foreign_report(path: Path) -> None:
    """See that a report can be written here: it replaces an older report, and nothing else.

    Raises:
        OutputError: If the path holds another file.
        OSError: If no file can be made there. It is known before hours of work, and before any file
            is moved of which the report would tell.
    """
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        error.filename = str(path)
        raise
    if path.exists():
        with path.open("rb") as file:
            head = file.readline().removeprefix(codecs.BOM_UTF8).strip()
            if head != ",".join(REPORT_FIELDS).encode():
                raise OutputError(
                    f"{path} is there and is no cleaning report; choose --report FILE"
                )
