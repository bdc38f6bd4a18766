"""Shards that lie in an object store: their manifest, their index, the objects that hold them.

    address ──► manifest.json ──► {split}.index.npy ──► a list of the objects, where it is allowed

All three are bounded before they are read, and checked as those of a directory are.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastload.console.shell import module_command, program
from fastload.errors import FastloadError, SamplePlace, ShardError, StalledError
from fastload.store.facts import JSON_BYTES
from fastload.store.holders import Stamp
from fastload.store.index import check_split, index_bytes, index_in, index_name
from fastload.store.manifest import MANIFEST_NAME, REBUILD, Manifest, Shard, manifest_in
from fastload.store.objects import Listed, MissingObjectError, bytes_of, objects_below, whole
from fastload.store.remote import Bucket
from fastload.store.requests import Requests
from fastload.store.tar import TAR_BLOCK, key_in

OPENING_SECONDS = 15.0  # for the server to answer at all, before an epoch has begun
_KEY_SECONDS = 5.0  # for the key of a sample, which a message is nicer with
MISSING = "is missing: there is no such object"
MOST_LISTED = 20_000  # objects whose list is worth a look: 20 requests


@dataclass(frozen=True, slots=True)
class RemoteShards:
    """The tars of a split in an object store, in the order of its manifest; `holders.Holders`.

    Attributes:
        bucket: Where they are.
        shards: What the manifest says of them.
        fingerprint: Of the data.
    """

    bucket: Bucket
    shards: tuple[Shard, ...]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.shards)

    def path(self, number: int) -> Path:
        """See `Holders.path`: the name of the object."""
        return Path(self.shards[number].name)

    def system_path(self, number: int) -> bytes:
        """See `Holders.system_path`."""
        return os.fsencode(self.shards[number].name)

    def alone(self, numbers: NDArray[np.integer]) -> NDArray[np.bool_]:
        """See `Holders.alone`: no shard is."""
        return np.zeros(len(numbers), np.bool_)

    def shared(self) -> Iterable[int]:
        """See `Holders.shared`."""
        return range(len(self.shards))

    def checked_stamp(self, number: int) -> Stamp:
        """See `Holders.checked_stamp`: the objects were listed when the data were opened."""
        return self.shards[number].bytes, 0

    def place(self, number: int, offset: int) -> SamplePlace:
        """See `Holders.place`: the key of the sample costs a request."""
        name = self.shards[number].name
        return SamplePlace(self.bucket.of(name), remote_key(self.bucket, name, offset), offset)

    def remedy(self, _number: int, /) -> str:
        """See `Holders.remedy`."""
        return "start again with the new data"

    @property
    def kept_as(self) -> str:
        """Name of these data in a cache: equal names, equal data."""
        return self.fingerprint

    def name(self, number: int) -> str:
        """Name of the object."""
        return self.shards[number].name

    def in_cache(self, number: int) -> tuple[str, int]:
        """Name of the file that a cache has for an object, and where the object begins in it."""
        return self.shards[number].name, 0

    def difference(self, number: int, found: Listed | None) -> str:
        """What is other of an object, or of none, than was listed; "" if nothing."""
        return size_fault(self.shards[number], found)


def remote_key(bucket: Bucket, name: str, offset: int) -> str:
    """Key of the image that begins at `offset` of a tar, as `tar.read_key`; costs a request."""
    try:
        with Requests(timeout_seconds=_KEY_SECONDS) as requests:
            begin, limit = offset - TAR_BLOCK, requests.timeout_seconds
            header = requests.run(bytes_of(bucket, name, begin, offset, timeout_seconds=limit))
    except FastloadError:
        return "?"
    return key_in(bytes(header))


def read_remote_manifest(bucket: Bucket) -> Manifest:
    """Read and check the manifest below an address; errors as of `read_manifest_bytes`."""
    return manifest_in(read_manifest_bytes(bucket), bucket.of(MANIFEST_NAME))


def read_manifest_bytes(bucket: Bucket) -> bytes:
    """The manifest below an address as it is stored, of a bounded size.

    Raises:
        MissingObjectError: If there are no shards.
        ShardError: If they cannot be read; says why.
    """
    data = read_object(bucket, MANIFEST_NAME, JSON_BYTES)
    if data is None:
        index = module_command("fastload.index", bucket.address)
        raise MissingObjectError(
            f"there is no complete set of shards (no {MANIFEST_NAME}, which is written last) and no"
            f" index; photographs and tars are indexed by `{index}`, shards are written by"
            f" `{program('fastload.shard')}` and copied whole",
            where=bucket.address,
        )
    return data


def read_remote_index(bucket: Bucket, manifest: Manifest, split: str) -> NDArray[np.void]:
    """Read and check the index of a split, as `index.read_index` does; SAMPLE [N].

    Raises:
        ShardError: If it, or a shard that the manifest lists, is missing or of another size.
    """
    check_split(manifest, split, bucket.address)
    name = index_name(split)
    data = read_object(bucket, name, index_bytes(manifest, split))
    if data is None:
        raise ShardError(f"is missing; copy it again, or {REBUILD}", where=bucket.of(name))
    samples = index_in(io.BytesIO(data), manifest, split, bucket.of(name))
    _check_listed(bucket, manifest.splits[split].shards)
    return samples


def read_object(bucket: Bucket, name: str, most: int) -> bytes | None:
    """All of an object of a bounded size; None where there is none of that name.

    Raises:
        ShardError: If it cannot be read, or has more than `most` bytes.
    """
    with Requests(timeout_seconds=OPENING_SECONDS) as requests:
        try:
            return requests.run(whole(bucket, name, most=most, timeout_seconds=OPENING_SECONDS))
        except MissingObjectError:
            return None
        except StalledError as error:
            raise ShardError(str(error)) from error


def _check_listed(bucket: Bucket, shards: tuple[Shard, ...]) -> None:
    """See that all shards are there, as long as the manifest says, where the store lists them."""
    if len(shards) > MOST_LISTED:
        return
    found = listed_objects(bucket)
    if not found:  # not allowed, or a server that has no lists
        return
    for shard in shards:
        if fault := size_fault(shard, found.get(shard.name)):
            raise ShardError(f"{fault}; copy it again, or {REBUILD}", where=bucket.of(shard.name))


def listed_objects(bucket: Bucket) -> dict[str, Listed] | None:
    """The objects below an address, by name; None where they are not listed, or are many."""
    with Requests(timeout_seconds=OPENING_SECONDS) as requests:
        listing = objects_below(bucket, most=MOST_LISTED, timeout_seconds=OPENING_SECONDS)
        return requests.run(listing)


def size_fault(shard: Shard, found: Listed | None) -> str:
    """What is wrong with an object, or with none; "" if nothing."""
    if found is None:
        return MISSING
    wrong = f"has {found.bytes} bytes, the manifest says {shard.bytes}"
    return "" if found.bytes == shard.bytes else wrong
