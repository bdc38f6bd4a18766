"""The permutation that is computed place by place: exact, and as random as NumPy's."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fastload import randomness
from fastload.load.shuffle import permuted


def keys_of(seed: int, count: int = 1) -> np.ndarray:
    return randomness.hashes(seed, 0, np.arange(count))


def order(length: int, seed: int) -> np.ndarray:
    return permuted(np.arange(length), lengths=length, keys=keys_of(seed))


def strange(chi_square: float, freedom: int) -> float:
    """How many standard deviations a sum of squares is above what chance gives."""
    return (chi_square - freedom) / math.sqrt(2 * freedom)


def test_a_golden_permutation_guards_upgrades():
    assert order(10, 0).tolist() == [2, 4, 0, 8, 7, 1, 3, 9, 5, 6]
    far = permuted(np.arange(5), lengths=10**9, keys=keys_of(0))
    assert far.tolist() == [105180538, 753028141, 383813611, 612913165, 755640867]


@pytest.mark.parametrize("length", [*range(1, 70), 97, 1000, 4096, 65_537, 300_000])
def test_every_element_comes_once(length):
    for seed in range(3):
        assert np.array_equal(np.sort(order(length, seed)), np.arange(length))


def test_places_of_many_lengths_and_keys_are_permuted_as_one_by_one():
    lengths = np.random.default_rng(0).integers(1, 200, 1000)
    places = np.random.default_rng(1).integers(0, lengths)
    keys = keys_of(4, 1000)
    together = permuted(places, lengths=lengths, keys=keys)
    for number in range(0, 1000, 37):
        part = slice(number, number + 1)
        alone = permuted(places[part], lengths=int(lengths[number]), keys=keys[part])
        assert alone == together[part]


@pytest.mark.parametrize("length", [10**9, 2**36, 2**50])
def test_a_range_of_a_huge_permutation_has_no_element_twice(length):
    found = permuted(np.arange(200_000), lengths=length, keys=keys_of(1))
    assert len(np.unique(found)) == 200_000
    assert 0 <= found.min() < found.max() < length


@pytest.mark.parametrize("length", [2, 3, 4, 5, 6])
def test_all_orders_of_few_elements_are_equally_frequent(length):
    draws = 400 * math.factorial(length)
    keys = keys_of(9, draws)
    places = [permuted(np.full(draws, p), lengths=length, keys=keys) for p in range(length)]
    code = sum(place * length**power for power, place in enumerate(places))
    counts = np.unique(code, return_counts=True)[1]
    assert len(counts) == math.factorial(length)
    assert strange(((counts - 400) ** 2 / 400).sum(), len(counts) - 1) < 5


@pytest.mark.parametrize(("length", "cells"), [(50, 50), (64, 64), (1000, 50)])
def test_positions_of_each_element_are_uniform_over_keys(length, cells):
    keys = keys_of(2, 40 * cells)
    for place in (0, 1, length // 2, length - 1):
        found = permuted(np.full(len(keys), place), lengths=length, keys=keys)
        counts = np.bincount(found * cells // length, minlength=cells)
        assert strange(((counts - 40) ** 2 / 40).sum(), cells - 1) < 5


@pytest.mark.parametrize("length", [1000, 100_003, 10**9])
def test_neighbours_are_as_far_apart_as_in_numpy_s_permutation(length):
    """Serial test: pairs of neighbours fill a table of 16 x 16 cells evenly, as NumPy's do."""
    many = min(length, 100_000)
    found = permuted(np.arange(many), lengths=length, keys=keys_of(3))
    other = np.random.default_rng(3).permutation(many) * (length / many)

    def pairs(values: np.ndarray) -> float:
        cells = (values / length * 16).astype(int)
        table = np.bincount(cells[:-1] * 16 + cells[1:], minlength=256)
        expected = (len(values) - 1) / 256
        return strange(((table - expected) ** 2 / expected).sum(), 255)

    assert pairs(found) < max(5, pairs(other) + 5)
    distance = np.abs(np.diff(found)).mean() / length
    assert abs(distance - 1 / 3) < 5 * math.sqrt(1 / 18 / many)


@pytest.mark.parametrize("length", [1 << 14, 10_007])
def test_no_frequency_stands_out(length):
    """Spectral test: the largest of the frequencies of an order is one that chance gives."""
    for seed in range(4):
        values = order(length, seed) - (length - 1) / 2
        power = np.abs(np.fft.rfft(values)[1:]) ** 2 / (values**2).sum()
        assert power.max() < math.log(len(power)) + 9  # exponential, P < 1.3e-4 of the maximum


def test_two_epochs_and_two_seeds_have_nothing_in_common():
    length, keys = 4001, keys_of(7, 6)
    orders = [permuted(np.arange(length), lengths=length, keys=keys[n : n + 1]) for n in range(6)]
    for number, one in enumerate(orders):
        for other in orders[:number]:
            assert (one == other).sum() < 12  # one is expected
            assert abs(np.corrcoef(one, other)[0, 1]) < 5 / math.sqrt(length)
            shifts = np.bincount((one - other) % length, minlength=length)
            assert shifts.max() < 12
