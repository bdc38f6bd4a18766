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
from typing import Any

from PIL import Image

from fastload.errors import CorruptImageError
from fastload.pixels.jpeg import segments

_ORIENTATION = 0x0112
_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')  # as an attribute, or as an element
_APP1 = 0xE1
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
