"""A contact sheet: pictures in a grid, each above its caption.

┌─────┐  ┌─────┐
│     │  │     │     cell: the picture, then up to two lines
└─────┘  └─────┘
3 rose   8 薔薇
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fastload.console.lettering import Lettering

GAP = 10  # pixels between cells and around the sheet
CAPTION_LINES = 2
NARROWEST = 110  # pixels; a narrower cell would cut most species' names
WIDEST = 1400  # pixels of a whole sheet, within a screen; eight pictures of the default size


def columns_for(count: int, size: int) -> int:
    """How many pictures stand side by side: a sheet about as wide as a screen, no empty columns."""
    cell = max(size, NARROWEST) + GAP
    return max(1, min(count, (WIDEST - GAP) // cell))


def contact_sheet(
    pictures: NDArray[np.uint8], captions: Sequence[str], lettering: Lettering, *, title: str
) -> Image.Image:
    """Lay out pictures with their captions.

    Args:
        pictures: uint8 [N, S, S, 3], RGB.
        captions: N texts; what no font has is drawn as escapes, and told by `lettering.missing`.
        lettering: The fonts.
        title: One line above all.

    Returns:
        An RGB image, white where nothing is drawn.
    """
    size = pictures.shape[1]
    columns = columns_for(len(pictures), size)
    width = max(size, NARROWEST)
    line = lettering.line_height
    height = size + CAPTION_LINES * line + GAP // 2
    rows = -(-len(pictures) // columns)
    top = 2 * GAP + line
    extent = (GAP + columns * (width + GAP), top + rows * (height + GAP))
    sheet = Image.new("RGB", extent, "white")
    canvas = ImageDraw.Draw(sheet)
    for text in lettering.wrap(lettering.spell(title), extent[0] - 2 * GAP, lines=1):
        lettering.draw(canvas, (GAP, GAP), text, colour="dimgrey")
    for number, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        row, column = divmod(number, columns)
        x, y = GAP + column * (width + GAP), top + row * (height + GAP)
        sheet.paste(Image.fromarray(picture), (x, y))
        for place, text in enumerate(lettering.wrap(lettering.spell(caption), width)):
            lettering.draw(canvas, (x, y + size + GAP // 2 + place * line), text)
    return sheet
