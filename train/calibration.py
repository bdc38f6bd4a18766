"""Probabilities that mean something: of answers said to be 80 % sure, 80 % are right.

Temperature scaling (Guo et al., "On calibration of modern neural networks", ICML 2017, section
4.2): logits are divided by one number, which minimises the loss on the validation split. The order
of the answers stays what it was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

BINS = 15  # as Guo et al. have them

# The logarithms of the inverse temperatures at which a loss is known: from 1/8 to 8, three for each
# factor of 2. Between two of them the derivative is taken for a cubic, right to about 1e-4.
_STEP = math.log(2) / 3
_GRID = tuple(_STEP * place for place in range(-9, 10))

# The logarithm of the temperature is expected within 1 of 0 (a normal distribution): one split of
# a few samples, or whose answers are all right, would have any temperature or 0 else. For 1,000
# samples this moves the temperature by some 0.2 %, for 30,000 by less than 0.01 %.
_SPREAD = 1.0

_ROWS_AT_ONCE = 256


class TemperatureFit:
    """Finds the temperature from batches of logits, none of which is kept."""

    def __init__(self) -> None:
        # Loss, and its first and second derivative by the inverse temperature: sums over samples.
        self._sums = torch.zeros(len(_GRID), 3, dtype=torch.float64)

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """See the logits, float32 [N, C], and labels, int64 [N], of more samples."""
        scores = logits - logits.amax(1, keepdim=True)
        own = scores.gather(1, labels[:, None])[:, 0].double()
        rows = []
        for place in _GRID:
            inverse = math.exp(place)
            powers = torch.exp(scores * inverse)
            total = powers.sum(1).double()
            mean = (powers * scores).sum(1).double() / total
            square = (powers * scores.square()).sum(1).double() / total
            loss = total.log() - inverse * own
            rows.append(torch.stack([loss, mean - own, square - mean.square()], 1).sum(0))
        self._sums = self._sums.to(logits.device) + torch.stack(rows)

    def sums(self) -> Tensor:
        """float64 [P, 3]: what fits over parts of a split add up."""
        return self._sums


def temperature_of(sums: Tensor) -> float:
    """The temperature that minimises the loss, to six digits.

    Args:
        sums: The sum of `TemperatureFit.sums` over all parts of the validation split.

    Returns:
        In [1/8, 8]; 1 where there is no sample.
    """
    places = torch.tensor(_GRID, dtype=torch.float64)
    loss, first, second = sums.cpu().unbind(1)
    inverse = places.exp()
    prior = places / _SPREAD**2
    # By the logarithm of the inverse temperature.
    slope = inverse * first + prior
    bend = inverse * first + inverse.square() * second + 1 / _SPREAD**2
    best = int((loss + 0.5 * places * prior).argmin())
    left = best if slope[best] <= 0 else best - 1
    if not 0 <= left < len(_GRID) - 1:
        return float(f"{math.exp(-_GRID[best]):.6g}")
    ends = [(float(slope[i]), float(bend[i]) * _STEP) for i in (left, left + 1)]
    place = _GRID[left] + _STEP * _root(*ends)
    return float(f"{math.exp(-place):.6g}")


def _root(left: tuple[float, float], right: tuple[float, float]) -> float:
    """Where in [0, 1] the cubic with these values and derivatives at 0 and 1 rises through 0."""
    (a, da), (b, db) = left, right
    low, high = 0.0, 1.0
    for _ in range(50):
        x = (low + high) / 2
        y = 1 - x
        value = y * y * ((1 + 2 * x) * a + x * da) + x * x * ((1 + 2 * y) * b - y * db)
        low, high = (x, high) if value < 0 else (low, x)
    return (low + high) / 2


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature of a validation split whose logits are at hand.

    Args:
        logits: float [N, C], finite.
        labels: int64 [N] in [0, C).

    Returns:
        In [1/8, 8]; a model that is too sure of its answers has more than 1.
    """
    fit = TemperatureFit()
    for start in range(0, len(labels), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        fit.add(logits[rows].float(), labels[rows])
    return temperature_of(fit.sums())


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Answers of about the same confidence.

    Attributes:
        count: How many there are.
        confidence: Their mean probability; NaN for none.
        accuracy: The share of them that are right; NaN for none.
    """

    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How far confidences are from shares of right answers.

    Attributes:
        error: The expected calibration error: the mean over samples of |confidence - accuracy| of
            the sample's bin; NaN without samples.
        bins: Of equal width in [0, 1], from the least confident on.
    """

    error: float
    bins: tuple[Bin, ...]


def calibration(probabilities: Tensor, labels: Tensor, bins: int = BINS) -> Calibration:
    """The calibration of a model on a split.

    Args:
        probabilities: float [N, C].
        labels: int64 [N] in [0, C).
        bins: How many bins of equal width.
    """
    confidences, answers = probabilities.max(1)
    return calibration_of(confidences, answers == labels, bins)


def calibration_of(confidences: Tensor, right: Tensor, bins: int = BINS) -> Calibration:
    """The calibration of a model by its answers.

    Args:
        confidences: float [N] in [0, 1], the probability of each answer.
        right: bool [N], whether the answer is the true class.
        bins: How many bins of equal width; as in Guo et al. a bin has its upper edge, not its
            lower.
    """
    sure, hits = confidences.double().cpu(), right.double().cpu()
    # As many edges lie below a confidence as whole bins. In float64 an edge is where it should be.
    edges = torch.arange(1, bins, dtype=torch.float64) / bins
    places = torch.bucketize(sure, edges)
    counts = torch.bincount(places, minlength=bins)
    means = torch.bincount(places, sure, minlength=bins) / counts
    shares = torch.bincount(places, hits, minlength=bins) / counts
    filled = counts > 0
    gaps = (means - shares).abs()[filled] * counts[filled]
    return Calibration(
        error=float(gaps.sum() / len(sure)) if len(sure) else math.nan,
        bins=tuple(
            Bin(count=int(n), confidence=float(mean), accuracy=float(share))
            for n, mean, share in zip(counts, means, shares, strict=True)
        ),
    )
