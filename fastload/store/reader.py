"""Rows of an index to the bytes of images: positioned reads, checked, with read-ahead.

    rows -> Reader.read -> bytes in the thread's Scratch, and the bad samples with reasons

The loader knows the protocol `Reader` alone. `ShardReader` reads shard directories. It reads files
with `preadv` and never maps them: a shard that is truncated or replaced under a running job is an
error that names the shard, not a SIGBUS.
"""

from __future__ import annotations

import os
import threading
import zlib
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fastload.errors import SamplePlace, ShardError
from fastload.files import explain_os_error
from fastload.pixels import native
from fastload.pixels.jpeg import Encoded
from fastload.store.collection import Collection
from fastload.store.tar import read_key

OPEN_SHARDS = 128  # well under the usual limit of 1,024 descriptors of a process
_ALIGNMENT = 64  # bytes: no two images share a cache line
# Linux cuts a request to the device's read-ahead window, 128 KiB unless it was changed: what lies
# beyond is not read, and no error says so (force_page_cache_ra in mm/readahead.c).
_AHEAD_BYTES = 128 * 1024
_MERGE_GAP = 64 * 1024  # bytes between two samples that are read ahead in one request all the same


class Scratch:
    """Memory of one thread for the bytes of a chunk; it grows to the size of the largest chunk."""

    def __init__(self) -> None:
        self._buffer = np.empty(0, np.uint8)

    def take(self, count: int) -> NDArray[np.uint8]:
        """uint8 [at least count]; the next `take` overwrites it."""
        if len(self._buffer) < count:
            self._buffer = np.empty(count + count // 4, np.uint8)
        return self._buffer


class Reader(Protocol):
    """Reads samples by their rows of the index. Thread-safe; each thread has its own `Scratch`."""

    def read(self, rows: NDArray[np.int64], scratch: Scratch) -> tuple[Encoded, dict[int, str]]:
        """The bytes of some samples.

        Args:
            rows: int64 [N], rows of the index.
            scratch: The calling thread's own; it owns the bytes until its next use.

        Returns:
            The images, and the bad samples: place in `rows` -> reason. A sample is bad if its bytes
            cannot be read, or are not those that were stored.

        Raises:
            ShardError: If a file was deleted, truncated or replaced, or cannot be opened.
        """

    def read_ahead(self, rows: NDArray[np.int64]) -> None:
        """Ask for samples that will be read soon; returns before they are there.

        A file that cannot be opened is passed over: `read` raises the error.
        """

    def locate(self, row: int) -> SamplePlace:
        """Where a sample is stored, for messages: the key of the sample costs one read."""

    def file_of(self, row: int) -> str:
        """Name of the file that holds a sample."""

    def renew(self) -> None:
        """Make the reader usable in a forked child, where a lock may be held by no thread."""

    def close(self) -> None:
        """Close all files; a thread that still reads keeps its file until it is done."""


class _OpenShard:
    """A file descriptor, closed when the last thread that reads from it drops the object."""

    __slots__ = ("descriptor",)

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


class ShardReader:
    """Reads the samples of a collection of shards; see `Reader`.

    Args:
        collection: Index and shards.
        max_open: Shards kept open at a time.

    Raises:
        ShardError: If a shard is missing, or its size is not what the manifest says.
    """

    def __init__(self, collection: Collection, *, max_open: int = OPEN_SHARDS) -> None:
        self._index = collection.index
        self._shards = collection.shards
        self._max_open = max(1, max_open)
        self._open_shards: dict[int, _OpenShard] = {}
        self._lock = threading.Lock()
        self._stamps = [
            _checked_stamp(path, size)
            for path, size in zip(collection.shards, collection.shard_bytes, strict=True)
        ]

    def read(self, rows: NDArray[np.int64], scratch: Scratch) -> tuple[Encoded, dict[int, str]]:
        """See `Reader.read`."""
        records = self._index[rows]
        sizes = records["size"].astype(np.int64)
        spaces = (sizes + _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT
        starts = np.cumsum(spaces) - spaces
        buffer = scratch.take(int(spaces.sum()))
        memory = buffer.data
        bad: dict[int, str] = {}
        places = zip(
            *(records["shard"].tolist(), records["offset"].tolist(), sizes.tolist()),
            starts.tolist(),
            strict=True,
        )
        for i, (shard, offset, size, start) in enumerate(places):
            file = self._open_shards.get(shard) or self._open(shard)
            try:
                count = _read_into(file.descriptor, memory[start : start + size], offset)
                if count < size:
                    self._read_rest(file, shard, memory[start : start + size], offset, count)
            except OSError as error:
                bad[i] = f"cannot be read: {error.strerror}"
        encoded = Encoded(buffer, starts, sizes)
        self._check(encoded, records, bad)
        return encoded, bad

    def read_ahead(self, rows: NDArray[np.int64]) -> None:
        """See `Reader.read_ahead`: the kernel brings the samples into the page cache.

        Samples that lie next to each other are asked for in one request.
        """
        if not hasattr(os, "posix_fadvise"):
            return
        records = self._index[rows]
        offsets = records["offset"].astype(np.int64)
        for shard, begin, end in merged_ranges(
            records["shard"], offsets, offsets + records["size"]
        ):
            try:
                file = self._open_shards.get(shard) or self._open(shard)
            except ShardError:
                continue
            for start in range(begin, end, _AHEAD_BYTES):
                length = min(_AHEAD_BYTES, end - start)
                os.posix_fadvise(file.descriptor, start, length, os.POSIX_FADV_WILLNEED)

    def locate(self, row: int) -> SamplePlace:
        """See `Reader.locate`."""
        shard, offset = int(self._index["shard"][row]), int(self._index["offset"][row])
        return SamplePlace(self._shards[shard].name, read_key(self._shards[shard], offset), offset)

    def file_of(self, row: int) -> str:
        """See `Reader.file_of`: the file name of the shard."""
        return self._shards[int(self._index["shard"][row])].name

    def renew(self) -> None:
        """See `Reader.renew`: a thread of the parent may have held the lock at the fork."""
        self._lock = threading.Lock()

    def close(self) -> None:
        """See `Reader.close`."""
        self._open_shards = {}

    def _open(self, shard: int) -> _OpenShard:
        with self._lock:
            if shard in self._open_shards:
                return self._open_shards[shard]
            path = self._shards[shard]
            try:
                file = _OpenShard(path)
            except OSError as error:
                raise ShardError(
                    f"cannot be opened: {explain_os_error(error)}", where=path.name
                ) from error
            self._check_unchanged(file, shard)
            while len(self._open_shards) >= self._max_open:
                # The oldest first: where access is random no other choice is better.
                del self._open_shards[next(iter(self._open_shards))]
            self._open_shards[shard] = file
            return file

    def _check_unchanged(self, file: _OpenShard, shard: int) -> None:
        found, expected = _stamp(os.fstat(file.descriptor)), self._stamps[shard]
        if found == expected:
            return
        what = "was truncated" if found[1] < expected[1] else "was replaced or changed"
        sizes = f"it has {found[1]} bytes, at the start it had {expected[1]}"
        if found[1] == expected[1]:
            sizes = "its size is as it was, its file or its time of change is another"
        raise ShardError(
            f"{what} while it was in use: {sizes}; start again with the new data",
            where=self._shards[shard].name,
        )

    def _read_rest(
        self, file: _OpenShard, shard: int, memory: memoryview, offset: int, count: int
    ) -> None:
        while count < len(memory):
            more = _read_into(file.descriptor, memory[count:], offset + count)
            if more == 0:
                self._check_unchanged(file, shard)
                raise ShardError(
                    f"ends before byte {offset + len(memory)}", where=self._shards[shard].name
                )
            count += more

    def _check(self, encoded: Encoded, records: NDArray[np.void], bad: dict[int, str]) -> None:
        found = crc32s(encoded)
        for i in np.flatnonzero(found != records["crc32"]).tolist():
            shard = int(records["shard"][i])
            file = self._open_shards.get(shard) or self._open(shard)
            self._check_unchanged(file, shard)
            expected = int(records["crc32"][i])
            bad.setdefault(i, f"its CRC-32 is {found[i]:08x}, the index says {expected:08x}")


def merged_ranges(
    shards: NDArray[np.integer], begins: NDArray[np.int64], ends: NDArray[np.int64]
) -> list[tuple[int, int, int]]:
    """Byte ranges merged into few: neighbours with at most 64 KiB between them become one.

    Args:
        shards: [N], shard of each range.
        begins: int64 [N].
        ends: int64 [N].

    Returns:
        (shard, begin, end) of each merged range, in the order of the ranges.
    """
    if not len(shards):
        return []
    apart = (shards[1:] != shards[:-1]) | (begins[1:] < begins[:-1])
    apart |= begins[1:] > ends[:-1] + _MERGE_GAP
    first, last = np.concatenate([[True], apart]), np.concatenate([apart, [True]])
    columns = (shards[first].tolist(), begins[first].tolist(), ends[last].tolist())
    return list(zip(*columns, strict=True))


def _read_into(descriptor: int, memory: memoryview, offset: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [memory], offset)
    read = os.pread(descriptor, len(memory), offset)  # macOS before 11
    memory[: len(read)] = read
    return len(read)


def _checked_stamp(path: Path, size: int) -> tuple[int, int, int]:
    try:
        stamp = _stamp(path.stat())
    except OSError as error:
        raise ShardError(f"is missing: {explain_os_error(error)}", where=path.name) from error
    if stamp[1] != size:
        raise ShardError(
            f"has {stamp[1]} bytes, the manifest says {size}; "
            "rebuild it with `python -m fastload.shard`",
            where=path.name,
        )
    return stamp


def crc32s(encoded: Encoded) -> NDArray[np.uint32]:
    """CRC-32 of each image, zlib's: uint32 [N]. Releases the GIL while it computes."""
    if native.is_available():
        return native.crc32s(encoded)
    values = (zlib.crc32(encoded[i]) for i in range(len(encoded)))
    return np.fromiter(values, np.uint32, len(encoded))
