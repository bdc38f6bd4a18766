"""Shard directories that claim up to billions of samples: an index and tars that are mostly holes.

Each row that is read must be written first: `fill`. All of them are the same photograph. Classes
lie one behind another, long-tailed.
"""

from __future__ import annotations

import io
import os
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fastload.store.index import SAMPLE, index_name
from fastload.store.manifest import (
    Manifest,
    Shard,
    Split,
    fingerprint,
    shard_name,
    write_manifest,
)
from fastload.store.tar import TarWriter, next_offset

OF_A_SHARD = 1_000_000
CLASSES = 1_000


def sparse_shards(out: Path, samples: int, jpeg: bytes) -> Path:
    """A shard directory whose split train has so many samples.

    Args:
        out: Made; on a file system that keeps holes, and takes files of 30 bytes a sample.
        samples: At least 1.
        jpeg: What each sample is.
    """
    out.mkdir(parents=True)
    tar = TarWriter(out / shard_name("train", 0))
    tar.add_sample("00000000", jpeg, b"000")
    digest = tar.finish()
    tar.sync()
    os.truncate(tar.path, next_offset(0, len(jpeg)) * min(samples, OF_A_SHARD) + 20 * 512)
    shards = []
    for number, first in enumerate(range(0, samples, OF_A_SHARD)):
        path = out / shard_name("train", number)
        if number:
            os.link(tar.path, path)
        count = min(OF_A_SHARD, samples - first)
        shards.append(
            Shard(name=path.name, bytes=path.stat().st_size, sha256=digest, samples=count)
        )
    split = Split(
        samples=samples, class_counts=tuple(class_counts(samples).tolist()), shards=tuple(shards)
    )
    names = tuple(f"{number:03d}" for number in range(CLASSES))
    write_manifest(
        out,
        Manifest(
            classes=names,
            class_names=names,
            splits={"train": split},
            options={},
            stored={},
            cleaning={},
            fingerprint=fingerprint(names, {"train": split}),
            recipe="",
        ),
    )
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": SAMPLE.descr, "fortran_order": False, "shape": (samples,)}
    )
    with (out / index_name("train")).open("wb") as file:
        file.write(header.getvalue())
        file.truncate(len(header.getvalue()) + samples * SAMPLE.itemsize)
    return out


def class_counts(samples: int) -> NDArray[np.int64]:
    """Samples of each class: a long tail, by Zipf's law."""
    shares = 1 / np.arange(1, CLASSES + 1)
    ends = np.round(np.cumsum(shares) / shares.sum() * samples).astype(np.int64)
    counts: NDArray[np.int64] = np.diff(ends, prepend=0)
    return counts


def fill(directory: Path, samples: int, rows: NDArray[np.int64], jpeg: bytes) -> None:
    """Write some rows of the index: each is the photograph at the begin of its shard."""
    with Image.open(io.BytesIO(jpeg)) as image:
        width, height = image.size
    values = np.zeros(len(rows), SAMPLE)
    values["shard"], values["offset"] = rows // OF_A_SHARD, 512
    values["label"] = np.searchsorted(np.cumsum(class_counts(samples)), rows, side="right")
    values["size"], values["crc32"] = len(jpeg), zlib.crc32(jpeg)
    values["height"], values["width"] = height, width
    path = directory / index_name("train")
    begin = path.stat().st_size - samples * SAMPLE.itemsize
    with path.open("r+b") as file:
        for row, value in zip(rows.tolist(), values, strict=True):
            file.seek(begin + row * SAMPLE.itemsize)
            file.write(value.tobytes())
