"""A run that is stopped anywhere goes on bit for bit: at every step, evaluation and write.

The tests end a real run in this process: by a signal to itself, or by what a kill would leave on
the disk. tests/train/test_run.py kills a process too.
"""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models._api import BUILTIN_MODELS, register_model

from tests.train.pictures import striped_shards
from train import checkpoint, run, tensorfile
from train.log import read_log
from train.tensorfile import read_tensors

pytestmark = pytest.mark.filterwarnings("ignore:fastload's native core:RuntimeWarning")


def resume_net(*, weights: None = None, num_classes: int = 1000) -> nn.Module:
    """A network with all that has a state, small enough for a hundred runs of it."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=4, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(8, num_classes),
    )


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    """The network is one of torchvision's for these tests: the trainer takes no other."""
    resume_net.__module__ = "torchvision.models.resume_net"
    register_model()(resume_net)
    yield
    del BUILTIN_MODELS["resume_net"]


# Two epochs of five batches: two steps of two batches, and one of the fifth alone.
OPTIONS = (
    *("--model", "resume_net", "--init", "scratch", "--size", "32", "--start-size", "24"),
    *("--batch-size", "4", "--accumulate", "2", "--epochs", "2", "--ema", "0.9", "--clip", "1"),
    *("--reweight", "sqrt", "--auto-augment", "trivial", "--jitter", "0.3", "--hue", "0.1"),
    *("--mixup", "0.2", "--erasing", "0.5"),
    *("--schedule", "plateau", "--patience", "1", "--lr", "5", "--early-stop", "1"),
    *("--best-by", "loss", "--device", "cpu", "--threads", "1", "--quiet-seconds", "3600"),
    *("--no-tensorboard", "--no-report"),
)
TIMES = {"seconds", "images_per_second", "waiting_share", "compute_seconds"}


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    folder: Path = tmp_path_factory.mktemp("striped")
    return striped_shards(folder / "shards", (8, 6, 4, 2), (2, 2, 2, 2))


def begin(shards: Path, folder: Path, *more: str) -> int:
    where = ("--data", str(shards), "--runs", str(folder.parent), "--name", folder.name)
    return run.main([*where, *OPTIONS, *more])


def resume(folder: Path, *more: str) -> int:
    return run.main(["--resume", "--runs", str(folder.parent), "--name", folder.name, *more])


def read_progress(folder: Path) -> dict[str, Any]:
    progress: dict[str, Any] = read_tensors(folder / "last.pt")["progress"]
    return progress


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Many tiny operations: threads would wait for each other most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole(shards, registered, one_thread, tmp_path_factory) -> Path:
    folder: Path = tmp_path_factory.mktemp("whole") / "run"
    assert begin(shards, folder) == 0
    assert read_progress(folder)["step"] == 6
    return folder


def rows(folder: Path) -> list[dict[str, str]]:
    return [
        {key: value for key, value in row.items() if key not in TIMES}
        for row in read_log(folder / "log.csv")
    ]


def assert_equal(one: Any, two: Any, place: str) -> None:
    assert type(one) is type(two), place
    if isinstance(one, dict):
        assert one.keys() == two.keys(), place
        for key in one:
            assert_equal(one[key], two[key], f"{place}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(two), place
        for number, (left, right) in enumerate(zip(one, two, strict=True)):
            assert_equal(left, right, f"{place}[{number}]")
    elif isinstance(one, torch.Tensor):
        assert one.dtype == two.dtype, place
        assert torch.equal(one, two), place
    else:
        assert one == two or (math.isnan(one) and math.isnan(two)), place


def assert_same_run(folder: Path, whole: Path) -> None:
    """Each row of log.csv, and each value and tensor of last.pt and best.pt."""
    assert rows(folder) == rows(whole)
    for name in ("last.pt", "best.pt"):
        one, two = (read_tensors(place / name) for place in (folder, whole))
        for content in (one, two):
            del content["options"]  # the name of the folder, and --save-every
        assert_equal(one, two, name)
    assert (folder / "result.json").exists()


# What a run does; it is stopped before each of them, each time that it does it.
EVENTS = {
    "a batch": (run, "train_step"),
    "an evaluation": (run, "evaluate"),
    "the judging of the best epoch": (run, "evaluate_best"),
    "a save": (checkpoint, "save"),
    "a save of the best": (checkpoint, "save_best"),
    "a write into an open file": (tensorfile, "_save"),
    "the outcome": (run, "write_outcome"),
}


def before_each(monkeypatch: pytest.MonkeyPatch, event: str, tell: Callable[[], None]) -> None:
    """Call a function before each event of a name."""
    module, name = EVENTS[event]
    inner = getattr(module, name)

    def outer(*given: Any, **named: Any) -> Any:
        tell()
        return inner(*given, **named)

    monkeypatch.setattr(module, name, outer)


KILLED = -9


class KilledError(BaseException):
    """Ends a run where it is, as a kill does: nothing of it is caught by the trainer."""


def stop_at_each(
    shards: Path,
    folder: Path,
    event: str,
    stop: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    *more: str,
) -> set[int]:
    """A run and its resumes; each is stopped at the first event where none was stopped before.

    Args:
        shards: The data.
        folder: The folder of the run.
        event: A name of EVENTS.
        stop: Ends the run; gets a number that grows.
        monkeypatch: Of the test.
        more: Options.

    Returns:
        The steps that the run had made where it was stopped, by its last.pt.
    """
    places: list[tuple[Any, Any, int]] = []
    count, stopped = 0, False

    def tell() -> None:
        nonlocal count, stopped
        count += 1
        progress: dict[str, Any] = {"step": 0, "trained": False}
        if (folder / "last.pt").exists():
            progress = read_progress(folder)
        place = (progress["step"], progress["trained"], count)
        if not stopped and place not in places:
            places.append(place)
            stopped = True
            stop(len(places))

    before_each(monkeypatch, event, tell)
    status = begin(shards, folder, *more)
    for _ in range(100):
        if not status:
            return {step for step, _, _ in places}
        assert status in {130, 143, KILLED}
        count, stopped = 0, False
        status = resume(folder) if (folder / "last.pt").exists() else begin(shards, folder, *more)
    raise AssertionError("the run does not end")


# More of what has a state, or moves with the history.
OTHERWISE = {
    "the last epoch is not the best": (),
    "adamw, bfloat16": ("--optimizer", "adamw", "--lr", "0.01", "--amp", "bf16"),
    "no accumulation, cosine": ("--accumulate", "1", "--schedule", "cosine", "--cutmix", "1"),
    "no moving average": ("--ema", "0", "--epochs", "3", "--start-size", "0"),
}


@pytest.mark.parametrize("event", EVENTS)
def test_a_run_that_a_signal_stops_goes_on_bit_for_bit(
    shards, tmp_path, whole, event, monkeypatch, capsys
):
    def stop(number: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM if number % 2 else signal.SIGINT)

    folder = tmp_path / "run"
    steps = stop_at_each(shards, folder, event, stop, monkeypatch, "--save-every", "0")

    assert_same_run(folder, whole)
    if event == "a batch":  # the first and the last of each epoch are among them
        assert steps == set(range(6))
    if event != "the outcome":  # it is finished
        assert "stopped by SIGTERM; continue with --resume" in capsys.readouterr().err


# Three steps an epoch: --save-every 1 and 3 also save after the last of them.
@pytest.mark.parametrize(
    ("event", "every"), [*((event, 1) for event in EVENTS), ("a batch", 2), ("a save", 3)]
)
def test_a_run_that_is_killed_goes_on_bit_for_bit(
    shards, tmp_path, whole, event, every, monkeypatch
):
    def stop(_: int) -> None:
        raise KilledError

    inner = run.main

    def main(argv: list[str]) -> int:
        try:
            return inner(argv)
        except KilledError:
            return KILLED

    monkeypatch.setattr(run, "main", main)
    folder = tmp_path / "run"
    steps = stop_at_each(shards, folder, event, stop, monkeypatch, "--save-every", str(every))

    assert_same_run(folder, whole)
    if event == "a batch":
        assert steps == {1: {0, 1, 2, 3, 4, 5}, 2: {0, 2, 3, 4}}[every]


@pytest.mark.parametrize("more", OTHERWISE.values(), ids=OTHERWISE)
def test_whatever_has_a_state_goes_on_bit_for_bit(shards, tmp_path, more, monkeypatch):
    assert begin(shards, tmp_path / "whole", *more) == 0

    def stop(_: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    stop_at_each(shards, tmp_path / "run", "a batch", stop, monkeypatch, *more)

    assert_same_run(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize(
    "more", [(), ("--optimizer", "adamw", "--lr", "0.01")], ids=["sgd", "adamw"]
)
@pytest.mark.parametrize("tune", ["all", "layerwise"])
def test_a_run_that_trains_the_last_layer_first_goes_on_bit_for_bit(
    shards, tmp_path, tune, more, monkeypatch
):
    torch.manual_seed(5)
    torch.save(resume_net(num_classes=9).state_dict(), tmp_path / "start.pt")
    start = ("--init", str(tmp_path / "start.pt"), "--tune", tune, "--head-rate", "3")
    stages = (*start, "--head-epochs", "1", "--schedule", "cosine", "--epochs", "3", *more)
    assert begin(shards, tmp_path / "whole", *stages) == 0

    def stop(_: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    steps = stop_at_each(shards, tmp_path / "run", "a batch", stop, monkeypatch, *stages)

    assert steps == set(range(9))
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_a_run_is_resumed_from_another_directory(
    tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch, whole: Path
):
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    project.mkdir()
    elsewhere.mkdir()
    (project / "data").symlink_to(shards)
    monkeypatch.chdir(project)
    where = ("--data", "data", "--val-data", "./data", "--name", "a")
    assert run.main([*where, *OPTIONS, "--epochs", "1", "--early-stop", "0"]) == 0

    monkeypatch.chdir(elsewhere)
    assert run.main(["--resume", "--runs", "../project/runs", "--epochs", "2"]) == 0
    assert rows(project / "runs" / "a") == rows(whole)

    monkeypatch.chdir(project / "runs")  # the paths are written down as they now are
    assert run.main(["--resume", "--runs", "."]) == 0


def test_a_resumed_run_whose_data_is_not_here_says_which_option_names_it(
    tmp_path: Path,
    shards: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    (tmp_path / "here").mkdir()
    (tmp_path / "data").symlink_to(shards)
    monkeypatch.chdir(tmp_path)
    runs = str(tmp_path / "runs")  # does not tell where the run was begun
    more = ("--epochs", "1", "--runs", runs, "--name", "a")
    assert run.main(["--data", "data", *OPTIONS, *more]) == 0
    monkeypatch.chdir(tmp_path / "here")
    assert run.main(["--resume", "--runs", runs]) == 1
    said = capsys.readouterr().err
    assert "a: was trained on data, which is not in" in said
    assert "resume where the run was begun, or give --data" in said
    assert run.main(["--resume", "--runs", runs, "--data", "../data"]) == 0
