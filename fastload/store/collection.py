"""Indexes to a Collection: the samples of one split, of one directory or several."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastload.arguments import shown
from fastload.console.shell import module_command
from fastload.errors import ShardError
from fastload.files import explain_os_error, open_regular
from fastload.store.freshness import warn_of_changes
from fastload.store.holders import Holders, JoinedFiles, ShardFiles
from fastload.store.index import check_split, index_of
from fastload.store.manifest import MANIFEST_NAME, Manifest, digest_of, read_manifest
from fastload.store.mapped import MAPPED_FROM, Index, MappedIndex, RowsByClass, rows_by_class
from fastload.store.objects import DeniedObjectError, MissingObjectError
from fastload.store.places import (
    FOLDER_NAME,
    PlacedData,
    Places,
    find_index,
    index_folder,
    placed,
    places_of,
    points_name,
    read_places,
)
from fastload.store.remote import Access, Bucket, is_remote
from fastload.store.remote_index import find_remote_places
from fastload.store.remote_places import remote_places_of
from fastload.store.remote_shards import (
    RemoteShards,
    read_object,
    read_remote_index,
    read_remote_manifest,
)

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """The samples of one split, of one directory or of several put end to end.

    Attributes:
        index: PLACE [N]; `file` counts through `files`. That of a single large directory is mapped.
        files: The shards, or the files in place.
        points: For each of the directories the file of its seek tables, and its bytes; None where
            it has none.
        sources: int64 [N], from which of the directories each sample is.
        classes: Names of the class folders; a label is a position in it.
        class_names: Readable names of the same.
        fingerprint: Hexadecimal; of the data of all directories.
        listing: What the manifest of a single shard directory says of the rows; else None.
    """

    index: Index
    files: Holders
    points: tuple[tuple[Path, int] | None, ...]
    sources: NDArray[np.int64]
    classes: tuple[str, ...]
    class_names: tuple[str, ...]
    fingerprint: str
    listing: Listing | None = None

    @property
    def class_counts(self) -> NDArray[np.int64]:
        """Samples of each class: int64 [classes]."""
        if self.listing is not None:
            return self.listing.class_counts
        return np.bincount(self.index["label"], minlength=len(self.classes))

    def part(self, rows: NDArray[np.int64]) -> Collection:
        """Some of the samples: in memory, and owned by the caller."""
        index, sources = self.index[rows], self.sources[rows]
        return replace(self, index=index, sources=sources, listing=None)

    def rows_by_class(self) -> NDArray[np.integer] | RowsByClass:
        """All rows, class after class, and as in the index within a class."""
        if self.listing is not None and isinstance(self.index, MappedIndex):
            return rows_by_class(self.index, self.listing.class_counts, self.listing.beside)
        return np.argsort(self.index["label"], kind="stable")


@dataclass(frozen=True, slots=True)
class Listing:
    """What is known of rows that lie shard by shard, before one of them is read.

    Attributes:
        shard_ends: int64 [F], the row behind the last one of each shard.
        class_counts: int64 [C], rows of each class.
        beside: Path, without its end, of what is kept beside the index and goes with these data.
    """

    shard_ends: NDArray[np.int64]
    class_counts: NDArray[np.int64]
    beside: Path


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


def read_contents(path: str | os.PathLike[str]) -> Manifest | Places:
    """What a directory holds: its manifest, or the facts of the index of data in place.

    Raises:
        ShardError: If it has neither, or one that is damaged.
    """
    found = find_data(path)
    return found.places if isinstance(found, PlacedData) else found.manifest


@dataclass(frozen=True, slots=True)
class ShardDirectory:
    """A directory of shards, and its manifest."""

    path: Path
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class ShardBucket:
    """Shards in an object store, and their manifest."""

    bucket: Bucket
    manifest: Manifest

    @property
    def path(self) -> str:
        """Their address."""
        return self.bucket.address


Found: TypeAlias = ShardDirectory | ShardBucket | PlacedData


def find_data(path: str | os.PathLike[str], access: Access | None = None) -> Found:
    """Shards where there is a manifest, else the index in place; on a disk or at an address.

    Raises:
        ShardError: If there is neither, or one that is damaged.
    """
    if is_remote(path):
        return _find_remote(Bucket(str(path), access or Access()))
    if not (Path(path) / MANIFEST_NAME).exists() and (folder := find_index(path)):
        found = read_places(folder, access=access)
        if found.bucket is not None and folder == index_folder(path):
            raise ShardError(
                f"holds a copy of the index of {found.root}; for the files of this folder run"
                f" `{module_command('fastload.index', Path(path))}`",
                where=os.fspath(path),
            )
        return found
    return ShardDirectory(Path(path), read_manifest(path))


def _find_remote(bucket: Bucket) -> ShardBucket | PlacedData:
    try:
        return ShardBucket(bucket, read_remote_manifest(bucket))
    except (MissingObjectError, DeniedObjectError) as error:
        try:
            found = find_remote_places(bucket)
        except DeniedObjectError:
            found = None
        if found is None:
            raise error from None
        return found


def read_beside(found: Found, name: str, most: int) -> bytes | None:
    """All of a file beside the manifest or the index, such as cleaning.csv; None without one.

    Raises:
        ShardError: If it cannot be read, or has more than `most` bytes.
    """
    if isinstance(found, ShardBucket):
        return read_object(found.bucket, name, most)
    path = found.path / name
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            data = file.read(most + 1)
    except FileNotFoundError:
        if isinstance(found, PlacedData) and found.bucket is not None:  # this is a copy of an index
            return read_object(found.bucket, f"{FOLDER_NAME}/{name}", most)
        return None
    except OSError as error:
        raise ShardError(explain_os_error(error)) from error
    if len(data) > most:
        raise ShardError(f"has more than {most:,} bytes", where=str(path))
    return data


def open_collection(path: Paths, split: str, access: Access | None = None) -> Collection:
    """Read the indexes of one directory or of several: shards, or data in place.

    Args:
        path: Directories, or addresses in an object store.
        split: Name of the split.
        access: How addresses are reached; by the environment when None.

    Raises:
        ShardError: If a directory, its split or its index is missing or damaged, or the classes of
            two directories differ.
        TypeError: If `path` is neither a path nor a list of them.
        ValueError: If `path` names no directory.
    """
    return collection_of([find_data(directory, access) for directory in listed(path)], split)


def collection_of(found: Sequence[Found], split: str) -> Collection:
    """As `open_collection`, of data that were found already."""
    contents = [one.places if isinstance(one, PlacedData) else one.manifest for one in found]
    _check_classes(found, contents)
    if len(found) == 1 and isinstance(found[0], ShardDirectory):
        return _of_directory(found[0], split)
    indexes, sources, points = [], [], []
    files: list[Holders] = []
    count = 0
    for number, one in enumerate(found):
        rows, holders = _rows_and_files(one, split)
        rows["file"] += count
        count += len(holders)
        indexes.append(rows)
        sources.append(np.full(len(rows), number, np.int64))
        files.append(holders)
        points.append(_points_of(one))
    prints = [one.fingerprint for one in contents]
    joined = hashlib.sha256("\n".join(prints).encode()).hexdigest()[:32]
    return Collection(
        index=indexes[0] if len(indexes) == 1 else np.concatenate(indexes),
        files=files[0] if len(files) == 1 else JoinedFiles(files),
        points=tuple(points),
        sources=np.concatenate(sources),
        classes=contents[0].classes,
        class_names=contents[0].class_names,
        fingerprint=prints[0] if len(prints) == 1 else joined,
    )


def _of_directory(found: ShardDirectory, split: str) -> Collection:
    check_split(found.manifest, split, str(found.path))
    facts, contents = found.manifest.splits[split], found.manifest
    shards = np.array([shard.samples for shard in facts.shards], np.int64)
    index: Index
    if facts.samples >= MAPPED_FROM:
        index = MappedIndex(found.path, contents, split)
        files: Holders = _files_of(found, split)
    else:
        index, files = _rows_and_files(found, split)
    return Collection(
        index=index,
        files=files,
        points=(None,),
        sources=np.broadcast_to(np.int64(0), len(index)),
        classes=contents.classes,
        class_names=contents.class_names,
        fingerprint=contents.fingerprint,
        listing=Listing(
            shard_ends=np.cumsum(shards),
            class_counts=np.array(facts.class_counts, np.int64),
            # A digest: a manifest may give anything as its fingerprint.
            beside=found.path / f"{split}.{digest_of(contents.fingerprint)[:16]}",
        ),
    )


def _files_of(found: ShardDirectory, split: str) -> Holders:
    shards = found.manifest.splits[split].shards
    paths = tuple(found.path / shard.name for shard in shards)
    return ShardFiles(paths, tuple(shard.bytes for shard in shards))


def _rows_and_files(found: Found, split: str) -> tuple[NDArray[np.void], Holders]:
    if isinstance(found, PlacedData):
        if found.bucket is not None:
            return remote_places_of(found, split)
        in_place, files = places_of(found, split)
        warn_of_changes(found, files)
        return in_place, files
    samples = (
        read_remote_index(found.bucket, found.manifest, split)
        if isinstance(found, ShardBucket)
        else index_of(found.path, found.manifest, split)
    )
    rows = placed(samples)
    if isinstance(found, ShardBucket):
        shards = found.manifest.splits[split].shards
        return rows, RemoteShards(found.bucket, shards, found.manifest.fingerprint)
    return rows, _files_of(found, split)


def _points_of(found: Found) -> tuple[Path, int] | None:
    if not isinstance(found, PlacedData) or not found.places.points_bytes:
        return None
    return found.path / points_name(found.places.points), found.places.points_bytes


def _check_classes(found: Sequence[Found], contents: Sequence[Manifest | Places]) -> None:
    for one, content in zip(found, contents, strict=True):
        if content.classes != contents[0].classes:
            raise ShardError(
                f"has other classes ({len(content.classes)}) than {found[0].path}"
                f" ({len(contents[0].classes)}); prepare both with the same class folders",
                where=os.fspath(one.path),
            )
