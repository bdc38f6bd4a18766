"""Image folders -> (path, split, label) of every file, and the names of the classes.

    {train,val,test}/CLASS/…          images/{train,val,test}/CLASS/…
    images_{train,val,test}/CLASS/…   CLASS/…  (split here: stratified, seeded)

Only folders are opened here. Files of any extension count, so that a photograph with a wrong name
is noticed, not lost; hidden files and what file managers leave behind are passed over. Links to
files and folders are followed; a folder that contains itself is not entered again.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fastload import randomness
from fastload.errors import LayoutError
from fastload.files import explain_os_error
from fastload.prepare.reasons import Reason

SPLITS = ("train", "val", "test")
_SPELLINGS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin"})
_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".heic")
_PLANTNET_NAMES = "plantnet300K_species_id_2_name.json"
_HELD_OUT = 0.1  # of each class in val, and as much in test, where the folders give no split


@dataclass(frozen=True, slots=True)
class File:
    """One file in a class folder.

    Attributes:
        path: Path relative to the source, with "/" between its parts; bytes that are not UTF-8 are
            surrogates (`os.fsdecode`).
        split: "train", "val" or "test".
        label: Position of the file's class in `Source.classes`.
        bytes: Size of the file.
        modified_ns: Time of the last change, nanoseconds.
    """

    path: str
    split: str
    label: int
    bytes: int
    modified_ns: int


@dataclass(frozen=True, slots=True)
class Oddity:
    """Something that is no file in a class folder, and should be reported.

    Attributes:
        path: Path relative to the source, as in `File`.
        reason: `Reason.NOT_FILE` or `Reason.NO_CLASS`.
        detail: What was found.
    """

    path: str
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a folder holds.

    Attributes:
        root: The folder.
        layout: How the folder was understood, in words.
        classes: Names of the class folders, sorted by code point, as ImageFolder sorts them.
        class_names: Readable names of the classes, in the same order.
        files: The files, sorted by split, label and path.
        oddities: What was found beside the files.
    """

    root: Path
    layout: str
    classes: tuple[str, ...]
    class_names: tuple[str, ...]
    files: tuple[File, ...]
    oddities: tuple[Oddity, ...]


@dataclass(frozen=True, slots=True)
class _Found:
    """A file before its class has a number; `name` is that of its class."""

    path: str
    split: str
    name: str
    bytes: int
    modified_ns: int


def read_source(root: str | os.PathLike[str], *, seed: int = 0) -> Source:
    """Find the layout of a folder and list its files.

    Args:
        root: The folder.
        seed: Seed of the split, where the folders give none.

    Raises:
        LayoutError: If there are no class folders or no files, or a class has files in val or
            test but none in train.
    """
    root = Path(root)
    try:
        return _read_source(root, seed)
    except OSError as error:
        raise LayoutError(explain_os_error(error)) from error


def _read_source(root: Path, seed: int) -> Source:
    if not root.is_dir():
        kind = "a file" if root.exists() else "not there"
        raise LayoutError(f"{root} is {kind}; expected a folder of class folders with images")
    split_folders, layout = _find_splits(root)
    oddities: list[Oddity] = []
    found: list[_Found] = []
    for split, folder in split_folders:
        found += _walk_classes(root, folder, split, oddities)
    if not found:
        raise LayoutError(_nothing_found(root, oddities))
    classes = tuple(sorted({one.name for one in found}))
    labels = {name: label for label, name in enumerate(classes)}
    files = [
        File(one.path, one.split, labels[one.name], one.bytes, one.modified_ns) for one in found
    ]
    files.sort(key=lambda file: (file.label, file.path))
    if [split for split, _ in split_folders] == [""]:
        _refuse_one_folder(root, found)
        files = split_files(files, seed=seed)
    files.sort(key=lambda file: (SPLITS.index(file.split), file.label, file.path))
    return Source(
        root=root,
        layout=layout,
        classes=classes,
        class_names=_readable_names(root, classes),
        files=tuple(files),
        oddities=tuple(oddities),
    )


def _find_splits(root: Path) -> tuple[list[tuple[str, str]], str]:
    """(split, folder relative to root) of each split, or [("", folder)]; the layout in words."""
    folders = {entry.name for entry in _entries(root) if _is_folder(entry)}
    direct = _splits_among(folders, "")
    joined = _splits_among(folders, "images_")
    inner: dict[str, str] = {}
    if "images" in folders:
        names = {entry.name for entry in _entries(root / "images") if _is_folder(entry)}
        inner = {split: f"images/{name}" for split, name in _splits_among(names, "").items()}
    for found, pattern in (
        (direct, "{split}/CLASS"),
        (inner, "images/{split}/CLASS"),
        (joined, "images_{split}/CLASS"),
    ):
        if found:
            if "train" not in found:
                named = " and ".join(split for split in SPLITS if split in found)
                raise LayoutError(
                    f"{root} has a folder for {named} but none for train; "
                    "add one, or rename the folders if they are classes"
                )
            splits = [(split, found[split]) for split in SPLITS if split in found]
            named = ", ".join(split for split, _ in splits)
            return splits, f"{pattern.format(split='{' + named + '}')}"
    plain = "images" if folders == {"images"} else ""
    return [("", plain)], f"{'images/' if plain else ''}CLASS, split by fastload"


def _splits_among(folders: set[str], prefix: str) -> dict[str, str]:
    """Split -> folder name, for the folders that are named after a split."""
    found: dict[str, str] = {}
    for name in sorted(folders):
        split = _SPELLINGS.get(name.removeprefix(prefix).lower())
        if split and name.startswith(prefix):
            if split in found:
                raise LayoutError(
                    f"{found[split]} and {name} both name the {split} split; rename one of them"
                )
            found[split] = name
    return found


def _walk_classes(root: Path, folder: str, split: str, oddities: list[Oddity]) -> Iterator[_Found]:
    for entry in _entries(root / folder):
        path = f"{folder}/{entry.name}" if folder else entry.name
        if _is_folder(entry):
            yield from _walk(root, path, split, entry.name, oddities)
        elif _looks_like_picture(entry.name):
            oddities.append(Oddity(path, Reason.NO_CLASS, "lies outside any class folder"))


def _walk(root: Path, top: str, split: str, name: str, oddities: list[Oddity]) -> Iterator[_Found]:
    """Every file below a class folder, at any depth, as ImageFolder finds them."""
    stack = [(top, frozenset[tuple[int, int]]())]
    while stack:
        folder, ancestors = stack.pop()
        status = (root / folder).stat()
        identity = (status.st_dev, status.st_ino)
        if identity in ancestors:
            oddities.append(Oddity(folder, Reason.NOT_FILE, "a link to a folder that contains it"))
            continue
        for entry in _entries(root / folder):
            path = f"{folder}/{entry.name}"
            if _is_folder(entry):
                stack.append((path, ancestors | {identity}))
                continue
            try:
                facts = entry.stat()
            except OSError as error:
                oddities.append(
                    Oddity(path, Reason.NOT_FILE, f"a link to nothing ({error.strerror})")
                )
                continue
            if stat.S_ISREG(facts.st_mode):
                yield _Found(path, split, name, facts.st_size, facts.st_mtime_ns)
            else:
                oddities.append(Oddity(path, Reason.NOT_FILE, _kind_of(facts.st_mode)))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted((e for e in entries if not _litter(e)), key=lambda entry: entry.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _litter(entry: os.DirEntry[str]) -> bool:
    return entry.name.startswith(".") or entry.name.lower() in _LITTER


def _looks_like_picture(name: str) -> bool:
    return name.lower().endswith(_PICTURES)


def _kind_of(mode: int) -> str:
    for test, words in (
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    ):
        if test(mode):
            return words
    return "no regular file"


def _nothing_found(root: Path, oddities: Sequence[Oddity]) -> str:
    loose = sum(oddity.reason is Reason.NO_CLASS for oddity in oddities)
    if loose:
        return (
            f"{root} holds {loose:,} images but no class folders; "
            "put the images of each class in a folder named after it"
        )
    return f"{root} holds no images; expected CLASS/image.jpg or train/CLASS/image.jpg"


def _refuse_one_folder(root: Path, found: Sequence[_Found]) -> None:
    """Refuse one class whose images all lie in folders: the user meant the folder of that class."""
    names = {one.name for one in found}
    inner = next(one.path[: one.path.index(f"{one.name}/") + len(one.name)] for one in found)
    if len(names) == 1 and all("/" in one.path.removeprefix(f"{inner}/") for one in found):
        raise LayoutError(
            f"{root} holds one folder, and that holds the class folders; "
            f"did you mean {root / inner}?"
        )


def split_files(files: Sequence[File], *, seed: int) -> list[File]:
    """Give each file a split: of each class a tenth to val and a tenth to test.

    A class of three or more has at least one image in each split; one of two has train and val; one
    of one is in train. The choice depends on the seed and on the sorted order of the files alone.
    """
    members: dict[int, list[int]] = {}
    for index, file in enumerate(files):
        members.setdefault(file.label, []).append(index)
    result = list(files)
    keys = randomness.hashes(seed, 0, np.arange(len(files)))
    for indices in members.values():
        held_out = max(1, round(len(indices) * _HELD_OUT))
        val, test = (held_out, held_out) if len(indices) > 2 else (len(indices) - 1, 0)
        shuffled = sorted(indices, key=keys.__getitem__)
        for rank, index in enumerate(shuffled):
            split = "val" if rank < val else "test" if rank < val + test else "train"
            result[index] = replace(files[index], split=split)
    return result


def classes_without_training(classes: Sequence[str], files: Iterable[File]) -> list[str]:
    """Names of the classes that have none of the files in train."""
    trained = {file.label for file in files if file.split == "train"}
    return [name for label, name in enumerate(classes) if label not in trained]


def _readable_names(root: Path, classes: Sequence[str]) -> tuple[str, ...]:
    """Pl@ntNet's species names for its folder names, where its table lies beside the images."""
    for folder in (root, root.parent):
        path = folder / _PLANTNET_NAMES
        if not path.is_file():
            continue
        try:
            table = json.loads(path.read_bytes())
            return tuple(str(table.get(name, name)) for name in classes)
        except (ValueError, AttributeError) as error:
            raise LayoutError(
                f"{path} is not a table of species names ({error}); repair or remove it"
            ) from error
    return tuple(classes)
