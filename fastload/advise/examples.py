"""Ten images to try back-ends with: made on the spot, or taken from shards."""

from __future__ import annotations

import io
import os
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fastload.console.shell import program
from fastload.errors import ShardError
from fastload.load.augment import Augment
from fastload.pixels.jpeg import restart_interval_for
from fastload.store.collection import open_collection, read_contents
from fastload.store.reader import Scratch
from fastload.store.remote_reader import open_reader

IMAGES = 10
SIZE = 224  # pixels; side of what is rendered


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """N images to try the back-ends with.

    Attributes:
        origin: Where the images come from, in a few words.
        jpegs: N JPEG files.
        boxes: int32 [N, 4]: top, left, height, width in pixels.
        flips: bool [N].
    """

    origin: str
    jpegs: tuple[bytes, ...]
    boxes: NDArray[np.int32]
    flips: NDArray[np.bool_]


def made_examples() -> Examples:
    """Ten pictures of 500 x 375 or 375 x 500, with the chroma samplings of cameras and the web."""
    random = np.random.default_rng(0)
    jpegs, sizes = [], []
    for index in range(IMAGES):
        height, width = (375, 500) if index % 2 else (500, 375)
        y, x = np.mgrid[:height, :width]
        waves = [np.sin(x / a + y / b + c) for a, b, c in random.uniform(4, 40, (3, 3))]
        pixels = 127 + 90 * np.stack(waves, -1) + random.normal(0, 8, (height, width, 3))
        sampling, mcu_width = ("4:2:0", 16) if index % 3 else ("4:4:4", 8)
        file = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(
            file,
            "JPEG",
            quality=90,
            subsampling=sampling,
            restart_marker_blocks=restart_interval_for(width, mcu_width),
        )
        jpegs.append(file.getvalue())
        sizes.append((height, width))
    return _examples("made here, 500 x 375 pixels", jpegs, sizes)


def stored_examples(data: str | os.PathLike[str]) -> Examples:
    """Ten images of shards or of data in place, of their split train, or else their first one.

    Raises:
        ShardError: If there are no shards or no images, or the shards are damaged.
    """
    splits = sorted(read_contents(data).splits)
    split = "train" if "train" in splits else splits[0]
    collection = open_collection([data], split)
    # Those that every back-end takes as they are; in place others may lie among them.
    index = collection.index
    plain = np.flatnonzero((index["orientation"] == 1) & (index["kind"] == 0))
    if not len(plain):
        raise ShardError(f"split {split!r} has no images to try", where=os.fspath(data))
    rows = plain[np.linspace(0, len(plain) - 1, IMAGES).astype(np.int64)]
    with closing(open_reader(collection)) as reader:
        encoded, bad = reader.read(rows, Scratch())
        for place, reason in bad.items():
            raise ShardError(
                f"{reason}; check with `{program('fastload.verify')}`",
                where=reader.locate(int(rows[place])),
            )
    records = collection.index[rows]
    sizes = list(zip(records["height"].tolist(), records["width"].tolist(), strict=True))
    jpegs = [bytes(encoded[index]) for index in range(len(encoded))]
    return _examples(f"{os.fspath(data)}, split {split}", jpegs, sizes)


def _examples(origin: str, jpegs: list[bytes], sizes: list[tuple[int, int]]) -> Examples:
    choices = Augment.train(SIZE).draw(0, 0, np.arange(len(sizes)), np.array(sizes, np.int64))
    return Examples(origin=origin, jpegs=tuple(jpegs), boxes=choices.boxes, flips=choices.flips)
