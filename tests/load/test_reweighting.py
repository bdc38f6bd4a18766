"""Counts: exact, as their formulas say; impossible weights are refused."""

from __future__ import annotations

import re
from fractions import Fraction

import numpy as np
import pytest

from fastload.load.reweighting import (
    class_weights,
    describe_weights,
    expectations,
    systematic_counts,
)


def test_whole_expectations_are_met_exactly():
    for offset in np.linspace(0, 0.999, 50):
        assert systematic_counts(np.ones(100_000), offset).max() == 1
        assert systematic_counts(np.full(30_000, 1 / 3), offset).sum() == 10_000


def test_class_weights_are_those_of_their_formulas():
    counts = np.array([8, 2])
    assert class_weights(counts, "inverse").tolist() == [1 / 8, 1 / 2]
    assert class_weights(counts, "sqrt")[1] == pytest.approx(1 / np.sqrt(2))
    beta = 0.99
    expected = [(1 - beta) / (1 - beta**8), (1 - beta) / (1 - beta**2)]
    assert class_weights(counts, "effective:0.99") == pytest.approx(expected)
    assert class_weights(counts, "effective:0").tolist() == [1.0] * 2


def test_a_group_expects_what_its_samples_expect_together():
    counts, sources = np.array([3, 1, 6]), np.array([0, 1, 1])
    weights = np.array([0.5, 2.0, 1.0])
    for proportions in (None, [1, 3]):
        groups = expectations(weights, 20, counts=counts, sources=sources, proportions=proportions)
        samples = expectations(
            np.repeat(weights, counts),
            20,
            sources=np.repeat(sources, counts),
            proportions=proportions,
        )
        assert groups == pytest.approx(np.bincount(np.repeat([0, 1, 2], counts), samples))


def test_counts_of_billions_are_exact():
    expected = np.array([2.0**33 + 0.25, 0.5, 2.0**33 + 0.25, 3.0])
    for offset in (0.0, 0.3, 0.6, 0.999):
        counts = systematic_counts(expected, offset)
        assert counts.sum() == 2**34 + 4
        assert (np.abs(counts - expected) < 1).all()
        assert counts[3] == 3


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


@pytest.mark.parametrize("scale", [1e308, 1.0, 1e-320])
def test_weights_and_proportions_may_be_as_large_or_small_as_floats_are(scale):
    weights, sources = np.full(4, scale), np.array([0, 0, 0, 1])
    assert expectations(weights, 8) == pytest.approx([2, 2, 2, 2])
    shares = [scale, scale]
    expected = expectations(weights, 6, sources=sources, proportions=shares)
    assert expected == pytest.approx([1, 1, 1, 3])
    assert describe_weights(None, weights, shares) == "proportions [0.5, 0.5]"


def test_a_proportion_for_a_directory_without_samples_is_refused():
    with pytest.raises(ValueError, match="one number for each shard directory"):
        expectations(np.ones(4), 4, sources=np.zeros(4, np.int64), proportions=[1, 1])


@pytest.mark.parametrize("proportions", [[-1, 2], [0, 0], [np.nan, 1], [np.inf, 1]])
def test_impossible_proportions_are_shown(proportions):
    message = f"proportions must be finite, at least 0 and not all 0, got {proportions}"
    with pytest.raises(ValueError, match=re.escape(message)):
        expectations(np.ones(4), 4, sources=np.array([0, 0, 1, 1]), proportions=proportions)


@pytest.mark.parametrize("beta", [0.5, 0.9, 0.999, 1 - 1e-12, 1 - 2**-53, 1e-300])
def test_effective_weights_are_the_floats_nearest_to_their_formula(beta: float):
    exact = Fraction(beta)
    for size in (1, 2, 3, 10, 47):
        expected = float((1 - exact) / (1 - exact**size))
        assert class_weights(np.array([size]), f"effective:{beta!r}")[0] == expected


def described(weights, rule=None, proportions=None) -> str:
    return describe_weights(rule, np.asarray(weights, np.float64), proportions)


def test_equal_weights_need_no_words():
    assert described([1, 1, 1]) == described([7, 7, 7]) == ""


def test_weights_are_the_same_whatever_their_scale_and_their_last_bits():
    weights = 1 / np.log(1.2 + np.arange(1, 1000))
    text = described(weights)
    assert described(3.7 * weights) == text
    assert described(np.nextafter(weights, 0)) == text
    assert described(np.nextafter([1.0, 0.5], 2)) == described([1, 0.5])
    assert described(weights * np.r_[1.0001, np.ones(998)]) != text
    assert described(weights[::-1]) != text


def test_a_rule_is_named_as_the_number_that_it_holds():
    assert described([1, 2], "effective:0.90") == described([3, 4], "effective:.9")
    texts = {described([1, 2], rule) for rule in ("inverse", "sqrt", "effective:0.9")}
    assert len(texts) == 3


def test_proportions_are_shares_of_any_scale():
    assert described([1, 1], None, [1, 3]) == described([1, 1], None, [0.1, 0.3])
    assert described([1, 1], None, [1, 3]) != described([1, 1], None, [1, 2])
    assert described([1, 1], None, [1, 3]) != described([1, 1])
