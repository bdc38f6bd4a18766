"""A contact sheet: an HTML page of the samples that a model would see, each above its class.

    ┌─────┐  ┌─────┐
    │     │  │     │     picture as a PNG, with the loader's pixels
    └─────┘  └─────┘
    3 rose   8 薔薇      label, class name

The page is one file without scripts. The browser draws the class names, so every script is shown.
"""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fastload.console.terminal import counted, printable
from fastload.load.augment import Augment
from fastload.load.loader import Loader
from fastload.store.remote import name_of
from fastload.world import World

NARROWEST = 110  # pixels; a narrower cell would break most species' names into three lines

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
body {{ margin: 1rem; font: 13px/1.4 system-ui, sans-serif; }}
h1 {{ font-size: 15px; }}
main {{ display: grid; gap: 10px; grid-template-columns: repeat(auto-fill, {cell}px); }}
figure {{ margin: 0; }}
img {{ display: block; }}
figcaption {{ overflow-wrap: anywhere; }}
</style>
</head>
<body>
<h1>{title}</h1>
<main>
{figures}
</main>
</body>
</html>
"""
# The language of a class name is unknown, and its direction is not the page's: lang="" and <bdi>.
_FIGURE = """\
<figure>
<img src="data:image/png;base64,{png}" width="{size}" height="{size}" alt="">
<figcaption><b>{label}</b> <bdi lang="">{name}</bdi></figcaption>
</figure>"""


def draw_sheet(
    data: str | os.PathLike[str],
    split: str,
    *,
    augment: Augment,
    count: int = 48,
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
        classes = [(label, loader.class_names[label]) for label in labels.tolist()]
    samples = counted(len(classes), "sample")
    title = f"{name_of(data)}, {split}: {samples} of epoch 0, seed {seed}"
    pictures = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
    return contact_sheet(pictures, classes, title=title)


def contact_sheet(
    pictures: NDArray[np.uint8], classes: Sequence[tuple[int, str]], *, title: str
) -> str:
    """The page of some pictures.

    Args:
        pictures: uint8 [N, S, S, 3], RGB.
        classes: The label and the class name of each picture. Names may hold anything.
        title: One line above all pictures. It may hold anything.

    Returns:
        HTML that encodes as UTF-8.
    """
    size = pictures.shape[1]
    figures = [
        _FIGURE.format(png=_png(picture), size=size, label=label, name=_text(name))
        for picture, (label, name) in zip(pictures, classes, strict=True)
    ]
    cell = max(size, NARROWEST)
    return _PAGE.format(title=_text(title), cell=cell, figures="\n".join(figures))


def _text(untrusted: str) -> str:
    """Text of the page, never markup; controls and broken UTF-8 are escapes."""
    return html.escape(printable(untrusted))


def _png(picture: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")
