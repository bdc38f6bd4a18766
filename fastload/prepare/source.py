"""Image folders -> (path, split, label) of every file, and the names of the classes.

    scan_tree ─▶ find_layout ─▶ class folders of each split ─▶ files, labels, readable names

Only folders are opened here, and a few files whose names do not say what they are. Files of any
extension count, so that a photograph with a wrong name is noticed, not lost. Every class folder is
a class, even an empty one, so that labels do not depend on what was left out or lost.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np

from fastload import randomness
from fastload.console.shell import exclude_option
from fastload.console.terminal import counted
from fastload.errors import LayoutError
from fastload.files import explain_os_error
from fastload.prepare.class_names import classes_of, readable_names
from fastload.prepare.layout import Layout, LayoutOptions, find_layout, named
from fastload.prepare.naming import SPLITS, read_name
from fastload.prepare.reasons import Reason
from fastload.prepare.spelling import one_form, visible
from fastload.prepare.tree import Folder, looks_like_picture, scan_tree

Where: TypeAlias = str | os.PathLike[str]

_HELD_OUT = 0.1  # of each class in val, and as much in test, where the folders give no split


@dataclass(frozen=True, slots=True)
class File:
    """One file in a class folder.

    Attributes:
        path: Path relative to the source, with "/" between its parts; bytes that are not UTF-8 are
            surrogates (`os.fsdecode`).
        split: "train", "val" or "test".
        label: Position of the file's class in `Source.classes`.
        bytes: Size of the image.
        modified_ns: Time of the last change of the file that holds it, nanoseconds.
        container: Path of the file that holds the image, relative to the source; "" where that is
            `path` itself.
        offset: Of the image's first byte in that file.
    """

    path: str
    split: str
    label: int
    bytes: int
    modified_ns: int
    container: str = ""
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Oddity:
    """Something that is no file in a class folder, and should be reported.

    Attributes:
        path: Path relative to the source, as in `File`.
        reason: `Reason.NOT_FILE`, `Reason.NO_CLASS` or `Reason.UNREADABLE`.
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
        folders: Split -> the folder it was read from, in words.
        notes: What was passed over and what is doubtful, a sentence each.
        imageless: Labels of the classes that have no image in train, as far as names and first
            bytes tell.
    """

    root: Path
    layout: str
    classes: tuple[str, ...]
    class_names: tuple[str, ...]
    files: tuple[File, ...]
    oddities: tuple[Oddity, ...]
    folders: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    imageless: frozenset[int] = frozenset()

    def described(self) -> list[str]:
        """What was taken for what, a line each, before any image is read."""
        found = f"{counted(len(self.files), 'file')} of {counted(len(self.classes), 'class')}"
        lines = [f"{found}, {self.layout}"]
        for split, folder in self.folders.items():
            files = [file.label for file in self.files if file.split == split]
            classes = len(set(files))
            found = f"{counted(classes, 'class')}, {counted(len(files), 'file')}"
            lines.append(f"  {split:<6}from {folder}: {found}")
        lines.append(f"  classes: {named(self.classes)}")
        return lines + [f"  {note}" for note in self.notes]


class _Found(NamedTuple):
    """A file before its class has a number; `name` is that of its class, in one form."""

    path: str
    split: str
    name: str
    bytes: int
    modified_ns: int


def read_source(
    where: Where | Sequence[Where], *, seed: int = 0, options: LayoutOptions | None = None
) -> Source:
    """Find the layout of a folder and list its files.

    Args:
        where: The folder.
        seed: Seed of the split, where the folders give none.
        options: How to understand the folder; None decides by names and places alone.

    Raises:
        LayoutError: If there are no class folders or no files, if the folder can be read in two
            ways, or if one folder stands, by a link, in two classes or splits.
    """
    (root,) = map(Path, [where] if isinstance(where, str | os.PathLike) else where)
    try:
        return _read_source(root, seed, options or LayoutOptions())
    except OSError as error:
        raise LayoutError(explain_os_error(error)) from error


def _read_source(root: Path, seed: int, options: LayoutOptions) -> Source:
    if not root.is_dir():
        kind = "a file" if root.exists() else "not there"
        raise LayoutError(f"{root} is {kind}; expected a folder of class folders with images")
    top = scan_tree(root, exclude=options.exclude)
    layout = find_layout(top, root=root, layout=options.layout)
    _refuse_linked_twins(root, layout)
    at_top = layout.base not in layout.splits.values()
    oddities = _loops_in(layout.base) if at_top else []
    found: list[_Found] = []
    for split in layout.splits:
        found += _walk_classes(layout, split, oddities)
    classes, spellings = classes_of(layout)
    labels = {one_form(name): label for label, name in enumerate(classes)}
    files = [
        File(one.path, one.split, labels[one.name], one.bytes, one.modified_ns) for one in found
    ]
    files.sort(key=lambda file: (file.label, file.path))
    files, folders = _split_where_needed(files, layout, seed, options)
    files.sort(key=lambda file: (SPLITS.index(file.split), file.label, file.path))
    pictured = {
        labels[one_form(folder.name)]
        for split in layout.splits
        if split in {"", "train"}
        for folder in layout.class_folders(split)
        if folder.holds_images
    }
    imageless = frozenset(range(len(classes))) - pictured
    names, about_names = readable_names(root, layout, classes)
    notes = [*layout.notes, *spellings, *about_names]
    if imageless:
        lacking = named(visible(classes[label]) for label in sorted(imageless))
        notes.append(f"classes without an image in train: {lacking}")
    if "" in layout.splits and (others := _splits_beside(root)):
        notes.append(
            f"{root} is read alone, without {named(others)} beside it; did you mean {root.parent}?"
        )
    if len(classes) == 1:
        notes.append("a classifier needs more than one class")
    return Source(
        root=root,
        layout=layout.words,
        classes=classes,
        class_names=names,
        files=tuple(files),
        oddities=tuple(oddities),
        folders=folders,
        notes=tuple(notes),
        imageless=imageless,
    )


def _splits_beside(root: Path) -> list[str]:
    """Folders named after other splits beside a folder named after one: data/train was given."""
    root = root.absolute()  # of "." too
    own = read_name(root.name)
    if not own.split or own.rest or not os.access(root.parent, os.R_OK):
        return []
    beside = ((read_name(one.name), one) for one in root.parent.iterdir())
    return sorted(
        one.name
        for reading, one in beside
        if reading.split not in {"", own.split} and not reading.rest and one.is_dir()
    )


def _refuse_linked_twins(root: Path, layout: Layout) -> None:
    """Refuse one folder in two classes or splits: all its images would be duplicates."""
    places: dict[str, tuple[str, str, str]] = {}

    def link_of(path: str) -> str:
        parts = [*reversed(Path(path).parents), Path(path)][1:]
        return next((str(part) for part in parts if (root / part).is_symlink()), "")

    for split in layout.splits:
        for top in layout.class_folders(split):
            for folder in top.walk():
                name = one_form(top.name)
                first = places.setdefault(folder.real, (split, name, folder.path))
                if first[:2] != (split, name):
                    link = link_of(folder.path) or link_of(first[2])
                    raise LayoutError(
                        f"{first[2]} and {folder.path} in {root} are one folder, since a link "
                        "leads from one to the other: its images would stand in two "
                        f"{'splits' if first[1] == name else 'classes'}; remove the link, or leave "
                        f"it out with {exclude_option(link or folder.path)}"
                    )


def _walk_classes(layout: Layout, split: str, oddities: list[Oddity]) -> Iterator[_Found]:
    base = layout.splits[split]
    oddities += _loops_in(base)
    oddities += [
        Oddity(base.path_of(name), Reason.NO_CLASS, "lies outside any class folder")
        for name in base.files
        if looks_like_picture(name)
    ]
    for top in layout.class_folders(split):
        for folder in top.walk():
            yield from _files_in(folder, split, one_form(top.name), oddities)


def _files_in(folder: Folder, split: str, name: str, oddities: list[Oddity]) -> Iterator[_Found]:
    oddities += _loops_in(folder)
    for file in folder.files:
        path, place = folder.path_of(file), f"{folder.place}/{file}"
        try:
            facts = os.stat(place)  # noqa: PTH116  a Path for each file doubles the time
        except OSError as error:
            if Path(place).is_symlink():
                found = Oddity(path, Reason.NOT_FILE, f"a link to nothing ({error.strerror})")
            else:
                found = Oddity(path, Reason.UNREADABLE, f"cannot be read: {error.strerror}")
            oddities.append(found)
            continue
        if stat.S_ISREG(facts.st_mode):
            yield _Found(path, split, name, facts.st_size, facts.st_mtime_ns)
        else:
            oddities.append(Oddity(path, Reason.NOT_FILE, _kind_of(facts.st_mode)))


def _loops_in(folder: Folder) -> list[Oddity]:
    detail = "a link to a folder that contains it"
    return [Oddity(path, Reason.NOT_FILE, detail) for path in folder.loops]


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


def _split_where_needed(
    files: list[File], layout: Layout, seed: int, options: LayoutOptions
) -> tuple[list[File], dict[str, str]]:
    """The files with their splits, and where each split comes from, in words."""
    val, test = options.val_fraction, options.test_fraction
    if "" in layout.splits:
        val = _HELD_OUT if val is None else val
        test = _HELD_OUT if test is None else test
        files = split_files(files, seed=seed, val=val, test=test)
        place, said = layout.splits[""].path or "the folder", {"val": val, "test": test}
    else:
        for split, fraction in (("val", val), ("test", test)):
            if fraction is not None and split in layout.splits:
                folder = layout.splits[split].path
                raise LayoutError(
                    f"--{split}-fraction {fraction} takes {split} from train, but {folder} is "
                    f"{split} already; leave the option out, or the folder with "
                    f"{exclude_option(folder)}"
                )
        train = [file for file in files if file.split == "train"]
        others = [file for file in files if file.split != "train"]
        if val or test:
            train = split_files(train, seed=seed, val=val or 0.0, test=test or 0.0)
        files = [*train, *others]
        place, said = layout.splits["train"].path, {"val": val or 0.0, "test": test or 0.0}
    folders = {split: layout.splits[split].path for split in SPLITS if split in layout.splits}
    present = {file.split for file in files}
    for split in SPLITS:
        if split in present and split not in folders:
            share = f"{said[split]:g} of each class of " if split in said else ""
            folders[split] = f"{share}{place}"
    return files, {split: folders[split] for split in SPLITS if split in folders}


def split_files(files: Sequence[File], *, seed: int, val: float, test: float) -> list[File]:
    """Give each file a split, class by class.

    A class of three or more has at least one image in each split whose fraction is above 0; one of
    two has train and val, or test where val is 0; one of one is in train. The choice depends on the
    seed and on the sorted order of the files alone.

    Args:
        files: The files, sorted.
        seed: Another seed, another choice.
        val: Fraction of each class in val.
        test: Fraction of each class in test; with `val` below 1.
    """
    members: dict[int, list[int]] = {}
    for index, file in enumerate(files):
        members.setdefault(file.label, []).append(index)
    result = list(files)
    keys = randomness.hashes(seed, 0, np.arange(len(files)))
    for indices in members.values():
        count = len(indices)
        in_val = min(max(1, round(count * val)), count - 1) if val else 0
        in_test = min(max(1, round(count * test)), count - 1 - in_val) if test else 0
        shuffled = sorted(indices, key=keys.__getitem__)
        for rank, index in enumerate(shuffled):
            split = "val" if rank < in_val else "test" if rank < in_val + in_test else "train"
            file = files[index]  # `replace` takes three times as long
            result[index] = File(
                *(file.path, split, file.label, file.bytes, file.modified_ns),
                *(file.container, file.offset),
            )
    return result


def classes_without_training(classes: Sequence[str], files: Iterable[File]) -> list[str]:
    """Names of the classes that have none of the files in train."""
    trained = {file.label for file in files if file.split == "train"}
    return [name for label, name in enumerate(classes) if label not in trained]
