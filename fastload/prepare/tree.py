"""A folder and all below it, listed once: `scan_tree`. Nothing is judged here.

The folder lies on a disk, or in an object store, where the names of objects make the folders.

Links to files and folders are followed. A folder that contains itself is not entered again, and a
link to a folder above the source is not entered at all. Hidden names and what systems and file
managers leave behind are passed over wherever they lie, unopened: they may be unreadable.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path

from fastload.errors import LayoutError
from fastload.files import explain_os_error
from fastload.prepare.formats import format_named, sniff_format
from fastload.prepare.spelling import one_form
from fastload.store.object_paths import AnyPath, ObjectPath, first_bytes

# Names of systems, in lower case: recycle bins, snapshots and indexes of Windows, macOS and network
# storage (QNAP, Synology, NetApp), what fsck, Python and npm write.
_SYSTEM_NAMES = """
    thumbs.db ehthumbs.db desktop.ini __macosx $recycle.bin recycler lost+found lost.dir
    #recycle #snapshot @recycle @recently-snapshot @snapshot @snapshots @eadir @sharebin @tmp
    @transcode ~snapshot _gsdata_ aquota.user aquota.group quota.user quota.group __pycache__
    node_modules
"""
_NAMES_WITH_SPACES = {"system volume information", "network trash folder", "temporary items"}
_SYSTEM = frozenset(_SYSTEM_NAMES.split()) | _NAMES_WITH_SPACES | {"icon\r"}
_CHECKED_DISK = re.compile(r"found\.\d{3}")  # chkdsk's folders
_MORE_PICTURES = frozenset({"heic", "heif", "jxl", "ppm", "pgm", "pnm", "psd"})
_SNIFFED_FILES = 8  # of a folder in which no name is that of an image
_MAGIC_BYTES = 16
_SNIFFED_FORMATS = frozenset(
    {"JPEG", "PNG", "GIF", "WEBP", "TIFF", "AVIF", "HEIC", "JPEG2000", "JPEG XL"}
)  # those whose first bytes no text has


@dataclass(slots=True)
class Folder:
    """A folder with what lies in it.

    Attributes:
        place: The path to open it by, or its address.
        path: Path relative to the source, with "/" between its parts; "" for the source itself.
        name: The last part of the path.
        real: The path without links: two paths to one folder have the same. Inodes would not do: on
            some file systems in user space all folders have one.
        files: Names of what is no folder, sorted: files, pipes, links to nothing.
        folders: The folders in it, sorted by name.
        loops: Paths of links in it that lead to a folder that contains them.
        pictures: How many of the files are images by their names, or, where none is, by the
            first bytes of some of them.
        holds_images: Whether it or a folder below it has pictures.
    """

    place: str
    path: str
    name: str
    real: str
    files: list[str] = field(default_factory=list)
    folders: list[Folder] = field(default_factory=list)
    loops: list[str] = field(default_factory=list)
    pictures: int = 0
    holds_images: bool = False

    def path_of(self, name: str) -> str:
        """Path of something in it, relative to the source."""
        return f"{self.path}/{name}" if self.path else name

    def with_images(self) -> list[Folder]:
        """The folders in it that hold images."""
        return [folder for folder in self.folders if folder.holds_images]

    def walk(self) -> Iterator[Folder]:
        """The folder and every folder below it."""
        stack = [self]
        while stack:
            folder = stack.pop()
            yield folder
            stack += folder.folders


def scan_tree(root: AnyPath, exclusions: Exclusions) -> Folder:
    """List a folder and all below it.

    Args:
        root: The folder.
        exclusions: What is passed over.

    Raises:
        LayoutError: If a folder cannot be read.
        ShardError: If objects cannot be listed, or a first byte of one cannot be read.
        StalledError: If the object store does not answer.
    """
    if isinstance(root, ObjectPath):
        return _scan_objects(root, exclusions)
    top = Folder(str(root), "", "", os.path.realpath(root))
    stack: list[tuple[Folder, tuple[str, ...]]] = [(top, ())]  # with real paths left by links
    entered = []
    while stack:
        folder, left = stack.pop()
        entered.append(folder)
        for entry in _entries(folder.place):
            path = folder.path_of(entry.name)
            if exclusions.match(path, entry.name) or is_litter(entry.name):
                continue
            if not _is_folder(entry):
                folder.files.append(entry.name)
            elif not entry.is_symlink():
                real = f"{folder.real.rstrip('/')}/{entry.name}"
                folder.folders.append(Folder(entry.path, path, entry.name, real))
                stack.append((folder.folders[-1], left))
            elif _contains(real := os.path.realpath(entry.path), (folder.real, *left)):
                folder.loops.append(path)
            else:
                folder.folders.append(Folder(entry.path, path, entry.name, real))
                stack.append((folder.folders[-1], (folder.real, *left)))
    for folder in entered:
        folder.pictures = _count_pictures(folder)
    _note_images(entered)
    return top


def _scan_objects(root: ObjectPath, exclusions: Exclusions) -> Folder:
    """As `scan_tree`: what the names of objects make of folders."""
    top = Folder(str(root), "", "", str(root))
    stack, entered = [(top, root)], []
    while stack:
        folder, place = stack.pop()
        entered.append(folder)
        for entry in sorted(place.iterdir(), key=lambda entry: entry.name):
            path = folder.path_of(entry.name)
            if exclusions.match(path, entry.name) or is_litter(entry.name):
                continue
            if not entry.is_dir():
                folder.files.append(entry.name)
                continue
            folder.folders.append(Folder(str(entry), path, entry.name, str(entry)))
            stack.append((folder.folders[-1], entry))
    doubtful = []
    for folder in entered:
        folder.pictures = sum(map(looks_like_picture, folder.files))
        if not folder.pictures:
            doubtful += [(folder, root / folder.path_of(name)) for name in _first_of(folder)]
    for (folder, _), begin in zip(
        doubtful, first_bytes([place for _, place in doubtful], _MAGIC_BYTES), strict=True
    ):
        folder.pictures += sniff_format(begin) in _SNIFFED_FORMATS
    _note_images(entered)
    return top


def _note_images(entered: Sequence[Folder]) -> None:
    """Note which folders hold images, or have one below them that does."""
    for folder in reversed(entered):  # a folder comes behind those that contain it
        folder.holds_images = folder.pictures > 0 or bool(folder.with_images())


class Exclusions:
    """What the user wants passed over; each of it must be there.

    Args:
        given: Names, relative paths or patterns, as in a shell.
        root: The source.
    """

    def __init__(self, given: Sequence[str], root: AnyPath) -> None:
        self.root = root
        self.patterns = {one: _pattern_of(one, root) for one in given}
        self.unused = dict(self.patterns)

    def match(self, path: str, name: str) -> bool:
        """Whether a path or its last part is excluded."""
        if not self.patterns:
            return False
        path, name = one_form(path), one_form(name)
        found = [
            given
            for given, pattern in self.patterns.items()
            if pattern in (name, path) or fnmatchcase(name, pattern) or fnmatchcase(path, pattern)
        ]
        for given in found:
            self.unused.pop(given, None)
        return bool(found)

    def match_within(self, path: str) -> bool:
        """Whether a path, or a folder that it names, is excluded."""
        parts = path.split("/") if self.patterns else []
        return any(
            self.match("/".join(parts[: place + 1]), part) for place, part in enumerate(parts)
        )

    def refuse_unused(self) -> None:
        """See that nothing was misspelled.

        Raises:
            LayoutError: If an exclusion has matched nothing.
        """
        for given in self.unused:
            raise LayoutError(
                f"--exclude {given} matches nothing in {self.root}; check the spelling"
            )


def is_litter(name: str) -> bool:
    """Whether a system or a file manager, not a person, gives this name."""
    lower = name.lower()
    if lower.startswith((".", "found.")):
        return lower[0] == "." or bool(_CHECKED_DISK.fullmatch(lower))
    return lower in _SYSTEM


def looks_like_picture(name: str) -> bool:
    """Whether the extension is that of an image."""
    return "." in name and _is_of_picture(name.rpartition(".")[2].lower())


@lru_cache
def _is_of_picture(extension: str) -> bool:
    return extension in _MORE_PICTURES or bool(format_named(extension))


def _pattern_of(given: str, root: AnyPath) -> str:
    """The pattern relative to the source: a shell completes `data/val/` where `val` is meant."""
    pattern = os.path.normpath(given)
    return one_form(pattern.removeprefix(f"{os.path.normpath(str(root))}/"))


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except PermissionError as error:
        raise LayoutError(
            f"{folder} cannot be read: permission was denied; change its permissions, or leave it "
            "out with --exclude"
        ) from error
    except OSError as error:
        raise LayoutError(explain_os_error(error)) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _contains(folder: str, others: Iterable[str]) -> bool:
    """Whether one of the others is the folder or lies in it."""
    return any(f"{other}/".startswith(f"{folder.rstrip('/')}/") for other in others)


def _count_pictures(folder: Folder) -> int:
    named = sum(map(looks_like_picture, folder.files))
    first = (Path(folder.place, name) for name in _first_of(folder))
    return named or sum(map(_begins_like_picture, first))


def _first_of(folder: Folder) -> list[str]:
    """The files that are looked into where no name is that of an image."""
    return folder.files[:_SNIFFED_FILES]


def _begins_like_picture(path: Path) -> bool:
    try:
        if not path.is_file():
            return False
        with path.open("rb", buffering=0) as file:
            return sniff_format(file.read(_MAGIC_BYTES)) in _SNIFFED_FORMATS
    except OSError:  # the cleaner will say what is wrong with it
        return False
