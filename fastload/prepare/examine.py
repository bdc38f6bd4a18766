"""Examine files in processes: each is read once and becomes a JPEG to store, or a reason."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

from fastload.errors import LayoutError
from fastload.prepare.reasons import Reason, Rules, SetAsideError
from fastload.prepare.source import File
from fastload.prepare.transcode import MAX_FILE_BYTES, Stored, store_image
from fastload.prepare.verdict import Dropped, Kept, Verdict
from fastload.prepare.workers import Lost, run_chunks
from fastload.runs import run_bounds

CHUNK_FILES = 16
CHUNK_BYTES = 4 << 20  # so that 12-megapixel photographs do not fill the memory


def examine_file(file: File, *, root: Path, rules: Rules, with_jpeg: bool) -> tuple[Verdict, bytes]:
    """Read one file, once, and decide about it; runs in a worker.

    Returns:
        The verdict, and the JPEG to store; b"" where the file is dropped or `with_jpeg` is false.

    Raises:
        LayoutError: If the file is gone: the folder changes while it is read.
    """
    if file.bytes > MAX_FILE_BYTES:
        detail = f"has {file.bytes:,} bytes, more than {MAX_FILE_BYTES:,}"
        return Dropped(Reason.LARGE, detail), b""
    try:
        data = _read_file(root / file.path)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ESTALE, errno.ENOTDIR}:
            raise LayoutError(
                f"{root / file.path} has vanished; run again when the folder no longer changes"
            ) from error
        return Dropped(Reason.UNREADABLE, f"cannot be read: {error.strerror}"), b""
    try:
        stored = store_image(data, extension=_extension_of(file.path), rules=rules)
    except SetAsideError as error:
        return Dropped(error.kind, error.reason), b""
    return _facts_of(stored), stored.jpeg if with_jpeg else b""


def _facts_of(stored: Stored) -> Kept:
    jpeg = stored.jpeg
    return Kept(
        size=len(jpeg),
        height=stored.height,
        width=stored.width,
        crc32=zlib.crc32(jpeg),
        digest=hashlib.blake2b(stored.by_default, digest_size=16).hexdigest(),
        how=stored.how,
        change=stored.change,
    )


def _read_file(path: Path) -> bytes:
    """All bytes of a regular file; a pipe that has taken its place is refused, not waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123  a descriptor, not a path
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "is no regular file", str(path))
        return file.read()


def _extension_of(path: str) -> str:
    name = path.rpartition("/")[2]
    return f".{name.rpartition('.')[2]}" if "." in name else ""


def examine_files(
    files: Sequence[File], *, root: Path, rules: Rules, workers: int, with_jpeg: bool
) -> Iterator[tuple[File, Verdict, bytes]]:
    """Examine files in processes.

    Yields:
        Each file in the order given, with what `examine_file` returns.
    """
    function = partial(examine_file, root=root, rules=rules, with_jpeg=with_jpeg)
    for file, result in run_chunks(function, chunks_of(files), workers=workers):
        if isinstance(result, Lost):
            reason = Reason.SLOW if result.slow else Reason.CRASH
            yield file, Dropped(reason, result.reason), b""
        else:
            yield file, *result


def chunks_of(files: Sequence[File]) -> list[Sequence[File]]:
    """The files in their order, cut into what one worker takes at a time."""
    bounds = run_bounds((file.bytes for file in files), count=CHUNK_FILES, total=CHUNK_BYTES)
    return [files[first:end] for first, end in pairwise(bounds)]
