"""The index of a split: one SAMPLE for each image, in the order of the tars.

    {split}.index.npy       where the bytes of each image lie, its label, its size in pixels
    {split}-{000000}.tar    KEY.jpg + KEY.cls, see docs/format.md

An index is checked before it is used: its size is what its header and the manifest say, and no
offset, shard or label points outside what the manifest lists.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from fastload.arguments import did_you_mean, shown
from fastload.errors import ShardError
from fastload.files import explain_os_error, open_regular
from fastload.store.manifest import (
    REBUILD,
    Manifest,
    Split,
    read_manifest,
)
from fastload.store.rows import LONGEST_HEADER, read_rows, write_rows
from fastload.store.tar import END, TAR_BLOCK, next_offset

SAMPLE = np.dtype(
    [
        ("shard", "<u4"),  # in the order of the manifest's shards of this split
        ("offset", "<u8"),  # of the image's first byte in its tar
        ("size", "<u4"),  # bytes
        ("label", "<i4"),  # in the order of the manifest's classes
        ("height", "<u2"),  # pixels of the upright image
        ("width", "<u2"),
        ("crc32", "<u4"),  # of the image's bytes, zlib's CRC-32
    ]
)


def write_index(directory: Path, split: str, samples: NDArray[np.void]) -> None:
    """Write the index of a split atomically.

    Args:
        directory: The shard directory.
        split: Name of the split.
        samples: SAMPLE [N], in the order of the tars.

    Raises:
        OSError: If it cannot be written.
    """
    write_rows(directory / index_name(split), samples.astype(SAMPLE, copy=False))


def index_name(split: str) -> str:
    """File name of a split's index."""
    return f"{split}.index.npy"


def read_index(directory: str | os.PathLike[str], split: str) -> NDArray[np.void]:
    """Read and check the index of a split.

    Args:
        directory: The shard directory.
        split: Name of the split, such as "train".

    Returns:
        SAMPLE [N], owned by the caller, in the order of the tars. Every shard, label and byte
        range lies within what the manifest lists; no two samples share a byte.

    Raises:
        ShardError: If there is no such split, or the index is missing, damaged or does not fit
            the manifest.
    """
    return index_of(directory, read_manifest(directory), split)


def index_of(directory: str | os.PathLike[str], manifest: Manifest, split: str) -> NDArray[np.void]:
    """`read_index`, of a directory whose manifest is read already."""
    check_split(manifest, split, str(directory))
    path = Path(directory) / index_name(split)
    with index_explained(), os.fdopen(open_regular(path), "rb") as file:
        return index_in(file, manifest, split, str(path))


@contextmanager
def index_explained() -> Iterator[None]:
    """What the system refuses of an index is a `ShardError`."""
    try:
        yield
    except FileNotFoundError as error:
        raise ShardError(f"{explain_os_error(error)}; copy it again, or {REBUILD}") from error
    except OSError as error:
        raise ShardError(explain_os_error(error)) from error


def check_split(manifest: Manifest, split: str, where: str) -> None:
    """See that the data at `where` have a split.

    Raises:
        ShardError: If they have none of that name.
    """
    if split not in manifest.splits:
        raise ShardError(
            f"there is no split {shown(split)}; choose one of {', '.join(manifest.splits)}"
            f"{did_you_mean(split, manifest.splits)}",
            where=where,
        )


def index_bytes(manifest: Manifest, split: str) -> int:
    """Bytes of the index of a split, at most: those of its rows, and a header of NumPy's."""
    return manifest.splits[split].samples * SAMPLE.itemsize + LONGEST_HEADER


def index_in(file: BinaryIO, manifest: Manifest, split: str, where: str) -> NDArray[np.void]:
    """Check the content of the index of a split that lies at `where`; see `read_index`.

    Raises:
        OSError: If the file cannot be read.
        ShardError: If the content is damaged, or does not fit the manifest.
    """
    try:
        samples = read_rows(file, SAMPLE, manifest.splits[split].samples)
    except ValueError as error:
        raise ShardError(f"{error}; {REBUILD}", where=where) from None
    fault = _fault_of(samples, manifest.splits[split], len(manifest.classes))
    if fault:
        raise ShardError(f"{fault}; {REBUILD}", where=where)
    return samples


def _fault_of(samples: NDArray[np.void], split: Split, num_classes: int) -> str:
    if not len(samples):
        return ""
    labels, shards = samples["label"], samples["shard"]
    if labels.min() < 0 or labels.max() >= num_classes:
        return f"has a label outside [0, {num_classes})"
    if not np.array_equal(np.bincount(labels, minlength=num_classes), split.class_counts):
        return "has other class counts than the manifest"
    if shards.max() >= len(split.shards):
        return f"names shard {shards.max()}, the manifest lists {len(split.shards)}"
    if min(samples["height"].min(), samples["width"].min()) < 1:
        return "has an image of no height or width"
    return _fault_of_places(samples, split)


def _fault_of_places(samples: NDArray[np.void], split: Split) -> str:
    shards = samples["shard"]
    listed = [shard.samples for shard in split.shards]
    if not np.array_equal(shards, np.repeat(np.arange(len(listed)), listed)):
        return "has other samples in a shard than the manifest"
    room = np.array([max(0, shard.bytes - END) for shard in split.shards], np.uint64)[shards]
    begins, steps = samples["offset"], _steps(samples["size"])
    ends = steps - np.uint64(TAR_BLOCK)  # of the label behind the image, from the image's begin
    if (begins < TAR_BLOCK).any() or (begins > room).any() or (ends > room - begins).any():
        return "has an image that lies outside its shard"
    behind = np.cumsum(steps)
    first = np.searchsorted(shards, shards)  # row of the first image of the same shard
    if not np.array_equal(begins, behind - steps - (behind - steps)[first] + np.uint64(TAR_BLOCK)):
        return "has an image that does not begin where the one before it ends"
    return ""


def _steps(sizes: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """From the begin of each image to that of the next in a tar: `tar.next_offset`, of an array."""
    blocks = (sizes.astype(np.uint64) + np.uint64(TAR_BLOCK - 1)) // np.uint64(TAR_BLOCK)
    return blocks * np.uint64(TAR_BLOCK) + np.uint64(next_offset(0, 0))
