"""Objects of a store, to write: a file, some bytes, a new name, a removal.

An object is there whole or not at all: a put is one request, and a file goes up in parts that
become an object with the last request. Where a part fails for good, the client ends the upload and
the store drops its parts. The client tries each request again, with growing pauses. All functions
may be called from any thread.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from fastload.errors import FastloadError, ShardError, StalledError
from fastload.store.objects import PART_BYTES, MissingObjectError, whole
from fastload.store.remote import TO_WRITE, Bucket, judge, lacks_object
from fastload.store.requests import Requests
from fastload.store.streaming import parts_of

PARTS_AT_ONCE = 4  # 32 MiB in memory and on the line
REQUEST_SECONDS = 180.0  # for a part, all parts together at 190 kB a second; for a copy of 5 GB
TRIES_SECONDS = 300.0  # after that a request is not tried again
_MOST_TRIES = 12
_MOST_PARTS = 10_000  # of an upload: S3's own limit
_BULK = 1000  # objects of one request to delete: S3's own limit

_Result = TypeVar("_Result")


class Uploads:
    """Writes objects below an address.

    Args:
        bucket: Where.

    Raises:
        ShardError: From each method, if the store refuses; says why.
        StalledError: From each method, if the server cannot be reached or keeps failing.
    """

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        retries = {
            "max_retries": _MOST_TRIES,
            "retry_timeout": timedelta(seconds=TRIES_SECONDS),
            "backoff": {
                "init_backoff": timedelta(seconds=0.1),
                "max_backoff": timedelta(seconds=15),
                "base": 2,
            },
        }
        self._store = bucket.opened(retries=retries, timeout=f"{REQUEST_SECONDS:g}s")
        self._requests = Requests(timeout_seconds=TRIES_SECONDS)

    def __enter__(self) -> Uploads:
        return self

    def __exit__(self, *_: object) -> None:
        self._requests.close()

    def upload(self, path: Path, name: str) -> None:
        """Make an object of a file; also raises OSError, if the file cannot be read."""
        size = path.stat().st_size
        part = max(PART_BYTES, -(-size // _MOST_PARTS))

        async def put() -> None:
            await self._store.put_async(name, path, chunk_size=part, max_concurrency=PARTS_AT_ONCE)

        self._do(name, put)
        if (there := self.size(name)) != size:
            raise ShardError(
                f"has {there} bytes in the store, the file has {size}; run again",
                where=self.bucket.of(name),
            )

    def put(self, name: str, data: bytes, *, new: bool = False) -> bool:
        """Make an object of bytes; False where it must be `new`, and there is one already."""
        mode = {"mode": "create"} if new else {}

        async def put() -> bool:
            try:
                await self._store.put_async(name, data, use_multipart=False, **mode)
            except Exception as error:
                if new and type(error).__name__ == "AlreadyExistsError":
                    return False
                if new and type(error).__name__ == "NotSupportedError":
                    await self._store.put_async(name, data, use_multipart=False)
                    return True
                raise
            return True

        return self._do(name, put)

    def rename(self, old: str, new: str) -> None:
        """Give an object, of 5 GB at most, another name; the store copies it."""

        async def rename() -> None:
            await self._store.copy_async(old, new, overwrite=True)
            await self._remove([old])

        self._do(old, rename)

    def delete(self, *names: str) -> None:
        """Remove objects; one that is not there is no error."""

        async def delete() -> None:
            for first in range(0, len(names), _BULK):
                await self._remove(names[first : first + _BULK])

        if names:
            self._do(names[0], delete)

    async def _remove(self, names: Sequence[str]) -> None:
        """Remove some objects at once, or one by one where Azure or Google miss one of them.

        One may be missing since a first try removed it, and its answer was lost.
        """
        try:
            await self._store.delete_async(list(names))
        except FileNotFoundError as error:
            if not lacks_object(error):
                raise
            for name in names if len(names) > 1 else ():
                await self._remove([name])

    def size(self, name: str) -> int | None:
        """Bytes of an object; None where there is none."""

        async def head() -> int:
            return int((await self._store.head_async(name))["size"])

        try:
            return self._do(name, head)
        except MissingObjectError:
            return None

    def names(self, *, most: int) -> list[str]:
        """Names of the objects, sorted; also raises ShardError if there are more than `most`."""

        async def listed() -> list[str]:
            found: list[str] = []
            async for page in self._store.list(chunk_size=1000):
                found += [each["path"] for each in page]
                if len(found) > most:
                    break
            return found

        found = self._do("", listed)
        if len(found) > most:
            raise ShardError(
                f"there are more than {most:,} objects below it; give another prefix",
                where=self.bucket.address,
            )
        return sorted(found)

    def read(self, name: str, *, most: int) -> bytes | None:
        """All bytes of an object of at most `most`; None where there is none."""
        try:
            return self._requests.run(
                whole(self.bucket, name, most=most, timeout_seconds=TRIES_SECONDS)
            )
        except MissingObjectError:
            return None

    def download(self, name: str, path: Path) -> None:
        """Write an object to a file; also raises OSError, if the file cannot be written."""
        size = self.size(name)
        if size is None:
            raise ShardError("has vanished; run again", where=self.bucket.of(name))
        try:
            with path.open("wb") as file:
                for part in parts_of(self.bucket, name, (0, size), self._requests):
                    file.write(part)
        except OSError as error:
            error.filename = str(path)
            raise

    def _do(self, name: str, attempt: Callable[[], Awaitable[_Result]]) -> _Result:
        """Wait for requests, which the client tries again where that may help."""
        what = self.bucket.of(name) if name else self.bucket.address

        async def judged() -> _Result:
            try:
                return await attempt()
            except (FastloadError, OSError) as error:
                if isinstance(error, FastloadError) or error.errno is not None:  # of a local file
                    raise
                raise _explained(error, what) from None
            except Exception as error:  # noqa: BLE001  the client has errors of several trees
                raise _explained(error, what) from None

        return self._requests.run(judged())


def _explained(error: Exception, what: str) -> FastloadError:
    words, passing = judge(error, TO_WRITE)
    if passing:
        return StalledError(f"{what}: {words}; it was tried again for some minutes, so run again")
    return (MissingObjectError if lacks_object(error) else ShardError)(words, where=what)
