"""One image file -> the facts by which it is read where it lies, or why it is set aside.

    bytes ─▶ a plain JPEG? ─▶ read to its last coefficient: seek points, nothing is decoded
                        └▶ anything else ─▶ judged as for shards, then decoded as a reader would

What is taken is what `fastload.shard` takes, with one difference: nothing is mended. A file that
the back-ends would read differently, such as one with stray bytes between its segments, is set
aside here, and stored by `fastload.shard`.
"""

from __future__ import annotations

import hashlib
import io
import zlib
from dataclasses import replace

from PIL import Image

from fastload.errors import CorruptImageError, ImageError, UnsupportedImageError
from fastload.pixels import native
from fastload.pixels.decode import PILLOW_ERRORS, PILLOW_FORMATS, decode_image
from fastload.pixels.jpeg import MAX_PIXELS, JpegHeader, read_header, segments
from fastload.pixels.orientation import orientation_of_info, orientation_of_jpeg
from fastload.prepare.original import is_whole, refuse_lack_of_memory, why_not_original
from fastload.prepare.reasons import Reason, Rules, SetAsideError
from fastload.prepare.transcode import MAX_SIDE, damage_kind, recognised, store_image
from fastload.prepare.verdict import Kept
from fastload.store.places import KINDS

_BASELINE, _OTHER_JPEG, _OTHER_FORMAT = KINDS
_SEQUENTIAL, _HUFFMAN = (0xC0, 0xC1), (0xC0, 0xC1, 0xC2)  # frames of Huffman codes
_APP0, _APP14, _COM, _SOS = 0xE0, 0xEE, 0xFE, 0xDA
_METADATA = frozenset({*range(_APP0 + 1, 0xF0), _COM}) - {_APP14}  # JFIF and Adobe tell colours
_EOI = b"\xff\xd9"
_LAST_UNSWAPPED = 4  # orientation; those behind it swap height and width


def place_image(data: bytes, *, extension: str, rules: Rules) -> tuple[Kept, bytes]:
    """Decide about one image that stays where it lies.

    Args:
        data: The whole file.
        extension: Extension of the file's name, such as ".jpg", in any case; or "".
        rules: What is taken.

    Returns:
        The facts, and the seek table; b"" where there is none.

    Raises:
        SetAsideError: If the image must not be trained on, with the reason.
        MemoryError: If there is not enough memory to decode it: that is no fault of the image.
    """
    kind, mislabelled = recognised(data, extension, rules)
    found = plain_jpeg(data, rules) if kind == "JPEG" else None
    kept, table = found or (_judged(data, kind, extension, rules), b"")
    changes = [f"{kind} named {extension or 'without extension'}"] if mislabelled else []
    if kept.orientation > 1:
        changes.append("turned upright when it is read")
    return kept._replace(change=", ".join(changes)), table


def plain_jpeg(data: bytes, rules: Rules) -> tuple[Kept, bytes] | None:
    """The facts of a JPEG that is beyond doubt, and its seek table; None where it is in doubt.

    Raises:
        SetAsideError: If the JPEG is damaged.
    """
    if not native.is_available():
        return None
    try:
        header = read_header(data)
    except ImageError:
        return None
    photograph = header.frame in _HUFFMAN and header.precision == 8 and len(header.sampling) == 3
    sides, pixels = (header.height, header.width), header.height * header.width
    # Of one scan that ends in EOI the core sees below that it is complete.
    whole = (_is_baseline(header) and data.endswith(_EOI)) or is_whole(data)
    fits = min(sides) >= rules.min_side and max(sides) <= MAX_SIDE and pixels <= MAX_PIXELS
    if not (photograph and fits and whole):
        return None
    try:
        found = native.seek_points(data)
    except UnsupportedImageError as error:
        refuse_lack_of_memory(error)
        return None
    except CorruptImageError as error:
        raise SetAsideError(damage_kind(error.reason), error.reason) from error
    how, facts = _BASELINE if _is_baseline(header) else _OTHER_JPEG, found.facts
    digest = _digest(data, facts.orientation)
    kept = _kept(how, len(data), found.crc32, (facts.height, facts.width), facts.orientation)
    return kept._replace(digest=digest), found.table


def _is_baseline(header: JpegHeader) -> bool:
    """Whether the core decodes the file; it does no other sampling."""
    small = all(h <= 2 and v <= 2 for h, v in header.sampling)
    return header.frame in _SEQUENTIAL and header.interleaved and small


def _judged(data: bytes, kind: str, extension: str, rules: Rules) -> Kept:
    """The facts of an image that the rules of shards take and that a reader decodes as it is."""
    stored = store_image(data, extension=extension, rules=replace(rules, store="seekable"))
    try:
        why, orientation, found = _seen_by_a_reader(data, kind)
    except ImageError as error:
        refuse_lack_of_memory(error)
        why, orientation, found = error.reason, 1, (0, 0)
    size = (stored.height, stored.width)
    upright = size[::-1] if orientation > _LAST_UNSWAPPED else size
    if not why and found != upright:
        why = "decoders see another size"
    if why:
        raise SetAsideError(
            Reason.UNSUPPORTED, f"cannot be read where it lies ({why}); fastload.shard stores it"
        )
    digest = hashlib.blake2b(stored.by_default, digest_size=16).hexdigest()
    how = _OTHER_JPEG if kind == "JPEG" else _OTHER_FORMAT
    return _kept(how, len(data), zlib.crc32(data), upright, orientation)._replace(digest=digest)


def _seen_by_a_reader(data: bytes, kind: str) -> tuple[str, int, tuple[int, int]]:
    """What a reader of this image would see.

    Returns:
        Why it would not read the picture that shards would hold, or ""; the orientation; and the
        height and width as it decodes them.

    Raises:
        ImageError: If it cannot decode the image.
    """
    if kind == "JPEG":
        why = why_not_original(data) if len(read_header(data).sampling) == 3 else ""
        height, width = (0, 0) if why else decode_image(data).shape[:2]
        return why, orientation_of_jpeg(data), (height, width)
    if kind not in PILLOW_FORMATS:
        return f"{kind} is decoded too slowly", 1, (0, 0)
    try:
        with Image.open(io.BytesIO(data), formats=(kind,)) as image:
            image.load()  # Pillow itself turns a TIFF
            orientation = 1 if kind == "TIFF" else orientation_of_info(image.info)
            return "", orientation, (image.height, image.width)
    except PILLOW_ERRORS as error:
        reason = str(error).partition(" <_io.BytesIO")[0]  # without the buffer's address
        raise CorruptImageError(f"Pillow cannot decode it: {reason}") from error


def _kept(how: str, size: int, crc32: int, stored: tuple[int, int], orientation: int) -> Kept:
    """The facts of an image but its digest; `stored` is its height and width as it is stored."""
    height, width = stored[::-1] if orientation > _LAST_UNSWAPPED else stored
    return Kept(
        size=size,
        height=height,
        width=width,
        crc32=crc32,
        digest="",
        how=how,
        change="",
        orientation=orientation,
    )


def _digest(jpeg: bytes, orientation: int) -> str:
    """128 bits of a JPEG without its metadata but its orientation: equal digests, equal pictures.

    The same picture in other codes has another digest, where `fastload.shard` finds the copy.
    """
    # It guards against no attacker, and takes the least time: 31 us for 44 kB, blake2b 88.
    data, digest = memoryview(jpeg), hashlib.sha1(usedforsecurity=False)
    at = 2
    for marker, offset, length in segments(data):
        if marker not in _METADATA:
            digest.update(data[offset - 1 : offset + length])
        at = offset + length
    digest.update(data[at : jpeg.rfind(_EOI)])
    digest.update(bytes([orientation]))
    return digest.hexdigest()[:32]
