"""Examine files in processes: each is read once and becomes a stored image or a reason."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

from fastload.console.terminal import printable
from fastload.errors import LayoutError
from fastload.prepare.reasons import Reason, Rules, SetAsideError
from fastload.prepare.source import File
from fastload.prepare.transcode import MAX_FILE_BYTES, store_image
from fastload.prepare.workers import Lost, run_chunks
from fastload.runs import runs

CHUNK_FILES = 16
CHUNK_BYTES = 4 << 20  # so that 12-megapixel photographs do not fill the memory

_KEEP_FIRST = ("test", "val", "train")  # of the same image in several splits: evaluation stays


@dataclass(frozen=True, slots=True)
class Kept:
    """An image that is stored.

    Attributes:
        jpeg: The file as stored; b"" where only its facts were asked for.
        size: Bytes of the file as stored.
        crc32: Of the same bytes.
        digest: 128 bits of the same bytes: equal digests, equal images.
        height: In pixels, upright.
        width: In pixels.
        how: "lossless", "near-lossless", "re-encoded" or "original".
        change: What its owner may want to know, or "".
    """

    jpeg: bytes
    size: int
    crc32: int
    digest: bytes
    height: int
    width: int
    how: str
    change: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """A file that is set aside."""

    reason: Reason
    detail: str


def examine_file(file: File, *, root: Path, rules: Rules, with_jpeg: bool) -> Kept | Dropped:
    """Read one file, once, and decide about it; runs in a worker.

    Raises:
        LayoutError: If the file is gone: the folder changes while it is read.
    """
    if file.bytes > MAX_FILE_BYTES:
        detail = f"has {file.bytes:,} bytes, more than {MAX_FILE_BYTES:,}"
        return Dropped(Reason.LARGE, detail)
    try:
        data = _read_file(root / file.path)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ESTALE, errno.ENOTDIR}:
            raise LayoutError(
                f"{root / file.path} has vanished; run again when the folder no longer changes"
            ) from error
        return Dropped(Reason.UNREADABLE, f"cannot be read: {error.strerror}")
    try:
        stored = store_image(data, extension=_extension_of(file.path), rules=rules)
    except SetAsideError as error:
        return Dropped(error.kind, error.reason)
    jpeg = stored.jpeg
    return Kept(
        jpeg if with_jpeg else b"",
        len(jpeg),
        zlib.crc32(jpeg),
        hashlib.blake2b(jpeg, digest_size=16).digest(),
        stored.height,
        stored.width,
        stored.how,
        stored.change,
    )


def _read_file(path: Path) -> bytes:
    """All bytes of a regular file; a pipe put in its place since is not waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123  a descriptor, not a path
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "is no regular file", str(path))
        return file.read()


def _extension_of(path: str) -> str:
    name = path.rpartition("/")[2]
    return f".{name.rpartition('.')[2]}" if "." in name else ""


def examine(
    files: Sequence[File], *, root: Path, rules: Rules, workers: int, with_jpeg: bool
) -> Iterator[tuple[File, Kept | Dropped]]:
    """Examine files in processes; yields them in the order given."""
    function = partial(examine_file, root=root, rules=rules, with_jpeg=with_jpeg)
    for file, result in run_chunks(function, chunks_of(files), workers=workers):
        if isinstance(result, Lost):
            reason = Reason.SLOW if result.slow else Reason.CRASH
            yield file, Dropped(reason, result.reason)
        else:
            yield file, result


def chunks_of(files: Sequence[File]) -> list[Sequence[File]]:
    """The files in their order, cut into what one worker takes at a time."""
    bounds = runs((file.bytes for file in files), count=CHUNK_FILES, total=CHUNK_BYTES)
    return [files[first:end] for first, end in pairwise(bounds)]


def find_duplicates(images: Iterable[tuple[File, bytes]]) -> dict[str, Dropped]:
    """What must go because the same image stands elsewhere.

    Under several classes, in whatever splits: all of them, since nobody knows which class is
    right. In several splits of one class: all but those of test, or of val where none is in test,
    so that evaluation stays as it was published. Repeats within one class and split stay.

    Args:
        images: Each file with the digest of its stored bytes.

    Returns:
        Path -> why it goes, the other path named.
    """
    groups: dict[bytes, list[File]] = {}
    for file, digest in images:
        groups.setdefault(digest, []).append(file)
    dropped = {}
    for group in groups.values():
        group.sort(key=lambda file: (_KEEP_FIRST.index(file.split), file.path))
        first = group[0]
        stranger = next((file for file in group if file.label != first.label), None)
        if stranger is not None:
            for file in group:
                other = stranger if file.label == first.label else first
                dropped[file.path] = Dropped(Reason.TWO_CLASSES, f"is also {printable(other.path)}")
        else:
            for file in group:
                if file.split != first.split:
                    detail = f"is also {printable(first.path)}"
                    dropped[file.path] = Dropped(Reason.TWO_SPLITS, detail)
    return dropped
