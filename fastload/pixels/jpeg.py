"""The anatomy of a JPEG: header, restart intervals; `slice_jpeg`: the smallest JPEG over a box.

A baseline JPEG is a header and a stream of minimum coded units (MCUs), row by row. With a restart
interval of n, every n MCUs the stream is byte-aligned, DC prediction starts anew and a marker, RST0
to RST7 in turn, stands between (ITU-T T.81, E.1.4 and F.1.2.1.3). Where n divides the MCU row, any
rectangle of intervals is therefore a JPEG of its own:

    |  0  |  1  |  2  |  3  |
    |  4  |##5##|##6##|  7  |   ->   header with a smaller size, 5, RST0, 6, RST1, 9, RST2, 10, EOI
    |  8  |##9##|#10##| 11  |

Paragraph numbers are those of ITU-T T.81 (09/92).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastload.errors import CorruptImageError, UnsupportedImageError

Box: TypeAlias = tuple[int, int, int, int]
"""Top, left, height and width in pixels of the whole image."""

MAX_PIXELS = 178_956_970
"""The largest image, 537 MB of RGB: above twice `PIL.Image.MAX_IMAGE_PIXELS` Pillow too refuses an
image as a decompression bomb. native/core/header.hpp holds the same number."""

# Usual width of a restart interval by an MCU's width, in pixels. Chroma at half the width holds
# fewer bytes to a pixel, so its intervals are wider. Measured by benchmarks/bench_transcode.py: at
# 64 pixels the markers make 2,800 4:2:0 photographs of 43 kB 0.7 % larger than they were; at 96
# pixels the photographs become 0.2 % smaller, for crops that take 4 % longer. 4:4:4 photographs
# become 2 % smaller at 64 pixels.
INTERVAL_PIXELS = {8: 64, 16: 96}

_EOI, _SOS, _DRI = 0xD9, 0xDA, 0xDD
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # all SOFn; DHT, JPG and DAC are none
_HUFFMAN_SEQUENTIAL = (0xC0, 0xC1)
_MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)  # with fill bytes, B.1.1.2
_SEGMENT = struct.Struct(">BBH").unpack_from  # FF, marker, length
_SIZE = struct.Struct(">HH").unpack_from
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length: TEM, RSTn, SOI


@dataclass(frozen=True, slots=True)
class Upright:
    """How pictures that are not stored upright become so.

    Attributes:
        orientations: uint8 [N], EXIF's, in [1, 8].
        sizes: int32 [N, 2], height and width of the upright pictures.
    """

    orientations: NDArray[np.uint8]
    sizes: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Encoded:
    """Encoded images in one buffer, as a reader leaves them and a decoder takes them.

    Attributes:
        buffer: uint8 [M], the bytes of all images, owned by whoever made the value.
        starts: int64 [N], where each image begins in `buffer`.
        sizes: int64 [N], bytes of each image; `starts + sizes <= M`.
        tables: The seek tables of the same images, of 0 bytes where an image has none; None where
            none has.
        upright: How the pictures become upright; None where all are. Boxes are those of the upright
            pictures: see `decode.render_upright`.
    """

    buffer: NDArray[np.uint8]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    tables: Encoded | None = None
    upright: Upright | None = None

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> memoryview:
        start = int(self.starts[index])
        return self.buffer.data[start : start + int(self.sizes[index])]

    def table_of(self, index: int) -> bytes | memoryview:
        """The seek table of an image; of 0 bytes where it has none."""
        return b"" if self.tables is None else self.tables[index]

    @staticmethod
    def join(images: Sequence[bytes | memoryview]) -> Encoded:
        """Copy images into one new buffer."""
        sizes = np.array([len(image) for image in images], np.int64)
        starts = np.cumsum(sizes) - sizes
        return Encoded(np.frombuffer(b"".join(images), np.uint8), starts, sizes)


@dataclass(frozen=True, slots=True, kw_only=True)
class JpegHeader:
    """What stands before the first entropy-coded byte.

    Attributes:
        frame: Marker of the frame header: 0xC0 baseline, 0xC1 extended, 0xC2 progressive, …
        precision: Bits per sample, 8 in nearly all files.
        height: Height in pixels, at least 1.
        width: Width in pixels, at least 1.
        sampling: Horizontal and vertical sampling factor of each component.
        restart_interval: MCUs between restart markers; 0 where there are none.
        interleaved: Whether the first scan holds all components.
        size_offset: Where the height and width (two bytes each) stand.
        scan_offset: Where the first entropy-coded byte stands.
    """

    frame: int
    precision: int
    height: int
    width: int
    sampling: tuple[tuple[int, int], ...]
    restart_interval: int
    interleaved: bool
    size_offset: int
    scan_offset: int

    @property
    def mcu_height(self) -> int:
        """Rows of pixels in one MCU of an interleaved scan (A.2.3; a single component has 8)."""
        return 8 * max(v for _, v in self.sampling) if len(self.sampling) > 1 else 8

    @property
    def mcu_width(self) -> int:
        """Columns of pixels in one MCU of an interleaved scan."""
        return 8 * max(h for h, _ in self.sampling) if len(self.sampling) > 1 else 8


def restart_interval_for(width: int, mcu_width: int) -> int:
    """The restart interval to store an image with, in MCUs.

    The interval is the largest divisor of the MCU row that spans half to one and a half times the
    usual width (64 pixels, 96 where chroma is halved), so that the image can be sliced. Where there
    is no such divisor, the interval has the usual width, which the native core decodes all the
    same. Where the row is narrower than the usual width, the interval is the row.

    native/transcode/stored.hpp applies the same rule, since Python works without the core.

    Args:
        width: Width of the image, in pixels.
        mcu_width: 8 or 16 pixels.
    """
    usual = INTERVAL_PIXELS[mcu_width] // mcu_width
    least, greatest = usual // 2, usual * 3 // 2
    row = -(-width // mcu_width)
    if row <= usual:
        return row
    for interval in range(greatest, least - 1, -1):
        if row % interval == 0:
            return interval
    return usual


def frame_size(jpeg: bytes | memoryview) -> tuple[int, int] | None:
    """Height and width as the frame header says; None where no frame header is found.

    Looks at the markers alone, for a check of every image that is read. What is wrong with the rest
    of the header is for `read_header` and the decoders to say.
    """
    at, end = 2, len(jpeg) - 8
    while at < end:
        lead, marker, length = _SEGMENT(jpeg, at)
        if marker in FRAMES and lead == 0xFF:
            height, width = _SIZE(jpeg, at + 5)
            return height, width
        if lead != 0xFF or marker in (_SOS, _EOI):
            return None
        if marker == 0xFF:  # a fill byte (B.1.1.2)
            at += 1
        else:
            at += 2 if marker in _ALONE else 2 + length
    return None


def read_header(jpeg: bytes | memoryview, *, lenient: bool = False) -> JpegHeader:
    """Read the header of a JPEG, up to its first scan.

    Args:
        jpeg: A JPEG file, or its beginning.
        lenient: Step over stray bytes between segments, as libjpeg does.

    Raises:
        CorruptImageError: If the bytes are not a JPEG or its header is cut off or contradictory.
        UnsupportedImageError: If the header leaves the height to a later DNL marker.
    """
    try:
        return _read_header(memoryview(jpeg).cast("B"), lenient)
    except (IndexError, struct.error) as error:
        raise CorruptImageError("the JPEG header is cut off") from error


def _read_header(jpeg: memoryview, lenient: bool) -> JpegHeader:
    if bytes(jpeg[:2]) != b"\xff\xd8":
        raise CorruptImageError("not a JPEG: it does not begin with FF D8")
    frame: _Frame | None = None
    restart_interval = 0
    for marker, offset, length in segments(jpeg, lenient=lenient):
        if marker in FRAMES:
            if frame is not None:
                raise CorruptImageError("the JPEG has two frame headers")
            frame = _read_frame(jpeg, offset, length)
        elif marker == _DRI:
            (restart_interval,) = struct.unpack_from(">H", jpeg, offset + 2)
        elif marker == _EOI:
            raise CorruptImageError("the JPEG ends before its first scan")
    if frame is None:
        raise CorruptImageError("the JPEG has no frame header before its first scan")
    return JpegHeader(
        frame=jpeg[frame.offset - 1],
        precision=frame.precision,
        height=frame.height,
        width=frame.width,
        sampling=frame.sampling,
        restart_interval=restart_interval,
        interleaved=jpeg[offset + 2] == len(frame.sampling),
        size_offset=frame.offset + 3,
        scan_offset=offset + length,
    )


def segments(
    jpeg: memoryview, offset: int = 2, *, lenient: bool = False
) -> Iterator[tuple[int, int, int]]:
    """Marker, offset of the length field, and length of each segment through the next SOS or EOI.

    Args:
        jpeg: The file.
        offset: Where to begin: behind SOI, or behind the data of a scan.
        lenient: Step over stray bytes between segments, and take a length below 2 for 2, as libjpeg
            does.

    Raises:
        CorruptImageError: If the header is cut off.
    """
    marker = 0
    while marker not in (_SOS, _EOI):
        found = _MARKER.search(jpeg, offset)
        if found is None:
            raise CorruptImageError("the JPEG header is cut off")
        if found.start() != offset and not lenient:
            raise CorruptImageError("the JPEG header has bytes between its segments")
        marker, offset = found[1][0], found.end()
        if marker == _EOI:
            yield marker, offset, 0
            return
        if marker in _ALONE:
            continue
        length = int.from_bytes(jpeg[offset : offset + 2], "big")
        if lenient and length < 2:
            length = 2
        if length < 2 or offset + length > len(jpeg):
            raise CorruptImageError("a JPEG header segment is cut off")
        yield marker, offset, length
        offset += length


class _Frame(NamedTuple):
    offset: int
    precision: int
    height: int
    width: int
    sampling: tuple[tuple[int, int], ...]


def _read_frame(jpeg: memoryview, offset: int, length: int) -> _Frame:
    precision, height, width, components = struct.unpack_from(">BHHB", jpeg, offset + 2)
    if length != 8 + 3 * components or components == 0:
        raise CorruptImageError("the JPEG frame header contradicts its length")
    if height == 0:
        raise UnsupportedImageError("the JPEG header leaves the height open (DNL)")
    if width == 0:
        raise CorruptImageError("the JPEG is 0 pixels wide")
    factors = [jpeg[offset + 9 + 3 * index] for index in range(components)]
    sampling = tuple((factor >> 4, factor & 15) for factor in factors)
    if any(not (1 <= h <= 4 and 1 <= v <= 4) for h, v in sampling):
        raise CorruptImageError("a JPEG sampling factor is outside [1, 4]")
    return _Frame(offset, precision, height, width, sampling)


def slice_jpeg(jpeg: bytes | memoryview, box: Box) -> tuple[bytes | memoryview, Box]:
    """The smallest JPEG, made of whole restart intervals of `jpeg`, that covers `box`.

    The pixels of `box` decode to the same values from both files: the slice keeps one pixel around
    the box, from which libjpeg interpolates chroma. Nothing is decoded.

    Args:
        jpeg: A complete JPEG file.
        box: A region inside the image.

    Returns:
        The sliced file, and where `box` lies in it. `jpeg` and `box` themselves where nothing can
        be left out, or where the file cannot be sliced: it has no restart intervals, they do not
        divide a row of MCUs, their markers are out of sequence, or the file is progressive or has
        several scans.

    Raises:
        CorruptImageError: If the header is damaged.
        UnsupportedImageError: If the header leaves the height open.
        ValueError: If `box` does not lie inside the image.
    """
    data = memoryview(jpeg).cast("B")
    header = read_header(data)
    top, left, height, width = box
    if not (0 <= top < top + height <= header.height and 0 <= left < left + width <= header.width):
        raise ValueError(f"box must lie inside {header.height} x {header.width}, got {box}")
    grid = _interval_grid(header)
    if grid is None:
        return jpeg, box
    rows, columns = _covering_intervals(header, grid, box)
    if len(rows) * len(columns) == grid.rows * grid.columns:
        return jpeg, box
    bounds = _find_intervals(data, header.scan_offset, grid.rows * grid.columns)
    if bounds is None:
        return jpeg, box
    first_y, first_x = rows.start * header.mcu_height, columns.start * grid.pitch
    new_height = min(rows.stop * header.mcu_height, header.height) - first_y
    new_width = min(columns.stop * grid.pitch, header.width) - first_x
    parts: list[bytes | memoryview] = [
        data[: header.size_offset],
        struct.pack(">HH", new_height, new_width),
        data[header.size_offset + 4 : header.scan_offset],
    ]
    kept = [row * grid.columns + column for row in rows for column in columns]
    for number, interval in enumerate(kept):
        if number:
            parts.append(_RESTARTS[(number - 1) % 8])
        parts.append(data[bounds[interval] + 2 : bounds[interval + 1]])
    parts.append(b"\xff\xd9")
    return b"".join(parts), (top - first_y, left - first_x, height, width)


_RESTARTS = [bytes((0xFF, 0xD0 + number)) for number in range(8)]


class _Grid(NamedTuple):
    rows: int  # of intervals
    columns: int
    pitch: int  # width of an interval, in pixels


def _interval_grid(header: JpegHeader) -> _Grid | None:
    """The grid that the restart intervals form; None where they form none."""
    mcus = -(-header.width // header.mcu_width)
    interval = header.restart_interval
    sliceable = header.frame in _HUFFMAN_SEQUENTIAL and header.interleaved and interval
    if not sliceable or mcus % interval:
        return None
    rows = -(-header.height // header.mcu_height)
    return _Grid(rows, mcus // interval, interval * header.mcu_width)


def _covering_intervals(header: JpegHeader, grid: _Grid, box: Box) -> tuple[range, range]:
    """Rows and columns of the grid that cover the box and what chroma interpolation reads."""
    top, left, height, width = box
    margin = 1 if len(set(header.sampling)) > 1 else 0
    bottom = min(top + height - 1 + margin, header.height - 1)
    right = min(left + width - 1 + margin, header.width - 1)
    first_row, first_column = max(top - margin, 0), max(left - margin, 0)
    return (
        range(first_row // header.mcu_height, bottom // header.mcu_height + 1),
        range(first_column // grid.pitch, right // grid.pitch + 1),
    )


def _find_intervals(jpeg: memoryview, scan_offset: int, count: int) -> list[int] | None:
    """Offsets of the `count + 1` markers around the intervals; None where they are out of sequence.

    The first offset stands for a marker just before the scan; the last is that of EOI.
    """
    scan = np.frombuffer(jpeg, np.uint8, offset=scan_offset)
    after = scan[1:]
    at = np.flatnonzero(scan[:-1] == 0xFF)
    at = at[after[at] != 0]  # a stuffed FF 00 is data, F.1.2.3
    markers = after[at[:count]]
    if len(markers) < count or markers[-1] != _EOI:
        return None
    if (markers[:-1] != 0xD0 + np.arange(count - 1) % 8).any():
        return None
    return [scan_offset - 2, *(at[:count] + scan_offset).tolist()]
