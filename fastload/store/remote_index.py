"""The index in place of data in an object store: where it lies there, and how it comes here.

    ADDRESS/.fastload/index.json            as on a disk, see `places`; written last
    ADDRESS/.fastload/index-XXXXXXXX/       its files, with the seek tables among them
    CACHE/fastload/NAME/                    of the machine that indexes: index, and what is known
    CACHE/fastload/NAME/copies/DIGEST/      of any other: a copy, made once for each index

What `index.json` names is there before it, under names that no other index has, so whoever reads it
finds an index that is whole. A copy is checked file by file, and has its name only then. Where this
machine's own index has been put into the bucket, another one there has come later and counts. One
that could not be put there counts if it is newer by the times of both.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path

from fastload.console.shell import module_command
from fastload.console.terminal import say
from fastload.errors import ShardError, StalledError
from fastload.files import explain_os_error, locked, naming, write_atomically
from fastload.store.copying import TIMEOUT_SECONDS
from fastload.store.facts import JSON_BYTES
from fastload.store.holders import FILE
from fastload.store.index import index_name
from fastload.store.objects import MissingObjectError, look_at
from fastload.store.places import (
    FOLDER,
    FOLDER_NAME,
    INDEX_NAME,
    PLACE,
    PlacedData,
    Places,
    cache_folder,
    places_in,
    points_name,
    read_places,
)
from fastload.store.remote import Bucket
from fastload.store.remote_shards import MISSING, OPENING_SECONDS, read_object
from fastload.store.requests import Requests
from fastload.store.rows import LONGEST_HEADER
from fastload.store.streaming import parts_of

_NAME = f"{FOLDER_NAME}/{INDEX_NAME}"  # below the address
_COPIES = "copies"
_PUBLISHED = ".published"  # holds the digest of the last own index that was put into the bucket
_LARGE = 64 << 20  # bytes of seek tables, for which somebody may wait some seconds
_KEPT_SECONDS = 7 * 86400.0  # a copy that nobody opened for so long is removed
_LONGEST_NAME = 4096  # bytes of an object's, and a zero; S3 and Google allow 1,024
_TRIES = 3  # where the index is replaced while it is copied


def find_remote_places(bucket: Bucket) -> PlacedData | None:
    """The index of the data below an address, on this machine; None where there is none.

    Raises:
        ShardError: If the one that counts cannot be read, or copied to this machine.
    """
    own = cache_folder(bucket.address)
    content = read_object(bucket, _NAME, JSON_BYTES)
    for _ in range(_TRIES):
        mine = _content_of(own)
        if content is None:
            return None if mine is None else read_places(own, access=bucket.access)
        try:
            if mine == content or (mine is not None and _counts_here(own, mine, bucket)):
                return read_places(own, access=bucket.access)
            copy = _copied(bucket, content, own)
            return read_places(copy, address=bucket.address, access=bucket.access)
        except MissingObjectError as error:
            missing, before = error, content
            content = read_object(bucket, _NAME, JSON_BYTES)
            if content == before:
                break
    raise ShardError(f"{MISSING}; {_remedy(bucket)}", where=missing.where)


def _remedy(bucket: Bucket) -> str:
    command = module_command("fastload.index", bucket.address)
    return f"remove {bucket.of(FOLDER_NAME)} and run `{command}`"


def is_of_index(name: str) -> bool:
    """Whether an object below an address is of an index in place that lies there."""
    return (
        re.match(rf"{re.escape(FOLDER_NAME)}/(index\.json$|cleaning\.csv$|index-)", name)
        is not None
    )


def _content_of(folder: Path) -> bytes | None:
    with suppress(OSError):
        return (folder / INDEX_NAME).read_bytes()
    return None


def note_published(folder: Path) -> None:
    """Note that the index in a folder of this machine has been put into its bucket.

    Raises:
        OSError: If the note cannot be written.
    """
    write_atomically(folder / _PUBLISHED, _digest_of((folder / INDEX_NAME).read_bytes()).encode())


def _digest_of(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _counts_here(own: Path, mine: bytes, bucket: Bucket) -> bool:
    """Whether this machine's index, whose content is given, is newer than another in the bucket."""
    with suppress(OSError):
        if (own / _PUBLISHED).read_bytes() == _digest_of(mine).encode():
            return False  # it was there: times of stores are whole seconds, and clocks differ
    with Requests(timeout_seconds=OPENING_SECONDS) as requests:
        there = requests.run(look_at(bucket, _NAME, timeout_seconds=OPENING_SECONDS))
    return (own / INDEX_NAME).stat().st_mtime_ns > there.version.modified_ns


def _copied(bucket: Bucket, content: bytes, own: Path) -> Path:
    """The folder of this machine that holds an index of the bucket, whose `index.json` is given.

    Of several processes one copies, the others wait for it.
    """
    places = places_in(content, bucket.of(_NAME), bucket.of(FOLDER_NAME))
    copies = own / _COPIES
    folder = copies / _digest_of(content)
    if (folder / INDEX_NAME).is_file():
        with suppress(OSError):  # a cache that is read-only serves as well
            os.utime(folder)
        return folder
    try:
        copies.mkdir(parents=True, exist_ok=True)
        with locked(copies / "lock", held=_wait, unlockable=_go_on):
            if not (folder / INDEX_NAME).is_file():  # else another process has just made it
                _copy(bucket, content, places, folder)
            _remove_old(copies)
    except OSError as error:
        raise ShardError(
            f"the index of {bucket.address} cannot be copied to this machine:"
            f" {explain_os_error(error)}; XDG_CACHE_HOME names another folder for it"
        ) from error
    return folder


def _wait() -> None:
    """Another process copies the same index."""


def _go_on(_error: OSError) -> None:
    """The file system has no locks: two processes may copy, and one of them is first."""


def _copy(bucket: Bucket, content: bytes, places: Places, folder: Path) -> None:
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        (partial / places.folder).mkdir(parents=True)
        if places.points_bytes >= _LARGE:
            size = f"{places.points_bytes >> 20:,} MB"
            say(f"copying the index of {bucket.address} to this machine, once: {size}", error=True)
        with Requests(timeout_seconds=TIMEOUT_SECONDS) as requests:
            for name, most in files_of_index(places).items():
                # Seek tables lie beside the folder: `places`. Each is checked when it is read.
                inner = places.folder if name in places.digests else ""
                found = _bring(bucket, places, name, most, partial / inner / name, requests)
                if places.digests.get(name, found) != found:
                    raise ShardError(
                        f"is not the one that {INDEX_NAME} lists; {_remedy(bucket)}",
                        where=bucket.of(f"{FOLDER_NAME}/{places.folder}/{name}"),
                    )
        write_atomically(partial / INDEX_NAME, content)
        try:
            partial.rename(folder)
        except OSError:
            if not (folder / INDEX_NAME).is_file():  # else another process was first
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def files_of_index(places: Places) -> dict[str, int]:
    """Name in the index's folder in the bucket, and bytes at most, of what `index.json` names."""
    rows = {index_name(split): PLACE.itemsize * of.samples for split, of in places.splits.items()}
    rows |= {
        "files.npy": FILE.itemsize * places.files,
        "folders.npy": FOLDER.itemsize * places.folders,
    }
    most = {name: size + LONGEST_HEADER for name, size in rows.items()}
    most |= {"files": _LONGEST_NAME * places.files, "folders": _LONGEST_NAME * places.folders}
    if places.points_bytes:
        most[points_name(places.points)] = places.points_bytes
    return most


def _bring(
    bucket: Bucket, places: Places, name: str, most: int, path: Path, requests: Requests
) -> str:
    """Write a file of an index; returns its digest, as `places` makes them."""
    name = f"{FOLDER_NAME}/{places.folder}/{name}"
    try:
        looking = look_at(bucket, name, timeout_seconds=requests.timeout_seconds)
        size = requests.run(looking).bytes
        if name.endswith(points_name(places.points)):
            size = min(size, most)  # a run that was stopped has added to them
        if size > most:
            raise ShardError(
                f"has {size:,} bytes, expected at most {most:,}; {_remedy(bucket)}",
                where=bucket.of(name),
            )
        digest = hashlib.blake2b(digest_size=16)
        with naming(path), path.open("wb") as file:
            for part in parts_of(bucket, name, (0, size), requests):
                file.write(part)
                digest.update(part)
    except StalledError as error:
        raise ShardError(str(error)) from error
    return digest.hexdigest()


def _remove_old(copies: Path) -> None:
    """Remove copies that nobody opened for long, and what a killed process has left."""
    for path in copies.iterdir():
        with suppress(OSError):
            if path.is_dir() and time.time() - path.stat().st_mtime > _KEPT_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
