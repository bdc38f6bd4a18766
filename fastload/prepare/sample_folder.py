"""The folder that `python -m fastload.sample` writes: flowers of ten species, some files spoiled.

The data set is long-tailed, in train, val and test. A picture depends on the seed, its species and
its number alone.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from fastload.console.progress import Progress
from fastload.errors import OutputError
from fastload.files import write_atomically
from fastload.prepare.flowers import SPECIES, draw_flower
from fastload.prepare.workers import Lost, run_chunks

MARKER_NAME = ".fastload-sample.json"
SMALLEST = 100  # images in all: below it the rarest species has no image in val or test
TAIL = 0.69  # each species has this fraction of the images of the one before: 400 -> 15 over ten
CHUNK = 8  # pictures for a worker at a time


@dataclass(frozen=True, slots=True)
class Picture:
    """One file to draw; `number` counts the pictures of the species, over all splits."""

    species: int
    number: int
    path: str


def class_counts(images: int) -> list[int]:
    """Images of each species, all splits together: a geometric tail that adds up to `images`."""
    weights = np.array([TAIL**rank for rank in range(len(SPECIES))])
    counts = np.maximum(5, np.floor(images * weights / weights.sum()).astype(int))
    counts[0] += images - int(counts.sum())
    return [int(count) for count in counts]


def plan_pictures(images: int) -> list[Picture]:
    """Every clean picture and its path; val and test hold a tenth of each species, at least one."""
    pictures = []
    for index, (species, count) in enumerate(zip(SPECIES, class_counts(images), strict=True)):
        held_out = max(1, round(count / 10))
        splits = ["val"] * held_out + ["test"] * held_out + ["train"] * (count - 2 * held_out)
        for number, split in enumerate(splits):
            pictures.append(Picture(index, number, f"{split}/{species.name}/{number:04d}.jpg"))
    return pictures


def encode_picture(picture: Picture, *, seed: int) -> bytes:
    """Draw one picture and encode it: quality 85 to 95, some 4:4:4, some 4:2:0."""
    rng = np.random.default_rng((seed, picture.species, picture.number))
    image = draw_flower(SPECIES[picture.species], rng)
    return _jpeg(image, quality=int(rng.integers(85, 96)), subsampling=int(rng.choice([0, 0, 2])))


def _jpeg(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def _save_as(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def spoiled_files(seed: int) -> Iterator[tuple[str, bytes]]:
    """Path and bytes of each file that is spoiled, or merely unusual, on purpose."""
    rng = np.random.default_rng((seed, len(SPECIES)))
    pictures = [draw_flower(species, rng) for species in SPECIES]
    names = [species.name for species in SPECIES]
    whole = _jpeg(pictures[3], quality=90)
    transparent = pictures[1].convert("RGBA")
    transparent.putalpha(pictures[1].convert("L"))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to see it upright
    lying = _jpeg(pictures[7].transpose(Image.Transpose.ROTATE_90), quality=90, exif=exif)
    twin = encode_picture(Picture(0, 0, ""), seed=seed)  # number 0 of a species lies in val
    stranger = encode_picture(Picture(2, 10**6, ""), seed=seed)
    yield f"train/{names[0]}/animation.gif", _save_as(pictures[0].quantize(32), "GIF")
    yield f"train/{names[1]}/transparent.png", _save_as(transparent, "PNG")
    yield f"train/{names[2]}/grey.jpg", _jpeg(pictures[2].convert("L"), quality=90)
    yield f"train/{names[4]}/for-print.jpg", _jpeg(pictures[4].convert("CMYK"), quality=90)
    yield f"train/{names[3]}/truncated.jpg", whole[: len(whole) * 2 // 3]
    yield f"train/{names[0]}/empty.jpg", b""
    yield f"train/{names[5]}/really-a-png.jpg", _save_as(pictures[5], "PNG")
    yield f"train/{names[0]}/also-in-val.jpg", twin
    yield f"train/{names[2]}/which-is-it.jpg", stranger
    yield f"train/{names[4]}/which-is-it.jpg", stranger
    yield f"train/{names[7]}/camera-held-upright.jpg", lying
    yield f"train/{names[6]}/progressive.jpg", _jpeg(pictures[6], quality=90, progressive=True)


def write_sample(root: Path, *, images: int, seed: int, workers: int) -> int | None:
    """Write the data set; a run that was stopped is continued.

    Returns:
        The number of files that are spoiled on purpose; None where the folder already holds this
        sample.

    Raises:
        OutputError: If the folder holds something else.
    """
    options = {"images": images, "seed": seed}
    if _claim(root, options):
        return None
    _write_marker(root, options, complete=False)
    pictures = plan_pictures(images)
    for folder in sorted({(root / picture.path).parent for picture in pictures}):
        folder.mkdir(parents=True, exist_ok=True)
    chunks = [pictures[start : start + CHUNK] for start in range(0, len(pictures), CHUNK)]
    write = partial(_write_picture, root=root, seed=seed)
    with Progress(len(pictures), "images") as progress:
        for picture, result in run_chunks(write, chunks, workers=workers):
            if isinstance(result, Lost):
                raise OutputError(f"drawing {picture.path} {result.reason}; try fewer --workers")
            progress.add()
    spoiled = dict(spoiled_files(seed))
    for path, data in spoiled.items():
        write_atomically(root / path, data)
    _write_marker(root, options, complete=True)
    return len(spoiled)


def _claim(root: Path, options: dict[str, int]) -> bool:
    """Make `root` the folder of this sample; returns whether the sample is already complete."""
    marker = root / MARKER_NAME
    if marker.exists():
        try:
            found = json.loads(marker.read_bytes())
        except ValueError:
            found = {}
        if found.get("options") != options:
            former = found.get("options") or {}
            changed = [
                f"--{name} was {former.get(name, 'not noted')}, not {value}"
                for name, value in options.items()
                if former.get(name) != value
            ]
            raise OutputError(
                f"{root} holds a sample made with other options ({', '.join(changed)}); choose "
                "another folder or remove it"
            )
        return bool(found.get("complete"))
    root.mkdir(parents=True, exist_ok=True)
    if any(root.iterdir()):
        raise OutputError(f"{root} is not empty; choose another folder")
    return False


def _write_marker(root: Path, options: dict[str, int], *, complete: bool) -> None:
    facts = {"options": options, "complete": complete}
    write_atomically(root / MARKER_NAME, json.dumps(facts).encode())


def _write_picture(picture: Picture, *, root: Path, seed: int) -> None:
    path = root / picture.path
    if not path.exists():  # else a run that was stopped has written it
        write_atomically(path, encode_picture(picture, seed=seed))
