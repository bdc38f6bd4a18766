"""How often each sample comes: weights of classes, expected counts, whole counts.

labels, rule -> class_weights -> expectations of an epoch -> systematic_counts, whole numbers
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fastload.arguments import shown


def class_weights(labels: NDArray[np.integer], rule: str) -> NDArray[np.float64]:
    """How often each sample is drawn, relative to other samples, by the size of its class.

    Args:
        labels: [N], class numbers, at least 0.
        rule: "inverse" (1/n: every class equally often), "sqrt" (1/sqrt(n)), or "effective:BETA"
            with BETA in [0, 1), the (1 - BETA) / (1 - BETA**n) of Cui et al., "Class-balanced loss
            based on effective number of samples" (CVPR 2019, eq. 2). There the number weights the
            loss; here it weights the draws.

    Returns:
        float64 [N], above 0.

    Raises:
        ValueError: If the rule is none of these.
    """
    counts = np.bincount(labels)
    present = np.maximum(counts, 1).astype(np.float64)
    if rule == "inverse":
        weights = 1 / present
    elif rule == "sqrt":
        weights = 1 / np.sqrt(present)
    elif rule.startswith("effective:"):
        beta = _effective_beta(rule)
        # expm1 and log1p: 1 - BETA**n keeps its digits where BETA is close to 1.
        weights = (1 - beta) / -np.expm1(present * np.log(beta)) if beta else np.ones_like(present)
    else:
        raise ValueError(
            f'reweight must be "inverse", "sqrt", "effective:BETA" or an array, got {rule!r}'
        )
    chosen: NDArray[np.float64] = weights[labels]
    return chosen


def _effective_beta(rule: str) -> float:
    try:
        beta = float(rule.partition(":")[2])
    except ValueError:
        beta = -1.0
    if not 0 <= beta < 1:
        raise ValueError(f"BETA of effective:BETA must be in [0, 1), got {rule!r}")
    return beta


def expectations(
    weights: NDArray[np.float64],
    length: int,
    *,
    sources: NDArray[np.integer] | None = None,
    proportions: Sequence[float] | None = None,
) -> NDArray[np.float64]:
    """How many times each sample is expected in an epoch of `length`.

    Args:
        weights: float64 [N], at least 0, finite, not all 0.
        length: Positions of the epoch, at least 1.
        sources: [N], the shard directory that each sample is from.
        proportions: Share of the epoch for each shard directory; any scale.

    Returns:
        float64 [N] with the sum `length`.

    Raises:
        ValueError: If weights or proportions are negative, not finite, or all zero.
    """
    if not _are_shares(weights):
        raise ValueError("reweight: the weights must be finite, at least 0 and not all 0")
    if sources is None or proportions is None:
        scaled: NDArray[np.float64] = weights * (length / weights.sum())
        return scaled
    shares = np.asarray(proportions, np.float64)
    if not _are_shares(shares):
        raise ValueError(
            f"proportions must be finite, at least 0 and not all 0, got {shown(proportions)}"
        )
    totals = np.bincount(sources, weights, minlength=len(shares))
    if len(totals) > len(shares) or ((totals == 0) & (shares > 0)).any():
        raise ValueError(
            f"proportions must have one number for each shard directory, 0 for one without samples,"
            f" got {shown(proportions)}"
        )
    factors = shares / shares.sum() * length / np.where(totals > 0, totals, 1)
    expected: NDArray[np.float64] = weights * factors[sources]
    return expected


def _are_shares(values: NDArray[np.float64]) -> bool:
    return bool(np.isfinite(values).all() and (values >= 0).all() and values.any())


def systematic_counts(expected: NDArray[np.float64], offset: float) -> NDArray[np.int64]:
    """Whole counts with the given expectations, by systematic resampling.

    The expectations are laid end to end as segments of a line, and a ruler with a mark at every
    whole number is laid over the line; the count of a sample is the number of marks on its segment.
    So each sample, and each range of neighbours, gets the floor or the ceiling of what it expects,
    and the sum of the counts is exact.

    Args:
        expected: float64 [N], at least 0, with a whole sum.
        offset: Where the ruler begins, in [0, 1). For a uniform offset, the mean of each count is
            its expectation.

    Returns:
        int64 [N].
    """
    ends = np.cumsum(expected)
    total = round(float(ends[-1]))
    # The offset is kept half a grid step away from whole numbers: otherwise the rounding error of
    # the sum would decide on which side of a mark the end of a segment lies.
    grid = 2**16
    marks = np.floor(ends + (np.floor(offset * grid) + 0.5) / grid).astype(np.int64)
    marks[-1] = total
    np.minimum(marks, total, out=marks)
    counts: NDArray[np.int64] = np.diff(marks, prepend=0)
    return counts
