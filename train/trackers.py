"""TensorBoard and Weights & Biases, which show the figures of a run while it trains.

What one of them raises ends its use with one warning; the run goes on.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from fastload.console.terminal import say
from fastload.errors import FastloadError, first_line
from train.options import RecordOptions


class TrackerError(FastloadError):
    """A tracker was asked for and is not installed."""


class Tracker(Protocol):
    """What shows numbers as they come."""

    def add(self, numbers: Mapping[str, float], step: int) -> None:
        """Show numbers of a step."""

    def close(self) -> None:
        """Write what is left."""


class Trackers:
    """TensorBoard and Weights & Biases, where they are installed and asked for.

    Args:
        folder: The folder of the run.
        options: Which of the two are used.
        step: The step at which the run begins; later events are replaced.
    """

    def __init__(self, folder: Path, options: RecordOptions, *, step: int) -> None:
        self._trackers: dict[str, Tracker] = {}
        if options.tensorboard and _is_installed("tensorboard"):
            self._open("TensorBoard", lambda: _TensorBoard(folder, step))
        if options.wandb:
            self._open("Weights & Biases", lambda: _Wandb(folder, options.wandb))

    def add(self, split: str, row: Mapping[str, float | int | str], step: int) -> None:
        """Log the numbers of a row."""
        numbers = {
            f"{split}/{key}": float(value)
            for key, value in row.items()
            if isinstance(value, float | int) and not math.isnan(value)
        }
        for name, tracker in list(self._trackers.items()):
            try:
                tracker.add(numbers, step)
            except Exception as error:  # noqa: BLE001, PERF203  see the module
                del self._trackers[name]
                _warn(name, error)

    def close(self) -> None:
        """Write what is left."""
        while self._trackers:
            name, tracker = self._trackers.popitem()
            try:
                tracker.close()
            except Exception as error:  # noqa: BLE001  see the module
                _warn(name, error)

    def _open(self, name: str, tracker: Callable[[], Tracker]) -> None:
        try:
            self._trackers[name] = tracker()
        except Exception as error:  # noqa: BLE001  see the module
            _warn(name, error)


def check_installed(options: RecordOptions) -> None:
    """See that a tracker that must be asked for is there, before a run begins.

    Raises:
        TrackerError: If Weights & Biases is asked for and not installed.
    """
    if options.wandb and not _is_installed("wandb"):
        raise TrackerError("--wandb needs wandb, which is not installed; pip install wandb")


def _is_installed(package: str) -> bool:
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):  # of a broken installation, which its import tells
        return True
    return spec is not None and spec.origin is not None  # a folder wandb/ is no package


def _warn(name: str, error: Exception) -> None:
    say(
        f"warning: {name} stops showing this run, which goes on; log.csv has all rows "
        f"({type(error).__name__}: {first_line(error)})",
        error=True,
    )


@cache
def _keep_writers_silent() -> None:
    """TensorBoard raises in `add` what its writing thread raised: one report is enough."""
    former = threading.excepthook

    def report(failure: threading.ExceptHookArgs) -> None:
        if not type(failure.thread).__module__.startswith("tensorboard."):
            former(failure)

    threading.excepthook = report


class _TensorBoard:
    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        _keep_writers_silent()
        self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=step or None)

    def add(self, numbers: Mapping[str, float], step: int) -> None:
        for name, value in numbers.items():
            self._events.add_scalar(name, value, step)
        self._events.flush()

    def close(self) -> None:
        self._events.close()


class _Wandb:
    def __init__(self, folder: Path, project: str) -> None:
        self._run: Any = import_module("wandb").init(
            project=project, name=folder.name, dir=str(folder), resume="allow"
        )

    def add(self, numbers: Mapping[str, float], step: int) -> None:
        self._run.log(numbers, step=step)

    def close(self) -> None:
        self._run.finish()
