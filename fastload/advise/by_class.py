"""Samples of each class as a model would see them, small enough for one page of all classes."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from fastload.load.augment import Augment
from fastload.load.loader import Loader
from fastload.load.selection import Select
from fastload.store.collection import Collection
from fastload.world import World

MOST_PICTURES = 1200  # on a page
MOST_BYTES = 12 << 20  # of all JPEGs; as text within the page a third more
MOST_OF_A_CLASS = 6
_QUALITY = 80
_BYTES_PER_PIXEL = 0.4  # of a JPEG of that quality; crops of 102 kinds of flowers have 0.24
_BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassSamples:
    """Augmented samples by class.

    Attributes:
        jpegs: Label -> JPEGs; a class that is not drawn is not there.
        each: How many samples of a class were meant to be drawn.
    """

    jpegs: dict[int, list[bytes]]
    each: int


def draw_by_class(
    data: str | os.PathLike[str],
    split: str,
    collection: Collection,
    *,
    augment: Augment,
    seed: int = 0,
) -> ClassSamples:
    """Draw some samples of each class, or of the most and the least frequent ones.

    Args:
        data: Directory or address of the shards, or data in place.
        split: Name of the split.
        collection: Its samples.
        augment: How the images are varied; their size decides how many fit.
        seed: Of the choice and of the crops.

    Raises:
        ShardError: If the shards are missing or damaged.
    """
    rows, each = _chosen(collection, size=augment.size, seed=seed)
    loader = Loader(
        data,
        split=split,
        batch_size=_BATCH,
        augment=augment,
        order="index",
        select=Select(indices=rows),
        max_corrupt_fraction=1.0,  # the page is for finding what is wrong
        seed=seed,
        world=World(),
    )
    jpegs: dict[int, list[bytes]] = defaultdict(list)
    used = 0
    with loader:
        for images, labels in loader:
            pixels = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
            for picture, label in zip(pixels, labels.tolist(), strict=True):
                jpeg = simplejpeg.encode_jpeg(picture, _QUALITY, colorsubsampling="420")
                used += len(jpeg)
                if used > MOST_BYTES:
                    return ClassSamples(jpegs=dict(jpegs), each=each)
                jpegs[label].append(jpeg)
    return ClassSamples(jpegs=dict(jpegs), each=each)


def _chosen(collection: Collection, *, size: int, seed: int) -> tuple[NDArray[np.int64], int]:
    """Rows of the index to draw, and how many of a class."""
    counts = collection.class_counts
    most = max(2, min(MOST_PICTURES, int(MOST_BYTES / (_BYTES_PER_PIXEL * size**2))))
    present = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    if len(present) > most:
        present = np.concatenate([present[: most // 2], present[-(most // 2) :]])
    each = max(1, min(MOST_OF_A_CLASS, most // len(present)))
    begins = np.cumsum(counts) - counts
    places = [
        begins[label]
        + np.random.default_rng((seed, label)).choice(
            counts[label], min(each, counts[label]), replace=False
        )
        for label in sorted(present.tolist())
    ]
    return np.asarray(collection.rows_by_class()[np.concatenate(places)], np.int64), each
