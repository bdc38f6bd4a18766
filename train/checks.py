"""Why is my accuracy almost zero? Checks that find the usual causes and name them.

Each check returns a sentence for the user, or None where all is well. It raises where training
cannot work.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fastload.console.terminal import counted
from fastload.errors import FastloadError

# A fresh head on 1,000 classes starts within a few per cent of ln(1000) = 6.9. Random deep networks
# without normalisation scatter, so only a loss that no untrained classifier has is reported.
_FIRST_LOSS_RATIO = 2.0

# Normalised photographs have a mean near 0 and a deviation near 1; these bounds hold for batches of
# dark, pale or uniform images, and fail for pixels in [0, 1] (deviation 0.25) or [0, 255].
_MEAN_LIMIT = 2.0
_DEVIATION_LIMITS = (0.35, 3.0)

# Below this probability a batch of one class is no accident.
_ACCIDENT = 1e-4


class CheckError(FastloadError):
    """Training cannot work like this."""


def check_classes(
    train: Sequence[str],
    val: Sequence[str],
    *,
    train_counts: NDArray[np.int64],
    val_counts: NDArray[np.int64],
) -> str | None:
    """Whether validation and training have the same classes under the same labels.

    Args:
        train: Class names of the training data, by label.
        val: Class names of the validation data, by label.
        train_counts: int64 [C], training images of each class.
        val_counts: int64 [C'], validation images of each class.

    Raises:
        CheckError: If a label means another class in validation than in training.
    """
    if list(train) != list(val):
        different = [(i, a, b) for i, (a, b) in enumerate(zip(train, val, strict=False)) if a != b]
        if set(train) == set(val):
            label, here, there = different[0]
            raise CheckError(
                f"the classes of val are those of train in another order: label {label} is "
                f'"{here}" in train and "{there}" in val; shard both splits together'
            )
        strange = [name for name in val if name not in set(train)]
        names = _some(strange) if strange else f"{counted(len(val), 'class')} for {len(train):,}"
        raise CheckError(
            f"val and train have different classes ({names}), so equal labels mean different "
            "things; shard or index both splits together"
        )
    unseen = [train[int(i)] for i in np.flatnonzero((train_counts == 0) & (val_counts > 0))]
    if not unseen:
        return None
    found, they_are = "are in val and have no training image", "they are"
    if len(unseen) == 1:
        found, they_are = "is in val and has no training image", "it is"
    return (
        f"{len(unseen):,} of {counted(len(train), 'class')} {found}, so {they_are} "
        f"never predicted: {_some(unseen)}"
    )


def check_trainable(model: nn.Module) -> str | None:
    """Whether anything can be learned.

    Raises:
        CheckError: If no parameter is trainable.
    """
    parameters = list(model.parameters())
    if not any(parameter.requires_grad for parameter in parameters):
        raise CheckError(
            f"all {len(parameters)} parameters of the model are frozen, so nothing can be learned; "
            "choose another --tune"
        )
    return None


def check_normalisation(
    used: tuple[Sequence[float], Sequence[float]],
    expected: tuple[Sequence[float], Sequence[float]] | None,
) -> str | None:
    """Whether images are normalised as the weights were trained.

    Args:
        used: Mean and deviation of each channel of the images, on the scale [0, 1].
        expected: Mean and deviation that the weights were trained with; None if unknown.
    """
    if expected is None or np.allclose(used, expected, atol=0.01):
        return None
    return (
        f"images are normalised with mean {_numbers(used[0])} and std {_numbers(used[1])}, but the "
        f"weights were trained with mean {_numbers(expected[0])} and std {_numbers(expected[1])}"
    )


def check_labels(labels: Tensor, train_counts: NDArray[np.int64]) -> str | None:
    """Whether a batch holds more than one class.

    Args:
        labels: int64 [N], the labels of one batch of a shuffled split.
        train_counts: int64 [C], training images of each class.
    """
    first = int(labels[0])
    share = train_counts[first] / max(train_counts.sum(), 1)
    if not bool((labels == first).all()) or share ** (len(labels) - 1) > _ACCIDENT:
        return None
    return (
        f"all {len(labels)} labels of the first batch are class {first}: the training data is not "
        "shuffled, or its labels are wrong"
    )


def check_pixels(images: Tensor) -> str | None:
    """Whether a batch looks like normalised photographs.

    Args:
        images: float [N, 3, H, W].
    """
    pixels = images.float()
    mean, deviation = float(pixels.mean()), float(pixels.std())
    low, high = _DEVIATION_LIMITS
    if not math.isfinite(mean + deviation):
        return "the first batch has NaN or infinite pixels"
    if abs(mean) <= _MEAN_LIMIT and low <= deviation <= high:
        return None
    return (
        f"the pixels of the first batch have mean {mean:.2f} and deviation {deviation:.2f}, not "
        "about 0 and 1: the images are blank, or not normalised as the weights expect"
    )


def check_first_loss(loss: float, num_classes: int, *, fresh_head: bool) -> str | None:
    """Whether the first loss is that of a classifier that knows nothing yet: ln(C).

    Args:
        loss: Mean cross-entropy of the first batch, before any step.
        num_classes: C.
        fresh_head: False where the last layer was loaded, and may know the answers.
    """
    expected = math.log(num_classes)
    low = expected / _FIRST_LOSS_RATIO if fresh_head else 0.0
    if num_classes < 2 or low <= loss <= expected * _FIRST_LOSS_RATIO:
        return None
    return (
        f"the first loss is {loss:.2f}; with {num_classes} classes it should be near "
        f"ln({num_classes}) = {expected:.2f}: labels, normalisation or weights do not fit the model"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Overfit:
    """The result of training on one batch alone.

    Attributes:
        first_loss: Cross-entropy before the first step.
        last_loss: Cross-entropy after the last step.
        accuracy: Share of the batch that is right at the end, in [0, 1].
        steps: The number of steps.
    """

    first_loss: float
    last_loss: float
    accuracy: float
    steps: int

    @property
    def learns(self) -> bool:
        """True if the batch was learned by heart."""
        return self.accuracy >= 0.95 and self.last_loss < 0.5 * self.first_loss


def overfit(model: nn.Module, images: Tensor, labels: Tensor, *, steps: int = 100) -> Overfit:
    """Train on one batch until it is known by heart, as every sound set-up can.

    Args:
        model: The model in training mode; changed in place.
        images: float [N, 3, H, W].
        labels: int64 [N].
        steps: The largest number of steps.
    """
    parameters = [item for item in model.parameters() if item.requires_grad]
    # The default rate of Adam, which suits nearly every model, so that no schedule is in question.
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0)
    losses = []
    accuracy = 0.0
    for _ in range(steps):
        logits = model(images).float()
        loss = nn.functional.cross_entropy(logits, labels)
        losses.append(float(loss.detach()))
        accuracy = float((logits.argmax(1) == labels).float().mean())
        if not math.isfinite(losses[-1]) or losses[-1] < 0.01:
            break
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # untyped in torch
        optimizer.step()
    return Overfit(first_loss=losses[0], last_loss=losses[-1], accuracy=accuracy, steps=len(losses))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _numbers(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.3f}" for value in values) + ")"
