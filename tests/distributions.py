"""The two-sample test of Kolmogorov and Smirnov, for the tests of distributions."""

from __future__ import annotations

import numpy as np


def ks_distance(one: np.ndarray, two: np.ndarray) -> float:
    """The largest distance of two empirical distribution functions."""
    values = np.sort(np.concatenate([one, two]))
    first = np.searchsorted(np.sort(one), values, side="right") / len(one)
    second = np.searchsorted(np.sort(two), values, side="right") / len(two)
    return float(np.abs(first - second).max())


def ks_limit(one: int, two: int) -> float:
    """What the distance of two samples of one distribution exceeds once in a thousand times."""
    return 1.95 * float(np.sqrt((one + two) / (one * two)))


def same_distribution(one: np.ndarray, two: np.ndarray) -> bool:
    return ks_distance(one, two) < ks_limit(len(one), len(two))
