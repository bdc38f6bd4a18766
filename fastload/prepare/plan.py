"""What a run writes, decided before it starts: pure functions of the source and the options."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastload import randomness
from fastload.errors import LayoutError
from fastload.prepare.layout import LayoutOptions
from fastload.prepare.naming import SPLITS
from fastload.prepare.reasons import Rules
from fastload.prepare.source import File, Source, classes_without_training, training_needed
from fastload.prepare.spelling import difference, look_alikes, visible
from fastload.store.manifest import digest_of, shard_name

DEFAULT_SHARD_BYTES = 256 << 20  # some 2,500 photographs: 120 shards for 300,000


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardOptions:
    """What decides the shards of a source.

    Attributes:
        rules: What is taken and how it is stored.
        seed: Seed of the order within the shards.
        shard_bytes: Bytes of source files for one shard.
        allow_missing_classes: Keep a class that has no image in train.
        layout: How the folder was understood; recorded only where the user asked for something.
    """

    rules: Rules
    seed: int = 0
    shard_bytes: int = DEFAULT_SHARD_BYTES
    allow_missing_classes: bool = False
    layout: LayoutOptions = field(default_factory=LayoutOptions)

    def recorded(self) -> dict[str, Any]:
        """The options that decide what is written, as the manifest records them."""
        recorded = asdict(self.rules) | {"seed": self.seed, "shard_bytes": self.shard_bytes}
        return recorded | self.layout.recorded()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedShard:
    """One tar to write.

    Attributes:
        split: "train", "val" or "test".
        name: File name of the tar.
        first: `files[i]` gets the key `first + i`.
        files: Files in the order of the tar; those that are set aside are left out.
    """

    split: str
    name: str
    first: int
    files: tuple[File, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that decides what a run writes.

    Attributes:
        source: The files.
        options: The options.
        shards: The shards, split by split.
        digest: See `source_digest`.
    """

    source: Source
    options: ShardOptions
    shards: tuple[PlannedShard, ...]
    digest: str


def make_plan(source: Source, options: ShardOptions) -> Plan:
    """Decide which file goes into which shard."""
    shards = plan_shards(source, seed=options.seed, shard_bytes=options.shard_bytes)
    digest = source_digest(source, options)
    return Plan(source=source, options=options, shards=tuple(shards), digest=digest)


def plan_shards(source: Source, *, seed: int, shard_bytes: int) -> list[PlannedShard]:
    """Permute each split, then cut it into shards of even count.

    The number of shards follows from the bytes of the source files. A shard is near `shard_bytes`
    unless many of its files are set aside.
    """
    shards = []
    for split in SPLITS:
        files = [file for file in source.files if file.split == split]
        if not files:
            continue
        order = order_of_split(split, len(files), seed=seed)
        count = max(1, math.ceil(sum(file.bytes for file in files) / shard_bytes))
        first = 0
        for index, part in enumerate(np.array_split(order, min(count, len(files)))):
            chosen = tuple(files[position] for position in part.tolist())
            name = shard_name(split, index)
            shards.append(PlannedShard(split=split, name=name, first=first, files=chosen))
            first += len(chosen)
    return shards


def order_of_split(split: str, count: int, *, seed: int) -> NDArray[np.intp]:
    """The order in which the files of a split are stored or indexed: a permutation of [0, count).

    Files that are set aside are passed over, so the samples of a source have one order in both.
    """
    words = randomness.hashes(seed, SPLITS.index(split), np.arange(count))
    return np.argsort(words, kind="stable")


def source_digest(source: Source, options: ShardOptions) -> str:
    """128 bits, hexadecimal, that change when a file of the source or an option does."""
    files: list[list[str | int]] = [
        [file.path, file.split, file.bytes, file.modified_ns] for file in source.files
    ]
    if not source.walked or any(file.container for file in source.files):  # no path tells these
        for facts, file in zip(files, source.files, strict=True):
            facts += [file.label, file.container, file.offset]
    classes, class_names = list(source.classes), list(source.class_names)
    return digest_of([options.recorded(), classes, class_names, files])


def refuse_missing_classes(plan: Plan, files: Iterable[File], why: str = "") -> None:
    """See that each class has one of the files in train, unless the options allow otherwise.

    Where there is no train, nothing is learned, and a class without images keeps its number.

    Args:
        plan: The plan that the files belong to.
        files: The files that count.
        why: What the message says of the files that do not count.

    Raises:
        LayoutError: If a class has none.
    """
    if plan.options.allow_missing_classes or not training_needed(plan.source.files):
        return
    names = classes_without_training(plan.source.classes, files)
    if names:
        _refuse_look_alikes(names, plan.source.classes)
        shown = ", ".join(repr(name) for name in names[:5]) + (", …" if len(names) > 5 else "")
        raise LayoutError(
            f"{len(names)} of the classes have no image in train{why}: {shown}; add images, remove "
            "the folders or leave them out with --exclude, or keep the classes with "
            "--allow-missing-classes"
        )


def _refuse_look_alikes(missing: Sequence[str], classes: Sequence[str]) -> None:
    """Name the class of train that a missing class may be under another spelling."""
    for group in look_alikes(classes):
        lost = [name for name in group if name in set(missing)]
        there = [name for name in group if name not in lost]
        if lost and there:
            raise LayoutError(
                f"the class {visible(lost[0])} has no image in train, but {visible(there[0])} has "
                f"({difference(group)}); give the folders of one class one "
                "name, or keep both with --allow-missing-classes"
            )
