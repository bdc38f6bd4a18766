"""TensorBoard and Weights & Biases, which show the figures of a run while it trains."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from fastload.errors import FastloadError
from train.options import RecordOptions


class TrackerError(FastloadError):
    """A tracker was asked for and is not installed."""


class Trackers:
    """TensorBoard and Weights & Biases, where they are installed and asked for.

    Args:
        folder: The folder of the run.
        options: Which of the two are used.
        step: The step at which the run begins; later events are replaced.

    Raises:
        TrackerError: If Weights & Biases was asked for and is not installed.
    """

    def __init__(self, folder: Path, options: RecordOptions, *, step: int) -> None:
        self._events = _tensorboard(folder, step) if options.tensorboard else None
        self._wandb = _wandb(folder, options.wandb) if options.wandb else None

    def add(self, split: str, row: Mapping[str, float | int | str], step: int) -> None:
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
        raise TrackerError(
            "--wandb needs wandb, which is not installed; pip install wandb"
        ) from error
    return wandb.init(project=project, name=folder.name, dir=str(folder), resume="allow")
