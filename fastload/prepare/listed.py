"""Files that a table or a catalogue names, each with its class: the rules that both share."""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from typing import NoReturn

from fastload.console.terminal import counted, printable
from fastload.errors import LayoutError
from fastload.prepare.folders import is_there, status_within
from fastload.prepare.found import Classes, Found, Image, Oddity
from fastload.prepare.layout import named
from fastload.prepare.reasons import Reason
from fastload.prepare.spelling import visible
from fastload.prepare.tree import Exclusions
from fastload.store.object_paths import AnyPath, ObjectPath

_LINE_BITS = 40  # of an origin; the rest is the number of the list


class Listed:
    """Collects the images that lists name.

    Args:
        paths: The lists, relative to the root.
        root: The folder that they lie in.
        exclusions: Images that are passed over.
        unit: What a place in a list is called, such as "line".

    Attributes:
        found: What was found so far.
    """

    def __init__(
        self, paths: Sequence[str], root: AnyPath, exclusions: Exclusions, unit: str
    ) -> None:
        self.paths = paths
        self.root = root
        self.exclusions = exclusions
        self.unit = unit
        self.found = Found(
            root=root,
            layout=f"listed in {named(paths)}",
            images=[],
            places={},
            classes=Classes(classes=(), class_names=(), numbers={}),
        )
        for path in paths:
            self.found.note_list(root / path)
        self._status_of = status_within(root)
        self._places: dict[str, int] = {}  # path -> place in `found.images`
        self._origins = array("q")
        self._repeats = self._missing = 0

    def within(self, number: int, line: int, given: object, path: str) -> str:
        """The path of an image relative to the root, in which it must lie.

        Args:
            number: Which list names it.
            line: Where in the list.
            given: What stands there.
            path: The path that it means.

        Raises:
            LayoutError: If it is no path, or leads out of the root.
        """
        remote = isinstance(self.root, ObjectPath)
        path = path.removeprefix(f"{self.root}/") if remote else path
        if "\0" in path or "://" in path:
            where = f"below {self.root}" if remote else "on this disk"
            self.refuse(number, line, f"names {visible(str(given))}; expected a file {where}")
        path = os.path.normpath(path)
        if path.startswith("/") and not isinstance(self.root, ObjectPath):
            path = os.path.relpath(path, self.root.absolute())
        if path.startswith(("../", "/")) or path in {"..", "."}:
            what = f"names {printable(str(given))}, which lies outside of {self.root}"
            self.refuse(number, line, f"{what}; move the list, or the images")
        return path

    def take(self, number: int, line: int, path: str, label: str, split: str) -> None:
        """Take an image, unless it is excluded, is named before, or is no file.

        Raises:
            LayoutError: If it was named before with another label or split.
        """
        if self.exclusions.match_within(path):
            return
        found = self.found
        first = self._places.setdefault(path, len(found.images))
        if first < len(found.images):
            self._repeat(number, line, found.images[first], label, split, first)
            return
        facts = self._status_of(path)
        if isinstance(facts, Oddity):
            del self._places[path]
            if not is_there(path, self.root):
                self._missing += 1
                detail = f"is named in {self.paths[number]}, {self.unit} {line:,}, but is not there"
                facts = Oddity(path, Reason.NOT_FILE, detail)
            found.oddities.append(facts)
            return
        found.images.append(Image(path, split, label, facts.st_size, facts.st_mtime_ns))
        self._origins.append(number << _LINE_BITS | line)

    def finish(self) -> Found:
        """What was found, with notes about what was passed over.

        Raises:
            LayoutError: If there is no image, or the splits are not those of one set.
        """
        self.exclusions.refuse_unused()
        found, lists = self.found, named(self.paths)
        if not found.images:
            raise LayoutError(f"none of the files that {lists} names in {self.root} is there")
        there = {image.split for image in found.images}
        if "" in there and len(there) > 1:
            raise LayoutError(f"{lists} in {self.root} gives a split to some images, not to all")
        if self._missing:
            found.notes.append(f"{self._missing:,} of the files that are named are not there")
        if self._repeats:
            found.notes.append(f"passed over, named again: {counted(self._repeats, 'file')}")
        return found

    def _repeat(
        self, number: int, line: int, first: Image, label: str, split: str, place: int
    ) -> None:
        """See that a file that is named again is named with the same label and split."""
        if (first.label, first.split) == (label, split):
            self._repeats += 1
            return
        origin = self._origins[place]
        line_before = origin & (1 << _LINE_BITS) - 1
        before = f"{self.unit} {line_before:,} of {self.paths[origin >> _LINE_BITS]}"
        what, one, other = "labels", first.label, label
        if first.label == label:
            what, one, other = "splits", first.split, split
        self.refuse(
            number,
            line,
            f"gives {printable(first.path)} the second of two {what}: {visible(other)}, and "
            f"{visible(one)} in {before}; keep one of them",
        )

    def refuse(self, number: int, line: int, what: str) -> NoReturn:
        """Refuse a list for what stands somewhere in it."""
        raise LayoutError(f"{self.root / self.paths[number]}, {self.unit} {line:,}: {what}")
