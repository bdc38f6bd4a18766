"""Class folders -> the images in them: `find_in_folders`.

    scan_tree ─▶ find_layout ─▶ class folders of each split ─▶ images, classes, readable names

Only folders are opened here, and a few files whose names do not say what they are. Files of any
extension count, so that a photograph with a wrong name is noticed, not lost. Every class folder is
a class, even an empty one, so that labels do not depend on what was left out or lost.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeAlias

from fastload.console.shell import exclude_option
from fastload.errors import LayoutError
from fastload.prepare.class_names import classes_of, folders_above, readable_names
from fastload.prepare.found import Classes, Found, Image, Oddity
from fastload.prepare.layout import Layout, LayoutOptions, find_layout
from fastload.prepare.naming import splits_for_classes
from fastload.prepare.reasons import Reason
from fastload.prepare.spelling import one_form
from fastload.prepare.tree import Folder, looks_like_picture
from fastload.store.object_paths import AnyPath, ObjectPath, ObjectStatus

Status: TypeAlias = os.stat_result | ObjectStatus


def find_in_folders(top: Folder, *, root: AnyPath, options: LayoutOptions) -> Found:
    """Find the layout of a folder and list its files.

    Args:
        top: The folder, scanned.
        root: Its path.
        options: How to understand it.

    Raises:
        LayoutError: If there are no class folders, if the folder can be read in two ways, or if
            one folder stands, by a link, in two classes or splits.
    """
    layout = find_layout(top, root=root, layout=options.layout)
    _refuse_linked_twins(root, layout)
    at_top = layout.base not in layout.splits.values()
    oddities = _loops_in(layout.base) if at_top else []
    images: list[Image] = []
    for split in layout.splits:
        images += _walk_classes(layout, split, root, oddities)
    found = found_in_layout(layout, root=root, images=images)
    found.oddities = oddities
    return found


def found_in_layout(layout: Layout, *, root: AnyPath, images: list[Image]) -> Found:
    """What class folders hold, whether they lie on a disk, in an object store or in tars.

    Args:
        layout: Which folder is what.
        root: The source.
        images: The images; the label of each is the name of its class folder, in one form.
    """
    classes, spellings = classes_of(layout)
    folders, beside = folders_above(root, layout), [root.resolve().parent]
    names, about_names = readable_names(folders, beside, classes)
    return Found(
        root=root,
        layout=layout.words,
        images=images,
        places={split: folder.path for split, folder in layout.splits.items()},
        classes=Classes(
            classes=classes,
            class_names=names,
            numbers={one_form(name): label for label, name in enumerate(classes)},
        ),
        notes=[*layout.notes, *spellings, *about_names],
        pictured={
            one_form(folder.name)
            for split in layout.splits
            if split in splits_for_classes(layout.splits)
            for folder in layout.class_folders(split)
            if folder.holds_images
        },
        walked=True,
    )


def _refuse_linked_twins(root: AnyPath, layout: Layout) -> None:
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


def _walk_classes(
    layout: Layout, split: str, root: AnyPath, oddities: list[Oddity]
) -> Iterator[Image]:
    base = layout.splits[split]
    oddities += _loops_in(base)
    oddities += [
        Oddity(base.path_of(name), Reason.NO_CLASS, "lies outside any class folder")
        for name in base.files
        if looks_like_picture(name)
    ]
    status_of = status_within(root)
    for top in layout.class_folders(split):
        name = one_form(top.name)
        for folder in top.walk():
            oddities += _loops_in(folder)
            for file in folder.files:
                path = folder.path_of(file)
                facts = status_of(path)
                if isinstance(facts, Oddity):
                    oddities.append(facts)
                else:
                    yield Image(path, split, name, facts.st_size, facts.st_mtime_ns)


def status_within(root: AnyPath) -> Callable[[str], Status | Oddity]:
    """What tells of a path relative to a source: its status if it is a regular file, or why not."""
    if isinstance(root, ObjectPath):
        return partial(_object_status, root)
    return partial(_file_status, f"{root}/")


def _object_status(root: ObjectPath, path: str) -> ObjectStatus | Oddity:
    try:
        return (root / path).stat()
    except FileNotFoundError:
        return Oddity(path, Reason.NOT_FILE, "there is no such object")


def _file_status(before: str, path: str) -> os.stat_result | Oddity:
    place = before + path
    try:
        facts = os.stat(place)  # noqa: PTH116  a Path for each file doubles the time
    except OSError as error:
        if Path(place).is_symlink():
            return Oddity(path, Reason.NOT_FILE, f"a link to nothing ({error.strerror})")
        return Oddity(path, Reason.UNREADABLE, f"cannot be read: {error.strerror}")
    if stat.S_ISREG(facts.st_mode):
        return facts
    return Oddity(path, Reason.NOT_FILE, _kind_of(facts.st_mode))


def is_there(path: str, root: AnyPath) -> bool:
    """Whether something has this path relative to the source, be it a link to nothing."""
    if isinstance(root, ObjectPath):
        return (root / path).exists()
    return os.path.lexists(f"{root}/{path}")


def _loops_in(folder: Folder) -> list[Oddity]:
    detail = "a link to a folder that contains it"
    return [Oddity(path, Reason.NOT_FILE, detail) for path in folder.loops]


def _kind_of(mode: int) -> str:
    for test, words in (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    ):
        if test(mode):
            return words
    return "no regular file"
