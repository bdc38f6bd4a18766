"""The places that a user gives: a folder, files, or patterns of files, as a shell has them."""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path

from fastload.console.shell import module_command
from fastload.console.terminal import counted
from fastload.errors import LayoutError
from fastload.prepare.layout import named
from fastload.prepare.tar_members import is_header
from fastload.store.remote import is_remote
from fastload.store.tar import TAR_BLOCK

_MOST_FILES = 1_000_000  # that one pattern may stand for
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_URL = re.compile(r"[a-z][a-z0-9+.\-]+://|pipe:")
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


def places_of(words: Sequence[str]) -> list[Path]:
    """The files, or the folder, that words of a command mean.

    Args:
        words: Paths, or patterns: `*`, `?`, `[…]`, `{a,b}`, `{0000..1023}`. What is there by its
            very name is no pattern.

    Raises:
        LayoutError: If a word means nothing that is there, or two mean one file.
    """
    places = [path for word in words for path in _places_of(word)]
    first: dict[str, Path] = {}
    for place in places:
        other = first.setdefault(os.path.realpath(place), place)
        if other is not place:
            raise LayoutError(f"{other} is named twice, as {place} too; name each file once")
    return places


def _places_of(word: str) -> list[Path]:
    path = Path(word)
    if os.path.lexists(path):
        return [path]
    address = word.replace(":/", "://", 1) if "://" not in word else word  # as before `Path`
    if is_remote(address) and not address.lower().startswith("http"):
        parent, _, last = address.rpartition("/")
        folder = parent if set(last) & set(".*?[{") else address
        copy = module_command("fastload.fetch", folder, Path("photographs"))
        raise LayoutError(
            f"{address}: images in an object store are not read in place; copy them first: {copy}"
        )
    if _URL.match(word):
        raise LayoutError(f"{word} is no file here; load it to a disk first")
    spelled = list(itertools.islice(_without_braces(word), _MOST_FILES + 1))
    if len(spelled) > _MOST_FILES:
        raise LayoutError(f"{word} stands for more than {counted(_MOST_FILES, 'file')}")
    found: list[Path] = []
    lacking = []
    for one in spelled:
        if Path(one).exists():
            found.append(Path(one))
            continue
        matches = sorted(glob.glob(one)) if glob.has_magic(one) else []  # noqa: PTH207  "..", too
        found += map(Path, matches)
        if not matches:
            lacking.append(one)
    if lacking and spelled != [word]:
        some = f"{len(lacking):,} of {len(spelled):,} files are not" if found else "no file is"
        raise LayoutError(f"{word}: {some} there, such as {named(lacking)}")
    if lacking and glob.has_magic(word):
        raise LayoutError(f"{word} matches no file")
    return found or [path]


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


def kind_of(place: Path) -> Kind | None:
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


def common_folder(places: Sequence[Path]) -> Path:
    """The folder that all files lie in."""
    folders = {place.parent for place in places}
    if len(folders) == 1:
        return folders.pop()
    absolute = os.path.commonpath([os.path.abspath(folder) for folder in folders])  # noqa: PTH100
    given_absolute = any(folder.is_absolute() for folder in folders)
    return Path(absolute if given_absolute else os.path.relpath(absolute))
