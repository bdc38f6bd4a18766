"""Byte ranges of files that are open, each read into its place in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastload.files import open_regular
from fastload.pixels import native
from fastload.pixels.jpeg import Encoded


class OpenFile:
    """A file descriptor, closed when the last thread that reads from it drops the object."""

    __slots__ = ("descriptor",)

    def __init__(self, path: Path) -> None:
        self.descriptor = open_regular(path)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


def read_into(descriptor: int, memory: memoryview, offset: int) -> int:
    """Read from a place in a file; returns how many bytes came."""
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [memory], offset)
    read = os.pread(descriptor, len(memory), offset)  # macOS before 11
    memory[: len(read)] = read
    return len(read)


def read_ranges(
    descriptors: Sequence[int], offsets: NDArray[np.int64], into: Encoded
) -> NDArray[np.bool_]:
    """Read byte ranges of open files, each into its place; bool [N], whether all was there."""
    if native.is_available():
        return native.read_many(descriptors, offsets, into)
    parts = zip(descriptors, offsets.tolist(), into.sizes.tolist(), strict=True)
    whole = [
        not size or read_into(file, into[i], offset) == size
        for i, (file, offset, size) in enumerate(parts)
    ]
    return np.array(whole, np.bool_)
