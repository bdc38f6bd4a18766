"""Encoded image to pixels, whole or a resized box; the choice native / libjpeg-turbo / Pillow.

A crop is the same three steps on each back-end: the box of the exactly decoded image, one
antialiased bilinear resize of all of the box or of a window in it (the filter ends at the edges of
the box), a flip. The native core does the steps in one pass over the bytes that it needs;
libjpeg-turbo decodes the part of the file that covers the box (`region`), and torch resizes all of
it or Pillow a window; Pillow decodes what both refuse.

    native  --refused-->  libjpeg-turbo  --refused-->  Pillow  --refused-->  a reason
"""

from __future__ import annotations

import io
import struct
import threading
import time
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from fastload.errors import (
    BackendUnavailableError,
    CorruptImageError,
    ImageError,
)
from fastload.pixels import native
from fastload.pixels.jpeg import MAX_PIXELS, Box, Encoded, read_header
from fastload.pixels.orientation import turning_of
from fastload.pixels.region import region_of
from fastload.stages import Stages

if TYPE_CHECKING:
    import torch  # imported where it resizes: who prepares data decodes without it

# What Pillow may open. Its other formats call external programs, or hold no photographs.
# Importing a plugin registers it; the plugin of JPEG takes multi-picture files (MPO) too.
_PLUGINS = (
    *(BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin),
    *(TiffImagePlugin, WebPImagePlugin),
)
PILLOW_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")

# What Pillow's parsers raise on hostile files, as fuzzing of Pillow and the awkward images show.
PILLOW_ERRORS = (
    *(OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError),
    *(RuntimeError, MemoryError, struct.error, zlib.error, Image.DecompressionBombError),
)


class Renderer(Protocol):
    """A back-end: encoded images and boxes to pixels. Thread-safe: many threads may share one."""

    @property
    def name(self) -> str:
        """The back-end's name, as `Loader(backend=...)` takes it."""

    def render(
        self,
        encoded: Encoded,
        boxes: NDArray[np.int32],
        flips: NDArray[np.bool_],
        out: NDArray[np.uint8],
        spent: Stages | None = None,
        windows: NDArray[np.float64] | None = None,
    ) -> dict[int, str]:
        """Render a part of each image, resized to `out`'s size, flipped where asked.

        Args:
            encoded: N images.
            boxes: int32 [N, 4]: top, left, height, width in pixels, inside each image: what is
                read. The filter of the resize ends at the edges of the box.
            flips: bool [N]: mirror left and right.
            out: uint8 [N, S, S, 3], C-contiguous, written in place; RGB.
            spent: The seconds are added to its `decode` and `resize`.
            windows: float64 [N, 4]: top, left, height, width in pixels from the corner of the box,
                inside the box: what becomes the output. The filter reads around the window too, as
                far as the box reaches. None: all of each box.

        Returns:
            The images that failed: index -> reason. Their part of `out` is unspecified.
        """

    def close(self) -> None:
        """Let go of what the renderer keeps between batches. It may render again afterwards."""


class Memory(Protocol):
    """Memory for the pixels of a batch: of the CPU, or of a GPU for what is rendered there."""

    def take(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """uint8 of `shape`, C-contiguous, contents unspecified."""

    def select(self, pixels: NDArray[np.uint8], kept: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """A copy of some of the images of a batch."""


class DeviceMemory(Protocol):
    """Memory of a GPU, as the back-end that renders into it needs it."""

    device: torch.device
    stream: torch.cuda.Stream  # on which the pixels are handed over

    def copy(self, pixels: Any, out: torch.Tensor) -> None:  # noqa: ANN401
        """Copy pixels that speak DLPack within the GPU; returns when the copy is complete."""

    def copy_from_cpu(self, pixels: NDArray[np.uint8], out: torch.Tensor) -> None:
        """Copy pixels that the CPU rendered; returns when the copy is complete."""


def render_upright(
    renderer: Renderer,
    encoded: Encoded,
    boxes: NDArray[np.int32],
    flips: NDArray[np.bool_],
    out: NDArray[np.uint8],
    spent: Stages | None = None,
    windows: NDArray[np.float64] | None = None,
) -> dict[int, str]:
    """As `Renderer.render`, with the boxes of the upright pictures, whichever way they are stored.

    A renderer knows nothing of orientations: it gets the boxes of the stored pictures, and the
    pixels are turned afterwards.
    """
    if encoded.upright is None:
        return renderer.render(encoded, boxes, flips, out, spent, windows)
    turning = turning_of(boxes, flips, encoded.upright, windows)
    stored = replace(encoded, upright=None)
    failures = renderer.render(stored, turning.boxes, turning.flips, out, spent, turning.windows)
    turning.finish(out)
    return failures


class CpuRenderer:
    """libjpeg-turbo on a region of each file, torch's antialiased resize; Pillow takes the rest.

    Args:
        core: Let the C++ core render first; libjpeg-turbo and Pillow take what the core refuses.
    """

    def __init__(self, *, core: bool) -> None:
        self.name = "native" if core else "libjpeg"
        self._core = core

    def render(
        self,
        encoded: Encoded,
        boxes: NDArray[np.int32],
        flips: NDArray[np.bool_],
        out: NDArray[np.uint8],
        spent: Stages | None = None,
        windows: NDArray[np.float64] | None = None,
    ) -> dict[int, str]:
        """See `Renderer.render`."""
        refused = np.arange(len(encoded))
        if self._core:
            statuses = native.decode_boxes(
                encoded, boxes, flips, out, spent, encoded.tables, windows
            )
            refused = np.flatnonzero(statuses)
        failures, spent = {}, spent or Stages()
        for index in refused.tolist():
            began = time.perf_counter()
            box = boxes[index].tolist()
            try:
                crop = _decode_box(encoded[index], tuple(box), encoded.table_of(index))
            except ImageError as error:
                failures[index] = error.reason
                continue
            finally:
                decoded = time.perf_counter()
                spent.decode += decoded - began
            window = None if windows is None else windows[index].tolist()
            out[index] = resize_image(crop, out.shape[1], flip=bool(flips[index]), window=window)
            spent.resize += time.perf_counter() - decoded
        return failures

    def close(self) -> None:
        """See `Renderer.close`: there is nothing to let go of."""


def cpu_renderer(name: str = "auto") -> Renderer:
    """The CPU back-end of that name; `auto` is the fastest one that runs here.

    Args:
        name: "auto", "native" or "libjpeg".

    Raises:
        BackendUnavailableError: If `native` was asked for and the native core cannot run.
    """
    if name not in ("auto", "native", "libjpeg"):
        raise ValueError(f"name must be auto, native or libjpeg, got {name!r}")
    if name == "libjpeg":
        return CpuRenderer(core=False)
    if native.is_available():
        return CpuRenderer(core=True)
    if name == "native":
        raise BackendUnavailableError(
            f"the native core cannot run ({native.why_unavailable()}); "
            f"take the back-end libjpeg, or {native.how_to_mend()}"
        )
    _warn_slower()
    return CpuRenderer(core=False)


def _warn_slower() -> None:
    warnings.warn(
        f"fastload's native core cannot run ({native.why_unavailable()}): "
        "decoding with libjpeg-turbo, which is several times slower",
        RuntimeWarning,
        stacklevel=3,
    )


def decode_jpeg(
    jpeg: bytes | memoryview, *, box: Box | None = None, table: bytes | memoryview = b""
) -> NDArray[np.uint8]:
    """Decode a JPEG to RGB pixels, reading only `box` where the file can be entered there.

    EXIF orientation is not applied, as in torchvision. The pixels are libjpeg-turbo's defaults
    (accurate integer DCT, smooth chroma upsampling), whichever decoder made them.

    Args:
        jpeg: A complete baseline or progressive JPEG file; grey and CMYK become RGB.
        box: Region in pixels of the whole image; None is all of it.
        table: The file's seek table, see `region_of`.

    Returns:
        uint8 [H, W, 3] in [0, 255], owned by the caller; contiguous when `box` is None.

    Raises:
        CorruptImageError: If the file is damaged, incomplete or not a JPEG.
        UnsupportedImageError: If the header leaves the height open.
        ValueError: If `box` does not lie inside the image.
    """
    if box is not None:
        jpeg, (top, left, height, width) = region_of(jpeg, box, table)
        return decode_jpeg(jpeg)[top : top + height, left : left + width]
    header = read_header(jpeg)
    if header.height * header.width > MAX_PIXELS:
        raise CorruptImageError(
            f"the JPEG claims {header.height} x {header.width} pixels, more than {MAX_PIXELS}"
        )
    if len(header.sampling) == 4:  # CMYK: simplejpeg's RGB is one lighter than Pillow's
        return _decode_with_pillow(jpeg, formats=("JPEG",))
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(jpeg, "RGB")
    except ValueError:  # libjpeg-turbo warned or failed; Pillow gives the pixels or the reason
        return _decode_with_pillow(jpeg, formats=("JPEG",))
    return pixels


def decode_image(image: bytes | memoryview) -> NDArray[np.uint8]:
    """Decode an image of any format that is stored or converted to RGB pixels.

    EXIF orientation is not applied, but by Pillow to a TIFF; transparency becomes white.

    Returns:
        uint8 [H, W, 3] in [0, 255], C-contiguous, owned by the caller.

    Raises:
        CorruptImageError: If the file is damaged, incomplete or of no known format.
    """
    if bytes(image[:2]) == b"\xff\xd8":
        return decode_jpeg(image)
    return _decode_with_pillow(image, formats=PILLOW_FORMATS)


# The filters of `warnings` are the whole process's until Python 3.14: of two threads that set and
# restore them, the second would restore what the first had set.
_FILTERS = threading.Lock()


def _decode_with_pillow(
    image: bytes | memoryview, *, formats: tuple[str, ...]
) -> NDArray[np.uint8]:
    try:
        with _FILTERS, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings are about metadata; errors are raised
            opened = Image.open(io.BytesIO(image), formats=formats)
            return np.array(to_rgb(opened))
    except PILLOW_ERRORS as error:
        # Pillow names the address of the buffer; without it, the same fault has the same reason.
        reason = str(error).partition(" <_io.BytesIO")[0]
        raise CorruptImageError(f"Pillow cannot decode it: {reason}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """The image as RGB: transparency becomes white, deep grey keeps its upper eight bits."""
    if image.mode.startswith("I"):
        pixels = np.clip(np.asarray(image), 0, 0xFFFF).astype(np.uint16) >> (_bits_of(image) - 8)
        return Image.fromarray(pixels.astype(np.uint8)).convert("RGB")
    if image.mode in {"LA", "La", "RGBA", "RGBa", "PA"} or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _bits_of(image: Image.Image) -> int:
    """Bits of a deep grey pixel: what a TIFF says (tag 258, BitsPerSample), else 16."""
    bits = getattr(image, "tag_v2", {}).get(258, (16,))[0]
    return bits if bits in {10, 12, 14} else 16


def resize_image(
    pixels: NDArray[np.uint8],
    size: int,
    *,
    flip: bool = False,
    window: Sequence[float] | None = None,
) -> NDArray[np.uint8]:
    """Resize to a square with antialiasing: torchvision's `resize(..., antialias=True)`, bilinear.

    Args:
        pixels: uint8 [H, W, 3], any strides.
        size: Side of the result in pixels.
        flip: Mirror left and right after resizing.
        window: Top, left, height and width of the part that becomes the result, in pixels; the
            filter reads around it too. None is all of it.

    Returns:
        uint8 [size, size, 3], perhaps a view with negative or permuted strides.
    """
    height, width = pixels.shape[:2]
    if window is not None and tuple(window) != (0, 0, height, width):
        return _resize_window(pixels, size, flip, window)
    import torch

    planes = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(
        planes, (size, size), mode="bilinear", antialias=True, align_corners=False
    )
    square: NDArray[np.uint8] = resized[0].permute(1, 2, 0).numpy()
    return square[:, ::-1] if flip else square


def _resize_window(
    pixels: NDArray[np.uint8], size: int, flip: bool, window: Sequence[float]
) -> NDArray[np.uint8]:
    """With Pillow, which torchvision resizes PIL images with; torch resizes whole images alone."""
    height, width = pixels.shape[:2]
    top, left, tall, wide = window
    # A window that ends at the edge may reach beyond it by a rounding, which Pillow refuses.
    edges = (max(left, 0), max(top, 0), min(left + wide, width), min(top + tall, height))
    image = Image.fromarray(np.ascontiguousarray(pixels))
    square = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=edges))
    return square[:, ::-1] if flip else square


def _decode_box(image: memoryview, box: Box, table: bytes | memoryview) -> NDArray[np.uint8]:
    top, left, height, width = box
    if bytes(image[:2]) == b"\xff\xd8":
        try:
            return decode_jpeg(image, box=box, table=table)
        except ValueError as error:
            raise CorruptImageError(str(error)) from error
    pixels = decode_image(image)
    if top + height > pixels.shape[0] or left + width > pixels.shape[1]:
        raise CorruptImageError(f"the box {box} does not lie inside {pixels.shape[:2]}")
    return pixels[top : top + height, left : left + width]
