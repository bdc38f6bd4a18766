"""Objects of a store: a range, all of one, its size, their list; each tried again until a limit.

An error that may pass (503, a reset, a body that breaks off or stops) is tried again with growing
pauses. When the time is over it is a `StalledError` that names the request. An error that cannot
pass (no such object, no permission) is a `ShardError` at once. All functions belong to the thread
of an event loop; cancelling one ends its request.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from fastload.errors import FastloadError, ShardError, StalledError
from fastload.store.remote import TO_LIST, TO_READ, Bucket, judge, lacks_object

PART_BYTES = 8 << 20  # of one request at most
PARTS_IN_FLIGHT = 8
PAGE = 1000  # objects of a request to list: S3's own limit
_ATTEMPT_SECONDS = 30.0  # for the first attempt; each further one may take twice as long
_LEAST_SECONDS = 0.05  # for the last attempt, where the time is nearly over
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0  # seconds between attempts
_SHORT_ANSWERS = 3  # an object that is shorter than it should be stays so

_Result = TypeVar("_Result")


class Version(NamedTuple):
    """Which state of an object is meant: what a list says of it.

    Attributes:
        bytes: Its size; None where only the time is known.
        modified_ns: When it was written, nanoseconds. Answers tell whole seconds only.
    """

    bytes: int | None
    modified_ns: int


class ChangedObjectError(ShardError):
    """An object is another one than was listed, or shorter."""


async def bytes_of(
    bucket: Bucket,
    name: str,
    begin: int,
    end: int,
    *,
    timeout_seconds: float,
    version: Version | None = None,
) -> memoryview:
    """The bytes [begin, end) of an object.

    Args:
        bucket: Where it is.
        name: Its name there.
        begin: First byte.
        end: Behind the last byte.
        timeout_seconds: For all attempts together.
        version: The state that is meant; None for any.

    Raises:
        ChangedObjectError: If it is in another state, or shorter.
        MissingObjectError: If there is none.
        ShardError: If it cannot be read.
        StalledError: If the server did not bring them in time.
    """

    async def get() -> memoryview:
        if version is None:
            return memoryview(await bucket.store.get_range_async(name, start=begin, end=end))
        try:
            answer = await bucket.store.get_async(name, options={"range": (begin, end)})
        except Exception as error:
            if "InvalidRange" in str(error):  # it has become so short
                raise _changed(bucket.of(name), "is shorter than it was") from None
            raise
        _see_unchanged(bucket.of(name), answer.meta, version)
        return memoryview(await answer.bytes_async())

    what = f"{bucket.of(name)}, bytes {begin} to {end}"
    for _ in range(_SHORT_ANSWERS):
        data = await _persist(what, get, timeout_seconds)
        if len(data) == end - begin:
            return data
    raise ChangedObjectError(
        f"ends before byte {end} ({len(data)} of {end - begin} bytes came); copy it again",
        where=bucket.of(name),
    )


def _see_unchanged(where: str, meta: Any, version: Version) -> None:  # noqa: ANN401  obstore's own
    size, written_ns = int(meta["size"]), int(meta["last_modified"].timestamp()) * 10**9
    if version.bytes is not None and size != version.bytes:
        raise _changed(where, f"had {version.bytes:,} bytes and has {size:,}")
    if abs(written_ns - version.modified_ns) >= 10**9:  # rounded up or down
        raise _changed(where, "was written again since it was listed")


def _changed(where: str, what: str) -> ChangedObjectError:
    return ChangedObjectError(f"{what}; run again when the bucket no longer changes", where=where)


async def whole(bucket: Bucket, name: str, *, most: int, timeout_seconds: float) -> bytes:
    """All bytes of an object, of which there are `most` at most; errors as of `bytes_of`."""

    async def begun() -> tuple[int, bytes | None]:
        """How many there are, and all of them where one request can bring them.

        That of a HEAD would tell no reason where it is refused.
        """
        answer = await bucket.store.get_async(name)
        size = int(answer.meta["size"])
        return size, bytes(await answer.bytes_async()) if size <= min(most, PART_BYTES) else None

    size, data = await _persist(bucket.of(name), begun, timeout_seconds)
    if size > most:
        raise ShardError(
            f"has {size:,} bytes, expected at most {most:,}; it is not fastload's",
            where=bucket.of(name),
        )
    if data is not None:
        return data
    several = asyncio.Semaphore(PARTS_IN_FLIGHT)

    async def part(begin: int) -> memoryview:
        async with several:
            end = min(begin + PART_BYTES, size)
            return await bytes_of(bucket, name, begin, end, timeout_seconds=timeout_seconds)

    return b"".join(await asyncio.gather(*map(part, range(0, size, PART_BYTES))))


class Listed(NamedTuple):
    """An object in a list.

    Attributes:
        name: Below the address.
        bytes: Its size.
        modified: When it was written.
    """

    name: str
    bytes: int
    modified: datetime

    @property
    def version(self) -> Version:
        """What tells this state of the object from a later one."""
        seconds = int(self.modified.timestamp())
        return Version(self.bytes, seconds * 10**9 + self.modified.microsecond * 1000)

    def is_of(self, modified_ns: int) -> bool:
        """Whether it was written at that time: in that second, as answers tell no more."""
        return self.version.modified_ns // 10**9 == modified_ns // 10**9

    @property
    def stands_for_folder(self) -> bool:
        """Whether it is an empty folder, as the stores' consoles write them."""
        return self.bytes == 0 and "." not in self.name.rpartition("/")[2]


async def look_at(bucket: Bucket, name: str, *, timeout_seconds: float) -> Listed:
    """An object as a list has it; errors as of `bytes_of`."""

    async def head() -> Listed:
        return _listed(await bucket.store.head_async(name))

    return await _persist(bucket.of(name), head, timeout_seconds)


async def objects_below(
    bucket: Bucket, *, most: int, timeout_seconds: float
) -> dict[str, Listed] | None:
    """The objects below an address, by name.

    Returns:
        None where they cannot be listed, or are more than some `most`.
    """

    async def listed() -> dict[str, Listed] | None:
        found: dict[str, Listed] = {}
        async for page in bucket.store.list(chunk_size=PAGE):
            found |= {each["path"]: _listed(each) for each in page}
            if len(found) > most:
                return None
        return found

    try:
        return await _persist(bucket.address, listed, timeout_seconds)
    except ShardError:  # the right to list is another one than that to read
        return None


def _listed(meta: Any) -> Listed:  # noqa: ANN401  obstore's own
    return Listed(meta["path"], int(meta["size"]), meta["last_modified"])


class Listing:
    """The objects below an address, in the order of the store, a page at a time.

    Args:
        bucket: Where.
        timeout_seconds: For each page, all attempts together.
        opening_seconds: The same for the first page, as the server may not be there at all; None
            for no other limit.
    """

    def __init__(
        self, bucket: Bucket, *, timeout_seconds: float, opening_seconds: float | None = None
    ) -> None:
        self._bucket, self._timeout_seconds = bucket, timeout_seconds
        self._limit = opening_seconds or timeout_seconds  # for the next page
        self._stream: AsyncIterator[Any] | None = None
        self._last = ""

    async def page(self) -> list[Listed]:
        """The objects that come next; none at the end.

        Raises:
            ShardError: If they cannot be listed.
            StalledError: If the server did not answer in time.
        """

        async def next_page() -> list[Listed]:
            if self._stream is None:  # a stream that has failed ends there
                stream = self._bucket.store.list(offset=self._last or None, chunk_size=PAGE)
                self._stream = aiter(stream)
            stream, self._stream = self._stream, None
            found: list[Any] = await anext(stream, [])
            self._stream = stream
            return [_listed(one) for one in found]

        while found := await _persist(self._bucket.address, next_page, self._limit, right=TO_LIST):
            self._limit = self._timeout_seconds
            self._last = found[-1].name or self._last
            if below := [one for one in found if one.name]:  # one without is the folder itself
                return below
        return []


class MissingObjectError(ShardError):
    """There is no object of that name."""


class DeniedObjectError(ShardError):
    """The credentials have no right to an object, or none to know whether it is there."""


async def _persist(
    what: str,
    attempt: Callable[[], Awaitable[_Result]],
    timeout_seconds: float,
    *,
    right: str = TO_READ,
) -> _Result:
    """Make a request until it succeeds, fails for good, or the time is over."""
    began, tries = time.monotonic(), 0
    first = min(_ATTEMPT_SECONDS, timeout_seconds / 4)
    while True:
        left = timeout_seconds - (time.monotonic() - began)
        try:
            allowed = max(_LEAST_SECONDS, min(left, first * 2**tries))
            return await asyncio.wait_for(attempt(), allowed)
        except FastloadError:
            raise
        except Exception as error:  # noqa: BLE001  the client has errors of several trees
            words, passing = judge(error, right)
            if not passing:
                raise _kind_of(error)(words, where=what) from None
        tries += 1
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (tries - 1))
        pause *= random.uniform(0.5, 1.0)  # many clients shall not come at once
        if time.monotonic() + pause - began > timeout_seconds:
            seconds = time.monotonic() - began
            raise StalledError(
                f"{what}: {words}; it was asked for {tries} times in {seconds:.0f} s"
            )
        await asyncio.sleep(pause)


def _kind_of(error: Exception) -> type[ShardError]:
    """What an error of the client is that cannot pass."""
    if "<Code>InvalidRange</Code>" in str(error):
        return ChangedObjectError
    if lacks_object(error):
        return MissingObjectError
    return DeniedObjectError if type(error).__name__ == "PermissionDeniedError" else ShardError
