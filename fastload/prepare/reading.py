"""The bytes of one image, from wherever its source keeps it: `read_bytes`."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from fastload.errors import LayoutError
from fastload.prepare.parquet import read_packed
from fastload.prepare.source import File


def read_bytes(root: Path, file: File) -> bytes:
    """All bytes of an image, read once; a pipe in the place of its file is refused, not waited for.

    Args:
        root: Root of the source.
        file: The image; of one that is a file of its own, as many bytes as that file has now.

    Raises:
        LayoutError: If the file that holds the image has changed since it was listed.
        OSError: If the file cannot be read, or gives fewer bytes than it has.
    """
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
