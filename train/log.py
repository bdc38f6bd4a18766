"""log.csv: a train row and a val row for each epoch."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path

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
        LogError: If the file has fewer rows than `keep`.
    """

    def __init__(self, path: Path, *, keep: int = 0) -> None:
        self.path = path
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if keep else []
        if keep and len(lines) < keep + 1:
            raise LogError(
                f"{path}: has {counted(max(len(lines) - 1, 0), 'row')}, and the checkpoint was "
                f"written after {keep:,}; start a new run"
            )
        text = "".join(lines[: keep + 1]) if keep else ",".join(COLUMNS) + "\n"
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


def cell(value: float | str) -> str:
    """A value as a cell of a CSV file; NaN is empty."""
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(value)
    return str(value)


def read_log(path: Path) -> list[dict[str, str]]:
    """The rows of a log.csv, as text by column."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
