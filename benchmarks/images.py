"""What is measured on: the sample data, any folder, larger ones by repetition, made photographs."""

from __future__ import annotations

import io
import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.contenders.contract import list_images
from benchmarks.environment import ROOT

SAMPLE_DATA = ROOT.parent / "shared" / "data" / "flowers-longtail" / "train"
JPEG_QUALITY = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of photographs to make.

    Attributes:
        megapixels: Size of each photograph.
        count: Number of photographs.
        quality: Quality of the JPEG, in [1, 100].
        subsampling: Subsampling of the chroma: "4:2:0" or "4:4:4".
    """

    megapixels: float
    count: int
    quality: int = JPEG_QUALITY
    subsampling: str = "4:2:0"


def repeated(images: Path, out: Path, *, times: int) -> Path:
    """Class folders that hold every image `times` times, under other names.

    An epoch of 2,000 images ends after half a second with the fast loaders, and what is measured
    then is how they begin an epoch. Files are hard-linked where the file system allows it.
    """
    if out.exists():
        return out
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for path, _ in list_images(images):
        folder = partial / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(times):
            link_or_copy(path, folder / f"{path.stem}-{number}{path.suffix.lower()}")
    partial.rename(out)
    return out


def link_or_copy(source: Path | str, target: Path | str) -> None:
    """The same file under another name; a copy where the target is on another file system."""
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copyfile(source, target)


def photographs(images: Path, out: Path, kind: Kind) -> Path:
    """Photographs made from others: resized, with grain, encoded anew.

    Enlarging alone would leave blocks without high frequencies, which compress to nothing and
    decode too fast; grey Gaussian grain of standard deviation 6 brings a 12-megapixel JPEG to the
    several MB that cameras write. They look like nothing a camera took; they cost what those cost.
    """
    if out.exists():
        return out
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    draws = np.random.default_rng(0)
    side = math.ceil(
        (kind.megapixels * 1e6 * 2) ** 0.5
    )  # enough for ratios up to 2; wider ones repeat
    grain = np.rint(draws.normal(0, 6, (side, side, 1))).astype(np.int16)
    for number, (path, _) in enumerate(list_images(images)[: kind.count]):
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        factor = (kind.megapixels * 1e6 / (image.width * image.height)) ** 0.5
        size = (round(image.width * factor), round(image.height * factor))
        pixels = np.asarray(image.resize(size, Image.Resampling.BICUBIC), np.int16)
        rows = (np.arange(size[1]) + draws.integers(side)) % side
        columns = (np.arange(size[0]) + draws.integers(side)) % side
        encoded = io.BytesIO()
        grained = Image.fromarray((pixels + grain[rows][:, columns]).clip(0, 255).astype(np.uint8))
        grained.save(encoded, "JPEG", quality=kind.quality, subsampling=kind.subsampling)
        folder = partial / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:05d}.jpg").write_bytes(encoded.getvalue())
    partial.rename(out)
    return out


def saved_anew(images: Path, out: Path, *, count: int, extension: str, **options: Any) -> Path:
    """Some of the photographs in another form, such as PNG; `options` are those of Pillow."""
    if out.exists():
        return out
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for path, _ in list_images(images)[:count]:
        folder = partial / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            image.save(folder / f"{path.stem}{extension}", **options)
    partial.rename(out)
    return out


def made_photographs(out: Path, *, count: int, classes: int = 8) -> Path:
    """500 x 375 photographs out of nothing, for a checkout without the sample data.

    Smooth colours, edges and grain: about 40 kB each, which is near what flowers take.
    """
    if out.exists():
        return out
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    draws = np.random.default_rng(0)
    for number in range(count):
        coarse = draws.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)
        pixels = np.asarray(image, np.float32) + draws.normal(0, 5, (375, 500, 3))
        folder = partial / f"class-{number % classes:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        grained = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        grained.save(folder / f"{number:05d}.jpg", quality=JPEG_QUALITY)
    partial.rename(out)
    return out
