"""Objects in place: photographs and foreign tars below an address, which an index lists.

What the index says of them is compared with one list of the objects, where the store gives one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastload.errors import SamplePlace, ShardError
from fastload.store.freshness import warn_of_remote_changes
from fastload.store.holders import PlacedFiles, Stamp
from fastload.store.manifest import digest_of
from fastload.store.objects import Listed
from fastload.store.places import PlacedData, places_of
from fastload.store.remote import Bucket
from fastload.store.remote_shards import MISSING, listed_objects, remote_key

_PACK_BYTES = 1 << 30  # of photographs that share a file of the cache


@dataclass(frozen=True, slots=True)
class RemotePlaced:
    """Objects that an index in place lists; `holders.Holders`.

    In a cache photographs stand one behind another in files of 1 GiB, since whoever opens a cache
    looks at each of its files.

    Attributes:
        bucket: Where they are.
        files: What the index says of them.
        kept_as: Name of these data in a cache: equal names, equal lists of objects.
        begins: int64 [F], where each photograph begins among all of them.
    """

    bucket: Bucket
    files: PlacedFiles
    kept_as: str
    begins: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.files)

    def name(self, number: int) -> str:
        """Name of the object."""
        return self.files.name(number)

    def path(self, number: int) -> Path:
        """See `Holders.path`: the name of the object."""
        return Path(self.name(number))

    def system_path(self, number: int) -> bytes:
        """See `Holders.system_path`."""
        return os.fsencode(self.name(number))

    def alone(self, numbers: NDArray[np.integer]) -> NDArray[np.bool_]:
        """See `Holders.alone`."""
        return self.files.alone(numbers)

    def shared(self) -> Iterable[int]:
        """See `Holders.shared`."""
        return self.files.shared()

    def checked_stamp(self, number: int) -> Stamp:
        """See `Holders.checked_stamp`: the objects were listed when the data were opened."""
        row = self.files.table[number]
        return int(row["bytes"]), int(row["modified_ns"])

    def place(self, number: int, offset: int) -> SamplePlace:
        """See `Holders.place`: the key of a sample in a tar costs a request."""
        name = self.name(number)
        where = self.bucket.of(name)
        alone = bool(self.files.table["alone"][number])
        return SamplePlace(where, where if alone else remote_key(self.bucket, name, offset), offset)

    def remedy(self, number: int, /) -> str:
        """See `Holders.remedy`."""
        return self.files.remedy(number)

    def in_cache(self, number: int) -> tuple[str, int]:
        """Name of the file that a cache has for an object, and where the object begins in it."""
        if not self.files.table["alone"][number]:
            return f"object-{number}", 0
        pack, begin = divmod(int(self.begins[number]), _PACK_BYTES)
        return f"photographs-{pack}", begin

    def difference(self, number: int, found: Listed | None) -> str:
        """What is other of an object, or of none, than was indexed; "" if nothing."""
        if found is None:
            return MISSING
        size, modified_ns = self.checked_stamp(number)
        if found.bytes != size:
            return f"has {found.bytes} bytes, when it was indexed it had {size}"
        return "" if found.is_of(modified_ns) else "was written again since it was indexed"


def remote_places_of(data: PlacedData, split: str) -> tuple[NDArray[np.void], RemotePlaced]:
    """As `places_of`, of data in an object store; logs one warning where they changed.

    Raises:
        ShardError: If there is no such split, if the index is damaged, or if a tar that it needs is
            missing or of another size.
    """
    rows, files = places_of(data, split)
    if data.bucket is None:
        raise ShardError("are files, expected objects", where=data.root)
    digests = data.places.digests
    most = 1 << 32  # of a photograph, whatever the list says of what is none
    sizes = np.where(files.table["alone"] != 0, np.minimum(files.table["bytes"], most), 0)
    begins = np.cumsum(sizes, dtype=np.int64) - sizes.astype(np.int64)
    objects = RemotePlaced(
        data.bucket,
        files,
        # What a cache keeps goes by the objects alone: it stays where a class gets another name.
        digest_of(["in place", digests.get("files.npy"), digests.get("files")]),
        begins,
    )
    if listing := listed_objects(data.bucket):
        needed = np.unique(rows["file"])
        for number in needed[~files.alone(needed)].tolist():
            name = files.name(number)
            found = listing.get(name)
            if found is None or found.bytes != files.table["bytes"][number]:
                raise ShardError(
                    f"{objects.difference(number, found)}; {data.remedy}",
                    where=data.bucket.of(name),
                )
        warn_of_remote_changes(data, files, listing)
    return rows, objects
