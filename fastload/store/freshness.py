"""Whether data in place are still those that were indexed, as far as their folders tell.

A folder has another time once a file or folder was added to it or removed. So to open an index
costs a look at each folder, none at the images. Tars and tables are looked at: they hold labels. An
image that was changed where it lies is found when it is read: see `reader`.
"""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from fastload.console.terminal import printable
from fastload.store.holders import PlacedFiles
from fastload.store.misplaced import IMAGES
from fastload.store.places import PlacedData, files_of, folders_of

_log = logging.getLogger(__name__)


def warn_of_changes(data: PlacedData, files: PlacedFiles) -> None:
    """Log one warning about an index whose folders or files have changed, once in a process."""
    if sentence := find_change(data, files):
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
    changed = []
    for path, modified_ns, names in folders_of(data):
        place = data.root / path if path else data.root
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
            return (
                f"{printable(str(path))} has changed since it was indexed, and labels in it are not"
                f" read again; {data.remedy}"
            )
    return ""


def _first_change(
    data: PlacedData, files: PlacedFiles, changed: list[tuple[str, Path, int]]
) -> str:
    """The first name that came or went in the folders whose time is another."""
    known: dict[str, set[str]] = {path: set() for path, _, _ in changed}
    for name in files.names.split(b"\0")[:-1]:
        parent, _, own = os.fsdecode(name).rpartition("/")
        if parent in known:
            known[parent].add(own)
    for path, folder, folders in changed:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            within = [entry.name for entry in entries if is_counted(entry)]
        except OSError as error:
            return f"{folder}: {error.strerror}, and the index lists files in it; {data.remedy}"
        here = {entry.name for entry in entries}
        if lost := sorted(known[path] - here):
            return f"{printable(str(folder / lost[0]))} is gone since it was indexed; {data.remedy}"
        endings = (*IMAGES, ".tar", ".parquet")
        added = [name for name in sorted(here - known[path]) if name.lower().endswith(endings)]
        if added:
            return (
                f"{printable(str(folder / added[0]))} was added since {data.root} was indexed, and"
                f" is not read; {data.remedy}"
            )
        if sum_of_names(within) != folders:
            return (
                f"{printable(str(folder))}: a folder in it came or went since it was indexed;"
                f" {data.remedy}"
            )
    return ""


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
    paths = {""}
    for file in files:
        folder = file.rpartition("/")[0]
        while folder not in paths:
            paths.add(folder)
            folder = folder.rpartition("/")[0]
    found = []
    for path in sorted(paths):
        place = root / path if path else root
        modified_ns = place.stat().st_mtime_ns
        with os.scandir(place) as entries:
            within = [entry.name for entry in entries if is_counted(entry)]
        found.append((path, modified_ns, sum_of_names(within)))
    return found
