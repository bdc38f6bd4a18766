"""cleaning.csv: what was set aside and why; and the folder it may be moved to."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastload.errors import OutputError
from fastload.files import write_atomically
from fastload.prepare.examine import Dropped
from fastload.prepare.reasons import Reason
from fastload.prepare.source import Source

REPORT_NAME = "cleaning.csv"
REPORT_FIELDS = ("path", "reason", "detail", "action")


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the report. `reason` is a slug, or "changed" for an image that is stored."""

    path: str
    reason: str
    detail: str
    action: str


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


def refuse_foreign_report(path: Path) -> None:
    """A report may replace an older report, and nothing else."""
    if path.exists():
        with path.open("rb") as file:
            if file.readline().strip() != ",".join(REPORT_FIELDS).encode():
                raise OutputError(
                    f"{path} is there and is no cleaning report; choose --report FILE"
                )
