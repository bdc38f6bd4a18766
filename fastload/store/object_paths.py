"""Places below an address of an object store, read as files below a folder are.

    ObjectPath ─► one list of all objects below the address, fetched once ─► stat, iterdir, …
              └─► ranges of an object, checked against the list ─► open, read_bytes

All paths below an address share its list. A pickle of a path holds the address alone: the list is
fetched again where it is needed, and to read a range that is known takes no list.
"""

from __future__ import annotations

import errno
import io
import os
import posixpath
import threading
import time
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import BinaryIO, Literal, TextIO, TypeAlias, cast, overload

from fastload.console.progress import QUIET_SECONDS
from fastload.console.terminal import say
from fastload.errors import ShardError
from fastload.store.copying import TIMEOUT_SECONDS
from fastload.store.object_files import RangeFile
from fastload.store.objects import Listed, Listing, Version
from fastload.store.plain_copy import check_name
from fastload.store.remote import Bucket
from fastload.store.remote_shards import OPENING_SECONDS
from fastload.store.requests import Fetch, Requests

MOST_OBJECTS = 20_000_000  # below an address: some 3 GB of memory
_MOST_READ = 1 << 30  # of an object that is read at once


@dataclass(frozen=True, slots=True)
class ObjectStatus:
    """What the list says of an object, under the names that `os.stat` uses.

    Attributes:
        st_size: Bytes.
        st_mtime_ns: When it was written, nanoseconds.
    """

    st_size: int
    st_mtime_ns: int

    @property
    def version(self) -> Version:
        """What tells this state of the object from a later one."""
        return Version(self.st_size, self.st_mtime_ns)


class ObjectList:
    """The objects below an address. Thread-safe; it is fetched when it is asked for first.

    Args:
        bucket: Where.
    """

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self._lock = threading.Lock()
        self._names: list[str] | None = None  # sorted; of an empty folder with "/" at its end
        self._sizes, self._modified = array("q"), array("q")
        self._folders: set[str] = set()

    def __reduce__(self) -> tuple[type[ObjectList], tuple[Bucket]]:
        return ObjectList, (self.bucket,)

    def status(self, name: str) -> ObjectStatus | None:
        """Size and time of an object; None where there is none."""
        names = self._fetched()
        place = bisect_left(names, name)
        if place == len(names) or names[place] != name:
            return None
        return ObjectStatus(self._sizes[place], self._modified[place])

    def has_folder(self, path: str) -> bool:
        """Whether objects lie below a path, or it was made as an empty folder."""
        self._fetched()
        return path in self._folders

    def within(self, path: str) -> Iterator[str]:
        """The names of what lies in a folder, each once, in no order."""
        names, before = self._fetched(), f"{path}/" if path else ""
        place = bisect_left(names, before)
        while place < len(names) and names[place].startswith(before):
            name, slash, _ = names[place][len(before) :].partition("/")
            if name:
                yield name
            after = chr(ord("/") + 1)  # behind all that lies in the folder
            place = bisect_left(names, f"{before}{name}{after}", place) if slash else place + 1

    def _fetched(self) -> list[str]:
        with self._lock:
            if self._names is None:
                self._names = self._fetch()
            return self._names

    def _fetch(self) -> list[str]:
        """The names; sizes, times and folders are noted."""
        names: list[str] = []
        sizes, modified = array("q"), array("q")
        for one in _listed(self.bucket):
            names.append(f"{one.name}/" if one.stands_for_folder else one.name)
            sizes.append(one.bytes)
            modified.append(one.version.modified_ns)
        order = sorted(range(len(names)), key=names.__getitem__)
        self._sizes = array("q", (sizes[place] for place in order))
        self._modified = array("q", (modified[place] for place in order))
        names = [names[place] for place in order]
        self._folders = folders_with(names)
        if both := next((name for name in names if name in self._folders), ""):
            raise ShardError(
                "is an object, and others lie below it as in a folder; rename it",
                where=self.bucket.of(both),
            )
        return names


def folders_with(names: Iterable[str]) -> set[str]:
    """Each folder that a name lies in or below; "" is that of all names."""
    folders = set[str]()
    for name in names:
        folders.add("")
        folder = name.rpartition("/")[0]
        while folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    return folders


def _listed(bucket: Bucket) -> Iterator[Listed]:
    said, count = time.monotonic(), 0
    with Requests(timeout_seconds=TIMEOUT_SECONDS) as requests:
        limits = {"timeout_seconds": TIMEOUT_SECONDS, "opening_seconds": OPENING_SECONDS}
        listing = Listing(bucket, **limits)
        while page := requests.run(listing.page()):
            for one in page:
                check_name(one.name, bucket.address)
                yield one
            count += len(page)
            if count > MOST_OBJECTS:
                raise ShardError(
                    f"there are more than {MOST_OBJECTS:,} objects below it; give a longer prefix",
                    where=bucket.address,
                )
            if time.monotonic() - said >= QUIET_SECONDS:
                said = time.monotonic()
                say(f"listing {bucket.address}: {count:,} objects so far", error=True)


class ObjectPath:
    """A place below an address, with what `pathlib.Path` has to read it.

    It is no `os.PathLike`: functions of `os` raise TypeError rather than look for "s3:" here. All
    methods that need the list raise ShardError and StalledError where it cannot be fetched.

    Args:
        objects: The objects below the address.
        path: Relative to the address, with "/" between its parts; "" for the address itself.
    """

    __slots__ = ("objects", "path")

    def __init__(self, objects: ObjectList, path: str = "") -> None:
        self.objects, self.path = objects, path

    @property
    def bucket(self) -> Bucket:
        """Where the path leads to an object, by its `path`."""
        return self.objects.bucket

    @property
    def name(self) -> str:
        """The last part; of the address itself, that of the address."""
        return str(self).rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return PurePath(self.name).stem

    @property
    def suffix(self) -> str:
        """The last ending of the name, with its dot."""
        return PurePath(self.name).suffix

    @property
    def parent(self) -> ObjectPath:
        """The folder that it lies in; the address is its own, as no list tells what is above."""
        return ObjectPath(self.objects, self.path.rpartition("/")[0])

    def __truediv__(self, other: str | PurePath) -> ObjectPath:
        """A place below it; one that leads out of the address is not there."""
        path = posixpath.normpath(posixpath.join(self.path, str(other)))
        return ObjectPath(self.objects, "" if path == "." else path)

    def with_name(self, name: str) -> ObjectPath:
        """What lies beside it under another name."""
        return self.parent / name

    def __str__(self) -> str:
        return self.bucket.of(self.path) if self.path else self.bucket.address

    def __repr__(self) -> str:
        return f"ObjectPath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectPath) and str(self) == str(other)

    def __lt__(self, other: ObjectPath) -> bool:
        return str(self) < str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def exists(self) -> bool:
        """Whether it is an object or a folder."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        """Whether it is an object."""
        return bool(self.path) and self.objects.status(self.path) is not None

    def is_dir(self) -> bool:
        """Whether objects lie below it, or it was made as an empty folder."""
        return self.objects.has_folder(self.path)

    def is_symlink(self) -> bool:
        """No: a store has no links."""
        return False

    def absolute(self) -> ObjectPath:
        """Itself, as an address is."""
        return self

    resolve = absolute

    def iterdir(self) -> Iterator[ObjectPath]:
        """What lies in it."""
        before = f"{self.path}/" if self.path else ""
        for name in self.objects.within(self.path):
            yield ObjectPath(self.objects, f"{before}{name}")

    def stat(self) -> ObjectStatus:
        """Size and time of the object.

        Raises:
            FileNotFoundError: If there is none.
        """
        status = self.objects.status(self.path) if self.path else None
        if status is None:
            raise FileNotFoundError(errno.ENOENT, "there is no such object", str(self))
        return status

    @overload
    def open(self, mode: Literal["rb"]) -> BinaryIO: ...

    @overload
    def open(
        self,
        mode: Literal["r"] = "r",
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> TextIO: ...

    def open(
        self,
        mode: Literal["r", "rb"] = "r",
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> BinaryIO | TextIO:
        """The object as a file to read, "r" or "rb"; a range of it at a time is in memory.

        Raises:
            FileNotFoundError: If there is none.
            ChangedObjectError: Also while it is read: if it is another one than was listed.
        """
        binary = cast(
            "BinaryIO", io.BufferedReader(RangeFile(self.bucket, self.path, self.stat().version))
        )
        if mode == "rb":
            return binary
        return io.TextIOWrapper(binary, encoding or "utf-8", errors, newline)

    def read_bytes(self) -> bytes:
        """All bytes of the object; errors as of `open`, and ShardError where there are too many."""
        if (size := self.stat().st_size) > _MOST_READ:
            raise ShardError(
                f"has {size:,} bytes, expected at most {_MOST_READ:,}", where=str(self)
            )
        with self.open("rb") as file:
            return bytes(file.read())

    def read_text(self, encoding: str = "utf-8") -> str:
        """The object as text; errors as of `read_bytes`, and UnicodeDecodeError."""
        with self.open(encoding=encoding) as file:
            return str(file.read())


AnyPath: TypeAlias = Path | ObjectPath


def path_from(folder: AnyPath, path: AnyPath) -> str:
    """The path of a file relative to a folder; both lie on disks, or below one address."""
    if isinstance(folder, ObjectPath) or isinstance(path, ObjectPath):
        return posixpath.relpath(_within(path), _within(folder))
    return os.path.relpath(path, folder)


def _within(path: AnyPath) -> str:
    if not isinstance(path, ObjectPath):
        raise TypeError(f"{path} is of this machine, and the other path is an address")
    return path.path or "."


def first_bytes(paths: Sequence[ObjectPath], count: int) -> list[bytes]:
    """The first bytes of objects, many at a time.

    Args:
        paths: The objects.
        count: Of each, how many at most.

    Raises:
        FileNotFoundError: If there is no such object.
        ChangedObjectError: If one is another than was listed.
        ShardError: If one cannot be read.
        StalledError: If the server did not bring them in time.
    """
    fetches = [
        Fetch(
            *(path.bucket, path.path, 0, min(count, status.st_size)),
            version=status.version,
        )
        for path in paths
        for status in [path.stat()]
    ]
    with Requests(timeout_seconds=TIMEOUT_SECONDS) as requests:
        requests.ask([one for one in fetches if one.end])
        return [bytes(one.outcome.result() or b"") if one.end else b"" for one in fetches]
