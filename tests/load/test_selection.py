"""What a user asks for is resolved, or refused by the name of the argument."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas
import pytest
import torch

from fastload.load.draws import BySample
from fastload.load.reweighting import class_weights, expectations
from fastload.load.sampling import order_of
from fastload.load.selection import SampleTable, Select

TABLE = SampleTable(
    labels=np.array([0, 1, 1]),
    shards=np.zeros(3, np.int64),
    offsets=np.arange(3),
    sources=np.zeros(3, np.int64),
    classes=("ash", "birch"),
)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": "ash"}, "classes must be a list of names, got 'ash'"),
        ({"classes": [0, 1]}, "classes must be a list of names, got [0, 1]"),
        ({"classes": 1}, "classes must be a list of names, got 1"),
        ({"indices": [0.0, 1.0]}, "indices must be a row of integers"),
        ({"indices": "ash"}, "indices must be a row of integers, or of bools, one for each sample"),
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
        ({"classes": ["elm"]}, "classes has 'elm', which the shards do not have; they have ['ash'"),
        ({"classes": ["Birch"]}, "did you mean 'birch'?"),
        ({"indices": [0, 3]}, "indices must be in [0, 3), or in [-3, -1] from the end, got 3"),
        ({"indices": np.array([-4])}, "in [0, 3), or in [-3, -1] from the end, got -4"),
        ({"first": 0}, "first must be at least 1, got 0"),
        ({"indices": []}, "select leaves no samples of the 3 of the split: Select(indices=[])"),
    ],
)
def test_a_selection_that_does_not_fit_is_refused(options: dict[str, Any], message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Select(**options).taking_part(TABLE).all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epoch_size": 0}, ValueError, "epoch_size must be in [1, 68719476736], got 0"),
        (
            {"epoch_size": 2.5},
            TypeError,
            "epoch_size must be an integer in [1, 68719476736], got 2.5",
        ),
        (
            {"epoch_size": "9"},
            TypeError,
            "epoch_size must be an integer in [1, 68719476736], got '9'",
        ),
        (
            {"kind": "sequential", "epoch_size": 2**36},
            ValueError,
            "whose order fills the memory of this machine, got 68,",
        ),
        ({"reweight": ["a", "b", "c"]}, TypeError, "reweight must be a rule or a row of numbers"),
        (
            {"reweight": True},
            TypeError,
            "reweight must be a rule or a row of numbers, one for each",
        ),
        ({"reweight": [1, 2]}, ValueError, "reweight must have a weight for each of the 3 samples"),
        ({"reweight": "cube"}, ValueError, 'reweight must be "inverse", "sqrt"'),
        ({"reweight": "effective:nan"}, ValueError, "BETA of effective:BETA must be in [0, 1)"),
        ({"select": [0, 1]}, TypeError, "select must be Select, got [0, 1]"),
        ({"kind": "random"}, ValueError, 'order must be "shuffled", "sequential" or "index"'),
        ({"kind": None}, ValueError, "got None"),
    ],
)
def test_an_order_that_is_wrong_is_refused(options: dict[str, Any], error, message):
    defaults = {"kind": "shuffled", "select": Select(), "reweight": None, "epoch_size": None}
    with pytest.raises(error, match=re.escape(message)):
        order_of(TABLE, **{**defaults, "seed": 0, **options})


def test_weights_may_be_a_tensor_that_is_learned():
    orders = [
        order_of(TABLE, kind="shuffled", select=Select(), reweight=w, epoch_size=6, seed=0)
        for w in ([1.0, 2.0, 3.0], torch.tensor([1.0, 2.0, 3.0], requires_grad=True))
    ]
    for order in orders:
        assert isinstance(order.sampling, BySample)
        assert order.sampling.expected.tolist() == [1, 2, 3]


def test_a_selection_keeps_what_fits():
    assert Select(classes=("birch",), indices=range(2)).taking_part(TABLE).all().tolist() == [1]


MASK = [True, False, True]


@pytest.mark.parametrize(
    "mask",
    [
        MASK,
        tuple(MASK),
        iter(MASK),
        np.array(MASK),
        np.array(MASK, object),
        torch.tensor(MASK),
        pandas.Series(MASK, index=[7, 8, 9]),
        pandas.Series(MASK, dtype="boolean"),
    ],
    ids=lambda mask: type(mask).__name__,
)
def test_a_mask_keeps_the_samples_where_it_is_true(mask: Any):
    assert Select(indices=mask).taking_part(TABLE).all().tolist() == [0, 2]


@pytest.mark.parametrize("mask", [[True], MASK * 2, np.zeros(4, bool), torch.ones(2).bool()])
def test_a_mask_of_another_length_is_refused_with_both_lengths(mask: Any):
    message = f"indices is a mask of {len(mask)} bools, and there are 3 samples"
    with pytest.raises(ValueError, match=message):
        Select(indices=mask).taking_part(TABLE).all()


@pytest.mark.parametrize("number", [np.int64, np.uint8, np.float32])
def test_a_mask_of_numbers_is_not_taken_for_rows(number: type):
    with pytest.raises((TypeError, ValueError), match=r"pass bools|\.astype\(int\)"):
        Select(indices=np.array([1, 0, 0]).astype(number)).taking_part(TABLE).all()


@pytest.mark.parametrize(
    "indices",
    [
        [2, -3],
        (0, 2),
        {0, 2},
        range(0, 3, 2),
        slice(None, None, 2),
        (row for row in (2, 0)),
        np.array([2, 0], np.uint64),
        torch.tensor([0, 2], dtype=torch.int8),
        pandas.Series([0, 2], dtype="Int64"),
        pandas.Index([0, 2]),
    ],
    ids=lambda indices: type(indices).__name__,
)
def test_rows_may_be_named_as_python_numpy_torch_and_pandas_do(indices: Any):
    selection = Select(indices=indices)
    assert selection.taking_part(TABLE).all().tolist() == [0, 2]
    assert selection.taking_part(TABLE).all().tolist() == [0, 2]  # a generator too is asked once


@pytest.mark.parametrize(
    "indices",
    [
        *(5, print, b"\0", {0: 1}, [True, 2], [[0], [1, 2]], ["0"], [None]),
        *([np.nan], [1.5], np.array([1], "m8[s]"), np.array(2), torch.tensor([1.0]), [2**70]),
        torch.tensor([1], dtype=torch.bfloat16),
        pandas.Series([True, None, True], dtype="boolean"),
    ],
    ids=repr,
)
def test_what_names_no_rows_is_refused(indices: Any):
    with pytest.raises(TypeError, match="indices must be a row of integers, or of bools, one for"):
        Select(indices=indices)


@pytest.mark.parametrize(
    "indices", [[[0, 1]], np.nonzero(np.array(MASK)), torch.tensor([[0], [2]])]
)
def test_rows_of_two_dimensions_are_refused(indices: Any):
    with pytest.raises(ValueError, match=r"got the shape \[\d, \d\]; of what np.where gives, take"):
        Select(indices=indices)


@pytest.mark.parametrize("indices", [[1, 1], [0, -3]])
def test_a_row_named_twice_is_refused_as_it_would_come_once(indices: list[int]):
    with pytest.raises(ValueError, match=r"2 times, a row counts once; pass np\.unique\(indices\)"):
        Select(indices=indices).taking_part(TABLE).all()


def test_a_selection_says_what_it_keeps_and_does_not_change_with_the_callers_array():
    rows = np.array([0, 1])
    selection = Select(classes=["ash"], indices=rows, first=1)
    rows[:] = 2
    assert repr(selection) == "Select(classes=['ash'], indices=[0, 1], first=1)"
    assert selection.taking_part(TABLE).all().tolist() == [0]
    assert len(repr(Select(indices=range(10**6)))) < 200


def test_a_misspelt_option_is_told():
    with pytest.raises(TypeError, match=r"Select has no option indexes; did you mean 'indices'\?"):
        Select(indexes=[1])  # type: ignore[call-arg]


@pytest.mark.parametrize("proportions", [None, [5, 3, 1]])
@pytest.mark.parametrize("rule", ["inverse", "sqrt", "effective:0.9", None])
def test_a_class_in_several_directories_gets_floor_or_ceil_of_what_it_expects(
    rule: str | None, proportions: list[int] | None
) -> None:
    random = np.random.default_rng(0)
    sizes = (60 / np.arange(1, 41)).astype(int) + 1
    labels = random.permutation(np.repeat(np.arange(40), sizes))
    sources = np.sort(random.integers(0, 3, len(labels)))
    table = SampleTable(
        labels=labels,
        shards=sources,
        offsets=np.arange(len(labels)),
        sources=sources,
        classes=[str(number) for number in range(40)],
        directories=3,
    )
    for epoch_size in (40, 57, 200):
        select = Select(proportions=proportions)
        order = order_of(
            *(table,), kind="shuffled", select=select, reweight=rule, epoch_size=epoch_size, seed=3
        )
        weights = np.ones(len(labels))
        if rule is not None:
            weights = class_weights(np.bincount(labels), rule)[labels]
        expected = expectations(weights, epoch_size, sources=sources, proportions=proportions)
        of_class = np.bincount(labels, expected)
        of_part = np.bincount(labels * 3 + sources, expected, minlength=120)
        for epoch in range(30):
            rows = order.epoch(epoch).rows(np.arange(order.length))
            assert len(rows) == epoch_size
            samples = np.bincount(rows, minlength=len(labels)) - expected
            classes = np.bincount(labels[rows], minlength=40) - of_class
            parts = np.bincount(labels[rows] * 3 + sources[rows], minlength=120) - of_part
            for difference in (samples, classes, parts):
                assert np.abs(difference).max() < 1
