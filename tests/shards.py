"""Small shard directories written with `tarfile`, independently of fastload's own writer."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fastload.store.index import SAMPLE, write_index
from fastload.store.manifest import Manifest, Shard, Split, write_manifest
from fastload.store.manifest import fingerprint as fingerprint_of
from tests.pictures import encoded, picture


@dataclass(frozen=True)
class Picture:
    """One image to be stored: its bytes as a JPEG, and its class."""

    jpeg: bytes
    label: int
    height: int
    width: int


def flat_picture(number: int, label: int, *, height: int = 48, width: int = 64) -> Picture:
    """An image of one colour, by which its number can be told: see `number_of`."""
    image = Image.new("RGB", (width, height), code_of(number))
    return Picture(encoded(image, quality=90, subsampling=0), label, height, width)


def code_of(number: int) -> tuple[int, int, int]:
    """A colour for each number in [0, 4096): steps of 16, which survive JPEG."""
    red, green, blue = (8 + 16 * (number >> shift & 15) for shift in (8, 4, 0))
    return red, green, blue


def number_of(pixels: np.ndarray) -> int:
    """The number of a picture from its middle pixel [3]; 0 to 4095."""
    red, green, blue = (round((float(value) - 8) / 16) for value in pixels)
    return (red << 8) + (green << 4) + blue


def noisy_picture(seed: int, label: int, *, height: int, width: int, quality: int = 90) -> Picture:
    """A photograph: every box of it looks different."""
    jpeg = encoded(picture(seed, height=height, width=width), quality=quality, subsampling=0)
    return Picture(jpeg, label, height, width)


def write_shards(
    directory: Path,
    splits: Mapping[str, Sequence[Picture]],
    *,
    classes: Sequence[str],
    samples_per_shard: int = 10,
) -> Path:
    """Write a shard directory that `fastload.store.index` reads; keys are "000000", "000001" …"""
    directory.mkdir(parents=True, exist_ok=True)
    facts = {}
    for split, pictures in splits.items():
        shards, rows = [], []
        for number, first in enumerate(range(0, len(pictures), samples_per_shard)):
            path = directory / f"{split}-{number:06d}.tar"
            members = list(enumerate(pictures[first : first + samples_per_shard], first))
            offsets = write_tar(path, members)
            rows += [
                (number, offset, len(p.jpeg), p.label, p.height, p.width, zlib.crc32(p.jpeg))
                for offset, (_, p) in zip(offsets, members, strict=True)
            ]
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            shards.append(
                Shard(
                    name=path.name, bytes=path.stat().st_size, sha256=digest, samples=len(members)
                )
            )
        counts = np.bincount([p.label for p in pictures], minlength=len(classes))
        facts[split] = Split(
            samples=len(pictures), class_counts=tuple(counts.tolist()), shards=tuple(shards)
        )
        write_index(directory, split, np.array(rows, SAMPLE))
    manifest = Manifest(
        classes=tuple(classes),
        class_names=tuple(classes),
        splits=facts,
        options={},
        stored={},
        cleaning={},
        fingerprint=fingerprint_of(tuple(classes), facts),
        recipe="",
    )
    write_manifest(directory, manifest)
    return directory


def write_tar(path: Path, members: Sequence[tuple[int, Picture]]) -> list[int]:
    """Write KEY.jpg and KEY.cls for each; where the bytes of each image begin."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number, picture in members:
            for name, data in (
                (f"{number:06d}.jpg", picture.jpeg),
                (f"{number:06d}.cls", str(picture.label).encode()),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    with tarfile.open(path) as tar:
        return [member.offset_data for member in tar if member.name.endswith(".jpg")]


def numbered(directory: Path, counts: dict[str, int], *, classes: int = 3, **options) -> Path:
    """Shards of flat pictures numbered from 0 in each split; the class is number % classes."""
    splits = {
        split: [flat_picture(number, number % classes) for number in range(count)]
        for split, count in counts.items()
    }
    names = [f"class {i}" for i in range(classes)]
    return write_shards(directory, splits, classes=names, **options)


def flip_bit(shard: Path, offset: int) -> None:
    """Damage one byte of a file, in place, keeping its time stamps."""
    status = shard.stat()
    with shard.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))
