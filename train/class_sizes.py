"""How accuracy goes with the number of training images of a class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

# Upper ends of the groups. Few-shot classes are those up to 19, many-shot those from 101 on, as in
# `metrics.shot_groups`.
_ENDS = (0, 4, 9, 19, 49, 100, 200, 500, 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassTable:
    """What is known of each class, by label.

    Attributes:
        names: Readable names.
        train_counts: Training images.
        val_counts: Validation images.
        accuracies: Top-1 on the validation split; NaN for a class without images there.
    """

    names: Sequence[str]
    train_counts: Sequence[int]
    val_counts: Sequence[int]
    accuracies: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeGroup:
    """The classes that have about as many training images.

    Attributes:
        title: How many images, such as "20-49".
        classes: How many classes.
        train_images: Training images of all of them.
        val_images: Validation images of all of them.
        accuracy: The mean over classes of the class's own top-1; NaN without validation images.
    """

    title: str
    classes: int
    train_images: int
    val_images: int
    accuracy: float


def group_by_size(table: ClassTable) -> list[SizeGroup]:
    """The classes by training images, the rarest first; a group without classes is left out."""
    found = []
    for low, high in zip((0, *(end + 1 for end in _ENDS)), (*_ENDS, math.inf), strict=True):
        labels = [i for i, count in enumerate(table.train_counts) if low <= count <= high]
        if not labels:
            continue
        known = [table.accuracies[i] for i in labels if not math.isnan(table.accuracies[i])]
        title = str(low) if low == high else f"{low:,} or more"
        found.append(
            SizeGroup(
                title=f"{low:,}–{high:,}" if low < high < math.inf else title,
                classes=len(labels),
                train_images=sum(table.train_counts[i] for i in labels),
                val_images=sum(table.val_counts[i] for i in labels),
                accuracy=fmean(known) if known else math.nan,
            )
        )
    return found
