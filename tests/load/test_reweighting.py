"""Counts: exact, as their formulas say; impossible weights are refused."""

from __future__ import annotations

import re

import numpy as np
import pytest

from fastload.load.reweighting import class_weights, expectations, systematic_counts


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
