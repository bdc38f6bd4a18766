"""How often each sample comes: weights of classes, expected counts, whole counts.

class sizes, rule -> class_weights -> expectations of an epoch -> systematic_counts, whole numbers
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from decimal import Context, Decimal, localcontext

import numpy as np
from numpy.typing import NDArray

from fastload.arguments import shown


def class_weights(counts: NDArray[np.integer], rule: str) -> NDArray[np.float64]:
    """How often a sample of each class is drawn, relative to other samples, by the class's size.

    Args:
        counts: [C], samples of each class.
        rule: "inverse" (1/n: every class equally often), "sqrt" (1/sqrt(n)), or "effective:BETA"
            with BETA in [0, 1), the (1 - BETA) / (1 - BETA**n) of Cui et al., "Class-balanced loss
            based on effective number of samples" (CVPR 2019, eq. 2). There the number weights the
            loss; here it weights the draws.

    Returns:
        float64 [C], above 0; of a class without samples, that of a class of one.

    Raises:
        ValueError: If the rule is none of these.
    """
    present = np.maximum(counts, 1).astype(np.float64)
    weights: NDArray[np.float64]
    if rule == "inverse":
        weights = 1 / present
        return weights
    if rule == "sqrt":
        weights = 1 / np.sqrt(present)
        return weights
    if not rule.startswith("effective:"):
        raise ValueError(
            f'reweight must be "inverse", "sqrt", "effective:BETA" or an array, got {rule!r}'
        )
    sizes, place = np.unique(np.maximum(counts, 1), return_inverse=True)
    weights = np.array(_effective_weights(_effective_beta(rule), sizes.tolist()))
    return weights[place]


def _effective_beta(rule: str) -> float:
    try:
        beta = float(rule.partition(":")[2])
    except ValueError:
        beta = -1.0
    if not 0 <= beta < 1:
        raise ValueError(f"BETA of effective:BETA must be in [0, 1), got {rule!r}")
    return beta


def _effective_weights(beta: float, sizes: Sequence[int]) -> list[float]:
    """In decimal arithmetic: logarithms of floats differ in the last bit between processors."""
    # 50 digits: 1 - BETA**n keeps those of a float, however close BETA is to 1.
    with localcontext(Context(prec=50)):
        exact = Decimal(beta)
        return [float((1 - exact) / (1 - exact**size)) for size in sizes]


def describe_weights(
    reweight: str | None,
    weights: NDArray[np.float64] | None,
    proportions: Sequence[float] | None,
) -> str:
    """What `expectations` is made of, as a text that two runs can compare on any processor.

    A rule is named. Weights of the caller's own are rounded to some 9 digits, and of any scale: the
    caller may have computed them on another processor, whose last bits differ.

    Args:
        reweight: The rule; None where the caller gave the weights.
        weights: float64 [N], the weight of each sample, where the caller gave them.
        proportions: As for `expectations`.

    Returns:
        "" where all weights are equal and there are no proportions.
    """
    parts = []
    if reweight is not None:
        name, _, beta = reweight.partition(":")
        parts.append(f"{name}:{float(beta)!r}" if beta else name)
    elif weights is not None and not (weights == weights[0]).all():
        parts.append(hashlib.sha256(_rounded(weights / weights.max()).tobytes()).hexdigest())
    if proportions is not None:
        shares = _near_one(np.asarray(proportions, np.float64))
        parts.append(f"proportions {_rounded(shares / shares.sum()).tolist()}")
    return " ".join(parts)


def _rounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values rounded to 30 binary digits."""
    mantissas, exponents = np.frexp(values)
    rounded: NDArray[np.float64] = np.ldexp(np.rint(mantissas * 2**30), exponents - 30)
    return rounded.astype("<f8") + 0.0  # no -0.0


def expectations(
    weights: NDArray[np.float64],
    length: int,
    *,
    counts: NDArray[np.integer] | None = None,
    sources: NDArray[np.integer] | None = None,
    proportions: Sequence[float] | None = None,
) -> NDArray[np.float64]:
    """How many draws each sample, or each group of like samples, expects in an epoch of `length`.

    Args:
        weights: float64 [N], at least 0, finite, not all 0; of each sample, or of each sample of a
            group.
        length: Positions of the epoch, at least 1.
        counts: [N], samples of each group; 1 of each when None.
        sources: [N], the shard directory that each is from.
        proportions: Share of the epoch for each shard directory; any scale.

    Returns:
        float64 [N] with the sum `length`.

    Raises:
        ValueError: If weights or proportions are negative, not finite, or all zero.
    """
    if not _are_shares(weights):
        raise ValueError("reweight: the weights must be finite, at least 0 and not all 0")
    weights = _near_one(weights) * (1 if counts is None else counts)
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
    shares = _near_one(shares)
    factors = shares / shares.sum() * length / np.where(totals > 0, totals, 1)
    expected: NDArray[np.float64] = weights * factors[sources]
    return expected


def _near_one(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values times a power of two, which changes no digit: the sum of huge ones has no end."""
    scaled: NDArray[np.float64] = np.ldexp(values, -np.frexp(values.max())[1])
    return scaled


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
    # Whole parts are added as integers: floats lose what the ruler goes by from some 10**9 on.
    whole = np.floor(expected)
    ends, parts = np.cumsum(whole.astype(np.int64)), np.cumsum(expected - whole)
    total = int(ends[-1]) + round(float(parts[-1]))
    # The offset is kept half a grid step away from whole numbers: otherwise the rounding error of
    # the sum would decide on which side of a mark the end of a segment lies.
    grid = 2**16
    marks = ends + np.floor(parts + (np.floor(offset * grid) + 0.5) / grid).astype(np.int64)
    marks[-1] = total
    np.minimum(marks, total, out=marks)
    counts: NDArray[np.int64] = np.diff(marks, prepend=0)
    return counts
