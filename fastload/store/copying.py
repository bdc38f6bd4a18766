"""Shards of an object store to a folder: whole, verified, under their names only when they are.

    .train-000000.tar.partial ─► SHA-256 as the manifest says ─► train-000000.tar … manifest.json

The manifest is written last, so a folder that has it is complete. A copy that was interrupted goes
on where it was: what is there under its name is read and hashed once more, as anything may have
happened to it, and the rest of a partial file is fetched.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from fastload.errors import OutputError, ShardError
from fastload.files import (
    READ_BYTES,
    locked,
    naming,
    open_own,
    sync_directory,
    sync_file,
    write_atomically,
)
from fastload.store.index import check_split, index_bytes, index_in, index_name
from fastload.store.manifest import MANIFEST_NAME, Manifest, Shard, manifest_in, read_manifest
from fastload.store.objects import MissingObjectError, whole
from fastload.store.remote import Bucket
from fastload.store.remote_shards import read_manifest_bytes
from fastload.store.requests import Requests
from fastload.store.streaming import parts_of

TIMEOUT_SECONDS = 300.0  # for one request, all attempts together
_LARGEST_EXTRA = 1 << 30  # of the files beside the shards, such as cleaning.csv
_LOCK = ".fetch.lock"


@dataclass(frozen=True, slots=True)
class Copy:
    """What is to be copied.

    Attributes:
        bucket: From where.
        folder: To where.
        manifest: Of the data.
        content: The same as it is stored.
        splits: Those that are copied.
    """

    bucket: Bucket
    folder: Path
    manifest: Manifest
    content: bytes
    splits: tuple[str, ...]

    @property
    def shards(self) -> list[Shard]:
        """The shards of the splits that are copied."""
        return [shard for split in self.splits for shard in self.manifest.splits[split].shards]

    @property
    def bytes(self) -> int:
        """Bytes of these shards."""
        return sum(shard.bytes for shard in self.shards)


def plan_copy(bucket: Bucket, folder: Path, splits: Sequence[str] = ()) -> Copy:
    """What a copy would bring.

    Args:
        bucket: From where.
        folder: To where; it is not written.
        splits: Names of splits; all when empty.

    Raises:
        OutputError: If the folder holds other data.
        ShardError: If there are no shards at the address, or no such split.
    """
    content = read_manifest_bytes(bucket)
    manifest = manifest_in(content, bucket.of(MANIFEST_NAME))
    for split in splits:
        check_split(manifest, split, bucket.address)
    if (folder / MANIFEST_NAME).exists() and (
        read_manifest(folder).fingerprint != manifest.fingerprint
    ):
        raise OutputError(f"{folder} holds other shards than {bucket.address}; give another folder")
    return Copy(bucket, folder, manifest, content, tuple(dict.fromkeys(splits or manifest.splits)))


def copy_shards(copy: Copy) -> Iterator[int]:
    """Bring what is missing, and verify all.

    Yields:
        Bytes that are there and verified since the last value.

    Raises:
        OSError: If the folder cannot be written; what is there stays for the next run.
        OutputError: If a file of another content has the name of a shard, or another process
            copies to the folder.
        ShardError: If the data in the store are not those that the manifest lists.
        StalledError: If the store does not answer.
    """
    with held_for_copy(copy.folder), Requests(timeout_seconds=TIMEOUT_SECONDS) as requests:
        for shard in copy.shards:
            yield from _bring(copy, shard, requests)
        for split in copy.splits:
            _bring_index(copy, split, requests)
        for name in _extras(copy):
            if (data := _read(copy, name, _LARGEST_EXTRA, requests)) is not None:
                write_atomically(copy.folder / name, data)
        write_atomically(copy.folder / MANIFEST_NAME, copy.content)


@contextmanager
def held_for_copy(folder: Path) -> Iterator[None]:
    """A folder that no other process copies to within the `with` block; it is made if need be.

    Raises:
        OutputError: If another process copies to it.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def held() -> NoReturn:
        raise OutputError(f"{folder}: another process copies to it; wait until it has ended")

    with locked(folder / _LOCK, held=held, unlockable=lambda _: None):
        yield
        with suppress(OSError):
            (folder / _LOCK).unlink()


def _bring(copy: Copy, shard: Shard, requests: Requests) -> Iterator[int]:
    path = copy.folder / shard.name
    if path.exists():
        yield from _verified(path, shard)
        return
    partial = path.with_name(f".{shard.name}.partial")
    with naming(path), os.fdopen(open_own(partial), "r+b") as file:
        digest = hashlib.sha256()
        done = 0
        while done < shard.bytes and (data := file.read(min(READ_BYTES, shard.bytes - done))):
            digest.update(data)
            done += len(data)
            yield len(data)
        file.seek(done)
        file.truncate()
        for part in parts_of(copy.bucket, shard.name, (done, shard.bytes), requests):
            file.write(part)
            digest.update(part)
            yield len(part)
        _end_file(file)
    if digest.hexdigest() != shard.sha256:
        partial.unlink()
        raise ShardError(
            f"its SHA-256 is {digest.hexdigest()}, the manifest says {shard.sha256}; run again, and"
            " if it is so again, copy the shard to the store again",
            where=copy.bucket.of(shard.name),
        )
    partial.replace(path)
    sync_directory(copy.folder)


def _verified(path: Path, shard: Shard) -> Iterator[int]:
    """Hash a file that is there."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(READ_BYTES):
            digest.update(data)
            yield len(data)
    if digest.hexdigest() != shard.sha256:
        raise OutputError(
            f"{path}: is another file than the shard of that name in the store; remove it, or give"
            " another folder"
        )


def _bring_index(copy: Copy, split: str, requests: Requests) -> None:
    name = index_name(split)
    data = _read(copy, name, index_bytes(copy.manifest, split), requests)
    if data is None:
        raise ShardError("is missing; copy it to the store again", where=copy.bucket.of(name))
    index_in(io.BytesIO(data), copy.manifest, split, copy.bucket.of(name))
    write_atomically(copy.folder / name, data)


def _extras(copy: Copy) -> list[str]:
    """Files that other programs and people read, where they are there."""
    indexes = [f"{shard.name.removesuffix('.tar')}.idx" for shard in copy.shards]
    sources = [f"{split}.sources.csv" for split in copy.splits]
    return [*indexes, *sources, "_info.json", "cleaning.csv"]


def _read(copy: Copy, name: str, most: int, requests: Requests) -> bytes | None:
    limit = requests.timeout_seconds
    try:
        return requests.run(whole(copy.bucket, name, most=most, timeout_seconds=limit))
    except MissingObjectError:
        return None


def _end_file(file: BinaryIO) -> None:
    file.flush()
    sync_file(file)
