"""An object as a file of Python that can be sought in: a range of it at a time is in memory."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from fastload.store.copying import TIMEOUT_SECONDS
from fastload.store.objects import PART_BYTES, Version, bytes_of
from fastload.store.remote import Bucket
from fastload.store.requests import Requests

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_FIRST_BYTES = 64 << 10  # of the first range; each that follows behind one takes twice as much


class RangeFile(io.RawIOBase):
    """An object to read, for `io.BufferedReader`; belongs to one thread.

    Args:
        bucket: Where it is.
        name: Its name there.
        version: The state that is meant, with its size; reading another one raises
            ChangedObjectError.
    """

    def __init__(self, bucket: Bucket, name: str, version: Version) -> None:
        self._bucket, self._name, self._version = bucket, name, version
        self._size = version.bytes or 0
        self._place = self._begin = 0
        self._held = memoryview(b"")  # from `_begin` on

    def readable(self) -> bool:
        """See `io.IOBase`."""
        return True

    def seekable(self) -> bool:
        """See `io.IOBase`."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """See `io.IOBase`."""
        start = (0, self._place, self._size)[whence]
        self._place = max(0, start + offset)
        return self._place

    def readinto(self, buffer: WriteableBuffer) -> int:
        """See `io.RawIOBase`."""
        target = memoryview(buffer).cast("B")
        if not self._begin <= self._place < self._begin + len(self._held):
            self._fetch()
        first = self._place - self._begin
        part = self._held[first : first + len(target)]
        target[: len(part)] = part
        self._place += len(part)
        return len(part)

    def _fetch(self) -> None:
        """Bring the range that begins at the place."""
        forward = bool(len(self._held)) and self._place == self._begin + len(self._held)
        count = min(PART_BYTES, 2 * len(self._held)) if forward else _FIRST_BYTES
        begin, end = self._place, min(self._place + count, self._size)
        self._begin, self._held = begin, memoryview(b"")
        if begin >= end:
            return
        with Requests(timeout_seconds=TIMEOUT_SECONDS) as requests:
            self._held = requests.run(
                bytes_of(
                    *(self._bucket, self._name, begin, end),
                    timeout_seconds=TIMEOUT_SECONDS,
                    version=self._version,
                )
            )
