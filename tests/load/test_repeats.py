"""A new Loader for each epoch is told that it gives the same epoch again; other uses are not."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from fastload import Augment, Loader
from fastload.load import repeats
from tests.shards import numbered

pytestmark = pytest.mark.filterwarnings("ignore:fastload's native core")
AGAIN = r"this Loader gives epoch 0 again, .* keep one Loader for all epochs, or call set_epoch\("


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return numbered(tmp_path_factory.mktemp("repeats") / "shards", {"train": 30, "val": 30})


@pytest.fixture(autouse=True)
def nothing_given_yet() -> Iterator[None]:
    gc.collect()  # a Loader that an earlier test left behind
    repeats._given.clear()
    repeats._warned.clear()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="this Loader gives")
        yield


def make(shards: Path, **options: Any) -> Loader:
    return Loader(shards, **{"batch_size": 10, "augment": Augment.train(16), **options})


def rows_of_an_epoch(loader: Loader) -> list[int]:
    return [row for _ in loader for row in loader.last_indices().tolist()]


def a_loader_for_each_epoch(shards: Path, *, closed: bool) -> list[list[int]]:
    seen = []
    for _ in range(4):
        loader = make(shards)
        seen.append(rows_of_an_epoch(loader))
        if closed:
            loader.close()
        del loader
        gc.collect()
    return seen


def two_loaders(shards: Path, *, batches: int, **options: Any) -> None:
    for _ in range(2):
        with make(shards, **options) as loader:
            assert len(list(islice(loader, batches))) == batches


@pytest.mark.parametrize("closed", [True, False])
def test_a_new_loader_for_each_epoch_is_told_once(shards, closed):
    with pytest.warns(UserWarning, match=AGAIN) as caught:
        seen = a_loader_for_each_epoch(shards, closed=closed)
    assert [warning.filename for warning in caught] == [__file__]
    assert seen[0] == seen[1]  # told, not changed


def test_a_new_loader_for_each_shortened_epoch_is_told(shards):
    with pytest.warns(UserWarning, match=AGAIN):
        two_loaders(shards, batches=2)


def test_a_new_loader_for_each_epoch_of_one_batch_is_told(shards):
    with pytest.warns(UserWarning, match=AGAIN):
        two_loaders(shards, batches=1, batch_size=30)


def test_one_loader_may_give_each_epoch_in_part(shards):
    for _ in range(2):
        with make(shards) as loader:
            for _ in range(3):
                assert len(list(islice(loader, 2))) == 2


def test_a_new_loader_that_is_told_its_epoch_gives_another(shards):
    seen = []
    for epoch in range(3):
        with make(shards) as loader:
            loader.set_epoch(epoch)
            seen.append(rows_of_an_epoch(loader))
    with make(shards) as loader:
        assert [rows_of_an_epoch(loader) for _ in range(3)] == seen


def test_evaluation_is_the_same_each_time(shards):
    for _ in range(3):
        with make(shards, split="val") as loader:
            assert rows_of_an_epoch(loader) == list(range(30))


def test_a_second_run_may_follow_the_first(shards):
    for _ in range(3):
        with make(shards) as loader:
            for _ in range(2):
                rows_of_an_epoch(loader)


def test_a_run_may_be_resumed(shards):
    state = None
    for _ in range(3):
        with make(shards) as loader:
            if state:
                loader.load_state_dict(state | {"epoch": 0})
            rows_of_an_epoch(loader)
            state = loader.state_dict()


def test_loaders_may_be_compared_side_by_side_and_with_other_options(shards):
    with make(shards) as one, make(shards) as other:
        assert rows_of_an_epoch(one) == rows_of_an_epoch(other)
    others: list[dict[str, Any]]
    others = [{"num_threads": 1}, {"seed": 1}, {"batch_size": 5}, {"dtype": "float32"}]
    for options in others:
        with Loader(
            shards, **{"batch_size": 10, "augment": Augment.train(16), **options}
        ) as loader:
            rows_of_an_epoch(loader)


def test_loaders_of_other_lines_are_other_runs(shards):
    augment = Augment.train(16)
    with Loader(shards, batch_size=10, augment=augment) as loader:
        first = rows_of_an_epoch(loader)
    with Loader(shards, batch_size=10, augment=augment) as loader:
        assert rows_of_an_epoch(loader) == first


def test_a_look_at_the_first_batch_is_no_epoch(shards):
    for _ in range(3):
        with make(shards) as loader:
            next(iter(loader))
