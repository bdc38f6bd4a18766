"""log.csv: a train row and a val row for each epoch."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path

from fastload.console.shell import shell_word
from fastload.console.terminal import counted
from fastload.errors import FastloadError
from fastload.files import sync_file, write_atomically
from train.metrics import KS

_FAMILIES = ("top", "macro_top", "average", "macro_average")
FIGURES = tuple(f"{family}{k}" for family in _FAMILIES for k in KS)
COLUMNS = (
    "epoch",
    "step",
    "split",
    "loss",
    *FIGURES,
    "many_shot",
    "medium_shot",
    "few_shot",
    "corrected_top1",
    "corrected_macro_top1",
    "learning_rate",
    "size",
    "images",
    "seconds",
    "images_per_second",
    "waiting_share",
    "compute_seconds",
    "peak_gpu_megabytes",
)

Row = Mapping[str, float | int | str]


class LogError(FastloadError):
    """A log.csv does not fit the checkpoint beside it."""


class Log:
    """Rows are appended, flushed to the disk, and cut back when a run is resumed.

    Args:
        path: The file.
        keep: How many rows are known to belong to the run; later rows are dropped.

    Raises:
        LogError: If the file has fewer rows than `keep`, or others than a run writes.
    """

    def __init__(self, path: Path, *, keep: int = 0) -> None:
        self.path = path
        text = _kept(path, keep) if keep else ",".join(COLUMNS) + "\n"
        write_atomically(path, text.encode())

    def add(self, row: Row) -> None:
        """Append a row; a figure that is missing or NaN stays empty."""
        text = io.StringIO()
        values = [cell(row.get(column, "")) for column in COLUMNS]
        csv.writer(text, lineterminator="\n").writerow(values)
        with self.path.open("a", encoding="utf-8", newline="") as file:
            file.write(text.getvalue())
            file.flush()
            sync_file(file)


def _kept(path: Path, keep: int) -> str:
    """The header and the first `keep` rows of a log, which somebody may have edited."""
    remedy = (
        "put back a copy of it, or begin a new run from the latest weights: --init "
        f"{shell_word(path.with_name('last.pt'))}"
    )
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines(keepends=True)
    if len(lines) < keep + 1:
        raise LogError(
            f"{path}: has {counted(max(len(lines) - 1, 0), 'row')}, and the checkpoint was "
            f"written after {keep:,}; {remedy}"
        )
    for number, line in enumerate(lines[: keep + 1]):
        cells = line.rstrip("\r\n").split(",")
        if not (_is_row(cells) if number else tuple(cells) == COLUMNS):
            raise LogError(f"{path}: line {number + 1} is not as a run writes it; {remedy}")
    return "".join(lines[: keep + 1])


def _is_row(cells: list[str]) -> bool:
    """Whether these are the cells of a train or val row: numbers, or nothing for NaN."""
    row = dict(zip(COLUMNS, cells, strict=False))
    split = row.pop("split", "")
    needed = {"train": ("images", "seconds", "compute_seconds"), "val": ("images", "seconds")}
    try:
        numbers = {column: float(text) for column, text in row.items() if text}
    except ValueError:
        return False
    return len(cells) == len(COLUMNS) and split in needed and numbers.keys() >= {*needed[split]}


def cell(value: float | str) -> str:
    """A value as a cell of a CSV file; NaN is empty."""
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(value)
    return str(value)


def read_log(path: Path) -> list[dict[str, str]]:
    """The rows of a log.csv, as text by column."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
