"""A contact sheet of what a model would see."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from fastload.console.lettering import Lettering
from fastload.console.sheet import contact_sheet
from fastload.load.augment import Augment
from fastload.load.loader import Loader
from fastload.world import World


def draw_sheet(
    directory: Path,
    split: str,
    *,
    augment: Augment,
    count: int = 48,
    seed: int = 0,
    reweight: str | None = None,
    lettering: Lettering,
) -> bytes:
    """The contact sheet of the first samples of an epoch, as a PNG.

    Raises:
        ShardError: If the shards are missing or damaged.
    """
    loader = Loader(
        directory,
        split=split,
        batch_size=count,
        augment=augment,
        reweight=reweight,
        order="shuffled",
        drop_last=False,
        max_corrupt_fraction=1.0,  # this is where one looks for what is wrong
        seed=seed,
        world=World(),
    )
    with loader:
        images, labels = next(iter(loader))
        names = [f"{label} {loader.class_names[label]}" for label in labels.tolist()]
    title = f"{directory.resolve().name}, {split}: {len(names)} samples of epoch 0, seed {seed}"
    pictures = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
    sheet = contact_sheet(pictures, names, lettering, title=title)
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()
