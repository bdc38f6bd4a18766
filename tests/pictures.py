"""Small pictures and folders of them, made at run time, for all tests."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, features

PILLOW = tuple(int(part) for part in PIL.__version__.split(".")[:2])
TURNS_BY_XMP = PILLOW >= (11, 3)  # of every format, as fastload; before, of some
Image.init()
HAS_AVIF = "AVIF" in Image.OPEN and bool(features.check("avif"))  # wheels of Pillow 11.3 and newer


def photograph(
    height: int, width: int, seed: int = 0, *, spacing: int = 16, noise: float = 6.0
) -> NDArray[np.uint8]:
    """Pixels [H, W, 3], other ones for each seed and size: smooth colours, and noise.

    Args:
        height: In pixels.
        width: In pixels.
        seed: Of the colours and the noise.
        spacing: Pixels from one colour to the next; few give strong edges.
        noise: Standard deviation, in greys.
    """
    random = np.random.default_rng((seed, height, width))
    coarse = random.integers(0, 256, (height // spacing + 2, width // spacing + 2, 3), np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    noisy = np.asarray(smooth) + random.normal(0, noise, (height, width, 3))
    return noisy.clip(0, 255).astype(np.uint8)


def picture(
    seed: int = 0, *, height: int = 48, width: int = 64, mode: str = "RGB", **options: Any
) -> Image.Image:
    """The photograph as an image of Pillow; `options` are those of `photograph`."""
    return Image.fromarray(photograph(height, width, seed, **options)).convert(mode)


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """The file that Pillow makes of an image."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(seed: int = 0, *, height: int = 48, width: int = 64, **options: Any) -> bytes:
    """A JPEG of its own for each seed."""
    return encoded(picture(seed, height=height, width=width), quality=90, **options)


def encode(pixels: NDArray[np.uint8], sampling: str = "4:4:4", interval: int = 0) -> bytes:
    """A baseline JPEG with that sampling, or "grey", and a restart marker after so many MCUs."""
    image, options = Image.fromarray(pixels), {"subsampling": sampling}
    if sampling == "grey":
        image, options = image.convert("L"), {}
    return encoded(image, quality=90, restart_marker_blocks=interval, **options)


def orientation_exif(value: int) -> Image.Exif:
    """EXIF that says how to turn the picture, and no more."""
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def with_orientation(orientation: int, *, height: int = 48, width: int = 64) -> bytes:
    """A JPEG whose EXIF tag says how to turn it."""
    return jpeg(7, height=height, width=width, exif=orientation_exif(orientation))


def pixels_of(data: bytes) -> np.ndarray[Any, Any]:
    """Pillow's pixels, int16 so that they can be subtracted."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(np.int16)


def write_tree(root: Path, files: dict[str, bytes]) -> Path:
    """Write files under their relative paths; returns the root."""
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def flower_tree(root: Path, counts: dict[str, int] | None = None) -> Path:
    """train, val and test of three classes, every image another one."""
    counts = counts or {"daisy": 9, "rose 中文": 5, "st. john": 3}
    files = {}
    seed = 0
    for name, count in counts.items():
        for split, number in (("train", count), ("val", 2), ("test", 2)):
            for index in range(number):
                files[f"{split}/{name}/{index}.jpg"] = jpeg(seed)
                seed += 1
    return write_tree(root, files)
