"""The folder of a run, and what is written there besides the weights.

runs/<name>/
  options.toml   a recipe of exactly these options
  log.csv        a train row and a val row for each epoch
  last.pt        everything that --resume needs
  best.pt        the weights of the best epoch, with classes, figures and thresholds
  classes.csv    the accuracy of each class
  result.json    the figures of the best epoch on val and test
  audit.csv      training images that may be mislabelled
  report.html    curves, classes, confusions and training images to look at
"""

from __future__ import annotations

import fcntl
import itertools
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from fastload.errors import OutputError
from fastload.files import write_atomically, write_spreadsheet
from train.command import Command
from train.log import Log, Row, cell
from train.metrics import Evaluation
from train.options import Options
from train.position import Position
from train.ranks import Ranks, from_first
from train.recipe import to_toml
from train.trackers import Trackers, check_installed


def open_folder(command: Command, ranks: Ranks) -> Path:
    """The folder of the run: a new folder, or that of the run to resume. Every rank must call this.

    Raises:
        OutputError: If a new run's folder holds another run.
        TrackerError: If a tracker that was asked for is not installed.
        OSError: If the folder cannot be made.

    An error on the first rank is raised on every rank.
    """
    return from_first(ranks, lambda: _made(command))


def _made(command: Command) -> Path:
    options = command.options
    check_installed(options.record)
    runs = Path(options.run.runs)
    _make(runs, "--runs")
    if not options.run.name:
        model = options.model.model.replace(":", "-").replace("/", "-")
        return _new_folder(runs, time.strftime(f"{model}-%Y%m%d-%H%M%S"))
    folder = runs / options.run.name
    if (folder / "last.pt").exists() and not command.resume:
        raise OutputError(
            f"{folder}: holds a run already; continue it with --resume, or give another --name"
        )
    _make(folder, "--name")
    return folder


def _make(folder: Path, option: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise OutputError(f"{folder}: is a file; {option} must name a folder") from error


def _new_folder(runs: Path, name: str) -> Path:
    """A folder that no other run has, though they began in the same second."""
    for number in itertools.count(1):
        folder = runs / (name if number == 1 else f"{name}-{number}")
        with suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise AssertionError


@contextmanager
def held(folder: Path, ranks: Ranks) -> Iterator[None]:
    """Hold the folder of a run against a second process, up to the end of this one.

    Where the file system has no locks, nothing is held.

    Raises:
        OutputError: If another process holds it. On every rank.
    """
    with ExitStack() as stack:
        from_first(ranks, lambda: _lock(folder, stack))
        yield


def _lock(folder: Path, stack: ExitStack) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    stack.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OutputError(
            f"{folder}: another process trains there; wait for it, or give another --name"
        ) from None
    except OSError:  # a file system without locks
        return


class Record:
    """options.toml, log.csv and the trackers of one run; nothing on ranks other than the first.

    Args:
        folder: The folder of the run.
        options: The options of the run.
        position: Says how many rows belong to the run, and counts the rows that are added.
        writes: True on the first rank.
    """

    def __init__(self, folder: Path, options: Options, position: Position, *, writes: bool) -> None:
        self._position = position
        self._log = Log(folder / "log.csv", keep=position.log_rows) if writes else None
        if writes:
            write_text(folder / "options.toml", to_toml(options))
        self._trackers = Trackers(folder, options.record, step=position.step) if writes else None

    def add(self, split: str, row: Row) -> None:
        """Add a row of the epoch under way."""
        position = self._position
        position.log_rows += 1
        if self._log is None or self._trackers is None:
            return
        self._log.add({"epoch": position.epoch + 1, "step": position.step, "split": split, **row})
        self._trackers.add(split, row, position.step)

    def __enter__(self) -> Record:
        return self

    def __exit__(self, *_: object) -> None:
        if self._trackers is not None:
            self._trackers.close()


def write_classes(
    path: Path,
    classes: Sequence[tuple[str, str, int]],
    evaluations: Mapping[str, Evaluation],
) -> None:
    """Write classes.csv.

    Args:
        path: The file.
        classes: (folder name, readable name, training images) of each class.
        evaluations: Split -> the score of the model there.
    """
    columns = [f"{split}_{what}" for split in evaluations for what in ("images", "top1", "top5")]
    rows = [
        [
            *map(str, (label, *facts)),
            *(
                cell(values[label].item())
                for found in evaluations.values()
                for values in (found.class_counts, found.class_top1, found.class_top5)
            ),
        ]
        for label, facts in enumerate(classes)
    ]
    write_spreadsheet(path, ["label", "class", "name", "train_images", *columns], rows)


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
    """Write a file in UTF-8; a file name that is not UTF-8 keeps its bytes."""
    write_atomically(path, text.encode("utf-8", "surrogateescape"))
