"""The index of a split: one SAMPLE for each image, in the order of the tars.

    {split}.index.npy       where the bytes of each image lie, its label, its size in pixels
    {split}-{000000}.tar    KEY.jpg + KEY.cls, see docs/format.md

An index is checked before it is used: no offset, shard or label points outside what the manifest
lists.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastload.errors import ShardError
from fastload.files import explain_os_error, write_atomically
from fastload.store.manifest import (
    REBUILD,
    Split,
    read_manifest,
)
from fastload.store.tar import TAR_BLOCK

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
    buffer = io.BytesIO()
    np.save(buffer, samples.astype(SAMPLE, copy=False), allow_pickle=False)
    write_atomically(directory / index_name(split), buffer.getbuffer())


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
        range lies within what the manifest lists.

    Raises:
        ShardError: If there is no such split, or the index is missing, damaged or does not fit
            the manifest.
    """
    manifest = read_manifest(directory)
    if split not in manifest.splits:
        raise ShardError(
            f"there is no split {split!r}; choose one of {', '.join(manifest.splits)}",
            where=str(directory),
        )
    path = Path(directory) / index_name(split)
    try:
        with path.open("rb") as file:
            samples = np.lib.format.read_array(file, allow_pickle=False)
    except OSError as error:
        raise ShardError(f"{explain_os_error(error)}; {REBUILD}") from error
    except (ValueError, EOFError) as error:
        raise ShardError(f"is not an index ({error}); {REBUILD}", where=str(path)) from error
    if samples.dtype != SAMPLE or samples.ndim != 1:
        found = f"{samples.dtype} {list(samples.shape)}"
        raise ShardError(f"holds {found}, expected SAMPLE [N]; {REBUILD}", where=str(path))
    fault = _fault_of(samples, manifest.splits[split], len(manifest.classes))
    if fault:
        raise ShardError(f"{fault}; {REBUILD}", where=str(path))
    checked: NDArray[np.void] = samples
    return checked


def _fault_of(samples: NDArray[np.void], split: Split, num_classes: int) -> str:
    if len(samples) != split.samples:
        return f"has {len(samples)} samples, the manifest says {split.samples}"
    if not len(samples):
        return ""
    labels, shards = samples["label"], samples["shard"]
    if labels.min() < 0 or labels.max() >= num_classes:
        return f"has a label outside [0, {num_classes})"
    if not np.array_equal(np.bincount(labels, minlength=num_classes), split.class_counts):
        return "has other class counts than the manifest"
    if shards.max() >= len(split.shards):
        return f"names shard {shards.max()}, the manifest lists {len(split.shards)}"
    shard_bytes = np.array([shard.bytes for shard in split.shards], np.uint64)[shards]
    begins, ends = samples["offset"], samples["offset"] + samples["size"]
    if (begins < TAR_BLOCK).any() or (begins > shard_bytes).any() or (ends > shard_bytes).any():
        return "has an image that lies outside its shard"
    if min(samples["height"].min(), samples["width"].min()) < 1:
        return "has an image of no height or width"
    return ""
