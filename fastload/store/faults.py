"""What is wrong with data: whether index and shards agree, or index and files in place."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from fastload.errors import ImageError, ShardError
from fastload.files import READ_BYTES, explain_os_error, open_regular
from fastload.pixels.jpeg import read_header
from fastload.store.collection import Collection, collection_of
from fastload.store.freshness import find_change
from fastload.store.holders import checked_status
from fastload.store.index import index_of
from fastload.store.manifest import Manifest, Shard
from fastload.store.objects import ChangedObjectError, MissingObjectError
from fastload.store.places import PlacedData
from fastload.store.reader import Reader, Scratch
from fastload.store.remote_reader import open_reader
from fastload.store.tar import (
    END,
    TAR_BLOCK,
    key_in,
    label_bytes,
    label_offset,
    next_offset,
    tar_header,
)

_ROWS_AHEAD = 512  # samples that are asked for together, of which a store gives many at a time


def find_faults(directory: Path, manifest: Manifest) -> Iterator[tuple[int, str]]:
    """Check every shard and index that the manifest lists, and look for other tars.

    Yields:
        (bytes checked since the last pair, fault); the fault is "" where nothing is wrong, else one
        sentence that names the file.
    """
    listed = {shard.name for split in manifest.splits.values() for shard in split.shards}
    for path in sorted(directory.glob("*.tar")):
        if path.name not in listed and not path.name.startswith("."):  # ._NAME of macOS is no shard
            yield 0, f"{path.name}: is not in the manifest; remove it"
    for split in manifest.splits:
        try:
            samples = index_of(directory, manifest, split)
        except ShardError as error:
            yield 0, str(error)
            samples = None
        for number, shard in enumerate(manifest.splits[split].shards):
            mine = None if samples is None else samples[samples["shard"] == number]
            yield from named_faults(
                shard, _faults_of(directory / shard.name, shard, mine, len(manifest.classes))
            )


def find_placed_faults(data: PlacedData) -> Iterator[tuple[int, str]]:
    """Read every image of an index in place, and look for files that came or went.

    Yields:
        As `find_faults`.

    Raises:
        ShardError: If an object store refuses to give an object.
        StalledError: If it does not answer.
    """
    yield 0, find_change(data)
    for split in data.places.splits:
        try:
            collection = collection_of([data], split)
            reader = open_reader(collection)
        except ShardError as error:
            yield 0, str(error)
            continue
        yield from _read_faults(reader, collection, remote=data.bucket is not None)
        reader.close()


def _read_faults(
    reader: Reader, collection: Collection, *, remote: bool
) -> Iterator[tuple[int, str]]:
    """Read all samples in the order in which they lie; what is asked for ahead comes together."""
    index, scratch, failed = collection.index, Scratch(), set[int]()
    records = index[np.arange(len(index))]
    order = np.lexsort((records["offset"], records["file"]))
    for first in range(0, len(order), _ROWS_AHEAD):
        rows = order[first : first + _ROWS_AHEAD]
        reader.read_ahead(rows)
        for row, record in zip(rows.tolist(), records[rows], strict=True):
            fault = ""
            if (number := int(record["file"])) not in failed:
                try:
                    _, bad = reader.read(np.array([row]), scratch)
                    fault = f"{reader.locate(row)}: {bad[0]}" if bad else ""
                except ShardError as error:
                    if remote and not isinstance(error, ChangedObjectError | MissingObjectError):
                        raise
                    failed.add(number)
                    fault = str(error)
            yield int(record["size"]), fault


def named_faults(shard: Shard, checked: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """The same with the shard's name, and in the end with the bytes that nobody read of it."""
    done = 0
    for size, fault in checked:
        done += size
        yield size, f"{shard.name}: {fault}" if fault else ""
    yield shard.bytes - done, ""


def _faults_of(
    path: Path, shard: Shard, samples: NDArray[np.void] | None, num_classes: int
) -> Iterator[tuple[int, str]]:
    """As `content_faults`, of a tar on a disk."""
    try:
        checked_status(path, shard.bytes)
        with os.fdopen(open_regular(path), "rb") as file:
            yield from content_faults(file, shard, samples, num_classes)
    except ShardError as error:
        yield 0, error.reason
    except OSError as error:
        yield 0, explain_os_error(error)


def content_faults(
    file: BinaryIO, shard: Shard, samples: NDArray[np.void] | None, num_classes: int
) -> Iterator[tuple[int, str]]:
    """Compare a tar with its index and its SHA-256; each byte is read once.

    Args:
        file: The tar, which is as long as the manifest says; it is read forward.
        shard: What the manifest says of the tar.
        samples: What the index says of the tar, SAMPLE [N]; None where there is no index.
        num_classes: Number of classes in the manifest.

    Yields:
        (bytes read since the last pair, fault); "" where nothing is wrong. A fault is the last.
    """
    digest, done = hashlib.sha256(), 0
    for sample in () if samples is None else samples:
        offset = int(sample["offset"])
        block = file.read(next_offset(offset, int(sample["size"])) - offset)
        digest.update(block)
        done += len(block)
        fault = _sample_fault(block, sample, num_classes)
        if fault:
            yield len(block), f"sample {key_in(block)}, offset {offset}: {fault}"
            return
        yield len(block), ""
    rest = shard.bytes - done
    while block := file.read(READ_BYTES):
        digest.update(block)
        if samples is not None and (rest < END or block.strip(b"\0")):
            yield len(block), "holds more than its index lists, or does not end as a tar does"
            return
        yield len(block), ""
    if digest.hexdigest() != shard.sha256:
        yield 0, "has another SHA-256 than the manifest says"


def _sample_fault(block: bytes, sample: NDArray[np.void], num_classes: int) -> str:
    """What is wrong with one sample; `block` runs from the header of KEY.jpg to KEY.cls's end."""
    size, key = int(sample["size"]), key_in(block)
    label = label_bytes(int(sample["label"]), num_classes)
    if key == "?" or block[:TAR_BLOCK] != tar_header(f"{key}.jpg", size):
        return f"no header of a JPEG of {size} bytes stands before it"
    jpeg = block[TAR_BLOCK : TAR_BLOCK + size]
    if zlib.crc32(jpeg) != int(sample["crc32"]):
        return "has another CRC-32 than the index says"
    behind = label_offset(TAR_BLOCK, size)
    header = block[behind - TAR_BLOCK : behind]
    found = block[behind : behind + len(label)]
    if header != tar_header(f"{key}.cls", len(label)) or found != label:
        return f"its label in the tar is not {int(sample['label'])}, as the index says"
    try:
        facts = read_header(jpeg)
    except ImageError as error:
        return error.reason
    if (facts.height, facts.width) != (int(sample["height"]), int(sample["width"])):
        return f"is {facts.height} x {facts.width} pixels, the index says otherwise"
    return ""
