"""One image file -> the JPEG that is stored, or the reason why it is set aside.

    bytes ─▶ what is it? ─▶ JPEG ─▶ native core: the same coefficients     lossless
                         │       └▶ Pillow: the same quantisation tables   near-lossless
                         └▶ PNG, WebP, BMP, … ─▶ Pillow: a new JPEG        re-encoded

What is stored is upright, three-channel, decodes to its last row and carries no metadata. The bytes
may come from anywhere: formats are an allow-list, sizes are checked before pixels exist, and
whatever a decoder raises becomes a reason. A decoder may crash its process: the caller runs it in a
worker (workers.py).
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import simplejpeg
from PIL import (
    Image,
    ImageChops,
    ImageFile,
    ImageStat,
    JpegImagePlugin,
    PngImagePlugin,
    TiffTags,
    features,
)

from fastload.errors import CorruptImageError, ImageError, UnsupportedImageError
from fastload.pixels import native
from fastload.pixels.decode import to_rgb
from fastload.pixels.jpeg import MAX_PIXELS, JpegHeader, read_header, restart_interval_for
from fastload.pixels.orientation import orientation_of_info, orientation_of_jpeg
from fastload.prepare.bare import bare_jpeg, bare_png
from fastload.prepare.formats import TAKEN, format_named, is_cut_off, sniff_format
from fastload.prepare.original import refuse_lack_of_memory, why_not_original
from fastload.prepare.reasons import Reason, Rules, SetAsideError

MAX_SIDE = 65_500  # libjpeg's JPEG_MAX_DIMENSION
MAX_FILE_BYTES = 256 << 20  # a 178-megapixel photograph is 100 MB as JPEG
MAX_TEXT_BYTES = 16 << 20  # of XMP or EXIF as text in a PNG, unpacked; Pillow's limit is 1 MiB
MOST_LOSS = 2.0  # levels of 256, on average; photographs of any quality lose less than 1
_BAND_ROWS = 1024
HOW = ("lossless", "near-lossless", "re-encoded", "original")  # ways to store an image


def why_too_large(size: int) -> str:
    """Why a file of so many bytes is not read, before memory is taken for it; "" if it is read."""
    return f"has {size:,} bytes, more than {MAX_FILE_BYTES:,}" if size > MAX_FILE_BYTES else ""


@dataclass(frozen=True, slots=True)
class Stored:
    """An image as it is stored.

    Attributes:
        jpeg: A complete JPEG file of three components, upright.
        how: One of `HOW`.
        height: Pixels.
        width: Pixels.
        change: What was done to the image that its owner may want to know, such as "turned
            upright"; "" for a plain photograph.
        by_default: The JPEG that `store="seekable"` stores: equal bytes, equal images.
    """

    jpeg: bytes
    how: str
    height: int
    width: int
    change: str = ""
    by_default: bytes = field(default=b"", compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.by_default:
            object.__setattr__(self, "by_default", self.jpeg)


# The warnings of libjpeg-turbo (jerror.h) after which it fills the picture with guesses, or after
# which the scans hold more than the picture. All others are about segments that `bare_jpeg` leaves
# out.
_DAMAGE = re.compile(r"Corrupt JPEG data|Premature end of JPEG file|Inconsistent progression")
_LEFT_OVER = re.compile(r"(\d+) extraneous bytes before marker 0x([0-9a-f]{2})")
_MOST_PADDED_SCANS = 16

_ENDS_EARLY = re.compile(
    r"ends (before|within)|cut off|truncated|premature end|but only got", re.IGNORECASE
)

# What Pillow says of files that may be sound.
_NOT_TAKEN = re.compile(
    r"unsupported|not (yet )?supported|not available|not installed|unknown pixel mode"
    r"|cannot handle|unable to determine J2K image mode",
    re.IGNORECASE,
)
_TOO_MUCH_TEXT = re.compile(r"MAX_TEXT_(CHUNK|MEMORY)|Decompressed Data Too Large")  # Pillow 10.2

# What libjpeg-turbo does not decode: hierarchical JPEG, and lossless JPEG with arithmetic codes.
_UNKNOWN_FRAMES = frozenset({0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF})


def store_image(data: bytes, *, extension: str, rules: Rules) -> Stored:
    """Decide about one image and make the JPEG that is stored.

    Args:
        data: The whole file.
        extension: Extension of the file's name, such as ".jpg", in any case; or "".
        rules: What is taken and how it is stored.

    Raises:
        SetAsideError: If the image must not be trained on, with the reason.
        MemoryError: If there is not enough memory to decode it: that is no fault of the image.
    """
    try:
        return _store_image(data, extension, rules)
    except SetAsideError as error:
        if error.kind is not Reason.SMALL:
            raise
        try:
            _store_image(data, extension, replace(rules, min_side=1))
        except SetAsideError as behind:  # --min-side alone would not help
            detail = f"{error.reason}, and {behind.kind.words}"
            raise SetAsideError(Reason.SMALL, detail) from error
        raise


def _store_image(data: bytes, extension: str, rules: Rules) -> Stored:
    kind, mislabelled = recognised(data, extension, rules)
    stored = _store_jpeg(data, rules) if kind == "JPEG" else _store_other(data, kind, rules)
    if kind == "JPEG" and rules.store == "original" and not stored.change:
        stored = _as_it_is(data, stored)
    if not mislabelled:
        return stored
    return _noted(stored, f"{kind} named {extension or 'without extension'}")


def _as_it_is(jpeg: bytes, stored: Stored) -> Stored:
    """The file itself, if every back-end reads the same from it; else what is stored by default."""
    why = why_not_original(jpeg)
    if why:
        return replace(stored, change=f"not kept as it is: {why}")
    return replace(stored, jpeg=jpeg, how="original")


def recognised(data: bytes, extension: str, rules: Rules) -> tuple[str, bool]:
    """The format of a file, and whether its extension is that of another.

    Raises:
        SetAsideError: If the format is not taken, or the extension counts.
    """
    kind = sniff_format(data)
    _check_kind(data, kind)
    mislabelled = kind != format_named(extension)
    if mislabelled and not rules.convert:
        named = f"is named {extension}" if extension else "has no extension"
        raise SetAsideError(Reason.MISLABELLED, f"is {_article(kind)} file, but {named}")
    return kind, mislabelled


def _check_kind(data: bytes, kind: str) -> None:
    if not data:
        raise SetAsideError(Reason.EMPTY)
    if kind == "GIF":
        raise SetAsideError(Reason.GIF)
    if not kind:
        raise SetAsideError(Reason.NOT_IMAGE, f"holds no known image; it begins with {data[:8]!r}")
    if kind not in TAKEN:
        raise SetAsideError(Reason.UNSUPPORTED, f"is {_article(kind)} file, which is not taken")


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "AIO" or kind in {"MNG", "SGI"} else f"a {kind}"


def _check_size(height: int, width: int, rules: Rules) -> None:
    if height * width > MAX_PIXELS:
        raise SetAsideError(
            Reason.BOMB, f"has {height} x {width} pixels, more than {MAX_PIXELS:,} in all"
        )
    if max(height, width) > MAX_SIDE:
        raise SetAsideError(Reason.LARGE, f"has {height} x {width} pixels, JPEG ends at {MAX_SIDE}")
    if min(height, width) < rules.min_side:
        raise SetAsideError(
            Reason.SMALL, f"has {height} x {width} pixels, --min-side is {rules.min_side}"
        )


def _store_jpeg(data: bytes, rules: Rules) -> Stored:
    try:
        header = read_header(data, lenient=True)
    except UnsupportedImageError as error:
        raise SetAsideError(Reason.UNSUPPORTED, error.reason) from error
    except CorruptImageError as error:
        raise SetAsideError(damage_kind(error.reason), error.reason) from error
    _check_size(header.height, header.width, rules)
    _check_process(header)
    if len(header.sampling) == 1 and not rules.convert:
        raise SetAsideError(Reason.GREY)
    fits = rules.max_side is None or max(header.height, header.width) <= rules.max_side
    if native.is_available() and fits and len(header.sampling) == 3:
        stored = _store_natively(data)
        if stored is not None:
            return stored
    return _store_with_pillow(data, "JPEG", rules)


def _check_process(header: JpegHeader) -> None:
    if header.precision != 8:
        raise SetAsideError(Reason.UNSUPPORTED, f"has {header.precision} bits a sample, not 8")
    if header.frame in _UNKNOWN_FRAMES:
        raise SetAsideError(
            Reason.UNSUPPORTED, f"is a JPEG of the process SOF{header.frame - 0xC0}"
        )
    if len(header.sampling) not in {1, 3, 4}:
        raise SetAsideError(Reason.COLOUR_SPACE, f"has {len(header.sampling)} components")


def _store_natively(data: bytes) -> Stored | None:
    """The image as the native core stores it; None where the core leaves the file to Pillow."""
    try:
        done = native.transcode_jpeg(data)
    except UnsupportedImageError as error:
        refuse_lack_of_memory(error)
        return None
    except CorruptImageError as error:
        raise SetAsideError(damage_kind(error.reason), error.reason) from error
    change = "turned upright" if done.turned else ""
    return Stored(done.jpeg, "lossless", done.height, done.width, change)


def damage_kind(reason: str) -> Reason:
    """The kind of damage that a decoder's words are about."""
    if _NOT_TAKEN.search(reason):
        return Reason.UNSUPPORTED
    if _TOO_MUCH_TEXT.search(reason):
        return Reason.LARGE
    return Reason.TRUNCATED if _ENDS_EARLY.search(reason) else Reason.CORRUPT


def _store_other(data: bytes, kind: str, rules: Rules) -> Stored:
    stored = _store_with_pillow(data, kind, rules)
    return _noted(stored, f"{kind} made a JPEG")


def _noted(stored: Stored, change: str) -> Stored:
    """The same image with one more change, before the others."""
    return replace(stored, change=f"{change}, {stored.change}" if stored.change else change)


@contextmanager
def _hardened() -> Iterator[None]:
    """Set up Pillow for files from anywhere; afterwards it is set up as before."""
    limit, lenient = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    chunk, text = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    PngImagePlugin.MAX_TEXT_CHUNK = MAX_TEXT_BYTES
    PngImagePlugin.MAX_TEXT_MEMORY = 4 * MAX_TEXT_BYTES
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are about odd metadata, which is dropped
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = limit, lenient
        PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = chunk, text


def _store_with_pillow(data: bytes, kind: str, rules: Rules) -> Stored:
    try:
        with _hardened():
            return _store_pixels(data, kind, rules)
    except SetAsideError:
        raise
    except ImageError as error:
        raise SetAsideError(damage_kind(error.reason), error.reason) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise SetAsideError(Reason.BOMB, str(error)) from error
    except Exception as error:  # a decoder of hostile bytes may raise anything
        refuse_lack_of_memory(error)
        words = f"Pillow cannot decode it: {error or type(error).__name__}"
        cause = error.__cause__
        if kind == "TIFF" and isinstance(cause, KeyError) and cause.args[0] not in TiffTags.TAGS_V2:
            words = f"has the compression {error}, which is not supported"
        reason = damage_kind(words)
        if reason is Reason.CORRUPT and is_cut_off(data, kind):
            reason, words = Reason.TRUNCATED, "has fewer bytes than its header says"
        raise SetAsideError(reason, words) from error


def _store_pixels(data: bytes, kind: str, rules: Rules) -> Stored:
    plain = _BARE[kind](data) if kind in _BARE else data
    image = _open(plain, kind)
    _check_size(image.height, image.width, rules)
    if kind != "JPEG" and getattr(image, "is_animated", False):
        raise SetAsideError(Reason.ANIMATED)
    _check_mode(image, rules)
    image.load()
    if kind == "JPEG":
        _check_damage(plain, image)
    turn = _TURNS.get(_orientation_of(data, kind, image))
    upright = image if turn is None else image.transpose(turn)
    changes = ["turned upright"] if turn is not None else []
    if image.mode != "RGB":
        changes.append(f"{image.mode} made RGB")
        upright = to_rgb(upright)
    size = _size_within(upright.size, rules.max_side)
    how, options = "re-encoded", _new_options(rules)
    if size != upright.size:
        upright = upright.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    elif kind == "JPEG" and image.mode == "RGB":
        how, options = _kept_options(image, turn, rules)
    jpeg = _encode(upright, options)
    if how == "near-lossless" or options["subsampling"]:
        how, jpeg = _closer(upright, how, jpeg, rules)
    return Stored(jpeg, how, upright.height, upright.width, ", ".join(changes))


_BARE: dict[str, Callable[[bytes], bytes]] = {"JPEG": bare_jpeg, "PNG": bare_png}


def _open(data: bytes, kind: str) -> Image.Image:
    if kind == "JPEG":  # not Image.open: it takes a picture with a depth map for an animation
        return JpegImagePlugin.JpegImageFile(io.BytesIO(data))
    Image.init()
    needed = _FEATURES.get(kind)
    if needed and (kind not in Image.OPEN or not features.check(needed)):
        raise SetAsideError(
            Reason.UNSUPPORTED, f"is {_article(kind)} file, which this Pillow was built without"
        )
    plugin = "DIB" if kind == "BMP" and not data.startswith(b"BM") else kind
    opened: Image.Image = Image.OPEN[plugin][0](io.BytesIO(data), "")  # tells why, Image.open not
    return opened


_FEATURES = {"WEBP": "webp", "AVIF": "avif", "JPEG2000": "jpg_2000"}

_MODES = {
    **dict.fromkeys(("L", "1"), Reason.GREY),
    **dict.fromkeys(("LA", "La", "RGBA", "RGBa", "PA"), Reason.ALPHA),
    **dict.fromkeys(("I;16", "I;16B", "I;16L", "I;16N", "I", "F"), Reason.DEEP),
    "P": Reason.PALETTE,
    "CMYK": Reason.CMYK,
}


def _check_mode(image: Image.Image, rules: Rules) -> None:
    if image.mode in {"RGB", "RGBX", "YCbCr"}:
        return
    reason = _MODES.get(image.mode)
    if reason is None:
        raise SetAsideError(Reason.COLOUR_SPACE, f"has the colour space {image.mode}")
    if image.mode == "F":
        raise SetAsideError(Reason.DEEP, "has floating-point pixels of unknown range")
    if not rules.convert:
        raise SetAsideError(reason)


def _check_damage(jpeg: bytes, image: Image.Image) -> None:
    """Refuse a scan with gaps: libjpeg-turbo fills them by guesses, Pillow drops its warning."""
    colours = "GRAY" if image.mode == "L" else "RGB"
    warning = _warning_of(jpeg, colours)
    for _ in range(_MOST_PADDED_SCANS):  # a warning about padding hides those behind it
        unpadded = _without_padding(jpeg, warning)
        if unpadded is None:
            break
        jpeg, warning = unpadded, _warning_of(unpadded, colours)
    if _DAMAGE.search(warning):
        raise SetAsideError(damage_kind(warning), f"libjpeg-turbo says: {warning}")


def _warning_of(jpeg: bytes, colours: str) -> str:
    """The first warning of libjpeg-turbo; "" where it has none."""
    try:
        simplejpeg.decode_jpeg(jpeg, colours, strict=True)
    except ValueError as error:
        refuse_lack_of_memory(error)
        return str(error)
    return ""


def _without_padding(jpeg: bytes, warning: str) -> bytes | None:
    """The JPEG without the bytes left over that a warning is about, if they are padding.

    They are if all are 00 or FF, as for the native core (native/transcode/intervals.hpp).
    """
    left_over = _LEFT_OVER.search(warning)
    if left_over is None:
        return None
    count, marker = int(left_over[1]), bytes.fromhex(left_over[2])
    padding = re.search(rb"[\x00\xff]{%d}\xff+%s" % (count, re.escape(marker)), jpeg, re.DOTALL)
    if padding is None:
        return None
    return jpeg[: padding.start()] + jpeg[padding.start() + count :]


_T = Image.Transpose
_TURNS = {  # EXIF orientation -> what makes it upright (TIFF 6.0, section 8)
    2: _T.FLIP_LEFT_RIGHT,
    3: _T.ROTATE_180,
    4: _T.FLIP_TOP_BOTTOM,
    5: _T.TRANSPOSE,
    6: _T.ROTATE_270,
    7: _T.TRANSVERSE,
    8: _T.ROTATE_90,
}
_SWAPS_SIDES = frozenset({_T.TRANSPOSE, _T.ROTATE_270, _T.TRANSVERSE, _T.ROTATE_90})


def _orientation_of(data: bytes, kind: str, image: Image.Image) -> int:
    """How the picture must still be turned; `image` is loaded."""
    if kind == "JPEG":
        return orientation_of_jpeg(data)
    return 1 if kind == "TIFF" else orientation_of_info(image.info)  # Pillow itself turns a TIFF


def _size_within(size: tuple[int, int], max_side: int | None) -> tuple[int, int]:
    width, height = size
    longest = max(width, height)
    if max_side is None or longest <= max_side:
        return size
    return (
        max(1, round(width * max_side / longest)),
        max(1, round(height * max_side / longest)),
    )


def _new_options(rules: Rules) -> dict[str, Any]:
    return {"quality": rules.quality, "subsampling": 0}


def _kept_options(
    image: Image.Image, turn: Image.Transpose | None, rules: Rules
) -> tuple[str, dict[str, Any]]:
    """How to encode a decoded JPEG with little loss: with its own quantisation tables."""
    tables: dict[int, list[int]] = getattr(image, "quantization", {})
    sampling = JpegImagePlugin.get_sampling(image)
    if not tables or max(max(table) for table in tables.values()) > 255:
        return "re-encoded", _new_options(rules)  # a lossless process, or wider than baseline
    if turn in _SWAPS_SIDES:
        tables = {key: _transposed(table) for key, table in tables.items()}
        sampling = sampling if sampling != 1 else -1  # 4:2:2 turned is 4:4:0, which Pillow lacks
    mcu_width, mcu_height = (max(sizes) * 8 for sizes in _sampling_factors(image))
    moved = turn is not None and bool(image.width % mcu_width or image.height % mcu_height)
    is_ycc = image.info.get("adobe_transform", 1) != 0 and _component_ids(image) != b"RGB"
    subsampling = max(0, sampling)
    if sampling < 0 or moved or not is_ycc:  # other blocks: its own tables would lose as much again
        return "re-encoded", {"quality": rules.quality, "subsampling": subsampling}
    return "near-lossless", {"qtables": tables, "subsampling": subsampling}


def _closer(image: Image.Image, how: str, jpeg: bytes, rules: Rules) -> tuple[str, bytes]:
    """`jpeg`, or a new one where it is not the picture: how, and the bytes.

    Pixels cannot hold every coefficient: colours beyond white or black are cut off, and where
    strong colours meet, halved chroma is not what it was before it was doubled.
    """
    loss = _loss(image, jpeg)
    if loss <= MOST_LOSS:
        return how, jpeg
    new = _encode(image, _new_options(rules))
    return ("re-encoded", new) if _loss(image, new) < loss else (how, jpeg)


def _loss(image: Image.Image, jpeg: bytes) -> float:
    """Mean difference of the stored picture, in levels of 256."""
    stored = Image.open(io.BytesIO(jpeg))
    total = 0.0
    for top in range(0, image.height, _BAND_ROWS):  # a whole difference would take more memory
        band = (0, top, image.width, min(top + _BAND_ROWS, image.height))
        difference = ImageChops.difference(image.crop(band), stored.crop(band))
        total += sum(ImageStat.Stat(difference).sum)
    return total / (3 * image.width * image.height)


def _sampling_factors(image: Image.Image) -> tuple[list[int], list[int]]:
    layers = getattr(image, "layer", ())
    return [layer[1] for layer in layers], [layer[2] for layer in layers]


def _component_ids(image: Image.Image) -> bytes:
    return bytes(layer[0] for layer in getattr(image, "layer", ()))


def _transposed(table: list[int]) -> list[int]:
    return [int(step) for step in np.asarray(table).reshape(8, 8).T.ravel()]


def _encode(image: Image.Image, options: dict[str, Any]) -> bytes:
    mcu_width = 16 if options["subsampling"] else 8
    image.info.clear()  # else Pillow writes the source's comment and resolution
    buffer = io.BytesIO()
    image.save(
        buffer,
        "JPEG",
        optimize=True,
        restart_marker_blocks=restart_interval_for(image.width, mcu_width),
        **options,
    )
    return buffer.getvalue()
