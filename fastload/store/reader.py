"""Rows of an index to the bytes of images: positioned reads, checked, with read-ahead.

    rows -> Reader.read -> bytes in the thread's Scratch, and the bad samples with reasons

The loader knows the protocol `Reader` alone. `ShardReader` reads shard directories. It reads files
with `preadv` and never maps them: a shard that is truncated or changed under a running job is an
error that names the shard, not a SIGBUS.

A shard is the same while its size is the same and its samples have their CRC-32: a backup, a copy
or a network file system may give it another time or inode at any moment. Where the storage refuses
to read, the shard is opened anew and asked once more. That is no fault of the sample: if it is
refused again, it is an error.
"""

from __future__ import annotations

import errno
import os
import resource
import threading
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fastload.errors import SamplePlace, ShardError
from fastload.files import explain_os_error, open_regular, refuse_irregular
from fastload.pixels import native
from fastload.pixels.jpeg import Encoded, frame_size
from fastload.store.collection import Collection
from fastload.store.manifest import REBUILD
from fastload.store.tar import read_key

OPEN_SHARDS = 128  # at most; no more than an eighth of the descriptors that a process may have
_WAIT_SECONDS = 1.0  # for a descriptor; other threads give theirs back within a read
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
            are not those that were stored, or its size in pixels is not the index's.

        Raises:
            ShardError: If a file was deleted, truncated or changed, or cannot be opened or read.
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
        self.descriptor = open_regular(path)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


class ShardReader:
    """Reads the samples of a collection of shards; see `Reader`.

    Args:
        collection: Index and shards.
        max_open: Shards kept open at a time, at most; as the limit of descriptors allows when None.

    Raises:
        ShardError: If a shard is missing, or its size is not what the manifest says.
    """

    def __init__(self, collection: Collection, *, max_open: int | None = None) -> None:
        self._index = collection.index
        self._shards = collection.shards
        self._max_open = max_open or _open_shards()
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
        places = zip(
            *(records["shard"].tolist(), records["offset"].tolist(), sizes.tolist()),
            starts.tolist(),
            strict=True,
        )
        images = []
        for shard, offset, size, start in places:
            part = memory[start : start + size]
            images.append(part)
            try:
                self._read_sample(shard, part, offset)
            except OSError:
                # ESTALE: the server knows the file by another handle now. EIO, ETIMEDOUT: may pass.
                self._read_again(shard, part, offset)
        encoded = Encoded(buffer, starts, sizes)
        return encoded, self._bad_among(encoded, images, records)

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
            except (ShardError, OSError):
                continue
            with suppress(OSError):  # it is advice: a file system may know nothing of it
                for start in range(begin, end, _AHEAD_BYTES):
                    length = min(_AHEAD_BYTES, end - start)
                    os.posix_fadvise(file.descriptor, start, length, os.POSIX_FADV_WILLNEED)

    def locate(self, row: int) -> SamplePlace:
        """See `Reader.locate`."""
        shard, offset = int(self._index["shard"][row]), int(self._index["offset"][row])
        return self._place(shard, offset)

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
            while len(self._open_shards) >= self._max_open:
                self._close_oldest()
            file = self._opened(self._shards[shard])
            self._check_size(file, shard)
            self._open_shards[shard] = file
            return file

    def _opened(self, path: Path) -> _OpenShard:
        """Open a shard; where the process has no descriptor left, give back one of our own."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while True:
            try:
                return _OpenShard(path)
            except OSError as error:
                full = error.errno in {errno.EMFILE, errno.ENFILE}
                if not full or time.monotonic() > deadline:
                    words = f"cannot be opened: {explain_os_error(error)}"
                    raise ShardError(words, where=path.name) from error
            if self._open_shards:
                self._close_oldest()
                self._max_open = len(self._open_shards) + 1
            else:
                time.sleep(0.01)

    def _close_oldest(self) -> None:
        # The oldest first: where access is random no other choice is better.
        del self._open_shards[next(iter(self._open_shards))]

    def _check_size(self, file: _OpenShard, shard: int) -> None:
        found, expected = os.fstat(file.descriptor).st_size, self._stamps[shard][0]
        if found != expected:
            what = "was truncated" if found < expected else "was replaced or changed"
            raise ShardError(
                f"{what} while it was in use: it has {found} bytes, at the start it had {expected};"
                " start again with the new data",
                where=str(self._shards[shard]),
            )

    def _read_sample(self, shard: int, memory: memoryview, offset: int) -> None:
        file = self._open_shards.get(shard) or self._open(shard)
        count = _read_into(file.descriptor, memory, offset)
        while count < len(memory):
            more = _read_into(file.descriptor, memory[count:], offset + count)
            if more == 0:
                self._check_size(file, shard)
                raise ShardError(
                    f"ends before byte {offset + len(memory)}", where=str(self._shards[shard])
                )
            count += more

    def _read_again(self, shard: int, memory: memoryview, offset: int) -> None:
        with self._lock:
            self._open_shards.pop(shard, None)
        try:
            self._read_sample(shard, memory, offset)
        except OSError as error:
            raise ShardError(
                f"cannot be read: {error.strerror}; the storage failed, the sample may be sound:"
                " look at the system's log, or use a copy of the shards on another disk",
                where=self._place(shard, offset),
            ) from error

    def _place(self, shard: int, offset: int) -> SamplePlace:
        return SamplePlace(self._shards[shard].name, read_key(self._shards[shard], offset), offset)

    def _bad_among(
        self, encoded: Encoded, images: list[memoryview], records: NDArray[np.void]
    ) -> dict[int, str]:
        """The samples that are not what their rows say; `images` are those of `encoded`."""
        bad = {}
        sizes = zip(records["height"].tolist(), records["width"].tolist(), strict=True)
        for i, (image, expected) in enumerate(zip(images, sizes, strict=True)):
            found = frame_size(image)
            if found not in (None, expected):
                bad[i] = "is {} x {} pixels, the index says {} x {}".format(*found, *expected)
        sums = crc32s(encoded)
        for i in np.flatnonzero(sums != records["crc32"]).tolist():
            bad[i] = f"its CRC-32 is {sums[i]:08x}, the index says {int(records['crc32'][i]):08x}"
            self._check_unchanged(int(records["shard"][i]), int(records["offset"][i]), bad[i])
        return bad

    def _check_unchanged(self, shard: int, offset: int, reason: str) -> None:
        """See that a sample whose bytes are others is in the shard that was there at the start."""
        try:
            file = self._open_shards.get(shard) or self._open(shard)
            self._check_size(file, shard)
            stamp = _stamp(os.fstat(file.descriptor))
        except OSError as error:  # such as ESTALE
            words = f"{reason}, and the shard cannot be used: {explain_os_error(error)}"
            raise ShardError(words, where=self._place(shard, offset)) from error
        if stamp != self._stamps[shard]:
            raise ShardError(
                f"{reason}, and the time of the file is another than at the start: the shard was"
                " replaced or changed while it was in use; start again with the new data",
                where=self._place(shard, offset),
            )


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


def _open_shards() -> int:
    """How many shards may be open, so that most descriptors are left to the rest of the process."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return OPEN_SHARDS if limit == resource.RLIM_INFINITY else min(OPEN_SHARDS, limit // 8 or 1)


def _stamp(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _checked_stamp(path: Path, size: int) -> tuple[int, int]:
    try:
        return _stamp(checked_status(path, size))
    except OSError as error:
        raise ShardError(f"cannot be used: {explain_os_error(error)}", where=path.name) from error


def checked_status(path: Path, size: int) -> os.stat_result:
    """The status of a shard; the file is not opened.

    Raises:
        ShardError: If there is none, or its size is not what the manifest says.
        OSError: If it is no regular file, or the system does not tell.
    """
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise ShardError(
            f"is missing: {explain_os_error(error)}; copy it again, or {REBUILD}", where=path.name
        ) from error
    refuse_irregular(status, path)
    if status.st_size != size:
        raise ShardError(
            f"has {status.st_size} bytes, the manifest says {size}; copy it again, or {REBUILD}",
            where=str(path),
        )
    return status


def crc32s(encoded: Encoded) -> NDArray[np.uint32]:
    """CRC-32 of each image, zlib's: uint32 [N]. Releases the GIL while it computes."""
    if native.is_available():
        return native.crc32s(encoded)
    values = (zlib.crc32(encoded[i]) for i in range(len(encoded)))
    return np.fromiter(values, np.uint32, len(encoded))
