"""Objects of a store from front to back, one after another, while the next are on their way.

    spans ─► parts of 8 MiB at most ─► Requests: 64 MiB under way or waiting ─► parts, in order

Parts are asked for across the ends of objects, so many small objects come as fast as a large one.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, cast

from fastload.store.objects import PART_BYTES
from fastload.store.remote import Bucket
from fastload.store.requests import IN_FLIGHT_BYTES, MOST_IN_FLIGHT, Fetch, Requests

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class Span(NamedTuple):
    """The bytes [begin, end) of an object."""

    name: str
    begin: int
    end: int


class Stream:
    """Spans of objects, each read forward, in their order; belongs to one thread.

    Args:
        bucket: Where the objects are.
        spans: What is read of them.
        requests: What brings it.
    """

    def __init__(self, bucket: Bucket, spans: Iterable[Span], requests: Requests) -> None:
        self._bucket, self._requests = bucket, requests
        self._number = 0  # of the span that is read
        self._planned = self._plan(spans)
        self._ahead: deque[tuple[int, Fetch]] = deque()
        self._bytes = 0  # of those ahead

    def parts(self, number: int) -> Iterator[memoryview]:
        """The bytes of a span, in order; what nobody took of those before it is dropped.

        Args:
            number: Of the span, from 0; larger than in any call before.

        Raises:
            ShardError: If the object is missing, shorter or cannot be read.
            StalledError: If the server did not bring it in time.
        """
        self._number = number
        self._ask()
        while self._ahead and self._ahead[0][0] <= number:
            of, fetch = self._ahead.popleft()
            self._bytes -= fetch.end - fetch.begin
            try:
                if of < number:
                    fetch.outcome.exception()  # memory is given back when the bytes are there
                elif (data := fetch.outcome.result()) is not None:
                    yield data
            finally:
                self._requests.release([fetch])
            self._ask()

    def _plan(self, spans: Iterable[Span]) -> Iterator[tuple[int, Fetch]]:
        for number, (name, begin, end) in enumerate(spans):
            for first in range(begin, end, PART_BYTES):
                if number < self._number:
                    break
                yield number, Fetch(self._bucket, name, first, min(first + PART_BYTES, end))

    def _ask(self) -> None:
        while len(self._ahead) < MOST_IN_FLIGHT and self._bytes + PART_BYTES <= IN_FLIGHT_BYTES:
            if (planned := next(self._planned, None)) is None:
                return
            self._ahead.append(planned)
            self._bytes += planned[1].end - planned[1].begin
            self._requests.ask([planned[1]])


def parts_of(
    bucket: Bucket, name: str, span: tuple[int, int], requests: Requests
) -> Iterator[memoryview]:
    """The bytes of an object within [begin, end), in order; errors as of `Stream.parts`."""
    return Stream(bucket, [Span(name, *span)], requests).parts(0)


def forward_file(parts: Iterator[memoryview]) -> BinaryIO:
    """The bytes of some parts as a file that is read from front to back."""
    return cast("BinaryIO", io.BufferedReader(_Parts(parts)))


class _Parts(io.RawIOBase):
    def __init__(self, parts: Iterator[memoryview]) -> None:
        self._parts, self._part = parts, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        if not len(self._part):
            self._part = next(self._parts, self._part)
        target = memoryview(buffer).cast("B")
        count = min(len(target), len(self._part))
        target[:count] = self._part[:count]
        self._part = self._part[count:]
        return count
