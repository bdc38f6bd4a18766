"""A cache of objects on a local disk: what was fetched once is read from there.

    FOLDER/used                      bytes of all data in the folder, as far as is known; its lock
    FOLDER/DATA/train-000000.tar     as long as the shard, with holes where nothing was fetched yet
    FOLDER/DATA/photographs-0        photographs in place, one behind another, with holes as well

A file has the bytes of the shard at the places of the shard. A sample is there if its first two
bytes are not zeros, as no image begins with such; its CRC-32 is checked whenever it is read, so
what a kill or a crash has left half-written is fetched again. Processes share the folder: a range
that one of them fetches is locked in the file, and the others wait until it is there.

The data never take more than `most_bytes`. Where they would, files that nobody has used for a while
are emptied and removed, the longest unused first. What is in use stays: an epoch needs each sample
once, so whatever is thrown out would be missed just as much. Data that find no room, or a full
disk, are not kept; that is said once.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import threading
import time
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from fastload.errors import ShardError
from fastload.files import explain_os_error, locked, open_own, refuse_irregular
from fastload.store.requests import Fetch

_log = logging.getLogger(__name__)

OPEN_FILES = 128
_LEDGER = "used"
_BLOCK = 4096  # bytes that a file system gives at a time, as most do
_IDLE_SECONDS = 120.0  # a file that was not used for so long is nobody's
_NOTE_SECONDS = 30.0  # how often its use is noted
_FREE_SHARE = 0.05  # of the disk, left to others where no limit was given


class _OpenFile:
    """A descriptor, closed when the last thread that uses it drops the object."""

    __slots__ = ("descriptor", "noted")

    def __init__(self, descriptor: int) -> None:
        self.descriptor, self.noted = descriptor, 0.0

    def __del__(self) -> None:
        os.close(self.descriptor)


class Cache:
    """The part of a cache folder that belongs to one data set; a `requests.Keeper`. Thread-safe.

    Args:
        folder: The folder of the cache; it is made where there is none.
        data: Name of the data set: what has equal names must be equal.
        most_bytes: Bytes that all data in the folder may take; None to leave a twentieth of the
            disk free.

    Raises:
        ShardError: If the folder cannot be made or written.
    """

    def __init__(self, folder: Path, data: str, *, most_bytes: int | None = None) -> None:
        self._folder, self._own, self._most = folder, folder / data, most_bytes
        self._files: dict[str, _OpenFile] = {}
        self._lock = threading.Lock()
        self._writing = True
        try:
            self._own.mkdir(parents=True, exist_ok=True)
            with self._ledger():
                self._note_used(self._found_used())
        except OSError as error:
            words = f"cannot be the cache: {explain_os_error(error)}"
            raise ShardError(words, where=os.fspath(folder)) from error

    def open(self, name: str) -> _OpenFile | None:
        """A file, kept open; None where it cannot be used."""
        with self._lock:
            file = self._files.get(name)
            if file is not None and os.fstat(file.descriptor).st_nlink:
                return file
            self._files.pop(name, None)
            while len(self._files) >= OPEN_FILES:
                del self._files[next(iter(self._files))]
            try:
                self._files[name] = _OpenFile(open_own(self._own / name))
            except OSError as error:
                self._give_up(error)
                return None
            return self._files[name]

    def has(self, name: str, begin: int) -> bool:
        """Whether the sample that begins there is likely here."""
        return self.file_with(name, begin) is not None

    def file_with(self, name: str, begin: int) -> _OpenFile | None:
        """The file, if the sample that begins there is likely here; notes that it is in use."""
        file = self.open(name)
        if file is None or not any(os.pread(file.descriptor, 2, begin)):
            return None
        if (now := time.monotonic()) - file.noted > _NOTE_SECONDS:
            file.noted = now
            with suppress(OSError):
                os.utime(file.descriptor)
        return file

    def claim(self, fetch: Fetch) -> bool | None:
        """See `Keeper.claim`."""
        name, shift = fetch.kept_in
        file = self.open(name)
        if file is None:
            return True
        how, length = fcntl.LOCK_EX | fcntl.LOCK_NB, fetch.end - fetch.begin
        try:
            fcntl.lockf(file.descriptor, how, length, fetch.begin + shift)
        except BlockingIOError:
            return None
        except OSError:  # a file system without locks: two may fetch the same
            return True
        if all(self.has(name, begin + shift) for begin in fetch.samples):
            self.unclaim(fetch)
            return False
        return True

    def unclaim(self, fetch: Fetch) -> None:
        """See `Keeper.unclaim`."""
        name, shift = fetch.kept_in
        if (file := self.open(name)) is not None:
            length = fetch.end - fetch.begin
            with suppress(OSError):
                fcntl.lockf(file.descriptor, fcntl.LOCK_UN, length, fetch.begin + shift)

    def keep(self, fetch: Fetch, data: memoryview) -> bool:
        """See `Keeper.keep`."""
        if not self._writing:
            return False
        name, shift = fetch.kept_in
        begin, end = fetch.begin + shift, fetch.end + shift
        needed = (end + _BLOCK - 1) // _BLOCK * _BLOCK - begin // _BLOCK * _BLOCK
        try:
            with self._ledger():
                if not self._has_room(needed) or (file := self.open(name)) is None:
                    return False
                written = 0
                while written < len(data):
                    written += os.pwrite(file.descriptor, data[written:], begin + written)
        except OSError as error:
            self._give_up(error)
            return False
        return True

    def drop(self, name: str, begin: int) -> None:
        """What is here of the sample that begins there is wrong: forget it."""
        with suppress(OSError), self._ledger():
            if (file := self.open(name)) is not None:
                os.pwrite(file.descriptor, b"\0\0", begin)

    def renew(self) -> None:
        """Make the cache usable in a forked child, where a lock may be held by no thread."""
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close all files."""
        self._files = {}

    def _ledger(self) -> AbstractContextManager[None]:
        """Hold the folder against other threads and processes."""
        return locked(self._folder / _LEDGER, held=_wait, unlockable=_go_on)

    def _has_room(self, needed: int) -> bool:
        """Count bytes that will be written now; the ledger is held."""
        used = self._noted_used()
        if used + needed > self._limit(used) and not self._make_room(needed):
            return False
        self._note_used(self._noted_used() + needed)  # before they are written: never too few
        return True

    def _limit(self, used: int) -> int:
        if self._most is not None:
            return self._most
        disk = shutil.disk_usage(self._folder)
        return used + disk.free - int(disk.total * _FREE_SHARE)

    def _make_room(self, needed: int) -> bool:
        """Remove what nobody uses until some bytes fit; the ledger is held."""
        files = self._all_files()
        used = sum(size for _, size, _ in files)
        limit = self._limit(used)
        oldest = time.time() - _IDLE_SECONDS
        for when, size, path in sorted(files):
            if used + needed <= limit or when > oldest:
                break
            if path.parent == self._own and path.name in self._files:
                continue  # this process uses it, if seldom
            os.truncate(path, 0)  # others may have it open, and would hold the space
            path.unlink()
            used -= size
        self._note_used(used)
        if used + needed > limit:
            self._say("is full: what is fetched from now on is not kept; raise cache_bytes")
            return False
        return True

    def _all_files(self) -> list[tuple[float, int, Path]]:
        """When it was used, bytes on the disk and path of each file."""
        found = []
        for path in self._folder.glob("*/*"):
            with suppress(OSError):
                status = path.lstat()
                refuse_irregular(status, path)
                found.append((status.st_mtime, status.st_blocks * 512, path))
        return found

    def _found_used(self) -> int:
        return sum(size for _, size, _ in self._all_files())

    def _noted_used(self) -> int:
        text = (self._folder / _LEDGER).read_text()
        return int(text) if text.isdecimal() else self._found_used()

    def _note_used(self, used: int) -> None:
        # In place: this file is the lock, another of its name would be another lock.
        descriptor = open_own(self._folder / _LEDGER)
        try:
            os.pwrite(descriptor, b"%020d" % used, 0)
        finally:
            os.close(descriptor)

    def _give_up(self, error: OSError) -> None:
        self._writing = False
        self._say(f"takes no more data: {explain_os_error(error)}; it goes on without")

    _said = False

    def _say(self, words: str) -> None:
        if not self._said:
            self._said = True
            _log.warning("the cache %s %s", self._folder, words)


def _wait() -> None:
    """Another process holds the ledger, for as long as a write takes."""


def _go_on(_error: OSError) -> None:
    """The file system has no locks: the bytes are counted less exactly."""
