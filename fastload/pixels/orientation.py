"""How a picture must be turned to be upright: Pillow's rule, one for every decoder.

The tag Orientation of the first image directory of EXIF counts; where EXIF has none, the first
`tiff:Orientation` of XMP does. EXIF that cannot be read says that the picture is upright. The rule
is that of Pillow's `ImageOps.exif_transpose`, whose parser of EXIF is used, so that odd blocks mean
what they mean to Pillow: an offset beyond the block, a number of another type, several blocks in
one file (all are one, so the first counts).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fastload.errors import CorruptImageError
from fastload.pixels.jpeg import Upright, segments

_ORIENTATION = 0x0112
_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')  # as an attribute, or as an element
_APP1 = 0xE1
_LAST_UNSWAPPED = 4  # orientation; those behind it swap height and width
_EXIF_NAME, _XMP_NAME = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"


def orientation_of_jpeg(jpeg: bytes | memoryview) -> int:
    """The orientation that the header of a JPEG states, in [1, 8]; 1 where it states none."""
    exif, xmp = b"", b""
    view = memoryview(jpeg).cast("B")
    try:
        for marker, offset, length in segments(view, lenient=True):
            if marker != _APP1:
                continue
            body = bytes(view[offset + 2 : offset + length])
            if body.startswith(_EXIF_NAME):  # what 64 kB cannot hold goes on in another segment
                exif += body[len(_EXIF_NAME) :]
            elif body.startswith(_XMP_NAME):
                xmp = body[len(_XMP_NAME) :]
    except CorruptImageError:
        pass  # whoever reads the picture says so
    return _orientation(exif, xmp)


def orientation_of_info(info: Mapping[Any, Any]) -> int:
    """The orientation that metadata state, as `PIL.Image.Image.info` holds them after `load`."""
    exif = info.get("exif")
    if exif is None:
        profile = info.get("Raw profile type exif", "")  # ImageMagick's, in PNG: lines of digits
        try:
            exif = bytes.fromhex("".join(profile.split("\n")[3:]))
        except (AttributeError, TypeError, ValueError):
            exif = b""
    xmp = info.get("XML:com.adobe.xmp") or info.get("xmp") or b""
    return _orientation(exif, xmp.encode() if isinstance(xmp, str) else xmp)


def _orientation(exif: bytes, xmp: bytes) -> int:
    value = _exif_value(exif) if exif else None
    if value is None:
        said = _XMP.search(xmp)
        value = int(said[1]) if said else 1
    return next((known for known in range(2, 9) if known == value), 1)


def _exif_value(exif: bytes) -> object:
    """The value of the tag, of any type; None where there is none."""
    tags = Image.Exif()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tags.load(exif)
            return tags.get(_ORIENTATION)
    except Exception:  # noqa: BLE001  a parser of hostile bytes may raise anything
        return 1


@dataclass(frozen=True, slots=True)
class Turning:
    """What a renderer does that knows nothing of orientations, and what is left to do afterwards.

    Pixel (r, c) of an upright picture H x W is the pixel (r or H-1-r, c or W-1-c) of the stored
    one, its two numbers swapped by the orientations 5 to 8 (TIFF 6.0, section 8). So a crop is
    that of another box, mirrored or not as a renderer can do it, turned over and transposed.

    Attributes:
        boxes: int32 [N, 4]: top, left, height, width in pixels of the stored pictures.
        flips: bool [N]: mirror left and right.
        overs: bool [N]: then turn upside down.
        swaps: bool [N]: then swap rows and columns.
        windows: float64 [N, 4]: parts of these boxes, see `decode.Renderer`; None is all of each.
    """

    boxes: NDArray[np.int32]
    flips: NDArray[np.bool_]
    overs: NDArray[np.bool_]
    swaps: NDArray[np.bool_]
    windows: NDArray[np.float64] | None = None

    def finish(self, out: Any) -> None:  # noqa: ANN401  an array, or a tensor on a GPU
        """Do what is left, in place; returns when it is done.

        Args:
            out: uint8 [N, S, S, 3], an array or a tensor.
        """
        for over, swap in ((True, False), (False, True), (True, True)):
            chosen = np.flatnonzero((self.overs == over) & (self.swaps == swap))
            if len(chosen):
                squares = out[chosen.tolist()]
                if over:
                    back = [*range(out.shape[1])][::-1]  # tensors have no negative steps
                    squares = squares[:, back]
                out[chosen.tolist()] = squares.swapaxes(1, 2) if swap else squares
        if getattr(out, "is_cuda", False):  # whoever goes on may do so in another stream
            import torch

            torch.cuda.current_stream(out.device).synchronize()


def turning_of(
    boxes: NDArray[np.int32],
    flips: NDArray[np.bool_],
    upright: Upright,
    windows: NDArray[np.float64] | None = None,
) -> Turning:
    """How the boxes of upright pictures are rendered from the pictures as they are stored.

    Args:
        boxes: int32 [N, 4]: top, left, height, width in pixels of the upright pictures.
        flips: bool [N]: mirror the upright crop left and right.
        upright: How the pictures become upright.
        windows: float64 [N, 4]: parts of the boxes, in pixels from the corner of the box.
    """
    orientations = upright.orientations
    rows_back = np.isin(orientations, (3, 4, 7, 8))
    columns_back = np.isin(orientations, (2, 3, 6, 7))
    swaps = orientations > _LAST_UNSWAPPED

    def stored(parts: NDArray[Any], sizes: NDArray[Any]) -> NDArray[Any]:
        """Parts of upright rectangles of those sizes, as parts of the stored rectangles."""
        top, left, height, width = parts.T
        top = np.where(rows_back, sizes[:, 0] - top - height, top)
        left = np.where(columns_back, sizes[:, 1] - left - width, left)
        straight = np.stack([top, left, height, width], axis=1)
        swapped = np.stack([left, top, width, height], axis=1)
        return np.where(swaps[:, None], swapped, straight)

    mirrored = columns_back ^ flips.astype(np.bool_)
    return Turning(
        boxes=stored(boxes, upright.sizes).astype(np.int32),
        flips=np.where(swaps, rows_back, mirrored),
        overs=np.where(swaps, mirrored, rows_back),
        swaps=swaps,
        windows=None if windows is None else stored(windows, boxes[:, 2:]),
    )


def turned_upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """A whole stored picture, upright.

    Args:
        pixels: uint8 [H, W, 3].
        orientation: In [1, 8].

    Returns:
        uint8, C-contiguous; `pixels` itself where they are upright.
    """
    if orientation == 1:
        return pixels
    upright = pixels.swapaxes(0, 1) if orientation > _LAST_UNSWAPPED else pixels
    upright = upright[::-1] if orientation in (3, 4, 7, 8) else upright
    upright = upright[:, ::-1] if orientation in (2, 3, 6, 7) else upright
    return np.ascontiguousarray(upright)
