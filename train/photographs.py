"""The photographs that a user names: files, folders, shards, tars, tables.

    words -> places -> one Photograph for each image, in the order of the words, sorted within one

Nothing is opened but what lists images. What is named and cannot be read is a Photograph too.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastload.errors import FastloadError, ImageError, LayoutError, ShardError
from fastload.files import explain_os_error, open_regular
from fastload.prepare.formats import sniff_format
from fastload.prepare.given import Kind, kind_of, places_of, refuse_addresses
from fastload.prepare.naming import SPLITS, read_name
from fastload.prepare.reading import read_bytes
from fastload.prepare.source import File, read_source
from fastload.prepare.tables import rows_of_table
from fastload.prepare.tar_members import TarFile
from fastload.prepare.transcode import why_too_large
from fastload.prepare.tree import is_litter, looks_like_picture
from fastload.store.collection import open_collection, read_contents
from fastload.store.manifest import MANIFEST_NAME
from fastload.store.places import find_index
from fastload.store.reader import FileReader, Scratch

# What Pillow opens besides the formats that shards take.
_MORE_PICTURES = frozenset(
    (*(".qoi", ".tga", ".ico", ".icns", ".pcx", ".sgi", ".dds"), *(".pbm", ".xbm", ".xpm"))
)


class PhotographsError(FastloadError):
    """What was named holds no photographs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Photograph:
    """One image, not read yet.

    Attributes:
        name: What it is called in the answers: its path as the user gave it.
        read: Gives all bytes of the image, or raises an OSError or FastloadError.
        truth: The name of its class, as the source says it; "" where it says nothing.
        split: "train", "val" or "test"; "" where the source has no splits.
    """

    name: str
    read: Callable[[], bytes]
    truth: str = ""
    split: str = ""

    @property
    def extension(self) -> str:
        """The extension of the name, such as ".jpg"; or ""."""
        return os.path.splitext(self.name)[1]  # noqa: PTH122  a name within a tar is no path


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The photographs that were found.

    Attributes:
        photographs: In order.
        places: The files and folders that the words mean.
        passed_over: Files in folders that are no images, by their names and first bytes.
    """

    photographs: tuple[Photograph, ...]
    places: tuple[Path, ...]
    passed_over: tuple[str, ...]


def find_photographs(
    words: Sequence[str], *, split: str = "", is_class: Callable[[str], bool] = lambda _: False
) -> Found:
    """Everything that the words name.

    Args:
        words: Files, folders, shard directories, tars, tables, or patterns of them.
        split: Only the images of this split.
        is_class: Whether the name of a folder is that of a class of the run.

    Raises:
        PhotographsError: If that is no photograph at all, or has no such split.
        FastloadError: If a place cannot be listed.
    """
    try:
        refuse_addresses(words)
        # What two words mean is taken once, where two sources of training data would be a mistake.
        meant = (place for word in words for place in places_of([word]))
        places = list(dict.fromkeys(place for place in meant if isinstance(place, Path)))
    except LayoutError as error:
        raise PhotographsError(str(error)) from error
    photographs: list[Photograph] = []
    passed_over: list[str] = []
    for place in places:
        try:
            found = _find_in(place, split, is_class, passed_over)
        except OSError as error:
            raise PhotographsError(explain_os_error(error)) from error
        if split:
            found = [each for each in found if each.split == split]
        photographs += found
    if not photographs:
        what = ", ".join(map(str, places[:3]))
        kind = f"no photograph of the split {split}" if split else "no photograph"
        raise PhotographsError(
            f"{what}: {kind} is there; name files, folders, shards, tars or tables of images"
        )
    return Found(
        photographs=tuple(_once(photographs)),
        places=tuple(places),
        passed_over=tuple(dict.fromkeys(passed_over)),
    )


def _once(photographs: Sequence[Photograph]) -> Iterator[Photograph]:
    """Each name once: a file may be named by itself and by its folder."""
    seen: set[str] = set()
    for each in photographs:
        name = os.path.abspath(each.name)  # noqa: PTH100  links are other names
        if name not in seen:
            seen.add(name)
            yield each


def _find_in(
    place: Path, split: str, is_class: Callable[[str], bool], passed_over: list[str]
) -> list[Photograph]:
    if not place.exists():
        if looks_like_picture(place.name) or place.is_symlink():
            return [_of_file(place)]  # its row says that it is not there
        raise PhotographsError(f"{place}: there is no such file or folder")
    if place.is_dir():
        if (place / MANIFEST_NAME).exists():
            return _in_collection(place)
        found = _in_folder(place, is_class, passed_over)
        if split and not any(each.split for each in found) and find_index(place) is not None:
            return _in_collection(place)
        return found or _in_source(place)
    kind = None if looks_like_picture(place.name) else kind_of(place)
    return [_of_file(place)] if kind is None else _in_source(place, kind)


def _of_file(path: Path, *, truth: str = "", split: str = "") -> Photograph:
    return Photograph(
        name=str(path), read=functools.partial(_read_file, path), truth=truth, split=split
    )


def _read_file(path: Path) -> bytes:
    if "\0" in str(path):  # as a damaged table may have it
        raise ImageError("has a zero byte in its name, so it is no file")
    with os.fdopen(open_regular(path), "rb") as file:
        _refuse_large(os.fstat(file.fileno()).st_size)
        return file.read()


def _refuse_large(size: int) -> None:
    if reason := why_too_large(size):
        raise ImageError(reason)


def _in_folder(
    folder: Path, is_class: Callable[[str], bool], passed_over: list[str]
) -> list[Photograph]:
    """The images in a folder and below it; a folder of a class gives them their class."""
    found = []
    for path in _walk(folder, (), passed_over):
        names = [folder.resolve().name, *path.relative_to(folder).parts[:-1]]
        truth = next((name for name in reversed(names) if is_class(name)), names[-1])
        split = read_name(names[1]).split if len(names) > 2 and not is_class(names[1]) else ""
        found.append(_of_file(path, truth=truth, split=split))
    return found


def _walk(folder: Path, above: tuple[str, ...], passed_over: list[str]) -> Iterator[Path]:
    """The images in a folder and below it, sorted by name; links are followed, but not in rings."""
    real = os.path.realpath(folder)
    if real in above:
        return
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        yield folder  # its row says why it cannot be read
        return
    for path in entries:
        if is_litter(path.name):
            continue
        if path.is_dir():
            yield from _walk(path, (*above, real), passed_over)
        elif _is_picture(path):
            yield path
        else:
            passed_over.append(str(path))


def _is_picture(path: Path) -> bool:
    """Whether a file is an image by its name or its first bytes."""
    if looks_like_picture(path.name) or path.suffix.lower() in _MORE_PICTURES:
        return True
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            return sniff_format(file.read(64)) not in {"", "PDF", "PostScript", "PNM"}
    except OSError:
        return False


def _in_collection(place: Path) -> list[Photograph]:
    """The images of shards, or of data in place that were indexed: all splits, each in order."""
    contents = read_contents(place)
    found = []
    for split in (name for name in SPLITS if name in contents.splits):
        if not contents.splits[split].samples:
            continue
        collection = open_collection(place, split)
        reader = FileReader(collection)
        for row, label in enumerate(collection.index["label"].tolist()):
            file, key, _ = reader.locate(row)
            found.append(
                Photograph(
                    name=str(place / file) if file == key else f"{place / file}/{key}.jpg",
                    read=functools.partial(_read_row, reader, row),
                    truth=collection.classes[label],
                    split=split,
                )
            )
    return found


def _read_row(reader: FileReader, row: int) -> bytes:
    encoded, bad = reader.read(np.array([row]), Scratch())
    if bad:
        raise ShardError(bad[0])
    return bytes(encoded[0])


def _in_source(place: Path, kind: Kind = Kind.FOLDER) -> list[Photograph]:
    """The images in tars and tables, with the classes that these say."""
    try:
        source = read_source(place)
    except LayoutError as error:
        if kind is Kind.TAR and (found := _members(place)):
            return found
        if kind in {Kind.TABLE, Kind.JSON} and (found := _listed(place, error)):
            return found
        raise PhotographsError(str(error)) from error
    return [
        Photograph(
            name=str(source.root / file.path),
            read=functools.partial(_read_listed, source.folder, file),
            truth=source.classes[file.label],
            split=file.split,
        )
        for file in source.files
    ]


def _read_listed(root: Path, file: File) -> bytes:
    _refuse_large(file.bytes)
    return read_bytes(root, file)


def _members(place: Path) -> list[Photograph]:
    """The images of a tar that says nothing of classes, in the order of the tar.

    Of several members of one name the last is meant, as when a tar is unpacked.
    """
    with TarFile(place) as tar:
        members = {member.name: member for member in tar.members()}
        changed = tar.status.st_mtime_ns
    return [
        Photograph(
            name=f"{place}/{name}",
            read=functools.partial(_refuse_member, member.kind)
            if member.kind
            else functools.partial(
                _read_listed,
                place.parent,
                File(
                    path=name,
                    split="",
                    label=0,
                    bytes=member.size,
                    modified_ns=changed,
                    container=place.name,
                    offset=member.offset,
                ),
            ),
        )
        for name, member in members.items()
        if looks_like_picture(name) and not any(map(is_litter, name.split("/")))
    ]


def _refuse_member(kind: str) -> bytes:
    raise ImageError(f"is {kind} in its tar, expected a regular file; unpack the tar")


def _listed(place: Path, error: LayoutError) -> list[Photograph]:
    """The images that a table names, whatever it says of classes and wherever they lie.

    Raises:
        LayoutError: If it is no such table.
    """
    try:
        rows = rows_of_table(place)
    except LayoutError as own:
        raise (error if place.suffix.lower() == ".json" else own) from None
    return [_of_file(place.parent / path, truth=label, split=split) for path, label, split in rows]
