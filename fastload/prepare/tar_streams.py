"""Tars to list, one after another, from a disk or from an object store: `open_tars`.

    tars in a store ─► one stream over all of them, read ahead ─► the last parts of each in memory

Headers and labels of a tar are read forward, so a tar in a store is streamed once, and no header
costs a request of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from fastload.console.progress import Progress
from fastload.prepare.tar_members import TarFile
from fastload.store.copying import TIMEOUT_SECONDS
from fastload.store.object_paths import AnyPath, ObjectPath
from fastload.store.objects import PART_BYTES, bytes_of
from fastload.store.requests import Requests
from fastload.store.streaming import Span, Stream, parts_of

_WINDOW_PARTS = 3  # of 8 MiB: a label in front of its image is mostly still there


def open_tars(paths: Sequence[AnyPath]) -> Iterator[TarFile]:
    """Open tars one after another; each is closed when the next is asked for.

    Raises:
        OSError: If a file cannot be opened.
        ShardError: If an object cannot be read.
        StalledError: If the object store does not answer.
    """
    remote = [path for path in paths if isinstance(path, ObjectPath)]
    if remote:
        yield from _in_store(remote)
        return
    for path in paths:
        with TarFile(path) as tar:
            yield tar


def _in_store(paths: Sequence[ObjectPath]) -> Iterator[TarFile]:
    spans = [Span(path.path, 0, path.stat().st_size) for path in paths]
    parts = sum(-(-span.end // PART_BYTES) for span in spans)
    with (
        Requests(timeout_seconds=TIMEOUT_SECONDS) as requests,
        Progress(parts, "parts of 8 MiB", what="listing the tars") as progress,
    ):
        stream = Stream(paths[0].bucket, spans, requests)
        for number, path in enumerate(paths):
            parts_of_tar = _counted(stream.parts(number), progress)
            with TarFile(path, _Streamed(path, parts_of_tar, requests)) as tar:
                yield tar


def _counted(parts: Iterator[memoryview], progress: Progress) -> Iterator[memoryview]:
    for part in parts:
        progress.add()
        yield part


class _Streamed:
    """The bytes of a tar that comes forward; what lies outside of its window is a request."""

    def __init__(self, path: ObjectPath, parts: Iterator[memoryview], requests: Requests) -> None:
        self._path, self._parts, self._requests = path, parts, requests
        self._size = path.stat().st_size
        self._window: deque[tuple[int, memoryview]] = deque()  # with the offset of each part
        self._begin = self._end = 0  # of the window

    def read(self, offset: int, size: int) -> bytes:
        end = min(offset + size, self._size)
        if end <= offset:
            return b""
        if offset < self._begin:
            return self._fetch(offset, end)
        while self._end < end and (part := next(self._parts, None)) is not None:
            self._window.append((self._end, part))
            self._end += len(part)
            while len(self._window) > _WINDOW_PARTS and self._reaches(1) <= offset:
                self._begin = self._reaches(1)
                self._window.popleft()
        return b"".join(
            part[max(0, offset - begin) : max(0, end - begin)] for begin, part in self._window
        )

    def _reaches(self, number: int) -> int:
        """Where a part of the window begins."""
        return self._window[number][0]

    def _fetch(self, begin: int, end: int) -> bytes:
        limit = self._requests.timeout_seconds
        return bytes(
            self._requests.run(
                bytes_of(
                    *(self._path.bucket, self._path.path, begin, end),
                    timeout_seconds=limit,
                    version=self._path.stat().version,
                )
            )
        )

    def rewind(self) -> None:
        if self._begin:
            whole = (0, self._size)
            self._parts = parts_of(self._path.bucket, self._path.path, whole, self._requests)
            self._window.clear()
            self._begin = self._end = 0

    def close(self) -> None:
        self._window.clear()
