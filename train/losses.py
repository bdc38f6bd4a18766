"""Losses for a long tail, as sums and weights, so that a mean over any number of batches is exact.

Each loss returns a `Total`: the weighted sum over the batch and the sum of the weights. Their
quotient is what `torch.nn.CrossEntropyLoss` calls the mean. The two sums of several micro-batches
or ranks add up to the loss of the large batch, with class weights too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fastload.load import reweighting
from train.options import LossOptions


class Total(NamedTuple):
    """The weighted sum of a batch's losses, and the sum of the weights: float32 scalars.

    Where each image weighs 1, the host knows the sum of the weights without reading `weight`.
    """

    loss: Tensor
    weight: Tensor
    known_weight: float | None = None


# (logits float [N, C], labels int64 [N] or, mixed, float [N, C]) -> Total
Loss = Callable[[Tensor, Tensor], Total]


def class_weights(rule: str, counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """A weight for each class from the number of its training images.

    Args:
        rule: "none", or one of the rules of `--reweight`: "inverse", "sqrt", "effective:BETA".
        counts: int64 [C]; a class without images gets the weight 0.

    Returns:
        float64 [C], scaled so that the mean over the training images is 1.

    Raises:
        ValueError: If the rule is another.
    """
    present = counts > 0
    if rule == "none" or not present.any():
        return present.astype(np.float64)
    weights = np.where(present, reweighting.class_weights(counts, rule), 0.0)
    mean_of_images = (weights * counts).sum() / counts.sum()
    scaled: NDArray[np.float64] = weights / mean_of_images
    return scaled


def class_prior(counts: NDArray[np.int64], weights: NDArray[np.float64]) -> Tensor:
    """How often training sees each class.

    Args:
        counts: int64 [C], training images of each class.
        weights: float64 [C], weight of an image of each class: of the sampling, of the loss, or
            the product of both.

    Returns:
        float32 [C], positive, sums to 1; some class must have images. The logarithm of each value
        is taken, so a class that is never seen gets the value of the rarest class that is seen.
    """
    seen = counts * weights
    seen = np.where(seen > 0, seen, seen[seen > 0].min())
    return torch.tensor(seen / seen.sum(), dtype=torch.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """How a run treats the long tail.

    Attributes:
        loss: What training minimises.
        log_prior: float32 [C]: subtracted from the logits, it makes them those of equally frequent
            classes. Zero where sampling or loss have done that already.
    """

    loss: Loss
    log_prior: Tensor


def balance(
    reweight: str, options: LossOptions, counts: NDArray[np.int64], device: torch.device
) -> Balance:
    """The loss of training, and the class frequencies that evaluation may still correct.

    Args:
        reweight: The rule by which rare classes are drawn more often, or "none".
        options: Which loss, and its numbers.
        counts: int64 [C], training images of each class.
        device: Where the logits are.
    """
    drawn = class_weights(reweight, counts)
    weights = class_weights(options.class_weights, counts)
    log_drawn = class_prior(counts, drawn).log().to(device)
    log_seen = class_prior(counts, drawn * weights).log().to(device)
    weighted = None
    if options.class_weights != "none":
        weighted = torch.tensor(weights, dtype=torch.float32, device=device)
    if options.loss == "balanced":
        shift = options.tau * log_drawn
        return Balance(loss=_cross_entropy(options, weighted, shift), log_prior=log_seen - shift)
    loss = _cross_entropy(options, weighted, None)
    if options.loss == "focal":
        loss = _focal(options.focal_gamma, weighted)
    return Balance(loss=loss, log_prior=options.tau * log_seen)


def _cross_entropy(options: LossOptions, weights: Tensor | None, shift: Tensor | None) -> Loss:
    """Cross-entropy of logits + shift.

    With shift = tau * log prior it is the balanced softmax (Ren et al., NeurIPS 2020), which is the
    logit-adjusted loss of Menon et al. (ICLR 2021, equation 10).
    """

    def cross_entropy(logits: Tensor, labels: Tensor) -> Total:
        losses = functional.cross_entropy(
            logits.float() if shift is None else logits.float() + shift,
            labels,
            reduction="sum" if weights is None else "none",
            label_smoothing=options.label_smoothing,
        )
        return _total(losses, labels, weights)

    return cross_entropy


def _focal(gamma: float, weights: Tensor | None) -> Loss:
    """Lin et al., "Focal loss for dense object detection", ICCV 2017, for a softmax."""

    def focal(logits: Tensor, labels: Tensor) -> Total:
        logs = torch.log_softmax(logits.float(), 1)
        # Above 0, where the slope of a power below 1 is infinite, and times 0 no number.
        away = (1 - logs.exp()).clamp_min(torch.finfo(logs.dtype).tiny)
        terms = -(away**gamma) * logs
        if labels.ndim == 1:
            losses = terms.gather(1, labels[:, None]).squeeze(1)
        else:
            losses = (terms * labels).sum(1)
        return _total(losses, labels, weights)

    return focal


def _total(losses: Tensor, labels: Tensor, weights: Tensor | None) -> Total:
    """Weigh the loss of each sample by its class; that of a mixed one by the mean over its shares.

    torch weighs each term of a sample's loss by the class of the term. With smoothed or mixed
    labels that moves the optimum: a picture of a common class would best be called the rarest one.

    Args:
        losses: float32 [N]; without weights their sum will do.
        labels: int64 [N] or, mixed, float [N, C].
        weights: float32 [C], or None for equal weights.
    """
    if weights is None:
        return Total(losses.sum(), losses.new_full((), len(labels)), float(len(labels)))
    of_samples = weights[labels] if labels.ndim == 1 else labels @ weights
    return Total((losses * of_samples).sum(), of_samples.sum())


def compounding(reweight: str, options: LossOptions) -> str | None:
    """A sentence for the user if both the sampling and the loss lift rare classes, else None."""
    if reweight == "none" or (options.class_weights == "none" and options.loss != "balanced"):
        return None
    if options.class_weights != "none":
        return (
            f"--reweight {reweight} and --class-weights {options.class_weights} compound: "
            "rare classes are drawn more often and weigh more each time; use one of the two"
        )
    return (
        f"--reweight {reweight} and --loss balanced both lift rare classes; the loss is given the "
        "frequencies as drawn, so that they do not compound, but one of the two is enough"
    )
