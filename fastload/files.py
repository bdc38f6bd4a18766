"""Files: written whole or not at all, made durable, hashed; words for what the system refuses."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

_SYSTEM_REASONS = {
    errno.ENOSPC: "no space is left on the device; free some, or choose another place",
    errno.EDQUOT: "the disk quota is used up; free some, or choose another place",
    errno.EACCES: "permission was denied; change the permissions, or choose another place",
    errno.EPERM: "the operation is not permitted; choose another place",
    errno.EROFS: "the file system is read-only; choose another place",
    errno.ENOENT: "there is no such file or folder",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
}


def explain_os_error(error: OSError) -> str:
    """One sentence for an operating-system error: the path, what was found, what to do."""
    reason = _SYSTEM_REASONS.get(error.errno or 0, error.strerror or str(error))
    return f"{error.filename}: {reason}" if error.filename else reason


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Write a file under a temporary name, make it durable, then give it its name.

    Raises:
        OSError: If it cannot be written; `path` is then as it was, and nothing is left over.
    """
    temporary = path.with_name(path.name + ".partial")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        error.filename = error.filename or str(path)
        raise
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


READ_BYTES = 4 << 20


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()
