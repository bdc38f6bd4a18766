"""Which file goes into which shard: pure functions of the source and the options."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastload import randomness
from fastload.prepare.source import SPLITS, File, Source
from fastload.store.index import (
    digest_of,
    shard_name,
)

DEFAULT_SHARD_BYTES = 256 << 20  # some 2,500 photographs: 120 shards for 300,000


@dataclass(frozen=True, slots=True)
class PlannedShard:
    """One tar to write: `files[i]` gets the key `first + i`."""

    split: str
    name: str
    first: int
    files: tuple[File, ...]


def plan_shards(source: Source, *, seed: int, shard_bytes: int) -> list[PlannedShard]:
    """Permute each split, then cut it into shards of even count.

    The number of shards follows from the bytes of the source files, so a shard is near
    `shard_bytes` however many of its files are set aside.
    """
    shards = []
    for number, split in enumerate(SPLITS):
        files = [file for file in source.files if file.split == split]
        if not files:
            continue
        order = np.argsort(randomness.hashes(seed, number, np.arange(len(files))), kind="stable")
        count = max(1, math.ceil(sum(file.bytes for file in files) / shard_bytes))
        first = 0
        for index, part in enumerate(np.array_split(order, min(count, len(files)))):
            chosen = tuple(files[position] for position in part.tolist())
            shards.append(PlannedShard(split, shard_name(split, index), first, chosen))
            first += len(chosen)
    return shards


def recipe_of(source: Source, options: dict[str, Any]) -> str:
    """128 bits that change when a file of the source or an option does."""
    files = [[file.path, file.split, file.bytes, file.modified_ns] for file in source.files]
    return digest_of([options, list(source.classes), list(source.class_names), files])
