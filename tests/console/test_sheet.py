"""The contact sheet: every picture where it belongs, every caption in its cell."""

from __future__ import annotations

import numpy as np
import pytest

from fastload.console.lettering import Lettering
from fastload.console.sheet import GAP, NARROWEST, columns_for, contact_sheet


def sheet_of(pictures: np.ndarray, caption: str) -> np.ndarray:
    captions = [f"{i} {caption}" for i in range(len(pictures))]
    sheet = contact_sheet(pictures, captions, Lettering(13, folders=[]), title="title")
    return np.asarray(sheet)


@pytest.mark.parametrize(("count", "size"), [(1, 16), (5, 160), (20, 64), (3, 500)])
def test_pictures_are_unchanged_and_in_order(count, size):
    pictures = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)
    sheet = sheet_of(pictures, "rose")
    columns = columns_for(count, size)
    step = max(size, NARROWEST) + GAP
    left = [GAP + (i % columns) * step for i in range(count)]
    tops = [
        next(y for y in range(len(sheet)) if (sheet[y : y + size, x : x + size] == picture).all())
        for x, picture in zip(left, pictures, strict=True)
    ]
    assert tops == sorted(tops)
    assert len(set(tops)) == -(-count // columns)


def test_captions_have_ink_and_stay_in_their_cells():
    pictures = np.full((4, 32, 32, 3), 200, np.uint8)
    sheet = sheet_of(pictures, "a very long name of a plant that cannot end in two short lines")
    step = NARROWEST + GAP
    ink = np.any(sheet < 100, axis=(0, 2))
    for column in range(4):
        assert ink[GAP + column * step : (column + 1) * step].any()
        assert not ink[(column + 1) * step : (column + 1) * step + GAP].any()
