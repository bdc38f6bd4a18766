"""What a source holds, before its classes have numbers: images, and where each split comes from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from fastload.prepare.reasons import Reason
from fastload.store.object_paths import AnyPath, path_from


class Image(NamedTuple):
    """One image; the fields are those of `source.File`, but for the label.

    Attributes:
        split: "train", "val", "test", or "" where the source has no splits.
        label: What the source says of the class: the name of a folder, a number, a name; "" where
            it says nothing.
    """

    path: str
    split: str
    label: str
    bytes: int
    modified_ns: int
    container: str = ""
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Oddity:
    """Something that is no image with a class, and should be reported.

    Attributes:
        path: Path relative to the source, as in `source.File`.
        reason: `Reason.NOT_FILE`, `Reason.NO_CLASS` or `Reason.UNREADABLE`.
        detail: What was found.
    """

    path: str
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Classes:
    """The classes of a source.

    Attributes:
        classes: Names of the classes; the label of a class is its place here.
        class_names: Readable names, in the same order.
        numbers: What `Image.label` says -> the label.
        notes: What is doubtful, a sentence each.
    """

    classes: tuple[str, ...]
    class_names: tuple[str, ...]
    numbers: dict[str, int]
    notes: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True)
class Found:
    """What a source holds.

    Attributes:
        root: The folder that the paths are relative to.
        layout: How the source was understood, in words.
        images: The images, in any order.
        places: Split -> where it lies, in words; the one key "" where there are no splits.
        classes: The classes.
        oddities: What was found beside the images.
        notes: What was passed over and what is doubtful, a sentence each.
        pictured: The labels, as `Image` has them, of which train has an image, or any split
            where there is no train.
        walked: Whether all that lies in the root belongs to the source, so that nothing may be
            written there.
        lists: Path, bytes and time of each file that tells labels and holds no image.
    """

    root: AnyPath
    layout: str
    images: list[Image]
    places: dict[str, str]
    classes: Classes
    oddities: list[Oddity] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    pictured: set[str] = field(default_factory=set)
    walked: bool = False
    lists: list[tuple[str, int, int]] = field(default_factory=list)

    def note_list(self, path: AnyPath) -> None:
        """Keep what a file is that tells labels, so that it is noticed when it changes."""
        status = path.stat()
        fact = (path_from(self.root, path), status.st_size, status.st_mtime_ns)
        if fact not in self.lists:
            self.lists.append(fact)
