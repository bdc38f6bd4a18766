"""Small indexes of data in place, in the order of the pictures, without `fastload.index`."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    files = np.zeros(len(paths), FILE)
    statuses = [(directory / path).stat() for path in paths]
    files["bytes"] = [status.st_size for status in statuses]
    files["modified_ns"] = [status.st_mtime_ns for status in statuses]
    files["alone"] = 1
    return index_by_hand(directory, samples, files, paths, classes=classes)


def index_by_hand(
    directory: Path,
    samples: dict[str, NDArray[np.void]],
    files: NDArray[np.void],
    paths: Sequence[str],
    *,
    classes: Sequence[str],
    **facts: Any,
) -> Path:
    """Write an index of these rows beside the data; `facts` replace those that follow from them."""
    folder = directory / FOLDER_NAME
    folder.mkdir(parents=True, exist_ok=True)
    names, files["name_end"] = names_of(paths)
    found = look_at_folders(directory, paths)
    folder_names, folder_ends = names_of(path for path, _, _ in found)
    folders = np.zeros(len(found), FOLDER)
    folders["name_end"] = folder_ends
    folders["modified_ns"] = [modified_ns for _, modified_ns, _ in found]
    folders["folders"] = [summed for _, _, summed in found]
    splits = {
        split: PlacedSplit(
            samples=len(rows),
            class_counts=tuple(np.bincount(rows["label"], minlength=len(classes)).tolist()),
        )
        for split, rows in samples.items()
        if not len(rows) or rows["label"].min() >= 0
    }
    places = Places(
        source=(".",),
        root="..",
        classes=tuple(classes),
        class_names=tuple(classes),
        splits=splits,
        options=(),
        bytes=sum(int(rows["size"].sum()) for rows in samples.values()),
        stored={KINDS[0]: sum(map(len, samples.values()))},
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
    write_places(folder, replace(places, **facts), tables)
    return directory


def rewrite_names(directory: Path, files: NDArray[np.void], names: bytes) -> None:
    """Replace the list of files of an index, whatever its paths are, with digests that fit."""
    facts = json.loads((directory / FOLDER_NAME / "index.json").read_text())
    folder = directory / FOLDER_NAME / facts["folder"]
    (folder / "files").write_bytes(names)
    np.save(folder / "files.npy", files)
    for name in ("files", "files.npy"):
        digest = hashlib.blake2b((folder / name).read_bytes(), digest_size=16)
        facts["digests"][name] = digest.hexdigest()
    (directory / FOLDER_NAME / "index.json").write_text(json.dumps(facts))


def million(directory: Path, count: int = 1_000_000, classes: int = 1000) -> Path:
    """An index of files that do not exist."""
    rows, files = np.zeros(count, PLACE), np.zeros(count, FILE)
    labels = [f"c{label:03d}" for label in range(classes)]
    paths = [f"train/{labels[i * classes // count]}/{i:07d}.jpg" for i in range(count)]
    for label in labels:
        (directory / "train" / label).mkdir(parents=True)
    rows["file"] = np.arange(count)
    rows["label"] = np.arange(count) * classes // count
    rows["size"] = files["bytes"] = 43_000
    rows["height"], rows["width"], rows["orientation"] = 375, 500, 1
    files["alone"] = 1
    return index_by_hand(directory, {"train": rows}, files, paths, classes=labels)


def numbered_in_place(directory: Path, counts: dict[str, int], *, classes: int = 3) -> Path:
    """As `shards.numbered`: flat pictures numbered from 0; the class is number % classes."""
    splits = {
        split: [flat_picture(number, number % classes) for number in range(count)]
        for split, count in counts.items()
    }
    return placed(directory, splits, classes=[f"class {i}" for i in range(classes)])


NUMBERED: dict[str, Callable[..., Path]] = {"shards": numbered, "in place": numbered_in_place}
