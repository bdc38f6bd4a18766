"""Orders: exact, even, the same everywhere; properties over grids, and golden orders."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from fastload.errors import ResourceError
from fastload.load.order import Order, permutation
from fastload.load.reweighting import class_weights, expectations


def order_of(labels, rule=None, length=None, *, kind="shuffled", seed=0, shards=None, window=64):
    labels = np.asarray(labels, np.int64)
    expected = None
    if rule is not None or length is not None:
        weights = np.ones(len(labels)) if rule is None else class_weights(labels, rule)
        expected = expectations(weights, length or len(labels))
    return Order(
        kind=kind,
        rows=np.arange(len(labels)),
        groups=labels,
        expected=expected,
        shards=np.zeros(len(labels), np.int64) if shards is None else np.asarray(shards),
        offsets=np.arange(len(labels)),
        seed=seed,
        window=window,
    )


def long_tail(classes: int = 30, most: int = 400) -> np.ndarray:
    counts = np.maximum(1, most / np.arange(1, classes + 1) ** 1.5).astype(int)
    return np.random.default_rng(0).permutation(np.repeat(np.arange(classes), counts))


def test_golden_orders_guard_upgrades():
    labels = np.repeat([0, 1, 2], [12, 6, 2])
    shards = np.repeat([0, 1, 2, 3], 5)
    assert permutation(0, 0, 20).tolist() == [
        *(8, 6, 1, 10, 12, 3, 4, 2, 0, 18),
        *(13, 11, 19, 16, 5, 9, 14, 17, 7, 15),
    ]
    assert order_of(labels, "inverse", 12, seed=7).epoch(3).rows.tolist() == [
        *(19, 13, 5, 9, 18, 19, 17, 12, 8, 1),
        *(14, 18),
    ]
    sequential = order_of(labels, kind="sequential", shards=shards, window=4, seed=7)
    assert sequential.epoch(3).rows.tolist() == [
        *(5, 6, 7, 8, 9, 15, 17, 16, 19, 18),
        *(11, 10, 12, 13, 14, 0, 3, 1, 2, 4),
    ]


@pytest.mark.parametrize("length", [1, 2, 10, 1000])
def test_a_uniform_epoch_is_a_permutation(length):
    for epoch in range(3):
        rows = order_of(np.zeros(length)).epoch(epoch).rows
        assert sorted(rows.tolist()) == list(range(length))


@pytest.mark.parametrize("kind", ["shuffled", "sequential"])
def test_two_seeds_or_two_epochs_never_share_an_order(kind):
    orders = {
        tuple(order_of(np.zeros(40), kind=kind, seed=seed).epoch(epoch).rows.tolist())
        for seed, epoch in itertools.product(range(8), range(8))
    }
    assert len(orders) == 64


def test_positions_of_a_sample_are_uniform_over_epochs():
    order = order_of(np.zeros(50))
    places = np.array([np.argsort(order.epoch(epoch).rows) for epoch in range(400)])
    counts = np.stack([np.bincount(places[:, row], minlength=50) for row in range(50)])
    chi_square = ((counts - 8) ** 2 / 8).sum()
    assert abs(chi_square - 49 * 49) < 5 * np.sqrt(2 * 49 * 49)


@pytest.mark.parametrize("rule", ["inverse", "sqrt", "effective:0.999", "effective:0.9"])
@pytest.mark.parametrize("kind", ["shuffled", "sequential"])
@pytest.mark.parametrize("length", [100, 1000, 1777])
def test_samples_and_classes_get_floor_or_ceil_of_what_they_expect(rule, kind, length):
    labels = long_tail()
    order = order_of(labels, rule, length, kind=kind)
    assert order.expected is not None
    by_class = np.bincount(labels, order.expected)
    for epoch in range(4):
        rows = order.epoch(epoch).rows
        counts = np.bincount(rows, minlength=len(labels))
        classes = np.bincount(labels[rows], minlength=len(by_class))
        assert len(rows) == length
        assert (np.abs(counts - order.expected) < 1).all()
        assert (np.abs(classes - by_class) < 1).all()


def test_no_class_is_missed_where_it_expects_one():
    labels = long_tail()
    order = order_of(labels, "inverse", 30)
    for epoch in range(10):
        assert len(set(labels[order.epoch(epoch).rows])) == 30


def test_over_epochs_each_sample_comes_as_often_as_expected():
    labels = np.repeat([0, 1, 2], [50, 10, 3])
    order = order_of(labels, "sqrt", 40)
    assert order.expected is not None
    epochs = 600
    total = sum(np.bincount(order.epoch(e).rows, minlength=63) for e in range(epochs))
    error = np.abs(total / epochs - order.expected)
    assert error.max() < 5 * np.sqrt(0.25 / epochs)


def test_which_samples_of_a_class_are_drawn_changes_from_epoch_to_epoch():
    order = order_of(np.zeros(1000), None, 100)
    drawn = [set(order.epoch(epoch).rows.tolist()) for epoch in range(2)]
    assert len(drawn[0]) == 100
    assert len(drawn[0] & drawn[1]) < 40


@pytest.mark.parametrize("window", [1, 2, 7, 50, 1000])
def test_the_sequential_order_stays_within_its_window(window):
    shards = np.repeat(np.arange(12), 25)
    epoch = order_of(np.zeros(300), kind="sequential", shards=shards, window=window).epoch(1)
    assert epoch.stream is not None
    assert sorted(epoch.rows.tolist()) == list(range(300))
    place = np.argsort(epoch.stream)
    displacement = np.abs(place[epoch.rows] - np.arange(300))
    assert displacement.max() < window
    assert window < 50 or displacement.mean() > min(window, 300) / 10


def test_the_sequential_stream_reads_whole_shards_forward_in_an_order_of_the_epoch():
    shards = np.repeat(np.arange(12), 25)
    order = order_of(np.zeros(300), kind="sequential", shards=shards)
    orders = []
    for epoch in range(3):
        stream = order.epoch(epoch).stream
        assert stream is not None
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


@pytest.mark.parametrize("kind", ["shuffled", "sequential"])
def test_an_epoch_that_no_memory_holds_is_one_sentence(kind):
    order = order_of(np.zeros(4), length=10**14, kind=kind)
    sentence = "an epoch of 100,000,000,000,000 samples takes more memory .*; lower epoch_size"
    with pytest.raises(ResourceError, match=sentence):
        order.epoch(0)
