"""The index of a split that is too large to be held: rows are read from the file as they are asked.

    {split}.index.npy          SAMPLE [N], mapped
    {split}.{data}.by-class    rows by their classes, for reweighting; made once, mapped

An index of this size is not checked as a whole before it is used, which would take minutes: its
size and its header are, and each row is when it is read.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastload.console.progress import Progress
from fastload.errors import ShardError
from fastload.files import explain_os_error, locked, replacing, temporary_of
from fastload.store.index import SAMPLE, check_split, index_explained, index_name
from fastload.store.manifest import REBUILD, Manifest
from fastload.store.places import placed
from fastload.store.rows import mapped_rows
from fastload.store.tar import END, TAR_BLOCK

MAPPED_FROM = 1 << 24  # samples; a smaller index takes 0.7 GB at most, and is checked as a whole
_CHUNK = 1 << 24  # labels that are sorted at a time: 300 MB


class MappedIndex:
    """SAMPLE [N] in a file, given as PLACE.

    Args:
        directory: The shard directory.
        manifest: Its manifest.
        split: Name of the split.

    Raises:
        ShardError: If there is no such split, or the file is missing or no index of so many rows.
    """

    def __init__(self, directory: Path, manifest: Manifest, split: str) -> None:
        check_split(manifest, split, str(directory))
        facts, path = manifest.splits[split], directory / index_name(split)
        self._num_classes, self._where = len(manifest.classes), str(path)
        self._room = np.array([max(0, shard.bytes - END) for shard in facts.shards], np.uint64)
        try:
            with index_explained():
                self._samples = mapped_rows(path, SAMPLE, facts.samples)
        except ValueError as error:
            raise ShardError(f"{error}; {REBUILD}", where=str(path)) from None

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, key: Any) -> NDArray[Any]:  # noqa: ANN401  what NumPy takes
        """A column by its name, not checked; or rows, as PLACE.

        Raises:
            ShardError: If a row points outside what the manifest lists.
        """
        if isinstance(key, str):
            column: NDArray[Any] = self._samples["shard" if key == "file" else key]
            return column
        samples = np.asarray(self._samples[key])
        self._check(np.atleast_1d(samples))
        return placed(samples)

    def _check(self, samples: NDArray[np.void]) -> None:
        labels, shards, begins = samples["label"], samples["shard"], samples["offset"]
        fault = ""
        if ((labels < 0) | (labels >= self._num_classes)).any():
            fault = f"has a label outside [0, {self._num_classes})"
        elif (shards >= len(self._room)).any():
            fault = f"names shard {shards.max()}, the manifest lists {len(self._room)}"
        elif ((samples["height"] < 1) | (samples["width"] < 1)).any():
            fault = "has an image of no height or width"
        else:
            room, sizes = self._room[shards], samples["size"].astype(np.uint64)
            outside = (begins < TAR_BLOCK) | (begins > room) | (sizes > room - begins)
            fault = "has an image that lies outside its shard" if outside.any() else ""
        if fault:
            raise ShardError(f"{fault}; {REBUILD}", where=self._where)


Index: TypeAlias = NDArray[np.void] | MappedIndex
"""PLACE [N], in memory or in its file."""


class RowsByClass:
    """The rows of an index, class after class, in a file: each is checked when it is read.

    Args:
        rows: int [N], mapped.
        labels: int [N], of the index; mapped.
        counts: int64 [C], rows of each class.
        where: What the rows are read from, for messages.
    """

    def __init__(
        self,
        rows: NDArray[np.integer],
        labels: NDArray[np.integer],
        counts: NDArray[np.int64],
        where: Path,
    ) -> None:
        self._rows, self._labels, self._where = rows, labels, where
        self._ends = np.cumsum(counts)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows at some places.

        Raises:
            ShardError: If one is no row of the class that the place belongs to.
        """
        rows = self._rows[places].astype(np.int64)
        classes = np.searchsorted(self._ends, places, side="right")
        inside = ((rows >= 0) & (rows < len(self._labels))).all()
        if not inside or (self._labels[rows] != classes).any():
            raise ShardError(
                "is damaged (it gives a row of another class); remove it, and it is made again",
                where=str(self._where),
            )
        return rows


def rows_by_class(index: MappedIndex, counts: NDArray[np.int64], beside: Path) -> RowsByClass:
    """The rows of an index, class after class: mapped, made where they were never asked for.

    They take 4 bytes a sample on the disk of the index; where that cannot be written, in the folder
    of temporary files, as long as they are used.

    Args:
        index: The index.
        counts: int64 [C], rows of each class.
        beside: Path of the file that keeps them, without its end.

    Raises:
        ShardError: If they can be written nowhere, or the index has other class counts.
    """
    path = beside.with_name(f"{beside.name}.by-class")
    rows = _there(path, index)
    for make in (_made_beside, _made_temporary):
        if rows is None:
            try:
                rows = make(path, index, counts)
            except OSError as error:
                raise ShardError(explain_os_error(error)) from error
    if rows is None:
        raise ShardError(
            "reweighting needs a table beside the index, and neither this directory nor that of"
            " temporary files can be written; make one of them writable",
            where=str(path.parent),
        )
    return RowsByClass(rows, index["label"], counts, path)


def _there(path: Path, index: MappedIndex) -> NDArray[np.integer] | None:
    """The table that was made before."""
    kind = _kind_of(index)
    with suppress(OSError):
        if path.stat().st_size == len(index) * kind.itemsize:
            return np.memmap(path, kind, "r", shape=(len(index),))
    return None


def _made_beside(
    path: Path, index: MappedIndex, counts: NDArray[np.int64]
) -> NDArray[np.integer] | None:
    """The table, made by one process while the others wait; None where it cannot be there."""
    partial = temporary_of(path)
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(partial, held=lambda: None, unlockable=_refuse))
        except OSError:
            return None  # a directory that is only read
        if (rows := _there(path, index)) is not None:
            partial.unlink(missing_ok=True)
            return rows
        with replacing(path) as file:
            return _sorted(file.fileno(), index, counts)


def _refuse(error: OSError) -> None:
    raise error


def _made_temporary(
    path: Path, index: MappedIndex, counts: NDArray[np.int64]
) -> NDArray[np.integer] | None:
    """The table in a file without a name; None where there is no folder for it."""
    with ExitStack() as stack:
        try:
            file = stack.enter_context(tempfile.TemporaryFile(prefix=path.name))
        except OSError:
            return None
        return _sorted(file.fileno(), index, counts)  # what is mapped stays


def _kind_of(index: MappedIndex) -> np.dtype[Any]:
    return np.dtype(np.uint32 if len(index) <= 1 << 32 else np.int64)


def _sorted(file: int, index: MappedIndex, counts: NDArray[np.int64]) -> NDArray[np.integer]:
    """A counting sort into an empty file: no more than a chunk of labels is in memory."""
    kind = _kind_of(index)
    os.posix_fallocate(file, 0, len(index) * kind.itemsize)
    with os.fdopen(os.dup(file), "r+b") as opened:
        rows = np.memmap(opened, kind, "r+")
    ends, places = np.cumsum(counts), np.cumsum(counts) - counts
    with Progress(len(index), "rows", what="rows by class") as progress:
        for begin in range(0, len(index), _CHUNK):
            labels = np.asarray(index["label"][begin : begin + _CHUNK])
            known = labels[(labels >= 0) & (labels < len(counts))]
            found = np.bincount(known, minlength=len(counts))
            if len(known) < len(labels) or (places + found > ends).any():
                raise ShardError(f"the index has other class counts than the manifest; {REBUILD}")
            order, behind = np.argsort(labels, kind="stable") + begin, np.cumsum(found)
            for label in np.flatnonzero(found).tolist():
                part = order[behind[label] - found[label] : behind[label]]
                rows[places[label] : places[label] + found[label]] = part
            places += found
            progress.add(len(labels))
    rows.flush()
    os.fsync(file)
    return rows
