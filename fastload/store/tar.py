"""Tars of samples: the same samples give the same bytes, on any day (ustar, no times, no owners).

    header KEY.jpg │ JPEG, padded │ header KEY.cls │ label, padded │ …

Each part fills whole blocks of 512 bytes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from fastload.files import open_regular, sync_file

TAR_BLOCK = 512  # POSIX.1-1988 ustar: headers and data are padded to blocks of 512 bytes
RECORD = 20 * TAR_BLOCK  # tar pads an archive to records of twenty blocks
END = 2 * TAR_BLOCK  # two blocks of zeros end an archive
KEY_DIGITS = 8


def tar_header(name: str, size: int) -> bytes:
    """Header block of a regular file (POSIX.1-1988 ustar), without time and owner."""
    fields = (
        name.encode("ascii").ljust(100, b"\0"),
        b"0000644\0" + b"0000000\0" * 2,  # mode, owner, group
        b"%011o\0" % size,
        b"%011o\0" % 0,  # time
        b" " * 8,  # the checksum counts as spaces
        b"0".ljust(101, b"\0"),  # a regular file, no link
        b"ustar\x0000",
    )
    block = b"".join(fields).ljust(TAR_BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def key_of(position: int) -> str:
    """Key of the sample at a position of its split's permutation."""
    return f"{position:0{KEY_DIGITS}d}"


def label_bytes(label: int, num_classes: int) -> bytes:
    """Content of KEY.cls: the label in decimal digits; each label has as many as the largest."""
    return b"%0*d" % (len(str(num_classes - 1)), label)


def padded(size: int) -> int:
    """Bytes that a member's content takes, up to the next block."""
    return size + -size % TAR_BLOCK


def label_offset(offset: int, size: int) -> int:
    """Where the content of KEY.cls begins, if that of KEY.jpg begins at `offset`."""
    return offset + padded(size) + TAR_BLOCK


def next_offset(offset: int, size: int) -> int:
    """Where the JPEG of the next sample begins."""
    return label_offset(offset, size) + TAR_BLOCK + TAR_BLOCK


def offsets_of(sizes: Iterable[int]) -> list[int]:
    """Where each JPEG begins in a tar whose JPEGs have these sizes, in this order."""
    offsets, offset = [], TAR_BLOCK
    for size in sizes:
        offsets.append(offset)
        offset = next_offset(offset, size)
    return offsets


def read_key(shard: Path, offset: int) -> str:
    """Key of the image that begins at `offset` of a tar: its member name without ".jpg".

    Meant for messages: it costs one read, and the key is "?" where the tar does not tell it.
    """
    try:
        with os.fdopen(open_regular(shard), "rb") as file:
            file.seek(offset - TAR_BLOCK)
            return key_in(file.read(TAR_BLOCK))
    except (OSError, ValueError):
        return "?"


def key_in(header: bytes) -> str:
    """Key of the sample whose image has this header, printable ASCII; "?" if it has none."""
    name = header[:100].split(b"\0", 1)[0].removesuffix(b".jpg")
    key = name.decode("ascii") if name.isascii() else ""
    return key if key.isprintable() and key else "?"


def _padding(size: int) -> bytes:
    return b"\0" * (-size % TAR_BLOCK)


class TarWriter:
    """Writes a tar from front to back and hashes what it writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: BinaryIO = path.open("wb", buffering=1 << 20)
        self.sha256 = hashlib.sha256()
        self.bytes = 0

    def add_sample(self, key: str, jpeg: bytes | memoryview, label: bytes) -> int:
        """Append KEY.jpg and KEY.cls; returns where the JPEG's bytes begin."""
        offset = self.bytes + TAR_BLOCK
        size = len(jpeg)
        self._write(tar_header(f"{key}.jpg", size))
        self._write(jpeg)
        behind = _padding(size) + tar_header(f"{key}.cls", len(label)) + label
        self._write(behind + _padding(len(label)))
        return offset

    def finish(self) -> str:
        """Append the end of the archive; returns the SHA-256, hexadecimal."""
        self._write(b"\0" * (END + -(self.bytes + END) % RECORD))
        try:
            self.file.flush()
        except OSError as error:
            raise self._named(error) from None
        return self.sha256.hexdigest()

    def sync(self) -> None:
        """Make the tar durable and close it."""
        try:
            sync_file(self.file)
            self.file.close()
        except OSError as error:
            raise self._named(error) from None

    def discard(self) -> None:
        """Close and remove an unfinished tar."""
        with suppress(OSError):
            self.file.close()
        with suppress(OSError):
            self.path.unlink()

    def _write(self, data: bytes | memoryview) -> None:
        try:
            self.file.write(data)
        except OSError as error:
            raise self._named(error) from None
        self.sha256.update(data)
        self.bytes += len(data)

    def _named(self, error: OSError) -> OSError:
        error.filename = str(self.path)
        return error
