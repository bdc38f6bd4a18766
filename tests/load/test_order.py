"""Orders: exact, even, the same everywhere; properties over grids, and golden orders."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest

from fastload.errors import ResourceError
from fastload.load import sampling
from fastload.load.order import EpochOrder, Order, Windowed
from fastload.load.reweighting import class_weights, expectations
from fastload.load.selection import SampleTable, Select


def order_of(labels, rule=None, length=None, *, kind="shuffled", seed=0, shards=None, window=64):
    """An order of samples that lie in shards one behind another; `rule` may be weights too."""
    labels = np.asarray(labels, np.int64)
    table = SampleTable(
        labels=labels,
        shards=np.zeros(len(labels), np.int64) if shards is None else np.asarray(shards),
        offsets=np.arange(len(labels)),
        sources=np.zeros(len(labels), np.int64),
        classes=[str(label) for label in range(int(labels.max()) + 1)],
    )
    options = {"select": Select(), "reweight": rule, "epoch_size": length}
    return replace(sampling.order_of(table, kind=kind, seed=seed, **options), window=window)


def rows_of(order: Order, epoch: int) -> np.ndarray:
    """All rows of an epoch."""
    return order.epoch(epoch).rows(np.arange(order.length))


def stream_of(epoch: EpochOrder) -> np.ndarray:
    assert isinstance(epoch, Windowed)
    return epoch.stream(0, epoch.length)


def expected_of(labels, rule, length) -> np.ndarray:
    """How often each sample is expected, by the formulas."""
    weights = class_weights(np.bincount(labels), rule)[labels]
    return expectations(weights, length)


def long_tail(classes: int = 30, most: int = 400) -> np.ndarray:
    counts = np.maximum(1, most / np.arange(1, classes + 1) ** 1.5).astype(int)
    return np.random.default_rng(0).permutation(np.repeat(np.arange(classes), counts))


GOLDEN = {
    "shuffled": [6, 18, 4, 9, 19, 8, 12, 5, 17, 0, 15, 10, 1, 2, 11, 7, 16, 13, 14, 3],
    "inverse": [19, 11, 19, 15, 16, 13, 14, 10, 6, 18, 2, 18],
    "weights": [17, 7, 19, 2, 12, 14, 15, 10, 9, 13, 0, 18],
    "sequential": [5, 6, 7, 8, 9, 15, 17, 16, 19, 18, 11, 10, 12, 13, 14, 0, 3, 1, 2, 4],
}


def test_golden_orders_guard_upgrades():
    labels = np.repeat([0, 1, 2], [12, 6, 2])
    shards = np.repeat([0, 1, 2, 3], 5)
    assert rows_of(order_of(labels), 0).tolist() == GOLDEN["shuffled"]
    assert rows_of(order_of(labels, "inverse", 12, seed=7), 3).tolist() == GOLDEN["inverse"]
    weights = np.linspace(1, 3, 20)
    assert rows_of(order_of(labels, weights, 12, seed=7), 3).tolist() == GOLDEN["weights"]
    sequential = order_of(labels, kind="sequential", shards=shards, window=4, seed=7)
    assert rows_of(sequential, 3).tolist() == GOLDEN["sequential"]


@pytest.mark.parametrize("length", [1, 2, 10, 1000])
def test_a_uniform_epoch_is_a_permutation(length):
    for epoch in range(3):
        rows = rows_of(order_of(np.zeros(length)), epoch)
        assert sorted(rows.tolist()) == list(range(length))


@pytest.mark.parametrize("kind", ["shuffled", "sequential"])
def test_two_seeds_or_two_epochs_never_share_an_order(kind):
    orders = {
        tuple(rows_of(order_of(np.zeros(40), kind=kind, seed=seed), epoch).tolist())
        for seed, epoch in itertools.product(range(8), range(8))
    }
    assert len(orders) == 64


@pytest.mark.parametrize("rule", [None, "sqrt", np.linspace(1, 3, 300)], ids=["", "sqrt", "array"])
@pytest.mark.parametrize("kind", ["shuffled", "sequential"])
def test_any_positions_have_the_rows_that_they_have_among_all(rule, kind):
    labels, shards = np.repeat([0, 1, 2], [200, 70, 30]), np.repeat(np.arange(12), 25)
    order = order_of(labels, rule, 400 if rule is not None else None, kind=kind, shards=shards)
    every, epoch = rows_of(order, 5), order.epoch(5)
    random = np.random.default_rng(0)
    for positions in ([], [0], [299], random.integers(0, order.length, 50), np.arange(90, 110)):
        places = np.asarray(positions, np.int64)
        assert epoch.rows(places).tolist() == every[places].tolist()


@pytest.mark.parametrize("window", [1, 3, 8])
def test_positions_of_many_ranks_are_sorted_apart_and_are_the_same(window):
    order = order_of(np.zeros(2000), kind="sequential", shards=np.arange(2000) // 50, window=window)
    every, epoch = rows_of(order, 1), order.epoch(1)
    positions = np.concatenate([np.arange(first, first + 5) for first in range(0, 2000, 250)])
    assert epoch.rows(positions).tolist() == every[positions].tolist()


@pytest.mark.parametrize("rule", ["inverse", "sqrt", "effective:0.999", "effective:0.9", "array"])
@pytest.mark.parametrize("kind", ["shuffled", "sequential"])
@pytest.mark.parametrize("length", [100, 1000, 1777])
def test_samples_and_classes_get_floor_or_ceil_of_what_they_expect(rule, kind, length):
    labels = long_tail()
    if rule == "array":
        reweight = np.random.default_rng(1).random(len(labels))
        expected = expectations(reweight, length)
    else:
        reweight, expected = rule, expected_of(labels, rule, length)
    order = order_of(labels, reweight, length, kind=kind)
    by_class = np.bincount(labels, expected)
    for epoch in range(4):
        rows = rows_of(order, epoch)
        counts = np.bincount(rows, minlength=len(labels))
        classes = np.bincount(labels[rows], minlength=len(by_class))
        assert len(rows) == length
        assert (np.abs(counts - expected) < 1).all()
        assert (np.abs(classes - by_class) < 1).all()


def test_no_class_is_missed_where_it_expects_one():
    labels = long_tail()
    order = order_of(labels, "inverse", 30)
    for epoch in range(10):
        assert len(set(labels[rows_of(order, epoch)])) == 30


@pytest.mark.parametrize("rule", ["sqrt", np.linspace(1, 4, 63)], ids=["rule", "array"])
def test_over_epochs_each_sample_comes_as_often_as_expected(rule):
    labels = np.repeat([0, 1, 2], [50, 10, 3])
    order = order_of(labels, rule, 40)
    expected = expected_of(labels, rule, 40) if isinstance(rule, str) else expectations(rule, 40)
    epochs = 600
    total = sum(np.bincount(rows_of(order, epoch), minlength=63) for epoch in range(epochs))
    error = np.abs(total / epochs - expected)
    assert error.max() < 5 * np.sqrt(0.25 / epochs)


def test_which_samples_of_a_class_are_drawn_changes_from_epoch_to_epoch():
    order = order_of(np.zeros(1000), None, 100)
    drawn = [set(rows_of(order, epoch).tolist()) for epoch in range(2)]
    assert len(drawn[0]) == 100
    assert len(drawn[0] & drawn[1]) < 40


@pytest.mark.parametrize("window", [1, 2, 7, 50, 1000])
def test_the_sequential_order_stays_within_its_window(window):
    shards = np.repeat(np.arange(12), 25)
    order = order_of(np.zeros(300), kind="sequential", shards=shards, window=window)
    rows, stream = rows_of(order, 1), stream_of(order.epoch(1))
    assert sorted(rows.tolist()) == list(range(300))
    displacement = np.abs(np.argsort(stream)[rows] - np.arange(300))
    assert displacement.max() < window
    assert window < 50 or displacement.mean() > min(window, 300) / 10


def test_the_sequential_stream_reads_whole_shards_forward_in_an_order_of_the_epoch():
    shards = np.repeat(np.arange(12), 25)
    order = order_of(np.zeros(300), kind="sequential", shards=shards)
    orders = []
    for epoch in range(3):
        stream = stream_of(order.epoch(epoch))
        visits = [shard for shard, _ in itertools.groupby(shards[stream])]
        assert sorted(visits) == list(range(12))
        for shard in range(12):
            assert (np.diff(stream[shards[stream] == shard]) == 1).all()
        orders.append(visits)
    assert orders[0] != orders[1] != orders[2]


@pytest.mark.parametrize("seed", ["1", 1.0, True, None])
def test_a_seed_that_is_no_integer_is_refused(seed):
    message = f"seed must be an integer in [0, 2**63), got {seed!r}"
    with pytest.raises(TypeError, match=re.escape(message)):
        order_of([0, 1], seed=seed)


def test_an_epoch_that_no_memory_holds_is_one_sentence(monkeypatch):
    monkeypatch.setattr(sampling, "most_positions", lambda: 2**62)
    order = order_of(np.zeros(4), length=2**36, kind="sequential")
    sentence = "an epoch of 68,719,476,736 samples takes more memory .*; lower epoch_size"
    with pytest.raises(ResourceError, match=sentence):
        order.epoch(0)


def test_an_order_made_as_a_whole_is_refused_where_it_fills_the_memory():
    with pytest.raises(ValueError, match=r"at most .*, whose order fills the memory"):
        order_of(np.zeros(4), length=2**36, kind="sequential")
    assert len(order_of(np.zeros(4), length=2**36).epoch(0).rows(np.arange(5))) == 5
