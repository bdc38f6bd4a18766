"""The seek tables of images in place: files of the index, of which each image has a part.

They lie on a disk wherever the images lie, so a reader of any storage reads them alike.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastload.errors import ShardError
from fastload.files import explain_os_error
from fastload.pixels import native
from fastload.pixels.jpeg import Encoded
from fastload.store.collection import Collection
from fastload.store.ranges import OpenFile, read_ranges


class SeekTables:
    """The seek tables of a collection, read by rows of its index. Thread-safe.

    Args:
        collection: Index and files.

    Raises:
        ShardError: If a file of seek tables is missing, or shorter than its index says.
    """

    def __init__(self, collection: Collection) -> None:
        self._index, self._files = collection.index, collection.files
        self._sources = collection.sources
        self._opened = [points and _opened(points) for points in collection.points]

    def read(self, rows: NDArray[np.int64], tables: Encoded) -> dict[int, str]:
        """Read the seek tables of some samples into their places; returns those that are wrong."""
        bad, opened = {}, list(self._opened)
        files = [opened[source] for source in self._sources[rows].tolist()]
        lacking = np.array([file is None for file in files])
        tables.sizes[lacking] = 0  # the reader was closed meanwhile: the images are read without
        offsets, sums = self._index["seek"][rows].astype(np.int64), self._index["crc32"][rows]
        descriptors = [-1 if file is None else file.descriptor for file in files]
        complete = read_ranges(descriptors, offsets, tables)
        for i in np.flatnonzero(tables.sizes).tolist():
            if not complete[i] or native.table_crc32(tables[i]) != sums[i]:
                remedy = self._files.remedy(int(self._index["file"][rows[i]]))
                bad[i] = f"its seek table is damaged, or that of another image; {remedy}"
        return bad

    def close(self) -> None:
        """Close the files; what is read from now on has no seek tables."""
        self._opened = [None] * len(self._opened)


def _opened(points: tuple[Path, int]) -> OpenFile:
    """The file of the seek tables of a directory, as long as its index says."""
    path, size = points
    try:
        file = OpenFile(path)
        found = os.fstat(file.descriptor).st_size
    except OSError as error:
        raise ShardError(f"{explain_os_error(error)}; make the index again") from error
    if found < size:
        raise ShardError(
            f"has {found} bytes, the index says {size}; make the index again", where=str(path)
        )
    return file
