"""Whether data in place are still those that were indexed, as far as their folders tell.

A folder has another time once a file or folder was added to it or removed. So to open an index
costs a look at each folder, none at the images. Tars and tables are looked at: they hold labels. An
image that was changed where it lies is found when it is read: see `reader`. Of data in an object
store one list tells all, where the store gives one and it is not too long.
"""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from fastload.console.terminal import printable
from fastload.store.holders import PlacedFiles
from fastload.store.misplaced import IMAGES
from fastload.store.object_paths import ObjectPath, folders_with
from fastload.store.objects import Listed
from fastload.store.places import PlacedData, files_of, folders_of
from fastload.store.remote_shards import listed_objects

_log = logging.getLogger(__name__)


def warn_of_changes(data: PlacedData, files: PlacedFiles) -> None:
    """Log one warning about an index whose folders or files have changed, once in a process."""
    if sentence := find_change(data, files):
        _warn_once(sentence)


def warn_of_remote_changes(
    data: PlacedData, files: PlacedFiles, listing: Mapping[str, Listed]
) -> None:
    """The same of data in an object store, of which there is a list."""
    if sentence := _remote_change(data, files, listing):
        _warn_once(sentence)


@cache
def _warn_once(sentence: str) -> None:
    _log.warning("%s", sentence)


def find_change(data: PlacedData, files: PlacedFiles | None = None) -> str:
    """What changed since an index was made, in a sentence that names one file; else "".

    Args:
        data: The index.
        files: Its files, where they were read already.
    """
    files = files or files_of(data)
    if data.bucket is not None:
        return _remote_change(data, files, listed_objects(data.bucket) or {})
    changed = []
    for path, modified_ns, names in folders_of(data):
        place = Path(data.root) / path
        try:
            if place.stat().st_mtime_ns != modified_ns:
                changed.append((path, place, names))
        except OSError as error:
            reason = error.strerror or "cannot be looked at"
            return f"{place}: {reason}, and the index lists files in it; {data.remedy}"
    return (_first_change(data, files, changed) if changed else "") or _changed_labels(data, files)


def _changed_labels(data: PlacedData, files: PlacedFiles) -> str:
    """The first tar, parquet file or table that is another: the index may have old labels."""
    for number in files.shared():
        path, row = files.path(number), files.table[number]
        try:
            status = path.stat()
        except OSError as error:
            return f"{printable(str(path))}: {error.strerror}, and it was indexed; {data.remedy}"
        if (status.st_size, status.st_mtime_ns) != (row["bytes"], row["modified_ns"]):
            return _another(str(path), data, shared=True)
    return ""


def _first_change(
    data: PlacedData, files: PlacedFiles, changed: list[tuple[str, Path, int]]
) -> str:
    """The first name that came or went in the folders whose time is another."""
    known = _names_by_folder(files)
    for path, folder, folders in changed:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            within = [entry.name for entry in entries if is_counted(entry)]
        except OSError as error:
            return f"{folder}: {error.strerror}, and the index lists files in it; {data.remedy}"
        here = {entry.name for entry in entries}
        if lost := sorted(known.get(path, set()) - here):
            return _gone(str(folder / lost[0]), data)
        if added := _first_added(here, known.get(path, set())):
            return _added(str(folder / added), data)
        if sum_of_names(within) != folders:
            return _regrouped(str(folder), data)
    return ""


def _remote_change(data: PlacedData, files: PlacedFiles, listing: Mapping[str, Listed]) -> str:
    """The first object that came, went or is another; "" where there is no list."""
    if not listing:
        return ""
    within = names_in_folders(listing)
    names = [os.fsdecode(name) for name in files.names.split(b"\0")[:-1]]
    for name, row in zip(names, files.table, strict=True):
        found = listing.get(name)
        if found is None and name not in within:
            return _gone(f"{data.root}/{name}", data)
        size, modified_ns = int(row["bytes"]), int(row["modified_ns"])
        same = not found or (found.bytes == size and found.is_of(modified_ns))
        if not same and modified_ns:  # what is no image has no time in the index
            return _another(f"{data.root}/{name}", data, shared=not row["alone"])
    known = _names_by_folder(files)
    for path, _, summed in folders_of(data):
        here, place = within.get(path, set()), f"{data.root}/{path}".rstrip("/")
        if sum_of_names(here) != summed:
            added = _first_added(here, known.get(path, set()))
            return _added(f"{place}/{added}", data) if added else _regrouped(place, data)
    return ""


def _names_by_folder(files: PlacedFiles) -> dict[str, set[str]]:
    known: dict[str, set[str]] = {}
    for name in files.names.split(b"\0")[:-1]:
        folder, _, own = os.fsdecode(name).rpartition("/")
        known.setdefault(folder, set()).add(own)
    return known


def _first_added(here: set[str], known: set[str]) -> str:
    """The first name that is not known, and may be that of images; "" if there is none."""
    endings = (*IMAGES, ".tar", ".parquet")
    return next((name for name in sorted(here - known) if name.lower().endswith(endings)), "")


def _gone(place: str, data: PlacedData) -> str:
    return f"{printable(place)} is gone since it was indexed; {data.remedy}"


def _added(place: str, data: PlacedData) -> str:
    return (
        f"{printable(place)} was added since {data.root} was indexed, and is not read;"
        f" {data.remedy}"
    )


def _regrouped(place: str, data: PlacedData) -> str:
    return f"{printable(place)}: a folder in it came or went since it was indexed; {data.remedy}"


def _another(place: str, data: PlacedData, *, shared: bool) -> str:
    labels = ", and labels in it are not read again" if shared else ""
    return f"{printable(place)} has changed since it was indexed{labels}; {data.remedy}"


def names_in_folders(paths: Iterable[str]) -> dict[str, set[str]]:
    """Folder -> names of the files and folders in it, of files; what is hidden is left out."""
    found: dict[str, set[str]] = {"": set()}
    for file in paths:
        path = "" if f"/{file}".find("/.") >= 0 else file
        while path:
            folder, _, name = path.rpartition("/")
            within = found.setdefault(folder, set())
            if name in within:
                break
            within.add(name)
            path = folder
    return found


def is_counted(entry: os.DirEntry[str]) -> bool:
    """Whether something in a folder is a folder that may hold images."""
    return not entry.name.startswith(".") and entry.is_dir()


def sum_of_names(names: Iterable[str]) -> int:
    """CRC-32 of names, in any order."""
    return zlib.crc32(b"\0".join(sorted(os.fsencode(name) for name in names)))


def look_at_folders(root: Path, files: Iterable[str]) -> list[tuple[str, int, int]]:
    """Path, time and CRC-32 of the names of folders, of each folder that files lie in or below.

    Args:
        root: The folder that paths are relative to.
        files: Paths of files.
    """
    found = []
    for path in sorted({"", *folders_with(files)}):
        place = root / path if path else root
        modified_ns = place.stat().st_mtime_ns
        with os.scandir(place) as entries:
            within = [entry.name for entry in entries if is_counted(entry)]
        found.append((path, modified_ns, sum_of_names(within)))
    return found


def look_at_listed(root: ObjectPath, files: Iterable[str]) -> list[tuple[str, int, int]]:
    """The same of data in an object store: 0, and CRC-32 of all names in the folder."""
    found = []
    for path in sorted({"", *folders_with(files)}):
        within = (place.name for place in (root / path if path else root).iterdir())
        found.append((path, 0, sum_of_names(name for name in within if name[0] != ".")))
    return found
