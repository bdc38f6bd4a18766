"""`bare_jpeg`, `bare_png`: a file without what says nothing about its pixels, to be judged.

Pillow refuses sound pictures for odd metadata, and libjpeg-turbo tells only the first of its
warnings, so that one about metadata would hide one about pixels. What remains is what the pixels
depend on: tables, frame, scans, and which colours the components are.
"""

from __future__ import annotations

import re
import zlib
from typing import NamedTuple

from fastload.errors import CorruptImageError
from fastload.pixels.jpeg import FRAMES, segments

_EOI, _SOS, _DNL, _APP0, _APP14, _COM = 0xD9, 0xDA, 0xDC, 0xE0, 0xEE, 0xFE
_LEFT_OUT = frozenset({*range(_APP0, 0xF0), _COM, _DNL, _SOS, _EOI})  # or written apart
_SEQUENTIAL, _PROGRESSIVE = (0xC0, 0xC1, 0xC9), (0xC2, 0xCA)  # of Huffman and arithmetic codes
_HUFFMAN_DCT = (0xC0, 0xC1, 0xC2)
_AFTER_SCAN = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)  # no stuffed byte, no RSTn


_PNG_SIGNATURE_BYTES, _PNG_CHUNK_BYTES = 8, 12  # of length, name and checksum beside the body
_PNG_KEPT = frozenset((b"tRNS", b"acTL", b"fcTL", b"fdAT", b"eXIf"))  # beside the critical chunks
_PNG_ORIENTATION = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")  # beginnings of texts


def bare_png(png: bytes) -> bytes:
    """The PNG with the chunks that its pixels, its frames and its orientation depend on.

    All other chunks, and those of a wrong checksum that are not critical, are left out, as libpng
    passes over them and Pillow does not. From a chunk that is cut off on, the bytes stay.
    """
    at, parts = _PNG_SIGNATURE_BYTES, [png[:_PNG_SIGNATURE_BYTES]]
    while at < len(png):
        end = at + _PNG_CHUNK_BYTES + int.from_bytes(png[at : at + 4], "big")
        name = png[at + 4 : at + 8]
        critical = not name[:1].islower()
        if critical or end > len(png):
            parts.append(png[at:end])
        elif name in _PNG_KEPT or png.startswith(_PNG_ORIENTATION, at + 8):
            body = memoryview(png)[at + 4 : end - 4]
            if zlib.crc32(body) == int.from_bytes(png[end - 4 : end], "big"):
                parts.append(png[at:end])
        at = end
    return b"".join(parts)


def bare_jpeg(jpeg: bytes | memoryview) -> bytes:
    """The JPEG from SOI to EOI with the segments that its pixels depend on.

    Stray bytes before the first scan, and all that follows the last scan, are left out. An EOI that
    is not there is added.

    Raises:
        CorruptImageError: If a header is damaged, or the file ends before its last scan.
    """
    data = memoryview(jpeg).cast("B")
    tables = _tables(data, 2, lenient=True)
    frame = next((one for one in tables if one.marker in FRAMES), None)
    if frame is None or tables[-1].marker != _SOS:
        raise CorruptImageError("the JPEG ends before its first scan")
    coverage = Coverage(frame.marker, frame.body)
    parts = [b"\xff\xd8", _colours(tables, components=(len(frame.body) - 6) // 3)]
    while tables[-1].marker == _SOS:
        scan = tables[-1]
        found = _AFTER_SCAN.search(data, scan.end)
        end = found.start() if found else len(data)
        parts += [_written(one) for one in tables if one.marker not in _LEFT_OUT]
        parts += [coverage.enter(scan.body), bytes(data[scan.end : end])]
        if coverage.complete or found is None:
            coverage.check_end(found[1][0] if found else None)
            break
        tables = _tables(data, end)
    coverage.check(ended=tables[-1].marker == _EOI)
    return b"".join([*parts, b"\xff\xd9"])


class _Segment(NamedTuple):
    marker: int
    body: bytes
    end: int


def _tables(data: memoryview, at: int, *, lenient: bool = False) -> list[_Segment]:
    """The segments through the next SOS or EOI."""
    return [
        _Segment(marker, bytes(data[offset + 2 : offset + length]), offset + length)
        for marker, offset, length in segments(data, at, lenient=lenient)
    ]


def _written(segment: _Segment) -> bytes:
    size = len(segment.body) + 2
    return bytes((0xFF, segment.marker)) + size.to_bytes(2, "big") + segment.body


def _colours(header: list[_Segment], *, components: int) -> bytes:
    """The segments that say which colours the components are, as libjpeg recognises them."""
    jfif = adobe = b""
    for marker, body, _ in header:
        if marker == _APP0 and len(body) >= 14 and body.startswith(b"JFIF\0"):
            jfif = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"
        if marker == _APP14 and len(body) >= 12 and body.startswith(b"Adobe"):
            transform = bool(body[11]) * (1 if components == 3 else 2)  # of others libjpeg warns
            adobe = b"\xff\xee\0\x0e" + body[:11] + bytes([transform])
    return jfif + adobe


class Coverage:
    """Which bits of which coefficients the scans have sent."""

    def __init__(self, frame: int, body: bytes) -> None:
        self._frame = frame
        self._missing: dict[int, list[int | None]] = {number: [None] * 64 for number in body[6::3]}

    def enter(self, scan: bytes) -> bytes:
        """Take a scan into account; returns its segment, as libjpeg reads it."""
        count = scan[0] if scan else 0
        numbers = scan[1 : 1 + 2 * count : 2]
        if len(scan) != 4 + 2 * count or not set(numbers) <= set(self._missing):
            raise CorruptImageError("a JPEG scan header contradicts the frame header")
        first, last, approximation = scan[-3:]
        if self._frame not in _PROGRESSIVE:
            first, last, approximation = 0, 63, 0
        for number in numbers:
            for place in range(first, min(last, 63) + 1):
                self._missing[number][place] = approximation & 15
        if self._frame in _SEQUENTIAL:  # libjpeg warns of other values, and ignores them
            scan = scan[:-3] + b"\0\x3f\0"
        return _written(_Segment(_SOS, scan, 0))

    @property
    def complete(self) -> bool:
        """Whether every bit has been sent."""
        return not any(bits != 0 for places in self._missing.values() for bits in places)

    def check_end(self, marker: int | None) -> None:
        """Refuse a scan that no EOI ends, where libjpeg would not notice that bits are missing.

        It takes zeros for the codes that an arithmetic decoder lacks, in silence.

        Raises:
            CorruptImageError: If another marker than EOI follows, or none.
        """
        if self._frame not in _HUFFMAN_DCT and marker != _EOI:
            raise CorruptImageError("the JPEG ends before its picture is complete")

    def check(self, *, ended: bool) -> None:
        """Refuse a file whose scans are not all there.

        A progressive file may leave out bits, and says by EOI that it ends; no decoder can do
        without the mean of a block.
        """
        means = all(places[0] is not None for places in self._missing.values())
        if not self.complete and not (ended and means and self._frame in _PROGRESSIVE):
            raise CorruptImageError("the JPEG ends before its picture is complete")
