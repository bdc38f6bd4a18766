"""What a run leaves behind besides its weights: log.csv, classes.csv, result.json, TensorBoard.

runs/<name>/
  options.toml   a recipe of exactly these options
  log.csv        a train row and a val row for each epoch, a test row at the end
  last.pt        everything that --resume needs
  best.pt        the weights of the best epoch, with classes, figures and thresholds
  classes.csv    the accuracy of each class
  result.json    the figures of the best epoch on val and test
  report.html    curves, classes and confusions
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from fastload.errors import FastloadError
from train.loop import Progress
from train.metrics import KS, Evaluation
from train.options import Options, RecordOptions
from train.recipe import to_toml

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


class RecordError(FastloadError):
    """A run's folder cannot be used."""


class Log:
    """log.csv: rows are appended, flushed to the disk, and cut back when a run is resumed.

    Args:
        path: Of the file.
        keep: How many rows are known to belong to the run; what is beyond is written again.
    """

    def __init__(self, path: Path, *, keep: int = 0) -> None:
        self.path = path
        self.rows = keep
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if keep else []
        if keep and len(lines) < keep + 1:
            raise RecordError(
                f"{path}: has {max(len(lines) - 1, 0)} rows, and the checkpoint was written after "
                f"{keep}; start a new run"
            )
        text = "".join(lines[: keep + 1]) if keep else ",".join(COLUMNS) + "\n"
        write_text(path, text)

    def add(self, row: Row) -> None:
        """Append a row; a figure that is not given, or NaN, stays empty."""
        text = io.StringIO()
        values = [_cell(row.get(column, "")) for column in COLUMNS]
        csv.writer(text, lineterminator="\n").writerow(values)
        with self.path.open("a", encoding="utf-8", newline="") as file:
            file.write(text.getvalue())
            file.flush()
            os.fsync(file.fileno())
        self.rows += 1


def _cell(value: float | str) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(value)
    return str(value)


def read_log(path: Path) -> list[dict[str, str]]:
    """The rows of a log.csv, as text by column."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_classes(
    path: Path,
    classes: Sequence[tuple[str, str, int]],
    evaluations: Mapping[str, Evaluation],
) -> None:
    """Write classes.csv.

    Args:
        path: Of the file.
        classes: (folder name, readable name, training images) of each class.
        evaluations: Split -> what the model scored there.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [f"{split}_{what}" for split in evaluations for what in ("images", "top1", "top5")]
    writer.writerow(["label", "class", "name", "train_images", *columns])
    for label, facts in enumerate(classes):
        cells = [
            cell
            for found in evaluations.values()
            for cell in (
                int(found.class_counts[label]),
                _cell(float(found.class_top1[label])),
                _cell(float(found.class_top5[label])),
            )
        ]
        writer.writerow([label, *facts, *cells])
    write_text(path, text.getvalue())


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """Write result.json; NaN, which JSON does not know, becomes null."""
    write_text(path, json.dumps(_json(result), indent=2, ensure_ascii=False) + "\n")


def _json(value: Any) -> Any:  # noqa: ANN401  any of JSON's types
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_json(inner) for inner in value]
    return value


def write_text(path: Path, text: str) -> None:
    """Write a file in UTF-8, so that `path` is never anything but complete."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")
    temporary.replace(path)


class Records:
    """options.toml, log.csv and the trackers of one run; silent on other ranks than the first.

    Args:
        folder: Of the run.
        options: Of the run.
        progress: Says how many rows belong to the run, and counts what is added.
        writes: True on the first rank.
    """

    def __init__(self, folder: Path, options: Options, progress: Progress, *, writes: bool) -> None:
        self._progress = progress
        if writes:
            write_text(folder / "options.toml", to_toml(options))
        self._log = Log(folder / "log.csv", keep=progress.log_rows) if writes else None
        self._trackers = Trackers(folder, options.record, step=progress.step) if writes else None

    def add(self, split: str, row: Row) -> None:
        """Add a row of the epoch under way."""
        progress = self._progress
        progress.log_rows += 1
        if self._log is None or self._trackers is None:
            return
        self._log.add({"epoch": progress.epoch + 1, "step": progress.step, "split": split, **row})
        self._trackers.add(split, row, progress.step)

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *_: object) -> None:
        if self._trackers is not None:
            self._trackers.close()


class Trackers:
    """TensorBoard and Weights & Biases, where they are installed and asked for.

    Args:
        folder: Of the run.
        options: Which of them.
        step: Where the run begins; events beyond are replaced.

    Raises:
        RecordError: If Weights & Biases was asked for and is not installed.
    """

    def __init__(self, folder: Path, options: RecordOptions, *, step: int) -> None:
        self._events = _tensorboard(folder, step) if options.tensorboard else None
        self._wandb = _wandb(folder, options.wandb) if options.wandb else None

    def add(self, split: str, row: Row, step: int) -> None:
        """Log the numbers of a row."""
        numbers = {
            f"{split}/{key}": float(value)
            for key, value in row.items()
            if isinstance(value, float | int) and not math.isnan(value)
        }
        if self._events is not None:
            for name, value in numbers.items():
                self._events.add_scalar(name, value, step)
            self._events.flush()
        if self._wandb is not None:
            self._wandb.log(numbers, step=step)

    def close(self) -> None:
        """Write what is left."""
        if self._events is not None:
            self._events.close()
        if self._wandb is not None:
            self._wandb.finish()


def _tensorboard(folder: Path, step: int) -> Any:  # noqa: ANN401  an optional package
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step or None)


def _wandb(folder: Path, project: str) -> Any:  # noqa: ANN401  an optional package
    try:
        wandb = import_module("wandb")
    except ImportError as error:
        raise RecordError(
            "--wandb needs wandb, which is not installed; pip install wandb"
        ) from error
    return wandb.init(project=project, name=folder.name, dir=str(folder), resume="allow")


@contextmanager
def traced(path: Path, steps: int, device: torch.device) -> Iterator[Callable[[], None]]:
    """A function to call after each step; the trace of the third to `steps + 2`nd goes to `path`.

    Args:
        path: Of the trace, for chrome://tracing or Perfetto.
        steps: How many to record; 0 records nothing.
        device: Where the model runs.
    """
    if not steps:
        yield lambda: None
        return
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(
        activities=activities,
        schedule=torch.profiler.schedule(wait=1, warmup=1, active=steps, repeat=1),
        on_trace_ready=lambda profile: profile.export_chrome_trace(str(path)),
    ) as profile:
        yield profile.step
