"""Orders: exact, even, the same everywhere; properties over grids, and golden orders."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest

from fastload.load.order import (
    Order,
    SampleTable,
    Select,
    batch_bounds,
    class_weights,
    expectations,
    permutation,
    rank_part,
    systematic_counts,
)
from fastload.load.order import order_of as resolved_order
from fastload.world import World


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


def test_whole_expectations_are_met_exactly():
    for offset in np.linspace(0, 0.999, 50):
        assert systematic_counts(np.ones(100_000), offset).max() == 1
        assert systematic_counts(np.full(30_000, 1 / 3), offset).sum() == 10_000


def test_class_weights_are_those_of_their_formulas():
    labels = np.repeat([0, 1], [8, 2])
    assert class_weights(labels, "inverse")[[0, 8]].tolist() == [1 / 8, 1 / 2]
    assert class_weights(labels, "sqrt")[8] == pytest.approx(1 / np.sqrt(2))
    beta = 0.99
    expected = [(1 - beta) / (1 - beta**8), (1 - beta) / (1 - beta**2)]
    assert class_weights(labels, "effective:0.99")[[0, 8]] == pytest.approx(expected)
    assert class_weights(labels, "effective:0").tolist() == [1.0] * 10


def test_proportions_are_the_shares_of_the_sources():
    sources = np.repeat([0, 1], [10, 90])
    expected = expectations(np.ones(100), 50, sources=sources, proportions=[2, 3])
    assert np.bincount(sources, expected) == pytest.approx([20, 30])


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


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("length", [0, 1, 5, 8, 16, 17, 100, 101, 103])
@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_ranks_cover_an_epoch_once_and_evenly(world_size, length, batch_size):
    options = {"start": 0, "global_batch": batch_size * world_size, "world_size": world_size}
    bounds = batch_bounds(length, drop_last=False, **options)
    assert (bounds[0], bounds[-1]) == (0, length)
    seen: list[int] = []
    for start, stop in itertools.pairwise(bounds.tolist()):
        parts = [rank_part(start, stop, World(rank=r, size=world_size)) for r in range(world_size)]
        sizes = [last - first for first, last in parts]
        assert max(sizes) - min(sizes) <= 1
        assert max(sizes) <= batch_size
        assert min(sizes) >= 1 or length < world_size or batch_size == 1
        seen += [position for first, last in parts for position in range(first, last)]
    assert seen == list(range(length))


def test_a_dropped_tail_leaves_full_batches_only():
    bounds = batch_bounds(103, start=0, global_batch=10, world_size=2, drop_last=True)
    assert bounds.tolist() == list(range(0, 101, 10))


@pytest.mark.parametrize("start", [0, 10, 50, 100, 103])
@pytest.mark.parametrize("drop_last", [True, False])
def test_bounds_from_the_middle_are_the_tail_of_all_bounds(start, drop_last):
    options = {"global_batch": 10, "world_size": 2, "drop_last": drop_last}
    whole = batch_bounds(103, start=0, **options)
    rest = batch_bounds(103, start=start, **options)
    if start < 103:
        assert rest.tolist() == [bound for bound in whole.tolist() if bound >= start]
    else:
        assert len(rest) == 1


def test_global_batches_are_the_same_for_any_number_of_ranks():
    batches = {
        world_size: batch_bounds(
            1000, start=0, global_batch=48, world_size=world_size, drop_last=False
        ).tolist()
        for world_size in (1, 2, 4, 8)
    }
    assert batches[1] == batches[2] == batches[4] == batches[8]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([np.nan, 1], "finite"),
        ([-1, 2], "at least 0"),
        ([0, 0], "not all 0"),
        ([np.inf, 1], "finite"),
    ],
)
def test_impossible_weights_are_refused(weights, message):
    with pytest.raises(ValueError, match=f"reweight: the weights must be .*{message}"):
        expectations(np.array(weights, np.float64), 10)


def test_a_proportion_for_a_directory_without_samples_is_refused():
    with pytest.raises(ValueError, match="one number for each shard directory"):
        expectations(np.ones(4), 4, sources=np.zeros(4, np.int64), proportions=[1, 1])


@pytest.mark.parametrize("proportions", [[-1, 2], [0, 0], [np.nan, 1], [np.inf, 1]])
def test_impossible_proportions_are_shown(proportions):
    message = f"proportions must be finite, at least 0 and not all 0, got {proportions}"
    with pytest.raises(ValueError, match=re.escape(message)):
        expectations(np.ones(4), 4, sources=np.array([0, 0, 1, 1]), proportions=proportions)


@pytest.mark.parametrize("seed", ["1", 1.0, True, None])
def test_a_seed_that_is_no_integer_is_refused(seed):
    message = f"seed must be an integer in [0, 2**63), got {seed!r}"
    with pytest.raises(TypeError, match=re.escape(message)):
        order_of([0, 1], seed=seed)


TABLE = SampleTable(
    labels=np.array([0, 1, 1]),
    shards=np.zeros(3, np.int64),
    sources=np.zeros(3, np.int64),
    classes=("ash", "birch"),
)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": "ash"}, "classes must be a list of names, got 'ash'"),
        ({"classes": [0, 1]}, "classes must be a list of names, got [0, 1]"),
        ({"classes": 1}, "classes must be a list of names, got 1"),
        ({"indices": [0.0, 1.0]}, "indices must be integers, rows of the split's index, got float"),
        ({"indices": [True, False, True]}, "indices must be integers"),
        ({"indices": "ash"}, "indices must be integers"),
        ({"first": 2.5}, "first must be an integer at least 1, got 2.5"),
        ({"first": True}, "first must be an integer at least 1, got True"),
        ({"proportions": 0.5}, "proportions must be a row of numbers, got 0.5"),
        ({"proportions": ["1", "2"]}, "proportions must be a row of numbers, got ['1', '2']"),
    ],
)
def test_a_selection_of_another_type_is_refused(options: dict[str, Any], message):
    with pytest.raises(TypeError, match=re.escape(message)):
        Select(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["elm"]}, "classes has 'elm', which the shards do not have"),
        ({"indices": [0, 3]}, "indices must be in [0, 3), got 3"),
        ({"indices": np.array([-1])}, "indices must be in [0, 3), got -1"),
        ({"first": 0}, "first must be at least 1, got 0"),
        ({"indices": []}, "select leaves no samples"),
    ],
)
def test_a_selection_that_does_not_fit_is_refused(options: dict[str, Any], message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Select(**options).rows(TABLE)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epoch_size": 0}, ValueError, "epoch_size must be at least 1, got 0"),
        ({"epoch_size": 2.5}, TypeError, "epoch_size must be an integer at least 1, got 2.5"),
        ({"epoch_size": "9"}, TypeError, "epoch_size must be an integer at least 1, got '9'"),
        ({"reweight": ["a", "b", "c"]}, TypeError, "reweight must be a rule or a row of numbers"),
        ({"reweight": True}, ValueError, "reweight must have a weight for each of the 3 samples"),
        ({"reweight": "cube"}, ValueError, 'reweight must be "inverse", "sqrt"'),
        ({"reweight": "effective:nan"}, ValueError, "BETA of effective:BETA must be in [0, 1)"),
        ({"kind": "random"}, ValueError, 'order must be "shuffled", "sequential" or "index"'),
        ({"kind": None}, ValueError, "got None"),
    ],
)
def test_an_order_that_is_wrong_is_refused(options: dict[str, Any], error, message):
    defaults = {"kind": "shuffled", "select": Select(), "reweight": None, "epoch_size": None}
    with pytest.raises(error, match=re.escape(message)):
        resolved_order(TABLE, **{**defaults, "seed": 0, **options})


def test_a_selection_keeps_what_fits():
    assert Select(classes=("birch",), indices=range(2)).rows(TABLE).tolist() == [1]
