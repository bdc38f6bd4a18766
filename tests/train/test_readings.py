"""The step of training: nothing in it reads from the device, and what is read later is the same."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.train.pictures import striped_shards
from tests.waits import allowed_to_wait, forbidden_to_wait
from train.assembly import Run, assemble
from train.command import parse
from train.console import Console
from train.interrupt import Interrupt
from train.losses import Total
from train.position import Position
from train.readings import DivergedError, Readings
from train.run import train_epoch

pytestmark = pytest.mark.filterwarnings("ignore:fastload's native core:RuntimeWarning")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return striped_shards(tmp_path_factory.mktemp("striped") / "shards")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def run_of(shards: Path, stack: ExitStack, *more: str) -> Run:
    command = parse(
        [
            *("--data", str(shards), "--device", "cpu", "--model", "shufflenet_v2_x0_5"),
            *("--init", "scratch", "--size", "32", "--batch-size", "4", "--threads", "1"),
            *("--quiet-seconds", "3600", *more),
        ]
    )
    return assemble(command.options, stack)


def epoch_of(run: Run, folder: Path, **changed: Any) -> Position:
    """Train an epoch that is not the first, which is looked at before it is trained on."""
    position = Position(step=1)
    changed_run = replace(run, position=position, **changed)
    train_epoch(changed_run, folder, Console(writes=False), Interrupt())
    return position


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
def test_no_number_is_read_within_a_step(
    shards: Path, stack: ExitStack, tmp_path: Path, options: tuple[str, ...]
):
    run = run_of(shards, stack, *options)
    epoch_of(run, tmp_path, read_every=1000)  # some modules look at something once
    with Reads() as reads:
        epoch_of(run, tmp_path, read_every=1000)
    assert reads.found == []


def test_the_count_of_reads_sees_one():
    with Reads() as reads:
        float(torch.ones(()) + 1)
    assert len(reads.found) == 1


def test_the_meter_does_not_depend_on_when_it_is_read(shards: Path, tmp_path: Path):
    found = []
    for every in (1, 5, 1000):
        with ExitStack() as stack:
            meter = epoch_of(run_of(shards, stack), tmp_path, read_every=every).meter
        found.append((meter.loss, meter.weight, meter.hits, meter.images))
    assert found[0] == found[1] == found[2]
    assert found[0][3] == 48


@pytest.mark.parametrize("every", [1, 5, 1000])
def test_a_loss_that_is_no_number_names_its_batch_though_it_is_read_later(
    shards: Path, stack: ExitStack, tmp_path: Path, every: int
):
    run = run_of(shards, stack)
    loader, minimised = run.loaders.train, run.balance.loss
    keys: list[list[str]] = []

    def poisoned(logits: torch.Tensor, labels: torch.Tensor) -> Total:
        keys.append(loader.last_keys())
        total = minimised(logits, labels)
        return Total(total.loss * (math.nan if len(keys) == 3 else 1.0), total.weight)

    with pytest.raises(DivergedError) as raised:
        epoch_of(run, tmp_path, balance=replace(run.balance, loss=poisoned), read_every=every)
    assert "the loss became nan in epoch 1, batch 3; " in str(raised.value)
    assert str(raised.value).endswith(": " + ", ".join(keys[2]))


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("optimizer", "amp"),  # SGD with float16 asks once a step whether its gradients overflowed
    [("sgd", "bf16"), ("sgd", "off"), ("adamw", "bf16"), ("adamw", "fp16"), ("adamw", "off")],
)
def test_no_step_waits_for_the_gpu(
    shards: Path, stack: ExitStack, tmp_path: Path, amp: str, optimizer: str
):
    run = run_of(
        shards,
        stack,
        *("--device", "cuda", "--amp", amp, "--optimizer", optimizer, "--ema", "0.9"),
        *("--clip", "1", "--loader", "auto"),
    )
    epoch_of(run, tmp_path)
    with forbidden_to_wait(), pytest.MonkeyPatch.context() as patch:
        read = Readings.read

        def read_at_the_end(self: Readings) -> None:
            with allowed_to_wait():
                read(self)

        patch.setattr(Readings, "read", read_at_the_end)
        position = epoch_of(run, tmp_path)
    assert position.meter.images == 48
