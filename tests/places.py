"""Small indexes of data in place, in the order of the pictures, without `fastload.index`."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from fastload.store.freshness import look_at_folders
from fastload.store.holders import FILE
from fastload.store.places import (
    FOLDER,
    FOLDER_NAME,
    KINDS,
    PLACE,
    PlacedSplit,
    Places,
    Tables,
    fingerprint_of,
    names_of,
    write_places,
)
from tests.shards import Picture, flat_picture, numbered


def placed(
    directory: Path, splits: Mapping[str, Sequence[Picture]], *, classes: Sequence[str]
) -> Path:
    """Write pictures as files and an index beside them; row i of a split is its picture i."""
    paths: list[str] = []
    samples = {}
    for split, pictures in splits.items():
        rows = np.zeros(len(pictures), PLACE)
        for number, picture in enumerate(pictures):
            path = f"{split}/{classes[picture.label]}/{number:06d}.jpg"
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            (directory / path).write_bytes(picture.jpeg)
            row = rows[number : number + 1]
            row["file"], row["size"], row["label"] = len(paths), len(picture.jpeg), picture.label
            row["height"], row["width"] = picture.height, picture.width
            row["crc32"], row["orientation"] = zlib.crc32(picture.jpeg), 1
            paths.append(path)
        samples[split] = rows
    folder = directory / FOLDER_NAME
    folder.mkdir(parents=True)
    names, ends = names_of(paths)
    files = np.zeros(len(paths), FILE)
    files["name_end"], files["alone"] = ends, 1
    statuses = [(directory / path).stat() for path in paths]
    files["bytes"] = [status.st_size for status in statuses]
    files["modified_ns"] = [status.st_mtime_ns for status in statuses]
    found = look_at_folders(directory, paths)
    folder_names, folder_ends = names_of(path for path, _, _ in found)
    folders = np.zeros(len(found), FOLDER)
    folders["name_end"] = folder_ends
    folders["modified_ns"] = [modified_ns for _, modified_ns, _ in found]
    folders["folders"] = [summed for _, _, summed in found]
    counts = {
        split: np.bincount(rows["label"], minlength=len(classes)) for split, rows in samples.items()
    }
    places = Places(
        source="",
        root="..",
        classes=tuple(classes),
        class_names=tuple(classes),
        splits={
            split: PlacedSplit(samples=len(rows), class_counts=tuple(counts[split].tolist()))
            for split, rows in samples.items()
        },
        options=(),
        bytes=int(files["bytes"].sum()),
        stored={KINDS[0]: len(paths)},
        cleaning={},
        fingerprint=fingerprint_of(classes, samples),
        recipe="",
    )
    tables = Tables(
        samples=samples,
        files=files,
        file_names=names,
        folders=folders,
        folder_names=folder_names,
    )
    write_places(folder, places, tables)
    return directory


def numbered_in_place(directory: Path, counts: dict[str, int], *, classes: int = 3) -> Path:
    """As `shards.numbered`: flat pictures numbered from 0; the class is number % classes."""
    splits = {
        split: [flat_picture(number, number % classes) for number in range(count)]
        for split, count in counts.items()
    }
    return placed(directory, splits, classes=[f"class {i}" for i in range(classes)])


NUMBERED: dict[str, Callable[..., Path]] = {"shards": numbered, "in place": numbered_in_place}
