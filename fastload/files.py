"""Files: written whole or not at all, made durable, hashed; words for errors of the system."""

from __future__ import annotations

import codecs
import csv
import errno
import fcntl
import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

READ_BYTES = 4 << 20  # of a file that is hashed, at a time

# What a cell begins with that a spreadsheet computes, in whatever width it is typed:
# https://owasp.org/www-community/attacks/CSV_Injection
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")

_LACKING = "the file system cannot do this; choose a place on a local disk"
_SYSTEM_REASONS = {
    errno.ENOSPC: "no space is left on the device; free some, or choose another place",
    errno.EDQUOT: "the disk quota is used up; free some, or choose another place",
    errno.EFBIG: (
        "the file grows beyond what the file system or `ulimit -f` allows;"
        " raise the limit, or choose another place"
    ),
    errno.EACCES: "permission was denied; change the permissions, or choose another place",
    errno.EPERM: "the operation is not permitted; choose another place",
    errno.EROFS: "the file system is read-only; choose another place",
    errno.ENOENT: "there is no such file or folder",
    errno.EEXIST: "there is a file of that name; choose another name",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.ENAMETOOLONG: "the name is longer than the file system allows; choose a shorter one",
    errno.EIO: "the device failed to read or write (Input/output error); look at the storage",
    errno.ESTALE: "the network file system lost the file; mount it again, or run again",
    errno.ENOSYS: _LACKING,
    errno.EOPNOTSUPP: _LACKING,
    errno.EMFILE: "this process may open no more files; raise `ulimit -n`, or use fewer workers",
    errno.ENFILE: "the system may open no more files; close other programs",
    errno.EAGAIN: (
        "the system allows no more processes or threads; use fewer workers, or raise `ulimit -u`"
    ),
    errno.ENOMEM: "the system has no memory left; use fewer workers, or close other programs",
}

# What fsync answers where a file system or a pipe has nothing like it.
_CANNOT_SYNC = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


def explain_os_error(error: OSError) -> str:
    """An error of the operating system as one sentence: the path, what was found, what to do."""
    reason = _SYSTEM_REASONS.get(error.errno or 0, error.strerror or str(error))
    return f"{error.filename}: {reason}" if error.filename else reason


def open_regular(path: str | os.PathLike[str]) -> int:
    """A descriptor of a regular file, open to read; anything else is refused, not waited for.

    Raises:
        OSError: If the file cannot be opened, or is a folder, a pipe, a socket or a device.
    """
    refuse_irregular(os.stat(path), path)  # noqa: PTH116  to open a device may have effects
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        refuse_irregular(os.fstat(descriptor), path)  # another file may have taken its place
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def open_own(path: Path) -> int:
    """A descriptor of a file that only fastload writes, to read and write; it is made if need be.

    A link in its place is refused: whoever gave us the folder would choose what is overwritten.

    Raises:
        OSError: If the file cannot be opened or made, or is no regular file.
    """
    try:
        refuse_irregular(path.lstat(), path)  # to open a pipe would wait
    except FileNotFoundError:
        pass
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}; remove it", os.fspath(path)) from None
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def refuse_irregular(status: os.stat_result, path: str | os.PathLike[str]) -> None:
    """See that a status is of a regular file.

    Raises:
        OSError: If it is not; the error names `path`.
    """
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        words = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        words[stat.S_IFLNK] = "a link"
        found = words.get(kind, "a device")
        raise OSError(errno.EINVAL, f"is {found}, expected a regular file", os.fspath(path))


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name a file in the errors of what is done to it: those of a write have no path."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def expect_writable(path: Path) -> None:
    """See that `replacing` can write a file, before the work is done that the file is to hold.

    Raises:
        OSError: If a folder, a pipe or a device has its name, if the name is too long, or if the
            folder is not there or takes no files; the error names `path`.
    """
    _refuse_to_replace(path)
    path.parent.stat()
    with suppress(FileNotFoundError):
        try:
            temporary_of(path).lstat()
        except OSError as error:
            error.filename = str(path)
            raise
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "no file can be written there", str(path.parent))


def temporary_of(path: Path) -> Path:
    """Where `replacing` writes a file; what a kill left there, the next writer replaces."""
    return path.with_name(f".{path.name}.partial")  # hidden, so no folder of images has it


def _refuse_to_replace(path: Path) -> None:
    """Refuse what is there and is no file: /dev/null would be a file from then on, for everyone."""
    with suppress(FileNotFoundError):
        refuse_irregular(path.stat(), path)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which replaces `path` at the end of the `with` block, and is durable then.

    After any exception `path` is as it was, and no temporary file is left.

    Yields:
        The file, empty and open to write and read under a temporary name in the same folder.

    Raises:
        OSError: If the file cannot be written; the error names `path`.
    """
    temporary = temporary_of(path)
    _refuse_to_replace(path)
    try:
        with temporary.open("w+b") as file:
            yield file
            file.flush()
            sync_file(file)
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and str(error.filename or temporary) == str(temporary):
            error.filename = str(path)
        raise
    sync_directory(path.parent)


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Write a whole file with `replacing`.

    Raises:
        OSError: If the file cannot be written.
    """
    with replacing(path) as file:
        file.write(data)


def write_csv(path: Path, names: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table for programs as CSV with `replacing`: UTF-8, without a byte-order mark.

    Names that are not UTF-8 keep their bytes.

    Raises:
        OSError: If the file cannot be written.
    """
    write_atomically(path, _as_csv(names, rows))


def write_spreadsheet(path: Path, names: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table for people: as `write_csv` does, with a byte-order mark before it.

    Excel takes CSV without the mark for the code page of the system, such as GBK. Each cell is a
    `spreadsheet_cell`.

    Raises:
        OSError: If the file cannot be written.
    """
    cells = ([*map(spreadsheet_cell, row)] for row in rows)
    write_atomically(path, codecs.BOM_UTF8 + _as_csv(names, cells))


def spreadsheet_cell(text: str) -> str:
    """A text as a cell that no spreadsheet computes: with a ' before it where one would.

    A folder may be called =HYPERLINK(...).
    """
    return f"'{text}" if text.lstrip("'").startswith(_FORMULA) else text


def text_of_cell(cell: str) -> str:
    """The text that `spreadsheet_cell` made a cell of."""
    return cell[1:] if cell[:1] == "'" and spreadsheet_cell(cell) != cell else cell


def _as_csv(names: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    text = "".join(map(_csv_line, [names, *rows]))
    return text.encode("utf-8", "surrogateescape")


def _csv_line(cells: Sequence[str]) -> str:
    r"""One row; lines end in \n alone.

    Before Python 3.13 csv quotes a \r only where lines end in it, and readers take an unquoted one
    for the end of a row.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue()[:-2] + "\n"


@contextmanager
def locked(
    path: Path, *, held: Callable[[], None], unlockable: Callable[[OSError], None]
) -> Iterator[None]:
    """Hold a file against other processes within the `with` block; the lock ends with the process.

    Args:
        path: The file; it is made where there is none.
        held: Called where another process holds the file, which is then waited for unless `held`
            raises.
        unlockable: Called where the file system has no locks; the block runs without.
    """
    with os.fdopen(open_own(path), "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held()
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            unlockable(error)
        yield


def sync_file(file: IO[Any]) -> None:
    """Make the content of a file durable, where its file system can.

    Args:
        file: Open for writing, and flushed.

    Raises:
        OSError: If what was written cannot be stored.
    """
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable, where its file system can.

    Network and user-space file systems refuse that in many ways: EINVAL, EIO, ENOTSUP, EACCES. The
    names are there all the same, and lead to files that are durable themselves, so no error is
    raised.
    """
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def lies_within(path: Path, folder: Path) -> bool:
    """Whether a path is a folder or lies in it, once links are followed."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
