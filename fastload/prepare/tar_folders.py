"""Class folders in tars, or tars that are classes themselves: the same layouts as on a disk.

data.tar             rose/1.jpg, …          one tar: what it holds is the source
train.tar, val.tar   rose/1.jpg, …          tars of splits; of several parts, put together
rose.tar, tulip.tar  1.jpg, …               tars of classes, as ImageNet's; also within a tar
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from fastload.errors import LayoutError
from fastload.prepare.folders import found_in_layout
from fastload.prepare.found import Found, Image, Oddity
from fastload.prepare.layout import LayoutOptions, find_layout, named
from fastload.prepare.naming import read_name
from fastload.prepare.reasons import Reason
from fastload.prepare.spelling import one_form
from fastload.prepare.tree import Folder, looks_like_picture
from fastload.store.object_paths import AnyPath


class Packed(NamedTuple):
    """A tar and what lies in it.

    Attributes:
        path: Path of the tar, relative to the source.
        modified_ns: Time of its last change.
        parts: Name, offset and size of each member.
    """

    path: str
    modified_ns: int
    parts: list[tuple[str, int, int]]


class _Tree:
    """Folders made of the names of members; `images` are those that lie in a folder itself."""

    def __init__(self, root: AnyPath) -> None:
        self.root = root
        self.top = Folder(str(root), "", "", str(root))
        self.images: dict[str, list[Image]] = {}
        self._within: dict[tuple[str, str], Folder] = {}

    def folder(self, above: Folder, name: str, path: str) -> Folder:
        """The folder of a name in another one."""
        key = (above.real, name)
        if key not in self._within:
            real = f"{above.real}/{name}"
            self._within[key] = Folder(str(self.root / path), path, name, real)
            above.folders.append(self._within[key])
        return self._within[key]

    def add(self, above: Folder, tar: Packed) -> None:
        """Put the members of a tar below a folder."""
        latest = {name: (offset, size) for name, offset, size in tar.parts}
        for name, (offset, size) in latest.items():
            folder, path = above, tar.path
            *steps, last = name.split("/")
            for step in filter(None, steps):
                path = f"{path}/{step}"
                inner = step[:-4] if step.lower().endswith(".tar") else step
                folder = self.folder(folder, inner, path)
            self.images.setdefault(folder.real, []).append(
                Image(f"{tar.path}/{name}", "", "", size, tar.modified_ns, tar.path, offset)
            )
            folder.pictures += looks_like_picture(last)

    def finish(self) -> Folder:
        """Sort the folders, and see which hold images."""
        for folder in reversed(list(self.top.walk())):  # a folder stands before those in it
            folder.folders.sort(key=lambda one: one.name)
            folder.holds_images = folder.pictures > 0 or bool(folder.with_images())
        return self.top


def find_in_packed_folders(tars: Sequence[Packed], found: Found, options: LayoutOptions) -> Found:
    """Find the layout of the folders in tars.

    Args:
        tars: The tars, sorted by path.
        found: What is known of the source: its root, and oddities.
        options: How to understand it.

    Raises:
        LayoutError: If there are no class folders, or there are two readings.
    """
    tree = _Tree(found.root)
    tars = [tar for tar in tars if tar.parts] or tars
    alike = Counter(_without_numbers(tar.path) for tar in tars)
    for tar in tars:
        tree.add(_place_of(tar, alike, tree) if len(tars) > 1 else tree.top, tar)
    where = found.root / tars[0].path if len(tars) == 1 else found.root
    layout = find_layout(tree.finish(), root=where, layout=options.layout)
    images: list[Image] = []
    oddities = list(found.oddities)
    for split, base in layout.splits.items():
        oddities += [
            Oddity(image.path, Reason.NO_CLASS, "lies outside any class folder")
            for image in tree.images.get(base.real, [])
            if looks_like_picture(image.path)
        ]
        for top in layout.class_folders(split):
            label = one_form(top.name)
            images += [
                image._replace(split=split, label=label)
                for folder in top.walk()
                for image in tree.images.get(folder.real, [])
            ]
    replaced = [name for tar in tars for name in _replaced(tar)]
    result = found_in_layout(layout, root=found.root, images=images)
    result.layout = f"{layout.words} in {tars[0].path if len(tars) == 1 else f'{len(tars):,} tars'}"
    result.oddities = oddities
    result.notes = [*found.notes, *result.notes]
    if len(tars) == 1 and "" in result.places and (split := read_name(_stem_of(tars[0])).split):
        result.notes.append(f"{tars[0].path} is read alone and split, though its name says {split}")
    if replaced:
        result.notes.append(f"passed over, replaced later in their tar: {named(replaced)}")
    result.walked = False
    return result


def _replaced(tar: Packed) -> list[str]:
    """Members that `tar -r` or `tar -u` has added again: the last of a name counts."""
    times = Counter(name for name, _, _ in tar.parts)
    return [f"{tar.path}/{name}" for name, count in times.items() if count > 1]


def _without_numbers(path: str) -> str:
    return re.sub(r"\d+", "#", path)


def _stem_of(tar: Packed) -> str:
    name = tar.path.rpartition("/")[2]
    return name[:-4] if name.lower().endswith(".tar") else name


def _place_of(tar: Packed, alike: Counter[str], tree: _Tree) -> Folder:
    """The folder that the members of a tar lie in.

    Args:
        tar: The tar.
        alike: Path without its numbers -> how many tars have such a path.
        tree: What the folder is part of.
    """
    steps = tar.path.split("/")[:-1]
    above = tree.top
    for place, step in enumerate(steps):
        above = tree.folder(above, step, "/".join(steps[: place + 1]))
    stem = _stem_of(tar)
    if _is_flat(tar):
        many = alike[_without_numbers(tar.path)] > 1
        named_after = all(member.startswith(f"{stem}_") for member, _, _ in tar.parts)
        if read_name(stem).split or (many and not named_after):
            _refuse_part(tar)
        return tree.folder(above, stem, tar.path)
    split = read_name(stem).split
    return tree.folder(above, split, tar.path) if split else above


def _is_flat(tar: Packed) -> bool:
    """Whether images lie in a tar itself, so that the tar is their class."""
    return any("/" not in name and looks_like_picture(name) for name, _, _ in tar.parts)


def _refuse_part(tar: Packed) -> NoReturn:
    """Refuse a tar that is part of a set by its name; ImageNet's classes have such names too."""
    raise LayoutError(
        f"{tar.path} holds images without labels: no .cls or .json beside them, no class "
        "folders, and its name is no class; expected KEY.jpg with KEY.cls, or CLASS/image.jpg"
    )
