"""Write small real JPEGs for the fuzzers to begin from: `seeds.py FOLDER`.

All processes, samplings and sizes that the core reads, made with Pillow, and the awkward images of
../shared/data where they are there.
"""

from __future__ import annotations

import itertools
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

LARGEST_SEED = 12_000  # bytes; a short file is mutated more often in the same time


def _photograph(height: int, width: int, *, busy: bool) -> Image.Image:
    random = np.random.default_rng((height, width, busy))
    small = random.integers(0, 256, (2 + height // 9, 2 + width // 9, 3), np.uint8)
    image = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    if not busy:
        return image
    noise = random.integers(-30, 31, (height, width, 3))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


def _contrast(height: int, width: int) -> Image.Image:
    """Few blocks of black and white dots: their high coefficients get the longest codes."""
    pixels = np.array(_photograph(height, width, busy=True))
    random = np.random.default_rng(0)
    for top, left in ((8, 8), (24, 40), (40, 16), (48, 72)):
        pixels[top : top + 8, left : left + 8] = 255 * random.integers(0, 2, (8, 8, 3))
    return Image.fromarray(pixels)


def _encode(image: Image.Image, **options: object) -> bytes:
    stream = BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def seeds() -> dict[str, bytes]:
    """Name and bytes of each seed."""
    found = {}
    for (height, width), subsampling, progressive, quality, restart in itertools.product(
        ((1, 1), (9, 31), (48, 64)), (0, 1, 2), (False, True), (30, 95), (0, 3)
    ):
        image = _photograph(height, width, busy=quality > 90)
        name = f"{height}x{width}-{subsampling}-{'p' if progressive else 'b'}{quality}-{restart}"
        found[name] = _encode(
            image,
            quality=quality,
            subsampling=subsampling,
            progressive=progressive,
            restart_marker_blocks=restart,
        )
    for orientation in range(2, 9):
        image = _photograph(32, 48, busy=False)
        for progressive in (False, True):
            found[f"exif{orientation}-{progressive}"] = _encode(
                image, subsampling=2, exif=_exif(orientation), progressive=progressive
            )
    for mode in ("L", "CMYK"):
        for progressive in (False, True):
            image = _photograph(24, 40, busy=True).convert(mode)
            found[f"{mode}-{progressive}"] = _encode(image, progressive=progressive, quality=80)
    found["optimised"] = _encode(_photograph(40, 56, busy=True), optimize=True, quality=85)
    found["contrast"] = _encode(_contrast(64, 96), optimize=True, quality=100, subsampling=0)
    found["rgb"] = _encode(_photograph(20, 20, busy=False), keep_rgb=True)
    return found


def main() -> int:
    """Write the seeds into the folder that the first argument names."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, jpeg in seeds().items():
        (folder / name).write_bytes(jpeg)
    awkward = Path(__file__).parents[3] / "shared" / "data" / "awkward-images"
    for path in sorted(awkward.glob("*.jp*g")) if awkward.is_dir() else ():
        if 0 < path.stat().st_size <= LARGEST_SEED:
            (folder / path.name).write_bytes(path.read_bytes())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
