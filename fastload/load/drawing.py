"""Images of a batch with the names of their classes, as HTML: in a notebook, or as a page.

    ┌─────┐  ┌─────┐
    │     │  │     │     picture as a PNG, with the loader's pixels
    └─────┘  └─────┘
    3 rose   8 薔薇      label, class name

The browser draws the names, so every script is shown.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fastload.console.page import document, escaped, image, name
from fastload.console.terminal import counted
from fastload.files import write_atomically

NARROWEST = 110  # pixels; a narrower cell would break most species' names into three lines
_MIXED = 2  # classes that MixUp and CutMix make an image of


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Drawing:
    """Pictures with names. A notebook shows them; `write` makes a page of them.

    Attributes:
        pictures: uint8 [N, S, S, 3], RGB.
        classes: For each picture the label, or a share, and the name of each class that it is of.
            Names may hold anything.
        title: One line above all pictures. It may hold anything.
    """

    pictures: NDArray[np.uint8]
    classes: Sequence[Sequence[tuple[str, str]]]
    title: str

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the page whole or not at all.

        Raises:
            OSError: If it cannot be written.
        """
        write_atomically(Path(path), self.html().encode("utf-8"))

    def html(self) -> str:
        """The page: one file without scripts."""
        return document(self.title, [self._grid()])

    def __repr__(self) -> str:
        images = counted(len(self.pictures), "image")
        return f"<{images}: {self.title}; a notebook shows them, .write('batch.html') makes a page>"

    def _repr_html_(self) -> str:
        return f"<p>{escaped(self.title)}</p>{self._grid()}"

    def _grid(self) -> str:
        size = self.pictures.shape[1]
        # In a notebook there is no style sheet of ours.
        cell = f"margin:0;width:{max(size, NARROWEST)}px;overflow-wrap:anywhere;overflow:clip"
        cells = []
        for picture, classes in zip(self.pictures, self.classes, strict=True):
            words = "<br>".join(f"<b>{label}</b> {name(said)}" for label, said in classes)
            drawn = image(_png(picture), ", ".join(said for _, said in classes), side=size)
            cells.append(f'<figure style="{cell}">{drawn}<figcaption>{words}</figcaption></figure>')
        return f'<div style="display:flex;flex-wrap:wrap;gap:10px">{"".join(cells)}</div>'


def drawing_of(
    images: Tensor, labels: Tensor, class_names: Sequence[str], *, title: str
) -> Drawing:
    """The drawing of a batch.

    Args:
        images: uint8 [N, 3, S, S].
        labels: int64 [N], or with MixUp or CutMix floating-point [N, classes].
        class_names: By label.
        title: See `Drawing`.
    """
    pictures = np.ascontiguousarray(images.permute(0, 2, 3, 1).cpu().numpy())
    return Drawing(pictures=pictures, classes=_classes_of(labels, class_names), title=title)


def _classes_of(labels: Tensor, names: Sequence[str]) -> list[list[tuple[str, str]]]:
    """See `Drawing.classes`."""
    if not labels.is_floating_point():
        return [[(str(label), names[label])] for label in labels.tolist()]
    most = labels.float().cpu().topk(min(_MIXED, labels.shape[1]))
    return [
        [(f"{share:.0%}", names[label]) for share, label in zip(*row, strict=True) if share]
        for row in zip(most.values.tolist(), most.indices.tolist(), strict=True)
    ]


def _png(picture: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()
