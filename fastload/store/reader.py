"""Rows of an index to the bytes of images: positioned reads, checked, with read-ahead.

    rows -> Reader.read -> bytes in the thread's Scratch, and the bad samples with reasons

The loader knows the protocol `Reader` alone. `FileReader` reads byte ranges of files: of shards, or
of files in place. The core reads those of a chunk in one call, which takes and gives the GIL once;
what it could not read, and all without the core, is read with `preadv`, which gives the reason. No
file is mapped: one that is truncated or changed under a running job is an error that names it, not
a SIGBUS.

A file is the same while its size is the same and its samples have their CRC-32: a backup, a copy
or a network file system may give it another time or inode at any moment. A file of many samples
that is another is an error. A file that is one image makes one bad sample, as a flipped bit does.

Where the storage refuses to read, the file is opened anew and asked once more. That is no fault of
the sample: if it is refused again, it is an error.
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
from fastload.files import explain_os_error, refuse_irregular
from fastload.pixels import native
from fastload.pixels.jpeg import Encoded, Upright, frame_size
from fastload.store.collection import Collection
from fastload.store.holders import stamp_of
from fastload.store.ranges import OpenFile, read_into
from fastload.store.seek_tables import SeekTables

OPEN_FILES = 128  # at most; no more than an eighth of the descriptors that a process may have
_WAIT_SECONDS = 1.0  # for a descriptor; other threads give theirs back within a read
_ALIGNMENT = 64  # bytes: no two images share a cache line
# Linux cuts a request to the device's read-ahead window, 128 KiB unless it was changed: what lies
# beyond is not read, and no error says so (force_page_cache_ra in mm/readahead.c).
_AHEAD_BYTES = 128 * 1024
# Errors of one file, not of the storage: it vanished, or another kind of file has its name.
_OF_THE_FILE = frozenset(
    (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.EINVAL, errno.ENXIO)
)
_LAST_UNTURNED = 4  # of EXIF's orientations: those behind it swap height and width
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

    def forget(self) -> None:
        """Nothing that was asked for ahead will be read: an iteration ended.

        A `read` under way may fail. What is asked for from now on is another iteration's.
        """

    def renew(self) -> None:
        """Make the reader usable in a forked child, where a lock may be held by no thread."""

    def close(self) -> None:
        """Close all files; a thread that still reads keeps its file until it is done."""


class FileReader:
    """Reads the samples of a collection from files; see `Reader`.

    Args:
        collection: Index and files.
        max_open: Files of many samples kept open at a time, at most; as the limit of descriptors
            allows when None.

    Raises:
        ShardError: If a file of many samples is missing, or of another size than was listed.
    """

    def __init__(self, collection: Collection, *, max_open: int | None = None) -> None:
        self._index, self._files = collection.index, collection.files
        self._max_open = max_open or _most_open()
        self._open_files: dict[int, OpenFile] = {}
        self._lock = threading.Lock()
        listing = collection.listing
        used = (
            np.unique(self._index["file"])
            if listing is None
            else np.flatnonzero(np.diff(listing.shard_ends, prepend=0))
        )
        shared = used[~self._files.alone(used)].tolist()
        self._stamps = {number: self._files.checked_stamp(number) for number in shared}
        self._tables = SeekTables(collection)

    def read(self, rows: NDArray[np.int64], scratch: Scratch) -> tuple[Encoded, dict[int, str]]:
        """See `Reader.read`."""
        records = self._index[rows]
        encoded = laid_out(records, scratch)
        alone = self._files.alone(records["file"]).tolist()
        offsets = records["offset"].astype(np.int64)
        numbers = records["file"].tolist()
        complete = self._read_at_once(numbers, alone, offsets, encoded)
        images = [encoded[i] for i in range(len(rows))]
        bad = {}
        for i in np.flatnonzero(~complete).tolist():  # one by one, which finds the reason
            file, offset, part = numbers[i], int(offsets[i]), images[i]
            if alone[i]:
                if reason := self._read_alone(file, part):
                    bad[i] = reason
                continue
            try:
                self._read_sample(file, part, offset)
            except OSError:
                # ESTALE: the server knows the file by another handle now. EIO, ETIMEDOUT: may pass.
                self._read_again(file, part, offset)
        if encoded.tables is not None:
            bad |= self._tables.read(rows, encoded.tables)
        return encoded, self._bad_among(encoded, images, records) | bad

    def _read_at_once(
        self, numbers: list[int], alone: list[bool], offsets: NDArray[np.int64], encoded: Encoded
    ) -> NDArray[np.bool_]:
        """Read all images of a chunk by the core, which takes and gives the GIL once."""
        none = np.zeros(len(numbers), np.bool_)
        if not native.is_available():
            return none
        try:
            files = [  # what is open stays so while it is in this list
                self._files.system_path(number)
                if whole
                else self._open_files.get(number) or self._open(number)
                for number, whole in zip(numbers, alone, strict=True)
            ]
        except OSError:
            return none
        opened = [file if isinstance(file, bytes) else file.descriptor for file in files]
        return native.read_many(opened, offsets, encoded)

    def read_ahead(self, rows: NDArray[np.int64]) -> None:
        """See `Reader.read_ahead`: the kernel brings the samples into the page cache.

        Samples that lie next to each other are asked for in one request.
        """
        if not hasattr(os, "posix_fadvise"):
            return
        records = self._index[rows]
        alone = self._files.alone(records["file"])
        self._ask_for_files(records[alone])
        records = records[~alone]
        offsets = records["offset"].astype(np.int64)
        for number, begin, end in merged_ranges(
            records["file"], offsets, offsets + records["size"]
        ):
            try:
                file = self._open_files.get(number) or self._open(number)
            except (ShardError, OSError):
                continue
            _ask_for(file, begin, end)

    def _ask_for_files(self, records: NDArray[np.void]) -> None:
        """Ask for files that are one image each."""
        paths = [self._files.system_path(number) for number in records["file"].tolist()]
        if native.is_available():
            native.advise_files(paths, records["size"].astype(np.int64), _AHEAD_BYTES)
            return
        for path, size in zip(paths, records["size"].tolist(), strict=True):
            with suppress(OSError):
                _ask_for(OpenFile(Path(os.fsdecode(path))), 0, size)

    def locate(self, row: int) -> SamplePlace:
        """See `Reader.locate`."""
        return self._files.place(int(self._index["file"][row]), int(self._index["offset"][row]))

    def file_of(self, row: int) -> str:
        """See `Reader.file_of`."""
        return self._files.path(int(self._index["file"][row])).name

    def forget(self) -> None:
        """See `Reader.forget`: what the kernel was asked for is in nobody's way."""

    def renew(self) -> None:
        """See `Reader.renew`: a thread of the parent may have held the lock at the fork."""
        self._lock = threading.Lock()

    def close(self) -> None:
        """See `Reader.close`."""
        self._open_files = {}
        self._tables.close()

    def _open(self, number: int) -> OpenFile:
        with self._lock:
            if number in self._open_files:
                return self._open_files[number]
            while len(self._open_files) >= self._max_open:
                self._close_oldest()
            file = self._opened(self._files.path(number))
            self._check_size(file, number)
            self._open_files[number] = file
            return file

    def _opened(self, path: Path) -> OpenFile:
        """Open a file; where the process has no descriptor left, give back one of our own."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while True:
            try:
                return OpenFile(path)
            except OSError as error:
                full = error.errno in {errno.EMFILE, errno.ENFILE}
                if not full or time.monotonic() > deadline:
                    words = f"cannot be opened: {explain_os_error(error)}"
                    raise ShardError(words, where=path.name) from error
            if self._open_files:
                self._close_oldest()
                self._max_open = len(self._open_files) + 1
            else:
                time.sleep(0.01)

    def _close_oldest(self) -> None:
        # The oldest first: where access is random no other choice is better.
        with suppress(StopIteration, KeyError):  # another thread has closed it
            del self._open_files[next(iter(self._open_files))]

    def _check_size(self, file: OpenFile, number: int) -> None:
        found, expected = os.fstat(file.descriptor).st_size, self._stamps[number][0]
        if found != expected:
            what = "was truncated" if found < expected else "was replaced or changed"
            raise ShardError(
                f"{what} while it was in use: it has {found} bytes, at the start it had {expected};"
                f" {self._files.remedy(number)}",
                where=str(self._files.path(number)),
            )

    def _read_alone(self, number: int, memory: memoryview) -> str:
        """Read a file that is one image; why it is none that was indexed, or ""."""
        path = self._files.path(number)
        try:
            return self._read_whole(path, number, memory)
        except OSError as error:
            if error.errno in _OF_THE_FILE:
                return f"{explain_os_error(error)}; {self._files.remedy(number)}"
        try:  # the storage failed, or no descriptor is left: once more
            return self._read_whole(path, number, memory)
        except OSError as error:
            raise self._refused(error, number, 0) from error

    def _read_whole(self, path: Path, number: int, memory: memoryview) -> str:
        descriptor = self._descriptor(path)
        try:
            status = os.fstat(descriptor)
            refuse_irregular(status, path)
            count = 0
            while status.st_size == len(memory) > count:
                more = read_into(descriptor, memory[count:], count)
                if more == 0:
                    break
                count += more
        finally:
            os.close(descriptor)
        if count == len(memory):
            return ""
        found = min(status.st_size, count) if status.st_size == len(memory) else status.st_size
        return (
            f"has {found} bytes, when it was indexed it had {len(memory)};"
            f" {self._files.remedy(number)}"
        )

    def _descriptor(self, path: Path) -> int:
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            return os.open(path, flags)
        except OSError as error:
            if error.errno not in {errno.EMFILE, errno.ENFILE}:
                raise
        with self._lock:  # give back one of our own
            self._close_oldest()
        time.sleep(0.01)
        return os.open(path, flags)

    def _read_sample(self, number: int, memory: memoryview, offset: int) -> None:
        file = self._open_files.get(number) or self._open(number)
        count = read_into(file.descriptor, memory, offset)
        while count < len(memory):
            more = read_into(file.descriptor, memory[count:], offset + count)
            if more == 0:
                self._check_size(file, number)
                raise ShardError(
                    f"ends before byte {offset + len(memory)}", where=str(self._files.path(number))
                )
            count += more

    def _read_again(self, number: int, memory: memoryview, offset: int) -> None:
        with self._lock:
            self._open_files.pop(number, None)
        try:
            self._read_sample(number, memory, offset)
        except OSError as error:
            raise self._refused(error, number, offset) from error

    def _refused(self, error: OSError, number: int, offset: int) -> ShardError:
        return ShardError(
            f"cannot be read: {error.strerror}; the storage failed, the sample may be sound:"
            " look at the system's log, or use a copy of the data on another disk",
            where=self._files.place(number, offset),
        )

    def _bad_among(
        self, encoded: Encoded, images: list[memoryview], records: NDArray[np.void]
    ) -> dict[int, str]:
        """The samples that are not what their rows say; `images` are those of `encoded`."""
        bad, changed = differing(encoded, images, records)
        for i in changed:
            number, offset = int(records["file"][i]), int(records["offset"][i])
            if number in self._stamps:
                self._check_unchanged(number, offset, bad[i])
            else:
                bad[i] += f"; it changed since it was indexed: {self._files.remedy(number)}"
        return bad

    def _check_unchanged(self, number: int, offset: int, reason: str) -> None:
        """See that a sample whose bytes are others is in the file that was there at the start."""
        try:
            file = self._open_files.get(number) or self._open(number)
            self._check_size(file, number)
            stamp = stamp_of(os.fstat(file.descriptor))
        except OSError as error:  # such as ESTALE
            words = f"{reason}, and its file cannot be used: {explain_os_error(error)}"
            raise ShardError(words, where=self._files.place(number, offset)) from error
        if stamp != self._stamps[number]:
            raise ShardError(
                f"{reason}, and the time of the file is another than at the start: the file was"
                f" replaced or changed while it was in use; {self._files.remedy(number)}",
                where=self._files.place(number, offset),
            )


def laid_out(records: NDArray[np.void], scratch: Scratch) -> Encoded:
    """A place in a thread's memory for each of some samples, and for its seek table."""
    sizes = records["size"].astype(np.int64)
    tables = records["seek_size"].astype(np.int64)
    lengths = np.concatenate([sizes, tables]) if tables.any() else sizes
    spaces = (lengths + _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT
    starts = np.cumsum(spaces) - spaces
    buffer, count = scratch.take(int(spaces.sum())), len(records)
    seek = Encoded(buffer, starts[count:], tables) if len(starts) > count else None
    return Encoded(buffer, starts[:count], sizes, seek, _upright(records))


def differing(
    encoded: Encoded, images: list[memoryview], records: NDArray[np.void]
) -> tuple[dict[int, str], list[int]]:
    """The samples that are not what their rows of an index say.

    Args:
        encoded: N images.
        images: The bytes of the same.
        records: PLACE [N], their rows.

    Returns:
        For each such sample what is other than expected, and those whose CRC-32 is.
    """
    bad = {}
    turned = records["orientation"] > _LAST_UNTURNED
    heights = np.where(turned, records["width"], records["height"]).tolist()
    widths = np.where(turned, records["height"], records["width"]).tolist()
    for i, (image, *expected) in enumerate(zip(images, heights, widths, strict=True)):
        found = frame_size(image)
        if found not in (None, tuple(expected)):
            bad[i] = "is {} x {} pixels, the index says {} x {}".format(*found, *expected)
    sums = crc32s(encoded)
    changed = np.flatnonzero(sums != records["crc32"]).tolist()
    for i in changed:
        bad[i] = f"its CRC-32 is {sums[i]:08x}, the index says {int(records['crc32'][i]):08x}"
    return bad, changed


def _upright(records: NDArray[np.void]) -> Upright | None:
    """How the pictures of some rows are turned; None where all are stored upright."""
    orientations = records["orientation"]
    if (orientations == 1).all():
        return None
    sizes = np.stack([records["height"], records["width"]], axis=1).astype(np.int32)
    return Upright(orientations, sizes)


def _ask_for(file: OpenFile, begin: int, end: int) -> None:
    """Ask the kernel for a part of a file that will be read soon."""
    with suppress(OSError):  # it is advice: a file system may know nothing of it
        for start in range(begin, end, _AHEAD_BYTES):
            length = min(_AHEAD_BYTES, end - start)
            os.posix_fadvise(file.descriptor, start, length, os.POSIX_FADV_WILLNEED)


def merged_ranges(
    shards: NDArray[np.integer], begins: NDArray[np.int64], ends: NDArray[np.int64]
) -> list[tuple[int, int, int]]:
    """Byte ranges merged into few: neighbours with at most 64 KiB between them become one.

    Args:
        shards: [N], number of the file of each range.
        begins: int64 [N].
        ends: int64 [N].

    Returns:
        (file, begin, end) of each merged range, in the order of the ranges.
    """
    if not len(shards):
        return []
    apart = (shards[1:] != shards[:-1]) | (begins[1:] < begins[:-1])
    apart |= begins[1:] > ends[:-1] + _MERGE_GAP
    first, last = np.concatenate([[True], apart]), np.concatenate([apart, [True]])
    columns = (shards[first].tolist(), begins[first].tolist(), ends[last].tolist())
    return list(zip(*columns, strict=True))


def _most_open() -> int:
    """How many files may be open, so that most descriptors are left to the rest of the process."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return OPEN_FILES if limit == resource.RLIM_INFINITY else min(OPEN_FILES, limit // 8 or 1)


def crc32s(encoded: Encoded) -> NDArray[np.uint32]:
    """CRC-32 of each image, zlib's: uint32 [N]. Releases the GIL while it computes."""
    if native.is_available():
        return native.crc32s(encoded)
    values = (zlib.crc32(encoded[i]) for i in range(len(encoded)))
    return np.fromiter(values, np.uint32, len(encoded))
