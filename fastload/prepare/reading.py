"""The bytes of one image, from wherever its source keeps it: `read_bytes`, `ImagesAhead`.

files ─► their ranges, neighbours together ─► Requests: many in flight ─► one image after another
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from fastload.errors import FastloadError, LayoutError, StalledError
from fastload.prepare.parquet import read_packed
from fastload.prepare.source import File
from fastload.prepare.transcode import why_too_large
from fastload.store.copying import TIMEOUT_SECONDS
from fastload.store.object_paths import AnyPath, ObjectPath
from fastload.store.objects import PART_BYTES, ChangedObjectError, MissingObjectError, Version
from fastload.store.remote import Bucket
from fastload.store.requests import Fetch, Requests

# Bytes between two images of a tar that are fetched with them, instead of a further request.
_GAP = 64 << 10


def read_bytes(root: AnyPath, file: File) -> bytes:
    """All bytes of an image, read once; a pipe in the place of its file is refused, not waited for.

    Args:
        root: Root of the source.
        file: The image; of one that is a file of its own, as many bytes as that file has now.

    Raises:
        LayoutError: If the file that holds the image has changed since it was listed.
        FastloadError: As `ImagesAhead.read`, of a root in an object store.
        OSError: If the file cannot be read, or gives fewer bytes than it has.
    """
    if isinstance(root, ObjectPath):
        with closing(ImagesAhead(root)) as images:
            images.ask([file])
            return images.read(file)
    path = root / (file.container or file.path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as stream:  # noqa: PTH123  a descriptor, not a path
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(errno.EINVAL, "is no regular file", str(path))
        if file.container and facts.st_mtime_ns != file.modified_ns:
            raise LayoutError(
                f"{path} has changed since it was listed; run again when it no longer changes"
            )
        if file.offset < 0:
            return read_packed(path, file.path, file.offset, file.modified_ns)
        if file.container:
            data, size = os.pread(descriptor, file.bytes, file.offset), file.bytes
        else:
            data = stream.read()
            size = os.fstat(descriptor).st_size
    if len(data) != size:
        raise OSError(errno.EIO, f"gave {len(data):,} of {size:,} bytes", str(path))
    return data


@dataclass(slots=True, eq=False)
class _Range:
    """A range of an object, in parts that are fetched each by itself.

    Attributes:
        name: Of the object.
        version: The state in which it was listed.
        begin: First byte.
        end: Behind the last byte.
        parts: What was asked for, in order.
        uses: Images in it that are not read yet.
    """

    name: str
    version: Version
    begin: int
    end: int
    parts: list[Fetch] = field(default_factory=list)
    uses: int = 0

    def split(self, bucket: Bucket) -> None:
        """Cut it into parts."""
        self.parts = [
            Fetch(
                *(bucket, self.name, first, min(first + PART_BYTES, self.end)),
                version=self.version,
            )
            for first in range(self.begin, self.end, PART_BYTES)
        ]

    def taken(self, begin: int, end: int) -> bytes:
        """Some of its bytes, once they are there."""
        found = []
        for part in self.parts:
            if part.begin < end and part.end > begin:
                data = part.outcome.result()
                if data is not None:
                    found.append(data[max(0, begin - part.begin) : end - part.begin])
        return b"".join(found)


class ImagesAhead:
    """Reads the images of a source in an object store, all that were asked for at a time.

    It belongs to one thread; a pickle holds the root alone. Requests start with the first `ask`.

    Args:
        root: Root of the source.
    """

    def __init__(self, root: ObjectPath) -> None:
        self.root = root
        self._requests: Requests | None = None
        self._ranges: dict[str, _Range] = {}  # by path of the image

    def __reduce__(self) -> tuple[type[ImagesAhead], tuple[ObjectPath]]:
        return ImagesAhead, (self.root,)

    def ask(self, files: Sequence[File]) -> None:
        """Ask for the bytes of files; what was asked for before and is not read is dropped."""
        if self._requests is None:
            self._requests = Requests(timeout_seconds=TIMEOUT_SECONDS)
        self._drop()
        wanted = [file for file in files if file.bytes and not why_too_large(file.bytes)]
        self._ranges = self._planned(wanted)
        ranges = dict.fromkeys(self._ranges[file.path] for file in wanted)  # the first needed first
        self._requests.ask([part for one in ranges for part in one.parts])

    def close(self) -> None:
        """End all requests."""
        if self._requests is not None:
            self._requests.close()

    def read(self, file: File) -> bytes:
        """All bytes of a file that was asked for; once.

        Raises:
            LayoutError: If its object is gone, is another one than was listed, or is too large.
            FastloadError: If the object store is away or refuses: no fault of the image.
        """
        if not file.bytes:
            return b""
        if detail := why_too_large(file.bytes):
            raise LayoutError(f"{self._path_of(file)} {detail}")
        one = self._ranges.pop(file.path)
        try:
            data = one.taken(file.offset, file.offset + file.bytes)
        except MissingObjectError as error:
            raise LayoutError(
                f"{self._path_of(file)} has vanished; run again when the bucket no longer changes"
            ) from error
        except ChangedObjectError as error:
            raise LayoutError(str(error)) from error
        except StalledError as error:
            raise FastloadError(
                f"{error}; the storage is away, so run the same command again when it is back"
            ) from error
        one.uses -= 1
        if not one.uses:
            self._release(one)
        return data

    def _path_of(self, file: File) -> ObjectPath:
        return self.root / (file.container or file.path)

    def _planned(self, files: Iterable[File]) -> dict[str, _Range]:
        """The range of each file, by its path."""
        named = [(self._path_of(file).path, file) for file in files]
        found: dict[str, _Range] = {}
        last: _Range | None = None
        for name, file in sorted(named, key=lambda one: (one[0], one[1].offset)):
            end = file.offset + file.bytes
            if last is None or last.name != name or file.offset > last.end + _GAP:
                size = None if file.container else file.bytes
                last = _Range(name, Version(size, file.modified_ns), file.offset, end)
            last.end = max(last.end, end)
            last.uses += 1
            found[file.path] = last
        for one in dict.fromkeys(found.values()):
            one.split(self.root.bucket)
        return found

    def _drop(self) -> None:
        """What nobody has read."""
        if self._requests is not None and self._ranges:
            self._requests.cancel()
            for one in dict.fromkeys(self._ranges.values()):
                self._release(one)

    def _release(self, one: _Range) -> None:
        if self._requests is not None:
            self._requests.release(one.parts)
