"""Whether a JPEG may be stored as it is: only if every back-end reads the same picture from it.

The back-ends differ where a file is damaged or odd: the core needs no EOI, Pillow does; libjpeg
skips bytes between segments, `read_header` refuses them; DALI is silent about a file that is cut
off. So a file must be beyond doubt, by rules that need neither the core nor DALI:

    read_header takes it: 8 bits, three components, Huffman codes
    every scan is there, and EOI
    libjpeg-turbo decodes it without a warning

Where the core is there, its pixels are compared as well: means far beyond black and white, which
only a damaged file has, are rendered otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import simplejpeg

from fastload.errors import CorruptImageError, ImageError
from fastload.pixels import native
from fastload.pixels.jpeg import read_header
from fastload.prepare.bare import Coverage

_HUFFMAN = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended sequential and progressive
_WITHOUT_LENGTH = frozenset({0x01, 0xD8})  # TEM and SOI: nothing that a picture needs
_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")  # neither stuffed data, RSTn nor a fill byte
# What libjpeg-turbo ("Insufficient memory", "Memory allocation failure"), Pillow ("out of memory
# error") and the core ("not enough memory") say.
_LACK = re.compile(
    r"(insufficient|out of|not enough|allocat\w+) memory|memory alloc", re.IGNORECASE
)
_SOS, _EOI = 0xDA, 0xD9


def why_not_original(jpeg: bytes) -> str:
    """Why a JPEG cannot be stored as it is; "" where every back-end reads the same from it."""
    try:
        header = read_header(jpeg)
    except ImageError as error:
        return error.reason
    if header.frame not in _HUFFMAN or header.precision != 8 or len(header.sampling) != 3:
        return "its JPEG process is not that of photographs"
    if not is_whole(jpeg):
        return "a scan or the end of the JPEG is missing"
    try:
        pixels = simplejpeg.decode_jpeg(jpeg, "RGB", strict=True)
    except ValueError as error:
        refuse_lack_of_memory(error)
        return str(error)
    try:
        same = not native.is_available() or np.array_equal(native.decode_full(jpeg), pixels)
    except ImageError as error:
        refuse_lack_of_memory(error)
        same = True  # libjpeg-turbo renders what the core refuses
    return "" if same else "the native core and libjpeg-turbo read it differently"


def refuse_lack_of_memory(error: Exception) -> None:
    """See that a decoder failed for another reason than a lack of memory.

    Raises:
        MemoryError: If the decoder, or what it called, got no memory.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError) or _LACK.search(str(cause)):
            raise MemoryError from error
        cause = cause.__cause__ or cause.__context__


def is_whole(jpeg: bytes) -> bool:
    """Whether the header is made of segments, all bits of all coefficients come, and then EOI."""
    coverage, in_header = None, True
    for marker, body, adjacent in _segments(jpeg):
        if marker == _EOI:
            return coverage is not None and coverage.complete
        if marker in _WITHOUT_LENGTH or (in_header and not adjacent):
            return False
        if marker in _HUFFMAN:
            coverage = Coverage(marker, body)
        elif marker == _SOS and coverage is not None:
            in_header = False
            try:
                coverage.enter(body)
            except CorruptImageError:
                return False
    return False


def _segments(jpeg: bytes) -> Iterator[tuple[int, bytes, bool]]:
    """Marker and body of each segment, and whether it follows at once on what stands before it.

    RSTn and stray bytes in a header stop DALI's parser. Entropy-coded data are passed over.
    """
    at = len(b"\xff\xd8")
    while found := _MARKER.search(jpeg, at):
        adjacent = not jpeg[at : found.start()].strip(b"\xff")
        at = found.end()
        body = jpeg[at + 2 : at + int.from_bytes(jpeg[at : at + 2], "big")]
        yield found[1][0], body, adjacent
        at += 2 + len(body)
