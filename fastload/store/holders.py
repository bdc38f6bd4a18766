"""The files that hold the bytes of a collection: shards, or files in place.

A reader knows of a file its path, what it was when it was listed, and what to tell people about it.
A file that holds one image and nothing else is opened for each read; any other is kept open.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastload.errors import SamplePlace, ShardError
from fastload.files import explain_os_error, refuse_irregular
from fastload.store.manifest import REBUILD
from fastload.store.tar import read_key

Stamp: TypeAlias = tuple[int, int]
"""Size of a file, and the time of its last change in nanoseconds."""

FILE = np.dtype(
    [
        ("name_end", "<u8"),  # of its path, relative to the root, among the names
        ("bytes", "<u8"),
        ("modified_ns", "<i8"),  # time of its last change, nanoseconds
        ("alone", "u1"),  # 1 where the file is one image, 0 where it holds or lists several
    ]
)


class Holders(Protocol):
    """Files by their numbers."""

    def __len__(self) -> int:
        """How many files there are."""

    def path(self, number: int) -> Path:
        """Where a file lies."""

    def system_path(self, number: int) -> bytes:
        """The same, as the system takes it; for each image that is read."""

    def alone(self, numbers: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Which of some files are one image each: their samples are bad where the file changed."""

    def shared(self) -> Iterable[int]:
        """The files that hold several images: nothing can be read where one of them changed."""

    def checked_stamp(self, number: int) -> Stamp:
        """What a shared file is at the start; it is not opened.

        Raises:
            ShardError: If it is missing, or of another size than was listed.
        """

    def place(self, number: int, offset: int) -> SamplePlace:
        """Where the image is that begins at `offset` of a file, for messages."""

    def remedy(self, number: int, /) -> str:
        """What to do where a file has changed."""


@dataclass(frozen=True, slots=True)
class ShardFiles:
    """The tars of a split, in the order of its manifest.

    Attributes:
        paths: The tars.
        sizes: Their bytes, as the manifest says.
    """

    paths: tuple[Path, ...]
    sizes: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, number: int) -> Path:
        """See `Holders.path`."""
        return self.paths[number]

    def system_path(self, number: int) -> bytes:
        """See `Holders.system_path`."""
        return os.fsencode(self.paths[number])

    def alone(self, numbers: NDArray[np.integer]) -> NDArray[np.bool_]:
        """See `Holders.alone`: no shard is."""
        return np.zeros(len(numbers), np.bool_)

    def shared(self) -> Iterable[int]:
        """See `Holders.shared`."""
        return range(len(self.paths))

    def checked_stamp(self, number: int) -> Stamp:
        """See `Holders.checked_stamp`."""
        path = self.paths[number]
        try:
            return stamp_of(checked_status(path, self.sizes[number]))
        except OSError as error:
            words = f"cannot be used: {explain_os_error(error)}"
            raise ShardError(words, where=path.name) from error

    def place(self, number: int, offset: int) -> SamplePlace:
        """See `Holders.place`: the key of the sample costs one read."""
        path = self.paths[number]
        return SamplePlace(path.name, read_key(path, offset), offset)

    def remedy(self, _number: int, /) -> str:
        """See `Holders.remedy`."""
        return "start again with the new data"


class PlacedFiles:
    """Files in place, with what an index says of them.

    Args:
        root: The folder that names are relative to.
        table: FILE [N].
        names: Names of the files, each ended by a zero.
        remedy: What to do where a file has changed.
    """

    def __init__(self, *, root: str, table: NDArray[np.void], names: bytes, remedy: str) -> None:
        self.root, self.table, self.names = root, table, names
        self._system_root = os.fsencode(root) + b"/"
        self._remedy = remedy

    def __len__(self) -> int:
        return len(self.table)

    def name(self, number: int) -> str:
        """Path of a file, relative to the root."""
        return os.fsdecode(self._system_name(number))

    def _system_name(self, number: int) -> bytes:
        begin = int(self.table["name_end"][number - 1]) + 1 if number else 0
        return self.names[begin : int(self.table["name_end"][number])]

    def path(self, number: int) -> Path:
        """See `Holders.path`."""
        return Path(self.root, self.name(number))

    def system_path(self, number: int) -> bytes:
        """See `Holders.system_path`."""
        return self._system_root + self._system_name(number)

    def alone(self, numbers: NDArray[np.integer]) -> NDArray[np.bool_]:
        """See `Holders.alone`."""
        alone: NDArray[np.bool_] = self.table["alone"][numbers] != 0
        return alone

    def shared(self) -> Iterable[int]:
        """See `Holders.shared`."""
        return np.flatnonzero(self.table["alone"] == 0).tolist()

    def checked_stamp(self, number: int) -> Stamp:
        """See `Holders.checked_stamp`."""
        path, row = self.path(number), self.table[number]
        size = int(row["bytes"])
        try:
            status = path.stat()
            refuse_irregular(status, path)
        except OSError as error:
            words = f"cannot be used: {explain_os_error(error)}; {self._remedy}"
            raise ShardError(words, where=self.name(number)) from error
        if status.st_size != size:
            raise ShardError(
                f"has {status.st_size} bytes, when it was indexed it had {size}; {self._remedy}",
                where=self.name(number),
            )
        return size, int(row["modified_ns"])

    def place(self, number: int, offset: int) -> SamplePlace:
        """See `Holders.place`; the key of a file that is one image is its path."""
        name = self.name(number)
        key = name if self.table["alone"][number] else read_key(self.path(number), offset)
        return SamplePlace(name, key, offset)

    def remedy(self, _number: int, /) -> str:
        """See `Holders.remedy`."""
        return self._remedy


class JoinedFiles:
    """The files of several directories, put end to end."""

    def __init__(self, parts: Sequence[Holders]) -> None:
        self.parts = tuple(parts)
        self.firsts = [0, *accumulate(len(part) for part in parts)]

    def __len__(self) -> int:
        return self.firsts[-1]

    def _find(self, number: int) -> tuple[Holders, int]:
        part = bisect_right(self.firsts, number) - 1
        return self.parts[part], number - self.firsts[part]

    def path(self, number: int) -> Path:
        """See `Holders.path`."""
        part, own = self._find(number)
        return part.path(own)

    def system_path(self, number: int) -> bytes:
        """See `Holders.system_path`."""
        part, own = self._find(number)
        return part.system_path(own)

    def alone(self, numbers: NDArray[np.integer]) -> NDArray[np.bool_]:
        """See `Holders.alone`."""
        found = np.zeros(len(numbers), np.bool_)
        for part, first in zip(self.parts, self.firsts, strict=False):
            own = (numbers >= first) & (numbers < first + len(part))
            found[own] = part.alone(numbers[own].astype(np.int64) - first)
        return found

    def shared(self) -> Iterable[int]:
        """See `Holders.shared`."""
        for part, first in zip(self.parts, self.firsts, strict=False):
            yield from (first + own for own in part.shared())

    def checked_stamp(self, number: int) -> Stamp:
        """See `Holders.checked_stamp`."""
        part, own = self._find(number)
        return part.checked_stamp(own)

    def place(self, number: int, offset: int) -> SamplePlace:
        """See `Holders.place`."""
        part, own = self._find(number)
        return part.place(own, offset)

    def remedy(self, number: int, /) -> str:
        """See `Holders.remedy`."""
        part, own = self._find(number)
        return part.remedy(own)


def stamp_of(status: os.stat_result) -> Stamp:
    """Size and time of a file."""
    return status.st_size, status.st_mtime_ns


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
