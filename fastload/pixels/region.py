"""The part of a JPEG that covers a box, as a JPEG of its own: for decoders that take whole files.

    the file has a seek table    the core cuts the region out of it
    it has restart intervals     those that cover the box, `slice_jpeg`
    neither, or not worth it     the whole file

The decoder gives the same pixels of the box from the part as from the whole.
"""

from __future__ import annotations

from contextlib import suppress

from fastload.errors import ImageError
from fastload.pixels import native
from fastload.pixels.jpeg import Box, frame_size, slice_jpeg

# Share of a picture that is cut out at most. For libjpeg-turbo cutting costs what it saves at 0.78
# of the picture (4:2:0 of 43 kB) and 0.68 (4:4:4 of 91 kB). DALI's CPU graph, which decodes no more
# rows than it needs, gains below 0.45 and loses some 3 % from there on (benchmarks/bench_dali.py,
# --share).
CUT_BELOW = 0.7


def region_of(
    jpeg: bytes | memoryview,
    box: Box,
    table: bytes | memoryview = b"",
    *,
    whole_below: int = 0,
) -> tuple[bytes | memoryview, Box]:
    """A JPEG that covers `box`, with fewer bytes than `jpeg` where that is worth it.

    Args:
        jpeg: A JPEG file.
        box: A region inside the image; EXIF orientation is not applied.
        table: The file's seek table, see `native.seek_points`; of 0 bytes where it has none. What a
            damaged or wrong table leads to is not used: the file goes whole.
        whole_below: Files of fewer pixels stay whole.

    Returns:
        The region's file, and where `box` lies in it; `jpeg` and `box` themselves where the file
        stays whole.

    Raises:
        CorruptImageError: If the header is damaged.
        UnsupportedImageError: If the header leaves the height open.
        ValueError: If `box` does not lie inside the image.
    """
    size = frame_size(jpeg)
    if size is not None and _lies_inside(box, size):
        pixels = size[0] * size[1]
        if pixels < whole_below:
            return jpeg, box
        if len(table) and box[2] * box[3] < CUT_BELOW * pixels and native.is_available():
            with suppress(ImageError, ValueError):  # the whole file gives the pixels, or the reason
                return native.cut_region(jpeg, table, box)
    return slice_jpeg(jpeg, box)


def _lies_inside(box: Box, size: tuple[int, int]) -> bool:
    top, left, height, width = box
    return 0 <= top < top + height <= size[0] and 0 <= left < left + width <= size[1]
