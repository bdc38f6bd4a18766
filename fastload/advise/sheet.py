"""A contact sheet: an HTML page of the first samples of an epoch, as a model gets them."""

from __future__ import annotations

import os

from fastload.console.terminal import counted
from fastload.load.augment import Augment
from fastload.load.drawing import drawing_of
from fastload.load.loader import Loader
from fastload.store.remote import name_of
from fastload.world import World


def draw_sheet(
    data: str | os.PathLike[str],
    split: str,
    *,
    augment: Augment,
    count: int,
    seed: int = 0,
    reweight: str | None = None,
) -> str:
    """The contact sheet of the first samples of an epoch.

    Args:
        data: Directory or address of the shards, or data in place.
        split: Name of the split.
        augment: How the images are varied.
        count: Number of images.
        seed: Of order and crops.
        reweight: As of `Loader`.

    Raises:
        ShardError: If the shards are missing or damaged.
    """
    loader = Loader(
        data,
        split=split,
        batch_size=count,
        augment=augment,
        reweight=reweight,
        order="shuffled",
        drop_last=False,
        max_corrupt_fraction=1.0,  # a contact sheet is for finding what is wrong
        seed=seed,
        world=World(),
    )
    with loader:
        images, labels = next(iter(loader))
    samples = counted(len(labels), "sample")
    title = f"{name_of(data)}, {split}: {samples} of epoch 0, seed {seed}"
    return drawing_of(images, labels, loader.class_names, title=title).html()
