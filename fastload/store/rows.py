"""Rows of one type in a NumPy file: written whole or not at all, checked before they are read."""

from __future__ import annotations

import io
import os
import re
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fastload.files import write_atomically

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
    file: BinaryIO, kind: np.dtype[np.void], expected: int, *, name: str = "SAMPLE"
) -> NDArray[np.void]:
    """The rows of a file; memory is taken only for what the file holds.

    NumPy's own reader allocates what a header claims, before it looks at the size of the file.

    Args:
        file: The file, at its beginning.
        kind: Type of a row.
        expected: How many rows there are.
        name: What a row is called in messages.

    Returns:
        `kind` [expected], owned by the caller.

    Raises:
        ValueError: If the file is another NumPy file or none, or has other rows.
    """
    size = os.fstat(file.fileno()).st_size
    start = file.read(_START.size)
    if len(start) < _START.size or start[:6] != np.lib.format.MAGIC_PREFIX:
        raise ValueError("is not an index (it does not begin as a NumPy file does)")
    _, major, minor, length = _START.unpack(start)
    if (major, minor) != (1, 0):
        raise ValueError(f"is not an index (of NumPy's format {major}.{minor}, expected 1.0)")
    header = re.fullmatch(_HEADER, file.read(length).decode("latin-1"))
    if header is None:
        raise ValueError("is not an index (its header is not one that NumPy writes)")
    found, shape = header.groups()
    if found != repr(kind.descr) or not re.fullmatch("[0-9]{1,19},", shape):
        raise ValueError(f"holds {found[:60]!a} [{shape[:40]}], expected {name} [N]")
    if int(shape[:-1]) != expected:
        raise ValueError(f"has {shape[:-1]} samples, the manifest says {expected}")
    needed = _START.size + length + expected * kind.itemsize
    if size != needed:
        raise ValueError(f"has {size:,} bytes, {expected:,} samples need {needed:,}")
    data = file.read(expected * kind.itemsize)
    if len(data) < expected * kind.itemsize:
        raise ValueError("became shorter while it was read")
    return np.frombuffer(data, kind).copy()
