"""Rendering: bounded, in order, with time limits; errors and memory reach those they belong to."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastload.errors import ShardError, StalledError
from fastload.load.augment import Augment
from fastload.load.buffers import Buffers
from fastload.load.draws import TakingPart
from fastload.load.order import InOrder, Listed, Windowed
from fastload.load.plan import EpochPlan
from fastload.load.ranks import Batches
from fastload.load.rendering import Rendering
from fastload.pixels.decode import CpuRenderer
from fastload.pixels.jpeg import Encoded
from fastload.stages import Stages
from fastload.store.collection import open_collection
from fastload.store.reader import FileReader, Reader
from fastload.world import World
from tests.places import NUMBERED
from tests.shards import flat_picture, number_of, numbered


class GatedRenderer(CpuRenderer):
    """Renders as libjpeg does, but only while its gate is open; counts the images."""

    def __init__(self) -> None:
        super().__init__(core=False)
        self.entered, self.gate = threading.Event(), threading.Event()
        self.rendered = 0
        self._lock = threading.Lock()

    def render(self, encoded: Encoded, boxes, flips, out, *rest) -> dict[int, str]:
        self.entered.set()
        self.gate.wait(20)
        with self._lock:
            self.rendered += len(encoded)
        return super().render(encoded, boxes, flips, out, *rest)


class FailingRenderer(CpuRenderer):
    """Raises at the picture of one number."""

    def __init__(self, number: int) -> None:
        super().__init__(core=False)
        self._jpeg = flat_picture(number, 0).jpeg

    def render(self, encoded: Encoded, boxes, flips, out, *rest) -> dict[int, str]:
        if any(bytes(encoded[i]) == self._jpeg for i in range(len(encoded))):
            raise ZeroDivisionError("the renderer fell over")
        return super().render(encoded, boxes, flips, out, *rest)


@pytest.fixture(scope="module", params=NUMBERED)
def shards(tmp_path_factory, request) -> Path:
    return NUMBERED[request.param](tmp_path_factory.mktemp("batch") / "shards", {"train": 120})


def plain_memory() -> Buffers:
    return Buffers(lambda shape: np.empty(shape, np.uint8), keep=4)


def plan_of(directory: Path, batch: int = 8, **options) -> EpochPlan:
    index = open_collection([directory], "train").index
    batches = Batches(length=len(index), global_batch=batch, world_size=1, drop_last=False)
    defaults = {
        "number": 0,
        "order": InOrder(TakingPart(len(index)), len(index)),
        "batches": batches,
        "world": World(),
        "augment": Augment.eval(16),
        "seed": 0,
        "index": index,
    }
    return EpochPlan(**{**defaults, **options})


@pytest.fixture
def begin():
    """Begins a rendering of a directory with a renderer; ends it after the test."""
    begun: list[tuple[Rendering, Any]] = []

    def make(
        directory: Path,
        renderer: Any,
        *,
        reader: Reader | None = None,
        timeout: float = 30,
        **options,
    ) -> Rendering:
        rendering = Rendering(
            plan_of(directory, **options),
            reader or FileReader(open_collection([directory], "train")),
            renderer,
            plain_memory(),
            spent=[Stages(), Stages()],
            replace_bad=True,
            timeout_seconds=timeout,
        )
        begun.append((rendering, renderer))
        rendering.start(owner=renderer)
        return rendering

    yield make
    for rendering, renderer in begun:
        if isinstance(renderer, GatedRenderer):
            renderer.gate.set()
        for _ in range(100):  # times the limit of the test, which may be short
            with suppress(StalledError):
                rendering.close()
                break


def numbers(batch) -> list[int]:
    return [number_of(image[8, 8]) for image in batch.pixels]


def take_all(rendering: Rendering, taken: list[int]) -> None:
    """Take batches to the end or to an error; `taken` gets the numbers of their pictures."""
    while (batch := rendering.take()) is not None:
        taken += numbers(batch)


def test_batches_come_in_order_and_then_none(shards, begin):
    rendering = begin(shards, CpuRenderer(core=False))
    seen: list[int] = []
    take_all(rendering, seen)
    assert seen == list(range(120))
    assert rendering.take() is None


def test_work_ahead_of_the_caller_is_bounded(shards, begin):
    renderer = GatedRenderer()
    renderer.gate.set()
    rendering = begin(shards, renderer, batch=8)
    rendering.take()
    time.sleep(0.5)
    assert renderer.rendered <= 8 * (1 + 4)


def test_an_error_is_raised_when_its_batch_is_due_and_not_before(shards, begin):
    rendering = begin(shards, FailingRenderer(20), batch=8)
    seen: list[int] = []
    with pytest.raises(ZeroDivisionError, match="the renderer fell over"):
        take_all(rendering, seen)
    assert seen == list(range(16))


def test_a_stalled_worker_is_named_after_the_time_limit(shards, begin):
    renderer = GatedRenderer()
    rendering = begin(shards, renderer, timeout=0.3)
    assert renderer.entered.wait(120)
    began = time.monotonic()
    with pytest.raises(
        StalledError, match=r"waited 0\.3 s for batch 0 of epoch 0: .*fastload-worker-\d decodes"
    ):
        rendering.take()
    assert time.monotonic() - began < 10


def test_closing_ends_the_threads_and_those_who_wait(shards, begin):
    renderer = GatedRenderer()
    before = threading.active_count()
    rendering = begin(shards, renderer)
    errors = []

    def wait() -> None:
        try:
            rendering.take()
        except RuntimeError as error:
            errors.append(str(error))

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert renderer.entered.wait(120)
    opener = threading.Timer(0.2, renderer.gate.set)
    opener.start()
    rendering.close()
    waiting.join(120)
    opener.join(120)
    assert errors == ["this iteration was ended: the loader was closed or reused"]
    assert threading.active_count() == before


def test_a_worker_that_does_not_end_is_named(shards, begin):
    renderer = GatedRenderer()
    rendering = begin(shards, renderer, timeout=0.3)
    assert renderer.entered.wait(120)
    with pytest.raises(StalledError, match=r"fastload-worker-\d decodes"):
        rendering.close()


def test_a_shard_that_vanishes_is_an_error_that_names_it(tmp_path, begin):
    directory = numbered(tmp_path / "s", {"train": 40})
    reader = FileReader(open_collection([directory], "train"))
    (directory / "train-000002.tar").unlink()
    rendering = begin(directory, CpuRenderer(core=False), reader=reader)
    seen: list[int] = []
    with pytest.raises(ShardError, match=r"train-000002\.tar"):
        take_all(rendering, seen)
    assert seen == list(range(16))


def test_a_plan_is_the_same_in_whatever_parts_it_is_made(shards):
    augment = Augment.train(16)
    whole = plan_of(shards, batch=24, augment=augment)
    for size in (1, 2, 4):
        for step in (0, 3):
            parts = [
                plan_of(shards, batch=24, augment=augment, world=World(rank=rank, size=size)).batch(
                    step
                )
                for rank in range(size)
            ]
            expected = whole.batch(step)
            for name in ("boxes", "flips"):
                joined = np.concatenate([getattr(part.choices, name) for part in parts])
                assert np.array_equal(joined, getattr(expected.choices, name))
            assert np.array_equal(np.concatenate([part.rows for part in parts]), expected.rows)


def test_everything_is_read_ahead_once_and_before_it_is_planned(shards):
    plan = plan_of(shards, batch=4)
    rows = np.concatenate([plan.ahead(step) for step in range(plan.steps)])
    assert sorted(rows.tolist()) == list(range(120))
    stream = np.roll(np.arange(120), 7)
    sequential = plan_of(shards, batch=4, order=Windowed(Listed(stream), 120, 20, 0, 0))
    ahead = [sequential.ahead(step) for step in range(sequential.steps)]
    assert np.concatenate(ahead).tolist() == stream.tolist()
    assert len(ahead[0]) == 24


def test_a_sequential_epoch_that_goes_on_reads_nothing_of_what_was_long_before(shards):
    stream = np.roll(np.arange(120), 7)
    rest = Batches(length=120, start=60, global_batch=4, world_size=1, drop_last=False)
    order = Windowed(Listed(stream), 120, 20, 0, 0)
    plan = plan_of(shards, order=order, batches=rest)
    ahead = [plan.ahead(step) for step in range(plan.steps)]
    assert np.concatenate(ahead).tolist() == stream[40:].tolist()
    assert set(order.rows(np.arange(60, 120)).tolist()) <= set(stream[40:].tolist())
