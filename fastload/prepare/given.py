"""The places that a user gives: a folder, files, or patterns of files, as a shell has them.

On a disk, or in an object store: then the objects below the deepest folder that holds all places
are listed, once.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from fnmatch import fnmatchcase
from itertools import islice, takewhile
from pathlib import Path, PurePosixPath

from fastload.console.shell import module_command
from fastload.console.terminal import counted
from fastload.errors import LayoutError
from fastload.prepare.layout import named
from fastload.prepare.tar_members import is_header
from fastload.store.misplaced import is_address
from fastload.store.object_paths import AnyPath, ObjectList, ObjectPath
from fastload.store.remote import Bucket, is_remote
from fastload.store.tar import TAR_BLOCK

_MOST_FILES = 1_000_000  # that one pattern may stand for
_PARTS_OF_BUCKET = 3  # SCHEME: // BUCKET
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
ARCHIVES = (".gz", ".tgz", ".bz2", ".xz", ".zst", ".zip", ".7z")


class Kind(Enum):
    """What a source is made of; the value is what a message calls it."""

    FOLDER = "a folder"
    TAR = "a tar"
    TABLE = "a table"
    JSON = "JSON"
    PARQUET = "a parquet file"


_KINDS = {
    ".tar": Kind.TAR,
    **dict.fromkeys(ARCHIVES, Kind.TAR),  # refused with the command that unpacks it
    **dict.fromkeys((".csv", ".tsv", ".tab", ".jsonl", ".ndjson"), Kind.TABLE),
    ".json": Kind.JSON,
    ".parquet": Kind.PARQUET,
}


def places_of(words: Sequence[str]) -> list[AnyPath]:
    """The files, or the folder, that words of a command mean.

    Args:
        words: Paths, addresses of an object store, or patterns: `*`, `?`, `[…]`, `{a,b}`,
            `{0000..1023}`. What is there by its very name is no pattern.

    Raises:
        LayoutError: If a word means nothing that is there, or two mean one file.
        ShardError: If the objects below an address cannot be listed.
        StalledError: If the object store does not answer.
    """
    words = [_address_in(word) or word for word in words]
    addresses = [word for word in words if _address_in(word)]
    if addresses and len(addresses) < len(words):
        raise LayoutError(
            f"{addresses[0]} lies in an object store, and other files on a disk; name files of one"
        )
    listed = _listed_for(addresses) if addresses else None
    places = [path for word in words for path in _places_of(word, listed)]
    first: dict[str, AnyPath] = {}
    for place in places:
        real = str(place) if isinstance(place, ObjectPath) else os.path.realpath(place)
        other = first.setdefault(real, place)
        if other is not place:
            raise LayoutError(f"{other} is named twice, as {place} too; name each file once")
    return places


def _address_in(word: str) -> str:
    """The address of an object store that a word is; "" for another word."""
    address = word.replace(":/", "://", 1) if "://" not in word else word  # as before `Path`
    listable = is_remote(address) and not address.lower().startswith("http")
    if not listable:
        return ""
    return address if address.endswith("://") else address.rstrip("/")


def refuse_addresses(words: Iterable[str | os.PathLike[str]]) -> None:
    """See that all images lie on a disk.

    Raises:
        LayoutError: If some lie in an object store.
    """
    for address in filter(None, (_address_in(os.fspath(word)) for word in words)):
        folder = _parts_to_list(address)
        copy = module_command("fastload.fetch", "/".join(folder), Path("photographs"))
        raise LayoutError(
            f"{address}: photographs of an object store are not read here; copy them first: {copy}"
        )


def _listed_for(addresses: Sequence[str]) -> ObjectPath:
    """The folder in an object store that all addresses lie in, whose objects are listed."""
    spelled = (islice(_without_braces(one), _MOST_FILES) for one in addresses)
    folders = {tuple(_parts_to_list(one)) for each in spelled for one in each}
    if any(len(parts) < _PARTS_OF_BUCKET or not parts[-1] for parts in folders):
        raise LayoutError(f"{named(addresses)} names no bucket; give SCHEME://BUCKET/PREFIX")
    alike = takewhile(lambda parts: len(set(parts)) == 1, zip(*folders, strict=False))
    common = [part for part, *_ in alike]
    if len(common) < _PARTS_OF_BUCKET:
        raise LayoutError(f"{named(addresses)} are not of one bucket; name files of one")
    return ObjectPath(ObjectList(Bucket("/".join(common))))


def _parts_to_list(address: str) -> list[str]:
    """The parts of the address of the deepest folder that holds all that an address may mean."""
    parts = address.split("/")
    pattern = next((i for i, part in enumerate(parts) if set(part) & set("*?[{")), len(parts))
    of_file = pattern == len(parts) and PurePosixPath(parts[-1]).suffix.lower() in _KINDS
    return parts[: max(_PARTS_OF_BUCKET, min(pattern, len(parts) - of_file))]


def _places_of(word: str, listed: ObjectPath | None) -> list[AnyPath]:
    """What a word means: an address below `listed`, or else a path of this machine."""
    if (
        listed is None
        and not os.path.lexists(word)
        and (is_address(word) or word.startswith("pipe:"))
    ):
        raise LayoutError(
            f"{word} is no file here, and no address that can be listed (s3://, gs://, az:// or"
            " abfs://, BUCKET/PREFIX); correct it, or load it to a disk first"
        )
    path = _place_of(word, listed)
    if _is_there(path):
        return [path]
    spelled = list(islice(_without_braces(word), _MOST_FILES + 1))
    if len(spelled) > _MOST_FILES:
        raise LayoutError(f"{word} stands for more than {counted(_MOST_FILES, 'file')}")
    found: list[AnyPath] = []
    lacking = []
    for one in spelled:
        place = _place_of(one, listed)
        if place.exists():
            found.append(place)
            continue
        matches = _matching(one, listed) if glob.has_magic(one) else []
        found += matches
        if not matches:
            lacking.append(one)
    if lacking and spelled != [word]:
        some = f"{len(lacking):,} of {len(spelled):,} files are not" if found else "no file is"
        raise LayoutError(f"{word}: {some} there, such as {named(lacking)}")
    if lacking and glob.has_magic(word):
        raise LayoutError(f"{word} matches no file")
    return found or [path]


def _place_of(word: str, listed: ObjectPath | None) -> AnyPath:
    return Path(word) if listed is None else listed / word[len(str(listed)) :].lstrip("/")


def _is_there(place: AnyPath) -> bool:
    return place.exists() if isinstance(place, ObjectPath) else os.path.lexists(place)


def _matching(word: str, listed: ObjectPath | None) -> list[AnyPath]:
    """What a pattern without braces stands for, sorted."""
    if listed is None:
        return [Path(one) for one in sorted(glob.glob(word))]  # noqa: PTH207  "..", too
    found = [listed]
    for part in word[len(str(listed)) :].lstrip("/").split("/"):
        hidden = part.startswith(".")
        found = [
            entry
            for folder in found
            for entry in folder.iterdir()
            if fnmatchcase(entry.name, part) and (hidden or not entry.name.startswith("."))
        ]
    return sorted(found)


def _without_braces(word: str) -> Iterator[str]:
    """The words that a word with braces stands for, in the order of a shell."""
    found = _BRACES.search(word)
    if found is None or ("," not in found[1] and not _RANGE.fullmatch(found[1])):
        yield word
        return
    for inner in _alternatives(found[1]):
        yield from _without_braces(word[: found.start()] + inner + word[found.end() :])


def _alternatives(text: str) -> Iterator[str]:
    bounds = _RANGE.fullmatch(text)
    if bounds is None:
        yield from text.split(",")
        return
    first, last = int(bounds[1]), int(bounds[2])
    padded = any(len(end) > 1 and end[0] == "0" for end in bounds.groups())
    zeros = max(map(len, bounds.groups())) if padded else 0
    for number in range(first, last + 1) if first <= last else range(first, last - 1, -1):
        yield f"{number:0{zeros}d}"


def kind_of(place: AnyPath) -> Kind | None:
    """What a place is, by its name, or by its first bytes; None for what is no source."""
    if place.is_dir():
        return Kind.FOLDER
    if not place.is_file():
        return None
    kind = _KINDS.get(place.suffix.lower())
    if kind is not None:
        return kind
    with place.open("rb") as file:
        begin = file.read(TAR_BLOCK)
    if begin.startswith(b"PAR1"):
        return Kind.PARQUET
    return Kind.TAR if is_header(begin) else None


def common_folder(places: Sequence[AnyPath]) -> AnyPath:
    """The folder that all files lie in."""
    folders = {place.parent for place in places}
    if len(folders) == 1:
        return folders.pop()
    remote = [folder for folder in folders if isinstance(folder, ObjectPath)]
    if remote:
        return ObjectPath(remote[0].objects, os.path.commonpath([one.path for one in remote]))
    absolute = os.path.commonpath([os.path.abspath(str(folder)) for folder in folders])  # noqa: PTH100
    given_absolute = any(Path(str(folder)).is_absolute() for folder in folders)
    return Path(absolute if given_absolute else os.path.relpath(absolute))
