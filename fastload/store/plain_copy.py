"""Files of a store to a folder, as they are: class folders of photographs, tars, tables.

    a page of the list ─► objects that are not there yet ─► .fetch.partial/N ─► their names

There is no manifest, so nothing tells a file's content but its size and its time. Each file gets
the time of its object; one that is there with both is not copied again, so an interrupted copy goes
on where it was. The list is read twice, a page at a time: memory does not grow with the files.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fastload.errors import OutputError, ShardError
from fastload.files import naming
from fastload.store.copying import TIMEOUT_SECONDS, held_for_copy
from fastload.store.manifest import MANIFEST_NAME
from fastload.store.objects import Listed, Listing
from fastload.store.remote import Bucket
from fastload.store.remote_index import is_of_index
from fastload.store.requests import Requests
from fastload.store.streaming import parts_of

AT_ONCE = 32  # files; a request of 100 kB takes 50 ms, so 640 a second
_PARTIAL = ".fetch.partial"


@dataclass(frozen=True, slots=True)
class FileCopy:
    """What is to be copied.

    Attributes:
        bucket: From where.
        folder: To where.
        files: How many.
        bytes: Of all files.
    """

    bucket: Bucket
    folder: Path
    files: int
    bytes: int


def plan_files(bucket: Bucket, folder: Path) -> FileCopy | None:
    """What a copy would bring; None where it is a part of a set of shards, or nothing is there.

    Raises:
        OutputError: If the folder holds shards.
        ShardError: If the objects cannot be listed, or have names that no file can have.
        StalledError: If the store does not answer.
    """
    files = size = 0
    with Requests(timeout_seconds=TIMEOUT_SECONDS) as requests:
        for one in _objects(bucket, requests):
            if one.name.startswith(".fastload/") or one.name.endswith((".index.npy", ".partial")):
                return None
            files += not one.stands_for_folder
            size += one.bytes
    if files and (folder / MANIFEST_NAME).exists():
        raise OutputError(f"{folder} holds shards; give another folder")
    return FileCopy(bucket, folder, files, size) if files else None


def copy_files(copy: FileCopy) -> Iterator[int]:
    """Bring what is missing.

    Yields:
        Bytes that are there since the last value.

    Raises:
        OSError: If the folder cannot be written; what is there stays for the next run.
        OutputError: If another file has the name of one, or another process copies to the folder.
        ShardError: If an object cannot be read.
        StalledError: If the store does not answer.
    """
    partial = copy.folder / _PARTIAL
    with held_for_copy(copy.folder), Requests(timeout_seconds=TIMEOUT_SECONDS) as requests:
        shutil.rmtree(partial, ignore_errors=True)  # of a copy that was killed
        partial.mkdir()
        pool = ThreadPoolExecutor(AT_ONCE)
        under_way: deque[Future[int]] = deque()
        try:
            for number, one in enumerate(_objects(copy.bucket, requests)):
                file = partial / str(number)
                under_way.append(pool.submit(_bring, copy, one, file, requests))
                if len(under_way) == 2 * AT_ONCE:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            requests.cancel()
            pool.shutdown(cancel_futures=True)
            shutil.rmtree(partial, ignore_errors=True)
        os.sync()  # once for all files: after each it would take longer than the copy


def _objects(bucket: Bucket, requests: Requests) -> Iterator[Listed]:
    """The objects in the order of the store, all of names that a file may have.

    An index of them is left out: what it says of objects is not so of files.
    """
    listing = Listing(bucket, timeout_seconds=requests.timeout_seconds)
    while page := requests.run(listing.page()):
        for one in page:
            check_name(one.name, bucket.address)
            if not is_of_index(one.name):
                yield one


def check_name(name: str, where: str) -> None:
    """See that the name of an object is a path below a folder: anybody may have given it.

    Raises:
        ShardError: If it is not.
    """
    if "\0" in name or not {"", ".", ".."}.isdisjoint(name.split("/")):
        raise ShardError(f"has an object whose name is no path ({name!r}); rename it", where=where)


def _bring(copy: FileCopy, one: Listed, partial: Path, requests: Requests) -> int:
    path = copy.folder / one.name
    if one.stands_for_folder:
        path.mkdir(parents=True, exist_ok=True)
        return 0
    when = one.version.modified_ns
    if os.path.lexists(path):
        facts = path.lstat()
        same = (facts.st_size, facts.st_mtime_ns) == (one.bytes, when)
        if not (same and stat.S_ISREG(facts.st_mode)):
            raise OutputError(
                f"{path}: is another file than that of {copy.bucket.address}; remove it, or give"
                " another folder"
            )
        return one.bytes
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path), partial.open("wb") as file:
        for part in parts_of(copy.bucket, one.name, (0, one.bytes), requests):
            file.write(part)
    os.utime(partial, ns=(when, when))
    partial.replace(path)
    return one.bytes
