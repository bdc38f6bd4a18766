"""Small pictures and folders of them, made at run time, for the tests of preparation."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def picture(seed: int = 0, *, height: int = 48, width: int = 64, mode: str = "RGB") -> Image.Image:
    """A smooth picture with some texture, another one for each seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    noise = rng.normal(0, 6, (height, width, 3))
    pixels = np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """The file that Pillow makes of an image."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(seed: int = 0, *, height: int = 48, width: int = 64, **options: Any) -> bytes:
    """A JPEG of its own for each seed."""
    return encoded(picture(seed, height=height, width=width), quality=90, **options)


def with_orientation(orientation: int, *, height: int = 48, width: int = 64) -> bytes:
    """A JPEG whose EXIF tag says how to turn it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture(7, height=height, width=width), quality=90, exif=exif)


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
