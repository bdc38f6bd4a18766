"""A run goes on with the very next batch: at any step, after a kill, on other ranks."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastload.errors import StateMismatchError
from fastload.load.augment import Augment, Mix
from fastload.load.loader import Loader
from fastload.load.selection import Select
from fastload.world import World
from tests.places import NUMBERED
from tests.shards import numbered

pytestmark = pytest.mark.filterwarnings("ignore:fastload's native core")

SAMPLES, BATCH = 60, 8
STEPS = SAMPLES // BATCH


@pytest.fixture(scope="module", params=NUMBERED)
def shards(tmp_path_factory, request) -> Path:
    return NUMBERED[request.param](
        tmp_path_factory.mktemp("resume") / "shards", {"train": SAMPLES, "val": 21}
    )


def loader_of(shards: Path, **options) -> Loader:
    defaults = {"batch_size": BATCH, "augment": Augment.train(16), "num_threads": 2}
    return Loader(shards, **{**defaults, **options})


def rows_of(loader: Loader, epochs: int = 1) -> list[list[int]]:
    """Rows of each batch of some iterations."""
    return [loader.last_indices().tolist() for _ in range(epochs) for _ in loader]


@pytest.mark.parametrize("order", ["shuffled", "sequential"])
@pytest.mark.parametrize("reweight", [None, "inverse"])
def test_from_any_step_of_any_epoch_the_rest_is_the_same(shards, order, reweight):
    options = {"order": order, "reweight": reweight}
    with loader_of(shards, **options) as loader:
        whole, states = [], [loader.state_dict()]
        for _ in range(3):
            for images, labels in loader:
                whole.append((loader.last_indices().tolist(), labels.tolist(), images.clone()))
                states.append(loader.state_dict())
    for step in range(2 * STEPS):
        with loader_of(shards, **options) as loader:
            loader.load_state_dict(json.loads(json.dumps(states[step])))
            for batch, (images, labels) in enumerate(loader, step):
                rows, classes, pixels = whole[batch]
                assert loader.last_indices().tolist() == rows
                assert labels.tolist() == classes
                assert torch.equal(images, pixels)
            assert batch + 1 == (step // STEPS + 1) * STEPS
            assert rows_of(loader) == [rows for rows, _, _ in whole[batch + 1 : batch + 1 + STEPS]]


def test_the_state_is_what_was_received_not_what_was_prepared(shards):
    with loader_of(shards) as loader:
        iteration = iter(loader)
        next(iteration)
        time.sleep(0.2)  # the workers are several batches ahead by now
        assert loader.state_dict()["position"] == BATCH


def test_the_state_after_the_last_batch_is_the_next_epoch(shards):
    with loader_of(shards) as loader:
        states = [loader.state_dict() for _ in loader]
        assert (states[-1]["epoch"], states[-1]["position"]) == (1, 0)
        assert loader.state_dict() == states[-1]


def test_the_state_is_a_handful_of_integers_and_strings(shards):
    with loader_of(shards) as loader:
        state = loader.state_dict()
        assert all(isinstance(value, int | str) for value in state.values())
        assert len(json.dumps(state)) < 700


def test_breaking_off_keeps_the_state_and_the_next_iteration_is_the_next_epoch(shards):
    with loader_of(shards) as loader:
        for _ in loader:
            break
        assert loader.state_dict()["position"] == BATCH
        second = rows_of(loader)
        assert loader.state_dict()["epoch"] == 2
        loader.set_epoch(1)
        assert (loader.state_dict()["epoch"], loader.state_dict()["position"]) == (1, 0)
        assert rows_of(loader) == second


def test_set_epoch_does_not_undo_a_resume_in_the_middle_of_that_epoch(shards):
    with loader_of(shards) as loader:
        whole = rows_of(loader, epochs=2)
        state = {**loader.state_dict(), "epoch": 1, "position": 3 * BATCH}
    with loader_of(shards) as loader:
        loader.load_state_dict(state)
        loader.set_epoch(1)
        assert rows_of(loader) == whole[STEPS + 3 :]
        loader.set_epoch(1)
        assert rows_of(loader) == whole[STEPS:]


def test_the_size_is_restored(shards):
    with loader_of(shards) as loader:
        loader.set_size(24)
        next(iter(loader))
        state = loader.state_dict()
    with loader_of(shards) as loader:
        loader.load_state_dict(state)
        assert next(iter(loader))[0].shape[-1] == 24


def test_evaluation_resumes_too(shards):
    options = {"split": "val", "augment": Augment.eval(16), "batch_size": 4}
    with loader_of(shards, **options) as loader:
        iteration = iter(loader)
        for _ in range(3):
            next(iteration)
        state = loader.state_dict()
    with loader_of(shards, **options) as loader:
        loader.load_state_dict(state)
        assert [row for rows in rows_of(loader) for row in rows] == list(range(12, 21))


@pytest.mark.parametrize("sizes", [(1, 2, 4), (4, 1, 2), (2, 4, 1)])
def test_a_run_moves_from_rank_to_rank_with_the_same_global_batches(shards, sizes):
    augment = Augment(size=16, mix=Mix(mixup=0.3, cutmix=1.0))
    with loader_of(shards, augment=augment, drop_last=False) as loader:
        expected = [(images.clone(), labels.clone()) for images, labels in loader]
    state, batches = None, []
    for size in sizes:
        loaders = [
            loader_of(
                shards,
                augment=augment,
                batch_size=BATCH // size,
                drop_last=False,
                world=World(rank=rank, size=size),
            )
            for rank in range(size)
        ]
        for loader in loaders:
            if state is not None:
                loader.load_state_dict(state)
        iterations = [iter(loader) for loader in loaders]
        for _ in range(2 if size != sizes[-1] else 100):
            parts = [next(iteration, None) for iteration in iterations]
            assert (None in parts) == (parts == [None] * size)
            present = [part for part in parts if part is not None]
            if not present:
                break
            batches.append([torch.cat(tensors) for tensors in zip(*present, strict=True)])
        states = [loader.state_dict() for loader in loaders]
        assert all(other == states[0] for other in states)
        state = states[0]
        for loader in loaders:
            loader.close()
    images, labels = (torch.cat(tensors) for tensors in zip(*batches, strict=True))
    # In the tail of 4 samples each of 4 ranks has one, which is not mixed.
    whole = STEPS * BATCH
    assert torch.equal(images[:whole], torch.cat([batch[0] for batch in expected])[:whole])
    assert torch.equal(labels[:whole], torch.cat([batch[1] for batch in expected])[:whole])
    assert len(images) == SAMPLES


def test_another_batch_size_continues_without_losing_or_repeating_a_sample(shards):
    with loader_of(shards) as loader:
        iteration = iter(loader)
        seen = []
        for _ in range(3):
            next(iteration)
            seen += loader.last_indices().tolist()
        state = loader.state_dict()
    with loader_of(shards, batch_size=6, drop_last=False) as loader:
        loader.load_state_dict(state)
        seen += [row for rows in rows_of(loader) for row in rows]
    assert sorted(seen) == list(range(SAMPLES))


def test_a_state_that_does_not_fit_is_refused_and_says_why(shards, tmp_path):
    with loader_of(shards) as loader:
        state = loader.state_dict()
    other = numbered(tmp_path / "other", {"train": SAMPLES - 1})
    cases: list[tuple[Path, dict[str, Any], str]] = [
        (other, {}, "data"),
        (shards, {"seed": 1}, "seed"),
        (shards, {"reweight": "sqrt"}, "sampling"),
        (shards, {"order": "sequential"}, "sampling"),
        (shards, {"select": Select(first=50)}, "sampling"),
        (shards, {"augment": Augment.plantnet()}, "augment"),
    ]
    for path, options, what in cases:
        with loader_of(path, **options) as loader:
            with pytest.raises(StateMismatchError, match=f"the saved state has {what} "):
                loader.load_state_dict(state)
            assert loader.state_dict()["position"] == 0


@pytest.mark.parametrize(
    "damage",
    [
        {"position": SAMPLES + 1},
        {"position": -1},
        {"epoch": -1},
        {"epoch": 2**63},
        {"version": 99},
    ],
)
def test_a_damaged_state_is_refused(shards, damage):
    with loader_of(shards) as loader:
        state = {**loader.state_dict(), **damage}
        with pytest.raises(StateMismatchError, match="the saved state"):
            loader.load_state_dict(state)


def test_a_state_of_the_order_before_this_one_is_refused_with_what_to_do(shards):
    with (
        loader_of(shards) as loader,
        pytest.raises(StateMismatchError, match=r"another order: .*new"),
    ):
        loader.load_state_dict({**loader.state_dict(), "version": 1})


PROGRAM = """
import json, sys, warnings
warnings.simplefilter("ignore")
from fastload.load.augment import Augment
from fastload.load.loader import Loader
loader = Loader(sys.argv[1], batch_size=8, augment=Augment.train(16), num_threads=2)
while True:
    for images, labels in loader:
        rows = loader.last_indices().tolist()
        print(json.dumps([loader.state_dict(), rows, int(images.sum())]), flush=True)
"""


def test_a_run_goes_on_after_kill_9(shards):
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(shards)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline()) for _ in range(STEPS + 3)]
        process.kill()
    with loader_of(shards) as loader:
        whole = [
            [loader.last_indices().tolist(), int(images.sum())]
            for _ in range(3)
            for images, _ in loader
        ]
    assert [line[1:] for line in lines] == whole[: len(lines)]
    with loader_of(shards) as loader:
        loader.load_state_dict(lines[-1][0])
        rest = [[loader.last_indices().tolist(), int(images.sum())] for images, _ in loader]
    assert rest == whole[len(lines) : 2 * STEPS]


def test_resuming_reads_nothing_of_what_was_before(shards, tmp_path):
    with loader_of(shards, order="index", drop_last=False) as loader:
        state = {**loader.state_dict(), "position": 40}
    directory = Path(shutil.copytree(shards, tmp_path / "damaged"))
    with loader_of(directory, order="index", drop_last=False) as loader:
        first = [directory / f"train-{number:06d}.tar" for number in range(4)]
        if not first[0].exists():  # in place each sample is a file
            first = [path for path in directory.glob("train/*/*.jpg") if int(path.stem) < 40]
        for path in first:
            path.unlink()
        loader.load_state_dict(state)
        assert np.concatenate(rows_of(loader)).tolist() == list(range(40, 60))
