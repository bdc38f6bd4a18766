"""The C++ core (native/) behind one thin binding: decode boxes, transcode, check, checksum.

The core is a plain C library beside this file, loaded on first use. The library is absent where
there was no C++ compiler, and ignored where FASTLOAD_NATIVE=0 is set; `decode.py` then takes
libjpeg-turbo. FASTLOAD_SIMD=avx2 keeps the core from using AVX-512, FASTLOAD_SIMD=portable from
using AVX2 as well; the results are the same.

Every function releases the GIL while it works, runs on the calling thread alone, and may be called
from many threads at once.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastload.errors import BackendUnavailableError, CorruptImageError, UnsupportedImageError
from fastload.installation import reinstall_command
from fastload.pixels.jpeg import Box, Encoded
from fastload.pixels.orientation import orientation_of_jpeg
from fastload.stages import Stages

LIBRARY = Path(__file__).with_name("_core.so")
MAX_SIZE = 8192
"""Side of the largest output, in pixels; keeps every product of sizes within its integer."""

INTERFACE = 4
"""Of the functions below; native/abi.cpp holds the same number."""

SIMD_LEVELS = ("portable", "avx2", "avx512")
"""Instructions that the core can use; each level includes those before it."""

_BAD_BOX = -1

_Pointer = ctypes.c_void_p
_Size = ctypes.c_size_t
_SIGNATURES = {
    "fl_reason": ([ctypes.c_int], ctypes.c_char_p),
    "fl_is_corrupt": ([ctypes.c_int], ctypes.c_int),
    "fl_set_simd": ([ctypes.c_int], ctypes.c_int),
    "fl_simd": ([], ctypes.c_int),
    "fl_decode_boxes": (
        [*[_Pointer] * 3, ctypes.c_int64, *[_Pointer] * 6, ctypes.c_int32, *[_Pointer] * 3],
        None,
    ),
    "fl_picture_size": ([_Pointer, _Size, _Pointer, _Pointer], ctypes.c_int),
    "fl_decode_full": (
        [_Pointer, _Size, ctypes.c_int32, ctypes.c_int32, _Pointer],
        ctypes.c_int,
    ),
    "fl_crc32_many": ([*[_Pointer] * 3, ctypes.c_int64, _Pointer], None),
    "fl_read_many": ([*[_Pointer] * 6, ctypes.c_int64, _Pointer], None),
    "fl_advise_files": ([_Pointer, _Pointer, ctypes.c_int64, ctypes.c_int64], None),
    "fl_check": ([_Pointer, _Size, _Pointer], ctypes.c_int),
    "fl_transcode": ([_Pointer, _Size, *[ctypes.c_int] * 3, _Pointer], ctypes.c_int),
    "fl_seek_points": ([_Pointer, _Size, ctypes.c_int, *[_Pointer] * 2], ctypes.c_int),
    "fl_cut_region": ([_Pointer, _Size, _Pointer, _Size, *[_Pointer] * 3], ctypes.c_int),
    "fl_free": ([_Pointer], None),
}


class _Facts(ctypes.Structure):
    """`Facts` of native/transcode/facts.hpp."""

    _fields_ = (
        ("status", ctypes.c_int32),
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("num_components", ctypes.c_int32),
        ("sampling", ctypes.c_int32 * 8),
        ("progressive", ctypes.c_int32),
        ("restart_interval", ctypes.c_int32),
        ("size", ctypes.c_uint64),
        ("bytes", _Pointer),
        ("reason", ctypes.c_char * 128),
    )


@dataclass(frozen=True, slots=True)
class JpegFacts:
    """The facts of a complete, sound JPEG.

    Attributes:
        height: Height in pixels, before any orientation.
        width: Width in pixels, before any orientation.
        sampling: (horizontal, vertical) factors of each component.
        progressive: Whether the file is progressive.
        orientation: The orientation that the file states, in [1, 8]; 1 if it states none.
        restart_interval: MCUs between restart markers; 0 if there are none.
    """

    height: int
    width: int
    sampling: tuple[tuple[int, int], ...]
    progressive: bool
    orientation: int
    restart_interval: int


@dataclass(frozen=True, slots=True)
class Transcoded:
    """A JPEG written anew from the same coefficients.

    Attributes:
        jpeg: Baseline, with restart markers and Huffman tables of its own, without metadata.
        height: Height in pixels as stored, upright if asked.
        width: Width in pixels as stored, upright if asked.
        restart_interval: MCUs between restart markers; 0 if there are none.
        orientation: The orientation that the source stated, in [1, 8].
        turned: Whether that orientation was applied.
    """

    jpeg: bytes
    height: int
    width: int
    restart_interval: int
    orientation: int
    turned: bool


@dataclass(frozen=True, slots=True)
class SeekPoints:
    """What one pass over a sound JPEG finds.

    Attributes:
        table: The seek table for `decode_boxes` (docs/format.md); empty where the file cannot be
            entered by one (it is not baseline), or needs none (its restart markers are as close).
        crc32: CRC-32 of the file, as `zlib.crc32`; the table holds it too.
        facts: What `check_jpeg` gives.
    """

    table: bytes
    crc32: int
    facts: JpegFacts


_COMPILERS = {  # package manager -> how it installs a C++ compiler
    "apt-get": "apt install g++",
    "dnf": "dnf install gcc-c++",
    "yum": "yum install gcc-c++",
    "zypper": "zypper install gcc-c++",
    "pacman": "pacman -S gcc",
    "apk": "apk add g++",
    "conda": "conda install cxx-compiler",
}


def is_available() -> bool:
    """Whether the core can be used here."""
    return _load()[0] is not None


def why_unavailable() -> str:
    """Why the core cannot be used; empty if it can."""
    return _load()[1]


def how_to_mend() -> str:
    """What to do where the core cannot be used, with the command."""
    if os.environ.get("FASTLOAD_NATIVE") == "0":
        return "unset FASTLOAD_NATIVE"
    if LIBRARY.exists():
        return f"build it anew: {reinstall_command()}"
    return f"install a C++ compiler ({_compiler_command()}), then {reinstall_command()}"


def _compiler_command() -> str:
    """How this system installs a C++ compiler."""
    if sys.platform == "darwin":
        return "xcode-select --install"
    for manager, command in _COMPILERS.items():
        if shutil.which(manager):
            return command
    return "such as g++ or clang++"


@cache
def _load() -> tuple[ctypes.CDLL | None, str]:
    if os.environ.get("FASTLOAD_NATIVE") == "0":
        return None, "FASTLOAD_NATIVE=0 is set"
    if not LIBRARY.exists():
        return None, f"{LIBRARY.name} was not built"
    try:
        if _is_cut_off(LIBRARY):
            return None, f"{LIBRARY.name} is cut off"
        library = ctypes.CDLL(str(LIBRARY))
        if not hasattr(library, "fl_interface") or library.fl_interface() != INTERFACE:
            return None, f"{LIBRARY.name} was built from another version of fastload"
        for name, (arguments, result) in _SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, result
    except (OSError, AttributeError) as error:
        return None, f"{LIBRARY.name} does not load: {error}"
    level = os.environ.get("FASTLOAD_SIMD")
    if level in SIMD_LEVELS:
        library.fl_set_simd(SIMD_LEVELS.index(level))
    return library, ""


def _is_cut_off(path: Path) -> bool:
    """Whether a library ends before what is to be loaded of it: to read on kills the process."""
    with path.open("rb") as file:
        head = file.read(4096)
        size = file.seek(0, os.SEEK_END)
    if not head.startswith(b"\x7fELF\x02\x01"):  # of 64 bits, little-endian, as our machines have
        return False
    try:
        (table,) = struct.unpack_from("<Q", head, 32)
        step, count = struct.unpack_from("<HH", head, 54)
        segments = (
            struct.unpack_from("<8xQ16xQ", head, table + step * number) for number in range(count)
        )
        return any(offset + length > size for offset, length in segments)
    except struct.error:
        return True


def _core() -> ctypes.CDLL:
    library, reason = _load()
    if library is None:
        raise BackendUnavailableError(f"the native core cannot run ({reason}); {how_to_mend()}")
    return library


def set_simd(level: str = SIMD_LEVELS[-1]) -> str:
    """Use the instructions of `level`, in SIMD_LEVELS; the results are the same at each.

    Returns:
        The level that is used from now on, by all threads: a lower one where the processor has no
        such instructions.
    """
    return SIMD_LEVELS[_core().fl_set_simd(SIMD_LEVELS.index(level))]


def reason(status: int) -> str:
    """The sentence that a status of `decode_boxes` stands for."""
    text: bytes = _core().fl_reason(status)
    return text.decode()


def decode_boxes(
    encoded: Encoded,
    boxes: NDArray[np.int32],
    flips: NDArray[np.bool_],
    out: NDArray[np.uint8],
    spent: Stages | None = None,
    tables: Encoded | None = None,
    windows: NDArray[np.float64] | None = None,
) -> NDArray[np.int32]:
    """Decode a box of each JPEG and resize it, antialiased, to a square; see `decode.Renderer`.

    Args:
        encoded: N images.
        boxes: int32 [N, 4]: top, left, height, width in pixels; EXIF orientation is not applied.
        flips: bool [N]: mirror left and right.
        out: uint8 [N, S, S, 3], C-contiguous, written in place; RGB.
        spent: The seconds of decoding and resizing are added to its `decode` and `resize`.
        tables: The seek table of each image, from `seek_points`; of size 0 where it has none. The
            pixels are the same with a table and without, it takes less time with one. The table
            must be of these very bytes: their CRC-32 is for the caller to compare (`table_crc32`),
            their size and where the points lead is compared here.
        windows: float64 [N, 4]: the part of each box that becomes the output, see
            `decode.Renderer`; None is all of each box.

    Returns:
        int32 [N]: 0 where the image was decoded, else a status for `reason`: the image is
        damaged or of a kind that the core does not take, the box reaches beyond the image, the
        window beyond the box, or the seek table is damaged or not of this image. The part of `out`
        for such an image is unspecified.

    Raises:
        ValueError: If shapes or types do not fit, or a box is empty or begins before the image.
    """
    count = len(encoded)
    if out.ndim != 4 or out.shape != (count, out.shape[1], out.shape[1], 3):
        raise ValueError(f"out must be [{count}, S, S, 3], got {list(out.shape)}")
    if out.dtype != np.uint8 or not out.flags.c_contiguous or not out.flags.writeable:
        raise ValueError("out must be uint8, C-contiguous and writeable")
    if not 1 <= out.shape[1] <= MAX_SIZE:
        raise ValueError(f"out's size must be in [1, {MAX_SIZE}], got {out.shape[1]}")
    if boxes.shape != (count, 4) or flips.shape != (count,):
        raise ValueError(
            f"boxes must be [{count}, 4] and flips [{count}], "
            f"got {list(boxes.shape)} and {list(flips.shape)}"
        )
    if count and (boxes[:, :2].min() < 0 or boxes[:, 2:].min() < 1):
        raise ValueError("boxes must begin at 0 or later and hold at least one pixel")
    buffer, starts, sizes = _checked(encoded)
    if tables is not None and len(tables) != count:
        raise ValueError(f"tables must be {count}, one for each image, got {len(tables)}")
    seek = _checked(tables) if tables is not None else ()
    boxes = np.ascontiguousarray(boxes, np.int32)
    if windows is not None:
        windows = np.ascontiguousarray(windows, np.float64)
        if windows.shape != (count, 4):
            raise ValueError(f"windows must be [{count}, 4], got {list(windows.shape)}")
    mirrored = np.ascontiguousarray(flips, np.uint8)
    statuses, nanoseconds = np.empty(count, np.int32), np.zeros(2, np.int64)
    _core().fl_decode_boxes(
        *(buffer.ctypes.data, starts.ctypes.data, sizes.ctypes.data, count),
        *([array.ctypes.data for array in seek] or (None, None, None)),
        *(boxes.ctypes.data, None if windows is None else windows.ctypes.data),
        *(mirrored.ctypes.data, out.shape[1]),
        *(out.ctypes.data, statuses.ctypes.data, nanoseconds.ctypes.data),
    )
    if spent is not None:
        spent.decode += nanoseconds[0].item() / 1e9
        spent.resize += nanoseconds[1].item() / 1e9
    return statuses


def _checked(
    encoded: Encoded,
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """The three arrays, contiguous, every image within the buffer."""
    buffer = np.ascontiguousarray(encoded.buffer, np.uint8)
    starts = np.ascontiguousarray(encoded.starts, np.int64)
    sizes = np.ascontiguousarray(encoded.sizes, np.int64)
    if buffer.ndim != 1 or starts.ndim != 1 or starts.shape != sizes.shape:
        raise ValueError("encoded must hold one-dimensional arrays, and as many starts as sizes")
    if len(starts) and (
        starts.min() < 0 or sizes.min() < 0 or (starts > len(buffer) - sizes).any()
    ):
        raise ValueError("encoded images must lie inside their buffer")
    return buffer, starts, sizes


def decode_full(jpeg: bytes | memoryview) -> NDArray[np.uint8]:
    """Decode a whole sequential JPEG: the pixels of libjpeg-turbo's defaults, bit for bit.

    Returns:
        uint8 [H, W, 3], RGB, C-contiguous, owned by the caller; grey is repeated.

    Raises:
        CorruptImageError: If the bytes are damaged or incomplete.
        UnsupportedImageError: If the file is of a kind that the core does not take.
    """
    core = _core()
    data = _bytes_of(jpeg)
    height, width = ctypes.c_int32(), ctypes.c_int32()
    _raise_for(
        core.fl_picture_size(data.ctypes.data, len(data), ctypes.byref(height), ctypes.byref(width))
    )
    pixels = np.empty((height.value, width.value, 3), np.uint8)
    _raise_for(core.fl_decode_full(data.ctypes.data, len(data), height, width, pixels.ctypes.data))
    return pixels


def _bytes_of(jpeg: bytes | memoryview) -> NDArray[np.uint8]:
    return np.frombuffer(jpeg, np.uint8) if len(jpeg) else np.empty(0, np.uint8)


def _raise_for(status: int, sentence: str = "") -> None:
    if status == 0:
        return
    kind = CorruptImageError if _core().fl_is_corrupt(status) else UnsupportedImageError
    raise kind(sentence or reason(status))


def crc32s(encoded: Encoded) -> NDArray[np.uint32]:
    """CRC-32 of the bytes of each image, as `zlib.crc32`.

    Returns:
        uint32 [N].
    """
    buffer, starts, sizes = _checked(encoded)
    sums = np.empty(len(encoded), np.uint32)
    _core().fl_crc32_many(
        *(buffer.ctypes.data, starts.ctypes.data, sizes.ctypes.data, len(encoded)),
        sums.ctypes.data,
    )
    return sums


def read_many(
    files: Sequence[bytes | int], offsets: NDArray[np.int64], into: Encoded
) -> NDArray[np.bool_]:
    """Read byte ranges of files, each into its place of a buffer, in one call.

    Args:
        files: For each range an open descriptor, or the path of a file that is read whole; a path
            has no zero byte in it.
        offsets: int64 [N], where each range begins in its file; 0 for a path.
        into: The places, whose bytes are written.

    Returns:
        bool [N]: False where the bytes are not all there, or a path is no regular file of as many
        bytes. Why is for the caller to find out.
    """
    buffer, starts, sizes = _checked(into)
    if not buffer.flags.writeable or not len(files) == len(offsets) == len(into):
        raise ValueError("into must be writeable, and hold a place for each file and offset")
    paths = (ctypes.c_char_p * len(files))(
        *(file if isinstance(file, bytes) else None for file in files)
    )
    descriptors = np.array([-1 if isinstance(file, bytes) else file for file in files], np.int32)
    offsets = np.ascontiguousarray(offsets, np.int64)
    complete = np.zeros(len(files), np.bool_)
    _core().fl_read_many(
        *(paths, descriptors.ctypes.data, offsets.ctypes.data, buffer.ctypes.data),
        *(starts.ctypes.data, sizes.ctypes.data, len(files), complete.ctypes.data),
    )
    return complete


def advise_files(paths: Sequence[bytes], sizes: NDArray[np.int64], step: int) -> None:
    """Ask the kernel for files that will be read soon, in pieces of `step` bytes.

    It is advice: what cannot be opened is passed over.

    Args:
        paths: The files; a path has no zero byte in it.
        sizes: int64 [N], their bytes.
        step: Bytes of one request.
    """
    sizes = np.ascontiguousarray(sizes, np.int64)
    if len(sizes) != len(paths):
        raise ValueError("sizes must be as many as paths")
    names = (ctypes.c_char_p * len(paths))(*paths)
    _core().fl_advise_files(names, sizes.ctypes.data, len(paths), step)


def check_jpeg(jpeg: bytes | memoryview) -> JpegFacts:
    """Read a JPEG to its last coefficient.

    Raises:
        CorruptImageError: If the bytes are damaged or incomplete.
        UnsupportedImageError: If the file is of a kind that the core does not read.
    """
    data = _bytes_of(jpeg)
    facts = _Facts()
    status = _core().fl_check(data.ctypes.data, len(data), ctypes.byref(facts))
    _raise_for(status, facts.reason.decode())
    return _facts_of(facts, jpeg)


def _facts_of(facts: _Facts, jpeg: bytes | memoryview) -> JpegFacts:
    factors = facts.sampling[: 2 * facts.num_components]
    return JpegFacts(
        height=facts.height,
        width=facts.width,
        sampling=tuple(zip(factors[::2], factors[1::2], strict=True)),
        progressive=bool(facts.progressive),
        orientation=orientation_of_jpeg(jpeg),
        restart_interval=facts.restart_interval,
    )


def seek_points(jpeg: bytes | memoryview, interval_pixels: int | None = None) -> SeekPoints:
    """Read a JPEG to its last coefficient, and note where it can be entered.

    Takes 0.4 of `check_jpeg`'s time for a baseline file, and comes to the same verdict.

    Args:
        jpeg: A JPEG of any kind.
        interval_pixels: How far apart the points are in each row of MCUs, about; None takes
            `jpeg.INTERVAL_PIXELS`, which pays best, or more where a table would take over 2.5 % of
            the file (native/seek/points.hpp has the measurement).

    Raises:
        CorruptImageError: If the bytes are damaged or incomplete.
        UnsupportedImageError: If the file is of a kind that the core does not read.
    """
    if interval_pixels is not None and not 1 <= interval_pixels <= 65535:
        raise ValueError(f"interval_pixels must be in [1, 65535], got {interval_pixels}")
    core = _core()
    data = _bytes_of(jpeg)
    facts, crc32 = _Facts(), ctypes.c_uint32()
    status = core.fl_seek_points(
        *(data.ctypes.data, len(data), -1 if interval_pixels is None else interval_pixels),
        *(ctypes.byref(crc32), ctypes.byref(facts)),
    )
    try:
        _raise_for(status, facts.reason.decode())
        table = ctypes.string_at(facts.bytes, facts.size) if facts.size else b""
    finally:
        core.fl_free(facts.bytes)
    return SeekPoints(table, crc32.value, _facts_of(facts, jpeg))


def table_crc32(table: bytes | memoryview) -> int:
    """CRC-32 of the file that a seek table belongs to."""
    return int.from_bytes(table[6:10], "little")


def cut_region(jpeg: bytes | memoryview, table: bytes | memoryview, box: Box) -> tuple[bytes, Box]:
    """Cut out of a baseline JPEG the small JPEG that covers a box, for decoders that are not ours.

    As `jpeg.slice_jpeg`, but from any baseline file: the same coefficients, a restart marker after
    each row of MCUs, no metadata. The pixels of `box` decode to the same values from both files.

    Args:
        jpeg: A baseline or extended sequential file in one scan.
        table: The file's seek table, from `seek_points`; empty where it has none: then the file is
            entered at its restart markers, or read from its beginning.
        box: A region inside the image; EXIF orientation is not applied.

    Returns:
        The region's file, and where `box` lies in it.

    Raises:
        CorruptImageError: If the bytes that are read are damaged, or the table is damaged or not
            of this file.
        UnsupportedImageError: If the file is of a kind that the core does not take.
        ValueError: If the box holds no pixel, or begins before the image, or reaches beyond it.
    """
    core = _core()
    data, seek = _bytes_of(jpeg), _bytes_of(table)
    place = np.array(box, np.int32)
    out, size = _Pointer(), _Size()
    status = core.fl_cut_region(
        *(data.ctypes.data, len(data), seek.ctypes.data, len(seek), place.ctypes.data),
        *(ctypes.byref(out), ctypes.byref(size)),
    )
    try:
        if status == _BAD_BOX:
            raise ValueError(f"box must lie inside the image, got {box}")
        _raise_for(status)
        region = ctypes.string_at(out, size.value)
    finally:
        core.fl_free(out)
    top, left, height, width = place.tolist()
    return region, (top, left, height, width)


def transcode_jpeg(
    jpeg: bytes | memoryview,
    *,
    interval_pixels: int | None = None,
    smallest: bool = False,
    orient: bool = True,
) -> Transcoded:
    """Rewrite a JPEG losslessly, with the same coefficients, as baseline with restart markers.

    Args:
        jpeg: A baseline, extended sequential or progressive file.
        interval_pixels: Usual width of a restart interval; None takes the width of
            `jpeg.restart_interval_for`, 0 writes no restart markers.
        smallest: Write the smallest file. Otherwise the Huffman tables are chosen for speed: the
            core decodes crops some 5 % faster, and files are 0.3 % larger.
        orient: Apply the orientation that the file states.

    Raises:
        CorruptImageError: If the bytes are damaged or incomplete.
        UnsupportedImageError: If the file cannot be stored as baseline without loss.
    """
    if interval_pixels is not None and interval_pixels < 0:
        raise ValueError(f"interval_pixels must be at least 0, got {interval_pixels}")
    core = _core()
    data = _bytes_of(jpeg)
    facts = _Facts()
    pixels = -1 if interval_pixels is None else interval_pixels
    orientation = orientation_of_jpeg(jpeg)
    turn = orientation if orient else 1
    status = core.fl_transcode(
        data.ctypes.data, len(data), pixels, smallest, turn, ctypes.byref(facts)
    )
    try:
        _raise_for(status, facts.reason.decode())
        rewritten = ctypes.string_at(facts.bytes, facts.size)
    finally:
        core.fl_free(facts.bytes)
    return Transcoded(
        jpeg=rewritten,
        height=facts.height,
        width=facts.width,
        restart_interval=facts.restart_interval,
        orientation=orientation,
        turned=turn != 1,
    )
