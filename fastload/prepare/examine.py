"""Examine files in processes: each is read once and becomes a JPEG to store, or a reason."""

from __future__ import annotations

import errno
import hashlib
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import NamedTuple

from fastload.errors import FastloadError, LayoutError
from fastload.pixels import native
from fastload.prepare.in_place import place_image
from fastload.prepare.reading import ImagesAhead, read_bytes
from fastload.prepare.reasons import Reason, Rules, SetAsideError
from fastload.prepare.source import File
from fastload.prepare.transcode import Stored, store_image, why_too_large
from fastload.prepare.verdict import Doubtful, Dropped, Kept, Verdict
from fastload.prepare.workers import Cause, Lost, run_chunks
from fastload.runs import run_bounds
from fastload.store.object_paths import AnyPath, ObjectPath

MOST_IN_A_ROW = 8  # files that a disk with a few bad blocks may lose one after another


class Chunk(NamedTuple):
    """How many files, and bytes, a worker takes at a time at most."""

    files: int
    bytes: int


CHUNK = Chunk(16, 4 << 20)  # so that 12-megapixel photographs do not fill the memory
# A worker waits for the first image of a chunk, such as 50 ms; 64 photographs of 42 kB take 300.
REMOTE_CHUNK = Chunk(64, 8 << 20)


def examine_file(
    file: File,
    *,
    root: AnyPath,
    rules: Rules,
    with_jpeg: bool,
    ahead: ImagesAhead | None = None,
) -> tuple[Verdict, bytes]:
    """Read one file, once, and decide about it; runs in a worker.

    Args:
        file: The file.
        root: Root of the source.
        rules: What is taken.
        with_jpeg: Whether to return the JPEG.
        ahead: Of a root in an object store, what has asked for the file's bytes.

    Returns:
        The verdict, and the JPEG to store; b"" where the file is dropped or `with_jpeg` is false.
        Of an image that stays in place its seek table instead, b"" where it has none.

    Raises:
        LayoutError: If the file is gone or changes: the folder changes while it is read.
        FastloadError: If the storage is gone, or this machine lacks what it takes to read a file.
        MemoryError: If there is not enough memory to decode it.
    """
    if detail := why_too_large(file.bytes):
        return Dropped(Reason.LARGE, detail), b""
    try:
        data = ahead.read(file) if ahead else _read_file(file, root)
    except OSError as error:
        return _unread(root / file.path, error), b""
    if len(data) != file.bytes:
        raise LayoutError(
            f"{root / file.path} had {file.bytes:,} bytes and has {len(data):,}; run again when "
            "the folder no longer changes"
        )
    try:
        if rules.store == "in place":
            return place_image(data, extension=_extension_of(file.path), rules=rules)
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


_GONE = {  # errors of a network or a device, not of one file
    *(errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNABORTED),
    *(errno.ECONNREFUSED, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH),
    *(errno.ENODEV, errno.ENXIO, errno.ESHUTDOWN, errno.EPIPE),
}
_LACKING = {errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOBUFS}  # on this machine, for now
_OF_THE_FILE = {errno.EACCES, errno.EPERM, errno.EINVAL, errno.ELOOP, errno.ENAMETOOLONG}
_PAUSES_SECONDS = (0.1, 1.0)  # before a read that failed is tried again


def _unread(path: AnyPath, error: OSError) -> Verdict:
    """What becomes of a file that cannot be read; an error of the storage as such ends the run."""
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        raise LayoutError(
            f"{path} has vanished; run again when the folder no longer changes"
        ) from error
    if error.errno in _GONE:
        raise FastloadError(
            f"{path} cannot be read: {error.strerror}; the storage is away, so run the same "
            "command again when it is back"
        ) from error
    if error.errno in _LACKING:
        raise FastloadError(
            f"{path} cannot be read: {error.strerror}; see `ulimit -a`, end other programs, and "
            "run the same command again"
        ) from error
    kind = Dropped if error.errno in _OF_THE_FILE else Doubtful
    return kind(Reason.UNREADABLE, f"cannot be read: {error.strerror}")


def _read_file(file: File, root: AnyPath) -> bytes:
    """All bytes of a file; a read that may succeed later is tried again.

    Raises:
        MemoryError: If the system has no memory for the read.
        OSError: If the file cannot be read.
    """
    lasting = _OF_THE_FILE | {errno.ENOENT, errno.ENOTDIR}
    for pause in _PAUSES_SECONDS:
        try:
            return read_bytes(root, file)
        except OSError as error:  # noqa: PERF203  a read costs more than a `try`
            if error.errno in lasting:
                raise
            if error.errno == errno.ENOMEM:
                raise MemoryError from error
            time.sleep(pause)
    return read_bytes(root, file)


def _extension_of(path: str) -> str:
    name = path.rpartition("/")[2]
    return f".{name.rpartition('.')[2]}" if "." in name else ""


def examine_files(
    files: Sequence[File], *, root: AnyPath, rules: Rules, workers: int, with_jpeg: bool
) -> Iterator[tuple[File, Verdict, bytes]]:
    """Examine files in processes.

    Yields:
        Each file in the order given, with what `examine_file` returns.

    Raises:
        FastloadError: If many files are dropped that other storage or memory would give; see
            `examine_file` for other errors.
    """
    ahead = ImagesAhead(root) if isinstance(root, ObjectPath) else None
    how = partial(examine_file, root=root, rules=rules, with_jpeg=with_jpeg, ahead=ahead)
    function = partial(_examine_with, how=how, core=native.is_available())
    watch = _Watch(root)
    results = run_chunks(
        function,
        chunks_of(files, CHUNK if ahead is None else REMOTE_CHUNK),
        workers=workers,
        before=None if ahead is None else ahead.ask,
        name=lambda file: str(root / file.path),
    )
    with closing(results):  # type: ignore[type-var]  # a generator
        for file, result in results:
            verdict, jpeg = (_lost(result), b"") if isinstance(result, Lost) else result
            watch.see(file, verdict)
            yield file, verdict, jpeg


def _examine_with(
    file: File, *, how: Callable[[File], tuple[Verdict, bytes]], core: bool
) -> tuple[Verdict, bytes]:
    """Examine a file in a worker that has the native core if the run has: bytes depend on it."""
    if native.is_available() != core:
        why = native.why_unavailable() or "only in a worker"
        raise FastloadError(
            f"the native core does not load in every process ({why}); see `ulimit -a`, take fewer "
            "--workers, and run the same command again"
        )
    return how(file)


def _lost(lost: Lost) -> Dropped:
    if lost.cause is Cause.MEMORY:
        return Doubtful(Reason.MEMORY, lost.reason)
    return Dropped(Reason.SLOW if lost.cause is Cause.SLOW else Reason.CRASH, lost.reason)


@dataclass(slots=True)
class _Watch:
    """Sees that a storage or memory that fails does not pass for a set of bad pictures."""

    root: AnyPath
    seen: int = 0
    doubtful: int = 0
    in_a_row: int = 0

    def see(self, file: File, verdict: Verdict) -> None:
        self.seen += 1
        if not isinstance(verdict, Doubtful):
            self.in_a_row = 0
            return
        self.doubtful += 1
        self.in_a_row += 1
        if self.in_a_row >= MOST_IN_A_ROW or self.doubtful > MOST_IN_A_ROW + self.seen // 10:
            raise FastloadError(
                f"{self.doubtful:,} of {self.seen:,} files failed, at last {self.root / file.path} "
                f"({verdict.detail}): this is no fault of the pictures; mend it, and run the same "
                "command again, which tries them once more"
            )


def chunks_of(files: Sequence[File], chunk: Chunk) -> list[Sequence[File]]:
    """The files in their order, cut into what one worker takes at a time."""
    bounds = run_bounds((file.bytes for file in files), count=chunk.files, total=chunk.bytes)
    return [files[first:end] for first, end in pairwise(bounds)]
