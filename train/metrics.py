"""Accuracy as Pl@ntNet-300K defines it: top-k, average-k and their averages over classes.

Definitions follow the data set's paper (Garcin et al., NeurIPS Datasets and Benchmarks 2021) and
its code (github.com/plantnet/PlantNet-300K: epoch.py, utils.py), with C classes and n samples:

    top-k                     the share of samples whose class is among the k highest scores
    macro-average top-k       the mean over classes of the class's own top-k
    average-k                 the share of samples with p_y >= threshold_k: one threshold for all
                              samples, set on the *validation* probabilities so that sets hold k
                              classes on average, halfway between the (n*k)-th and the
                              (n*k + 1)-th largest of the n*C
    macro-average average-k   the mean over classes of the class's own average-k

Where we differ: equal scores are ordered by class number (the reference leaves their order to
argsort), and k >= C, where every answer would be right, is left out (the reference fails there).
Like the reference, an average over classes covers the classes that have a sample.

Everything runs on the device of the tensors. No more than a batch of logits is needed at a time:
of a sample its `Marks` are kept, of all samples the `Largest` probabilities, 10 for each sample.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

KS = (1, 3, 5, 10)

# Liu et al., "Large-scale long-tailed recognition in an open world", CVPR 2019, section 5:
# many-shot classes have over 100 training images, few-shot classes under 20.
MANY_SHOT_OVER = 100
FEW_SHOT_UNDER = 20

_ROWS_AT_ONCE = 256  # some 10 MB of logits for 10,000 classes


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The figures of a model on one split.

    Attributes:
        figures: Name -> value: `loss`, `top1`, `macro_top1`, `average5`, `macro_average5`,
            `many_shot`, ... Shares are in [0, 1]; a figure over no sample at all is NaN.
        thresholds: k -> the threshold of average-k.
        class_counts: int64 [C], samples of each class in this split.
        class_top1: float64 [C] in [0, 1], NaN where a class has no sample.
        class_top5: float64 [C] in [0, 1], NaN where a class has no sample, and everywhere where
            C <= 5.
    """

    figures: dict[str, float]
    thresholds: dict[int, float]
    class_counts: Tensor
    class_top1: Tensor
    class_top5: Tensor


def ks_for(num_classes: int) -> tuple[int, ...]:
    """Those k of 1, 3, 5 and 10 that say something about `num_classes` classes."""
    return tuple(k for k in KS if k < num_classes)


def true_ranks(scores: Tensor, labels: Tensor) -> Tensor:
    """The place of the true class among a sample's scores; 0 is the highest.

    Args:
        scores: float [N, C], finite.
        labels: int64 [N] in [0, C).

    Returns:
        int64 [N] in [0, C); of equal scores, the lower class number comes first.
    """
    own = scores.gather(1, labels[:, None])
    higher = (scores > own).sum(1)
    classes = torch.arange(scores.shape[1], device=scores.device)
    equal_before = ((scores == own) & (classes[None, :] < labels[:, None])).sum(1)
    ranks: Tensor = higher + equal_before
    return ranks


def average_k_thresholds(largest: Tensor, num_samples: int, ks: Sequence[int]) -> dict[int, float]:
    """The thresholds that give sets of k classes on average.

    Args:
        largest: float [M], the largest probabilities of the validation split in any order, at least
            `num_samples` * k + 1 of them for each k. Each sample counts exactly once: a sample that
            is padded or repeated moves every threshold.
        num_samples: Samples of the split.
        ks: Set sizes, each in [1, C).

    Returns:
        k -> threshold, in [0, 1].
    """
    if not num_samples:
        return dict.fromkeys(ks, math.nan)
    if any(not 0 < num_samples * k < len(largest) for k in ks):
        raise ValueError(f"k must be in [1, {len(largest) / num_samples:g}), got {list(ks)}")
    found = torch.topk(largest, num_samples * max(ks, default=0) + 1).values
    return {k: float(0.5 * (found[num_samples * k - 1] + found[num_samples * k])) for k in ks}


class Largest:
    """The largest values of many, in memory for about twice as many as are kept.

    Args:
        count: How many are kept.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._parts: list[Tensor] = []
        self._held = 0
        self._floor = -math.inf  # so many values above it were seen that others cannot be kept

    def add(self, values: Tensor) -> None:
        """See more values, of any shape."""
        flat = values.flatten()
        if self._floor > -math.inf:
            flat = flat[flat > self._floor]
        self._parts.append(flat)
        self._held += len(flat)
        if self._held > 2 * self._count:
            self._parts = [self.values()]
            self._held = len(self._parts[0])
            self._floor = float(self._parts[0].min()) if self._count else math.inf

    def values(self) -> Tensor:
        """The `count` largest values, or all where there were fewer, in no order."""
        every = torch.cat(self._parts) if self._parts else torch.zeros(0)
        kept = min(self._count, len(every))
        return every if kept == len(every) else torch.topk(every, kept, sorted=False).values


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """All that the figures need of each sample's logits.

    Attributes:
        ranks: int64 [N], the place of the true class; see `true_ranks`.
        own: float32 [N], the probability of the true class.
        losses: float32 [N], the cross-entropy.
    """

    ranks: Tensor
    own: Tensor
    losses: Tensor


def marks_of(logits: Tensor, labels: Tensor, probabilities: Tensor) -> Marks:
    """The marks of a batch.

    Args:
        logits: float32 [N, C].
        labels: int64 [N] in [0, C).
        probabilities: float32 [N, C], the softmax of the logits.
    """
    return Marks(
        ranks=true_ranks(logits, labels),
        own=probabilities.gather(1, labels[:, None])[:, 0],
        losses=torch.nn.functional.cross_entropy(logits, labels, reduction="none"),
    )


def rates_by_class(hits: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """The share of hits in each class.

    Args:
        hits: bool [N].
        labels: int64 [N] in [0, num_classes).
        num_classes: C.

    Returns:
        float64 [C] in [0, 1]; NaN where a class has no sample.
    """
    hit_counts = torch.bincount(labels[hits], minlength=num_classes).double()
    return hit_counts / torch.bincount(labels, minlength=num_classes).double()


def macro_average(rates: Tensor, among: Tensor | None = None) -> float:
    """The mean over the classes that have a sample and are in `among` (bool [C]); NaN if none."""
    kept = ~torch.isnan(rates) if among is None else ~torch.isnan(rates) & among
    return float(rates[kept].mean()) if bool(kept.any()) else math.nan


def evaluate_logits(
    logits: Tensor,
    labels: Tensor,
    *,
    train_counts: Tensor,
    thresholds: Mapping[int, float] | None = None,
) -> Evaluation:
    """All figures of one split whose logits are at hand.

    Args:
        logits: float [N, C], finite; each sample of the split exactly once. Softmax and
            cross-entropy are computed in float32 whatever the dtype.
        labels: int64 [N] in [0, C).
        train_counts: int64 [C], training images of each class, for many-, medium- and few-shot.
        thresholds: Thresholds chosen on the validation split; chosen on this split if None.

    Returns:
        The figures, on the CPU.

    Raises:
        ValueError: If a logit is NaN or infinite: no order of such scores means anything.
    """
    num_samples, num_classes = logits.shape
    largest = Largest(values_needed(num_samples, num_classes))
    parts = []
    for start in range(0, num_samples, _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        scores = logits[rows].float()
        if not bool(torch.isfinite(scores).all()):
            raise ValueError("logits must be finite, found NaN or infinity; the model has diverged")
        probabilities = torch.softmax(scores, 1)
        parts.append(marks_of(scores, labels[rows], probabilities))
        if thresholds is None:
            largest.add(probabilities)
    if thresholds is None:
        ks = ks_for(num_classes)
        thresholds = average_k_thresholds(largest.values(), num_samples, ks)
    marks = joined_marks(parts)
    return evaluate_marks(marks, labels, train_counts=train_counts, thresholds=thresholds)


def values_needed(num_samples: int, num_classes: int) -> int:
    """How many of the largest probabilities of a split the thresholds take."""
    return num_samples * max(ks_for(num_classes), default=0) + 1


def joined_marks(parts: Sequence[Marks]) -> Marks:
    """The marks of several batches as those of one."""
    nothing = torch.zeros(0)
    return Marks(
        ranks=torch.cat([part.ranks for part in parts] or [nothing.long()]),
        own=torch.cat([part.own for part in parts] or [nothing]),
        losses=torch.cat([part.losses for part in parts] or [nothing]),
    )


def evaluate_marks(
    marks: Marks, labels: Tensor, *, train_counts: Tensor, thresholds: Mapping[int, float]
) -> Evaluation:
    """All figures of one split.

    Args:
        marks: Of each sample of the split exactly once.
        labels: int64 [N] in [0, C).
        train_counts: int64 [C], training images of each class, for many-, medium- and few-shot.
        thresholds: k -> the threshold of average-k.

    Returns:
        The figures, on the CPU.
    """
    num_classes = len(train_counts)
    figures = {"loss": _mean(marks.losses)}
    by_class = {}
    for k in ks_for(num_classes):
        in_top, in_set = marks.ranks < k, marks.own >= thresholds.get(k, math.nan)
        by_class[k] = rates_by_class(in_top, labels, num_classes).cpu()
        figures[f"top{k}"] = _mean(in_top)
        figures[f"macro_top{k}"] = macro_average(by_class[k])
        figures[f"average{k}"] = _mean(in_set)
        figures[f"macro_average{k}"] = macro_average(
            rates_by_class(in_set, labels, num_classes).cpu()
        )
    nothing = torch.full([num_classes], math.nan, dtype=torch.float64)
    class_top1 = by_class.get(1, nothing)
    for name, among in shot_groups(train_counts.cpu()).items():
        figures[name] = macro_average(class_top1, among)
    return Evaluation(
        figures=figures,
        thresholds=dict(thresholds),
        class_counts=torch.bincount(labels, minlength=num_classes).cpu(),
        class_top1=class_top1,
        class_top5=by_class.get(5, nothing),
    )


def shot_groups(train_counts: Tensor) -> dict[str, Tensor]:
    """Which classes are many-, medium- and few-shot, by training images: bool [C] each."""
    many, few = train_counts > MANY_SHOT_OVER, train_counts < FEW_SHOT_UNDER
    return {"many_shot": many, "medium_shot": ~many & ~few, "few_shot": few}


def correct_prior(logits: Tensor, log_prior: Tensor) -> Tensor:
    """Logits as if every class had been equally frequent in training; nothing is trained.

    Post-hoc logit adjustment (Menon et al., "Long-tail learning via logit adjustment", ICLR 2021,
    section 4.1): f_y(x) - log prior_y.

    Args:
        logits: float [N, C].
        log_prior: float [C], logarithm of how often training saw each class.

    Returns:
        float32 [N, C].
    """
    return logits.float() - log_prior.to(logits.device)


def confused_pairs(predicted: Tensor, labels: Tensor, *, most: int) -> list[tuple[int, int, int]]:
    """The pairs of classes that are mistaken for each other most often.

    Args:
        predicted: int64 [N].
        labels: int64 [N].
        most: How many pairs to return at most.

    Returns:
        (true class, predicted class, samples), most frequent first; ties by class number.
    """
    wrong = torch.stack([labels, predicted], 1)[predicted != labels]
    pairs, counts = torch.unique(wrong.cpu(), dim=0, return_counts=True)
    found = [(int(t), int(p), int(n)) for (t, p), n in zip(pairs, counts, strict=True)]
    return sorted(found, key=lambda pair: (-pair[2], pair[0], pair[1]))[:most]


def _mean(values: Tensor) -> float:
    return float(values.double().mean()) if len(values) else math.nan
