"""The step of training: nothing in it reads from the device, and what is read later is the same."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import fastload.console.progress
from tests.train.pictures import striped_shards
from train import meter as meters
from train.command import parse
from train.loop import Progress, Training, train_epoch
from train.losses import Total
from train.meter import CudaClock, DivergedError, HostClock, Meter, Readings
from train.session import Session, prepare

pytestmark = pytest.mark.filterwarnings("ignore:fastload's native core:RuntimeWarning")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return striped_shards(tmp_path_factory.mktemp("striped") / "shards")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def session_of(shards: Path, stack: ExitStack, *more: str) -> Session:
    command = parse(
        [
            *("--data", str(shards), "--device", "cpu", "--model", "shufflenet_v2_x0_5"),
            *("--init", "scratch", "--size", "32", "--batch-size", "4", "--threads", "1", *more),
        ]
    )
    return prepare(command.options, stack)


def run_epoch(session: Session, progress: Progress, **changed: Any) -> None:
    training: Training = replace(session.training, **changed)
    train_epoch(
        training,
        progress,
        rate=lambda: 0.01,
        after_batch=lambda *_: None,
        after_step=lambda _: None,
        bar=fastload.console.progress.Progress(len(training.loader), "batches", silent=True),
    )


class Reads(TorchDispatchMode):
    """Counts what makes the host wait for a device: a number, a size or a copy that it asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = str(func)
        if any(word in name for word in ("_local_scalar_dense", "nonzero", "is_nonzero", "unique")):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "options",
    [(), ("--ema", "0.9", "--clip", "1"), ("--mixup", "0.2"), ("--class-weights", "inverse")],
    ids=["plain", "average and clipping", "mixed", "weighted"],
)
def test_no_number_is_read_within_a_step(shards: Path, stack: ExitStack, options: tuple[str, ...]):
    session = session_of(shards, stack, *options)
    run_epoch(session, Progress(), read_every=1000)  # some modules look at something once
    with Reads() as reads:
        run_epoch(session, Progress(), read_every=1000)
    assert reads.found == []


def test_the_count_of_reads_sees_one():
    with Reads() as reads:
        float(torch.ones(()) + 1)
    assert len(reads.found) == 1


def test_the_meter_does_not_depend_on_when_it_is_read(shards: Path):
    found = []
    for every in (1, 5, 1000):
        with ExitStack() as stack:
            progress = Progress()
            run_epoch(session_of(shards, stack), progress, read_every=every)
        meter = progress.meter
        found.append((meter.loss, meter.weight, meter.hits, meter.images))
    assert found[0] == found[1] == found[2]
    assert found[0][3] == 48


@pytest.mark.parametrize("every", [1, 5, 1000])
def test_a_loss_that_is_no_number_names_its_batch_though_it_is_read_later(
    shards: Path, stack: ExitStack, every: int
):
    session = session_of(shards, stack)
    loader, minimised = session.training.loader, session.training.loss
    keys: list[list[str]] = []

    def poisoned(logits: torch.Tensor, labels: torch.Tensor) -> Total:
        keys.append(loader.last_keys())
        total = minimised(logits, labels)
        return Total(total.loss * (math.nan if len(keys) == 3 else 1.0), total.weight)

    with pytest.raises(DivergedError) as raised:
        run_epoch(session, Progress(), loss=poisoned, read_every=every)
    assert "the loss became nan in epoch 1, batch 3; " in str(raised.value)
    assert str(raised.value).endswith(": " + ", ".join(keys[2]))


def test_the_host_s_clock_tells_waiting_from_computing(monkeypatch: pytest.MonkeyPatch):
    now = iter([0.0, 2.0, 5.0, 6.0, 10.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    meter = Meter()
    clock = HostClock(meter)
    for _ in range(2):
        clock.begin()
        clock.end()
    assert (meter.waiting_seconds, meter.compute_seconds) == (3.0, 7.0)


needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU: run `pytest -m gpu` where there is one"
)


@contextmanager
def mode(name: str) -> Iterator[None]:
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls the mode a prototype
        torch.cuda.set_sync_debug_mode(name)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def forbidden_to_wait() -> AbstractContextManager[None]:
    return mode("error")


def allowed_to_wait() -> AbstractContextManager[None]:
    return mode("default")


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(
    ("optimizer", "amp"),  # SGD with float16 asks once a step whether its gradients overflowed
    [("sgd", "bf16"), ("sgd", "off"), ("adamw", "bf16"), ("adamw", "fp16"), ("adamw", "off")],
)
def test_no_step_waits_for_the_gpu(shards: Path, stack: ExitStack, amp: str, optimizer: str):
    session = session_of(
        shards,
        stack,
        *("--device", "cuda", "--amp", amp, "--optimizer", optimizer, "--ema", "0.9"),
        *("--clip", "1", "--loader", "auto"),
    )
    run_epoch(session, Progress())
    progress = Progress()
    with forbidden_to_wait(), pytest.MonkeyPatch.context() as patch:
        read = Readings.read

        def read_at_the_end(self: Readings) -> None:
            with allowed_to_wait():
                read(self)

        patch.setattr(Readings, "read", read_at_the_end)
        run_epoch(session, progress)
    assert progress.meter.images == 48


@pytest.mark.gpu
@needs_gpu
def test_the_host_stays_near_the_gpu_and_idle_time_is_waiting():
    meter = Meter()
    clock = CudaClock(meter)
    for _ in range(6):
        torch.cuda._sleep(20_000_000)  # some 10 ms
        clock.begin()
        torch.cuda._sleep(40_000_000)
        clock.end()
        assert len(clock._queued) <= meters.MOST_QUEUED
    clock.finish()
    assert meter.compute_seconds == pytest.approx(2 * meter.waiting_seconds, rel=0.3)
