"""Rows of one type in a NumPy file: written whole or not at all, checked before they are read."""

from __future__ import annotations

import io
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fastload.files import open_regular, write_atomically

LONGEST_HEADER = 10 + 65535  # bytes, as its length is written in 16 bits
_START = struct.Struct("<6sBBH")  # of a NumPy file, version 1.0: magic, version, header's length
# What NumPy writes behind it, padded with spaces: matched, not evaluated.
_HEADER = r"\{'descr': (.+), 'fortran_order': False, 'shape': \(([0-9, ]*)\), \} *\n"


def write_rows(path: Path, rows: NDArray[Any]) -> None:
    """Write an array atomically.

    Raises:
        OSError: If it cannot be written.
    """
    buffer = io.BytesIO()
    np.save(buffer, rows, allow_pickle=False)
    write_atomically(path, buffer.getbuffer())


def read_rows(
    file: BinaryIO,
    kind: np.dtype[np.void],
    expected: int,
    *,
    name: str = "SAMPLE",
    see: Callable[[bytes | memoryview], None] | None = None,
) -> NDArray[np.void]:
    """The rows of a file; memory is taken only for what the file holds.

    NumPy's own reader allocates what a header claims, before it looks at the size of the file.

    Args:
        file: The file, at its beginning.
        kind: Type of a row.
        expected: How many rows there are.
        name: What a row is called in messages.
        see: Called with all that is read, such as the `update` of a digest.

    Returns:
        `kind` [expected], owned by the caller.

    Raises:
        ValueError: If the file is another NumPy file or none, or has other rows.
    """
    head = _head_of(file, kind, expected, name)
    size, needed = file.seek(0, os.SEEK_END), len(head) + expected * kind.itemsize
    file.seek(len(head))
    if size != needed:
        raise ValueError(f"has {size:,} bytes, {expected:,} samples need {needed:,}")
    rows = np.empty(expected, kind)
    memory = rows.view(np.uint8).data
    done = 0
    while done < len(memory):
        more = file.readinto(memory[done:])  # type: ignore[attr-defined]  # a buffered file
        if not more:
            raise ValueError("became shorter while it was read")
        done += more
    if see is not None:
        see(head)
        see(memory)
    return rows


def mapped_rows(path: Path, kind: np.dtype[np.void], expected: int) -> NDArray[np.void]:
    """The rows of a file, which is mapped and not read.

    Raises:
        OSError: If it cannot be opened.
        ValueError: If the file is another NumPy file or none, or has other rows.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        head = _head_of(file, kind, expected, "SAMPLE")
        size, needed = os.fstat(file.fileno()).st_size, len(head) + expected * kind.itemsize
        if size != needed:
            raise ValueError(f"has {size:,} bytes, {expected:,} samples need {needed:,}")
        return np.memmap(file, kind, "r", offset=len(head), shape=(expected,))


def _head_of(file: BinaryIO, kind: np.dtype[np.void], expected: int, name: str) -> bytes:
    """What stands before the rows, if it is what NumPy writes before such rows."""
    start = file.read(_START.size)
    if len(start) < _START.size or start[:6] != np.lib.format.MAGIC_PREFIX:
        raise ValueError("is not an index (it does not begin as a NumPy file does)")
    _, major, minor, length = _START.unpack(start)
    if (major, minor) != (1, 0):
        raise ValueError(f"is not an index (of NumPy's format {major}.{minor}, expected 1.0)")
    rest = file.read(length)
    header = re.fullmatch(_HEADER, rest.decode("latin-1"))
    if header is None:
        raise ValueError("is not an index (its header is not one that NumPy writes)")
    found, shape = header.groups()
    if found != repr(kind.descr) or not re.fullmatch("[0-9]{1,19},", shape):
        raise ValueError(f"holds {found[:60]!a} [{shape[:40]}], expected {name} [N]")
    if int(shape[:-1]) != expected:
        if name == "SAMPLE":
            raise ValueError(f"has {shape[:-1]} samples, the manifest says {expected}")
        raise ValueError(f"has {shape[:-1]} rows, expected {expected}")
    return start + rest
