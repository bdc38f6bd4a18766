"""Small shards that a small network learns in seconds: each class has a colour and stripes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.pictures import encode
from tests.shards import Picture, write_shards

CLASSES = ("Ĝiro", "Rosa canina L.", "中文 植物", "d.e.f")


def striped_picture(seed: int, label: int, *, side: int = 48) -> Picture:
    """Stripes as wide as the class says, tinted by it, with noise."""
    random = np.random.default_rng((seed, label))
    rows, columns = np.mgrid[0:side, 0:side]
    angle = random.uniform(0, np.pi)
    wave = np.sin((rows * np.cos(angle) + columns * np.sin(angle)) / (1 + label))
    tint = np.array([90 + 50 * (label % 2), 90 + 50 * (label // 2 % 2), 120])
    pixels = tint + 50 * wave[..., None] + random.normal(0, 12, (side, side, 3))
    return Picture(encode(np.clip(pixels, 0, 255).astype(np.uint8)), label, side, side)


def striped_shards(
    directory: Path,
    train_counts: tuple[int, ...] = (24, 12, 8, 4),
    val_counts: tuple[int, ...] = (4, 3, 3, 3),
) -> Path:
    """Shards of striped pictures: so many of each class in train, and in val and test."""
    splits = {}
    for number, (split, counts) in enumerate(
        {"train": train_counts, "val": val_counts, "test": val_counts}.items()
    ):
        labels = np.repeat(np.arange(len(counts)), counts)
        np.random.default_rng(number).shuffle(labels)
        first = 10_000 * number
        splits[split] = [striped_picture(first + i, int(k)) for i, k in enumerate(labels)]
    return write_shards(directory, splits, classes=CLASSES[: len(train_counts)])
