"""Manifests and indexes to a Collection: the samples of one split, of one directory or several."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastload.arguments import shown
from fastload.errors import ShardError
from fastload.store.index import index_of
from fastload.store.manifest import Manifest, read_manifest

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """The samples of one split, of one shard directory or of several put end to end.

    Attributes:
        index: SAMPLE [N]; `shard` counts through `shards`.
        shards: Paths of the tars.
        shard_bytes: What the manifest says of their sizes.
        sources: int64 [N], from which of the directories each sample is.
        classes: Names of the class folders; a label is a position in it.
        class_names: Readable names of the same.
        fingerprint: Hexadecimal; of the data of all directories.
    """

    index: NDArray[np.void]
    shards: tuple[Path, ...]
    shard_bytes: tuple[int, ...]
    sources: NDArray[np.int64]
    classes: tuple[str, ...]
    class_names: tuple[str, ...]
    fingerprint: str


def listed(path: Paths) -> list[str | os.PathLike[str]]:
    """One path or several as a list.

    Raises:
        TypeError: If it is neither.
        ValueError: If there is none.
    """
    paths = [path] if isinstance(path, str | os.PathLike) else path
    if not isinstance(paths, list | tuple) or not all(
        isinstance(each, str | os.PathLike) for each in paths
    ):
        raise TypeError(f"path must be a shard directory or a list of them, got {shown(path)}")
    if not paths or "" in paths:
        raise ValueError(f"path must name at least one shard directory, got {shown(path)}")
    for each in paths:
        try:
            possible = b"\0" not in os.fsencode(each)
        except UnicodeEncodeError:
            possible = False
        if not possible:
            raise ValueError(f"path must be one that files can have, got {shown(each)}")
    return list(paths)


def open_collection(path: Paths, split: str) -> Collection:
    """Read manifests and indexes of one shard directory or of several.

    Raises:
        ShardError: If a directory, its split or its index is missing or damaged, or the classes of
            two directories differ.
        TypeError: If `path` is neither a path nor a list of them.
        ValueError: If `path` names no directory.
    """
    directories = listed(path)
    manifests = [read_manifest(directory) for directory in directories]
    _check_classes(directories, manifests)
    indexes, sources = [], []
    shards: list[Path] = []
    sizes: list[int] = []
    for number, (directory, manifest) in enumerate(zip(directories, manifests, strict=True)):
        index = index_of(directory, manifest, split)
        index["shard"] += len(shards)
        indexes.append(index)
        sources.append(np.full(len(index), number, np.int64))
        shards += [Path(directory) / shard.name for shard in manifest.splits[split].shards]
        sizes += [shard.bytes for shard in manifest.splits[split].shards]
    prints = [manifest.fingerprint for manifest in manifests]
    joined = hashlib.sha256("\n".join(prints).encode()).hexdigest()[:32]
    return Collection(
        index=np.concatenate(indexes),
        shards=tuple(shards),
        shard_bytes=tuple(sizes),
        sources=np.concatenate(sources),
        classes=manifests[0].classes,
        class_names=manifests[0].class_names,
        fingerprint=prints[0] if len(prints) == 1 else joined,
    )


def _check_classes(
    directories: Sequence[str | os.PathLike[str]], manifests: Sequence[Manifest]
) -> None:
    for directory, manifest in zip(directories, manifests, strict=True):
        if manifest.classes != manifests[0].classes:
            raise ShardError(
                f"has other classes ({len(manifest.classes)}) than {directories[0]}"
                f" ({len(manifests[0].classes)}); shard both with the same class folders",
                where=os.fspath(directory),
            )
