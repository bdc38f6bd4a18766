"""Photographs as the model sees them: bytes of any format to batches, on threads.

    Photograph -> bytes -> facts of a sound image -> the view of evaluation -> a batch of pixels

A JPEG goes the way of the loader: it is read to its end, and the box that the view needs is
decoded. What only Pillow opens is decoded whole. A file that is damaged or cannot be read has a
reason instead of pixels.
"""

from __future__ import annotations

import io
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from fastload.errors import FastloadError, ImageError
from fastload.files import explain_os_error
from fastload.load.augment import Augment
from fastload.pixels.decode import (
    PILLOW_ERRORS,
    Renderer,
    cpu_renderer,
    render_upright,
    to_rgb,
)
from fastload.pixels.jpeg import MAX_PIXELS, Encoded, Upright
from fastload.pixels.orientation import orientation_of_info, turned_upright
from fastload.prepare.formats import sniff_format
from fastload.prepare.in_place import place_image, plain_jpeg
from fastload.prepare.reasons import Reason, Rules, SetAsideError
from fastload.prepare.transcode import store_image
from train.photographs import Photograph

_CHUNK = 16  # photographs of a job, as in the loader
_AHEAD = 2  # batches that are rendered while the model works on one
_THUMBNAIL = 160  # pixels of the longer side

_RULES = Rules(store="in place", convert=True, min_side=1)
_PROGRAMS = frozenset({"EPS", "WMF"})  # formats for which Pillow calls other programs

# What judges doubtful JPEGs changes settings of Pillow, which are the whole process's.
_JUDGING = threading.Lock()


@dataclass(frozen=True, slots=True)
class Sound:
    """A sound image, ready to be rendered.

    Attributes:
        data: Bytes that a renderer takes.
        table: The seek table of a JPEG; b"" where there is none.
        height: Pixels of the upright image.
        width: Pixels of the upright image.
        orientation: EXIF's, in [1, 8], by which the stored picture becomes upright.
    """

    data: bytes
    table: bytes
    height: int
    width: int
    orientation: int = 1


def sound_image(data: bytes, extension: str) -> Sound:
    """Look through a file; what training data would hold of it is what the model sees.

    Args:
        data: The whole file.
        extension: Extension of its name, such as ".jpg", in any case; or "".

    Raises:
        ImageError: If it is damaged, or nothing that Pillow opens.
        MemoryError: If there is not enough memory to decode it.
    """
    if sniff_format(data) != "JPEG":
        return _opened_by_pillow(data)
    found = plain_jpeg(data, _RULES)
    if found is None:
        with _JUDGING:
            return _doubtful(data, extension)
    kept, table = found
    return Sound(data, table, kept.height, kept.width, kept.orientation)


def _doubtful(data: bytes, extension: str) -> Sound:
    """A JPEG that is grey, of another process than photographs are, odd or damaged."""
    try:
        kept, table = place_image(data, extension=extension, rules=_RULES)
    except SetAsideError as error:
        if error.kind is not Reason.UNSUPPORTED:
            raise
    else:
        return Sound(data, table, kept.height, kept.width, kept.orientation)
    # Such as one with stray bytes, which shards hold without them.
    stored = store_image(data, extension=extension, rules=Rules(convert=True, min_side=1))
    return Sound(stored.jpeg, b"", stored.height, stored.width)


def _opened_by_pillow(data: bytes) -> Sound:
    """The first picture of a file of any format but JPEG, as a bitmap: upright RGB."""
    if not data:
        raise ImageError(Reason.EMPTY.words)
    _know_heif()
    Image.init()
    formats = [name for name in Image.OPEN if name not in _PROGRAMS]
    try:
        with Image.open(io.BytesIO(data), formats=formats) as image:
            pixels, orientation = _pixels_of(image)
    except PILLOW_ERRORS as error:
        raise ImageError(_why_not_opened(data, error)) from error
    upright = Image.fromarray(turned_upright(np.asarray(pixels), orientation))
    bitmap = io.BytesIO()
    upright.save(bitmap, "BMP")
    return Sound(bitmap.getvalue(), b"", upright.height, upright.width)


def _pixels_of(image: Image.Image) -> tuple[Image.Image, int]:
    """The picture as RGB, and how it must still be turned."""
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"has {image.height} x {image.width} pixels, more than {MAX_PIXELS:,}")
    if image.mode == "F":
        raise ImageError("has floating-point pixels of unknown range")
    image.load()
    orientation = 1 if image.format == "TIFF" else orientation_of_info(image.info)
    return to_rgb(image), orientation  # Pillow itself turns a TIFF


def _why_not_opened(data: bytes, error: Exception) -> str:
    kind = sniff_format(data)
    if kind in {"HEIC", "HEIF"} and "HEIF" not in Image.OPEN:
        return f"is a {kind} file, which Pillow opens after: pip install pillow-heif"
    if isinstance(error, UnidentifiedImageError):
        return f"is a {kind} file, which Pillow cannot open" if kind else Reason.NOT_IMAGE.words
    return f"Pillow cannot decode it: {str(error).partition(' <_io.BytesIO')[0]}"


def _know_heif() -> None:
    """Let Pillow open what telephones of Apple write, where pillow-heif is installed."""
    if "HEIF" not in Image.OPEN:
        try:
            heif = import_module("pillow_heif")
        except ImportError:
            return
        heif.register_heif_opener()


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A batch of photographs.

    Attributes:
        photographs: All of them, in order.
        pixels: uint8 [N, S, S, 3]; those of a photograph that was not read are unspecified.
        reasons: Place in the batch -> why it was not read.
        thumbnails: Place in the batch -> a small JPEG.
    """

    photographs: Sequence[Photograph]
    pixels: NDArray[np.uint8]
    reasons: dict[int, str]
    thumbnails: dict[int, bytes]


def seen(
    photographs: Sequence[Photograph],
    view: Augment,
    *,
    batch_size: int,
    threads: int,
    thumbnails: int = 0,
) -> Iterator[Seen]:
    """The photographs in order, in batches that are read ahead.

    Args:
        photographs: All of them.
        view: That of evaluation: a box, and one size.
        batch_size: Photographs of a batch.
        threads: Threads that read and decode.
        thumbnails: Of how many photographs, from the first on, a thumbnail is made.
    """
    renderer = cpu_renderer()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="photographs")
    waiting: deque[tuple[Seen, list[Future[None]]]] = deque()

    def send(start: int) -> None:
        part = photographs[start : start + batch_size]
        pixels = np.empty((len(part), view.size, view.size, 3), np.uint8)
        batch = Seen(photographs=part, pixels=pixels, reasons={}, thumbnails={})
        shown = thumbnails - start
        jobs = [
            pool.submit(_render, renderer, view, batch, first, shown)
            for first in range(0, len(part), _CHUNK)
        ]
        waiting.append((batch, jobs))

    try:
        for start in range(0, len(photographs), batch_size):
            send(start)
            if len(waiting) > _AHEAD:
                yield _finished(*waiting.popleft())
        while waiting:
            yield _finished(*waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)
        renderer.close()


def _finished(batch: Seen, jobs: Sequence[Future[None]]) -> Seen:
    for job in jobs:
        job.result()
    return batch


def _render(renderer: Renderer, view: Augment, batch: Seen, first: int, shown: int) -> None:
    """Read some neighbours of a batch, and render them into its memory."""
    images: dict[int, Sound] = {}
    for place in range(first, min(first + _CHUNK, len(batch.photographs))):
        photograph = batch.photographs[place]
        try:
            images[place] = sound_image(photograph.read(), photograph.extension)
        except ImageError as error:
            batch.reasons[place] = error.reason
        except FastloadError as error:
            batch.reasons[place] = str(error)
        except MemoryError:
            batch.reasons[place] = "needs more memory than there is"
        except OSError as error:
            error.filename = None  # the row has its name
            batch.reasons[place] = explain_os_error(error)
    if not images:
        return
    places = list(images)
    out = np.empty((len(places), *batch.pixels.shape[1:]), np.uint8)
    for number, reason in _rendered(renderer, view, list(images.values()), out).items():
        batch.reasons[places[number]] = reason
    batch.pixels[places] = out
    for place in places:
        if place < shown and place not in batch.reasons:
            batch.thumbnails[place] = _thumbnail(images[place])


def _rendered(
    renderer: Renderer, view: Augment, images: Sequence[Sound], out: NDArray[np.uint8]
) -> dict[int, str]:
    sizes = np.array([(image.height, image.width) for image in images], np.int32)
    orientations = np.array([image.orientation for image in images], np.uint8)
    joined = Encoded.join([image.data for image in images])
    encoded = Encoded(
        joined.buffer,
        joined.starts,
        joined.sizes,
        tables=Encoded.join([image.table for image in images]),
        upright=Upright(orientations, sizes) if (orientations > 1).any() else None,
    )
    choices = view.draw(0, 0, np.arange(len(images)), sizes)
    return render_upright(
        renderer, encoded, choices.boxes, choices.flips, out, windows=choices.windows
    )


def _thumbnail(image: Sound) -> bytes:
    """A small JPEG of the upright picture."""
    small: Image.Image
    if image.data[:2] == b"\xff\xd8":
        small = Image.open(io.BytesIO(image.data), formats=("JPEG",))
        small.draft("RGB", (_THUMBNAIL, _THUMBNAIL))
        small = to_rgb(small)
    else:
        small = Image.open(io.BytesIO(image.data), formats=("BMP",))
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    if image.orientation > 1:
        small = Image.fromarray(turned_upright(np.asarray(small), image.orientation))
    jpeg = io.BytesIO()
    small.save(jpeg, "JPEG", quality=80)
    return jpeg.getvalue()
