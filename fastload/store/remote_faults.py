"""What is wrong with shards in an object store: each byte of them is fetched once, and checked.

A fault is of the data: an object that is missing, or of another size or content. What the store
refuses, or does not answer, is an error, since then nobody knows what the data are.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fastload.errors import ShardError
from fastload.store.copying import TIMEOUT_SECONDS
from fastload.store.faults import content_faults, named_faults
from fastload.store.index import index_bytes, index_in, index_name
from fastload.store.manifest import Manifest, Shard
from fastload.store.objects import Listed, MissingObjectError, look_at, objects_below, whole
from fastload.store.remote import Bucket
from fastload.store.remote_shards import MISSING, MOST_LISTED, size_fault
from fastload.store.requests import Requests
from fastload.store.streaming import Span, Stream, forward_file, parts_of


def find_remote_faults(bucket: Bucket, manifest: Manifest) -> Iterator[tuple[int, str]]:
    """Check every shard and index that a manifest lists; look for other tars, where they are told.

    Yields:
        As `faults.find_faults`.

    Raises:
        ShardError: If the store refuses to give an object.
        StalledError: If it does not answer.
    """
    with Requests(timeout_seconds=TIMEOUT_SECONDS) as requests:
        store = _Store(bucket, requests)
        listed = {shard.name for split in manifest.splits.values() for shard in split.shards}
        for name in sorted(store.listed):
            if name.endswith(".tar") and "/" not in name and name[0] != "." and name not in listed:
                yield 0, f"{name}: is not in the manifest; remove it"
        for split in manifest.splits:
            samples, fault = store.index(manifest, split)
            yield 0, fault
            shards = manifest.splits[split].shards
            yield from store.faults(shards, samples, len(manifest.classes))


class _Store:
    """The objects below an address, where the store lists them."""

    def __init__(self, bucket: Bucket, requests: Requests) -> None:
        self._bucket, self._requests = bucket, requests
        self._limit = requests.timeout_seconds
        listing = requests.run(objects_below(bucket, most=MOST_LISTED, timeout_seconds=self._limit))
        self.listed = listing or {}

    def index(self, manifest: Manifest, split: str) -> tuple[NDArray[np.void] | None, str]:
        """SAMPLE [N] and "", or None and what is wrong with it."""
        name, most = index_name(split), index_bytes(manifest, split)
        try:
            data = self._requests.run(
                whole(self._bucket, name, most=most, timeout_seconds=self._limit)
            )
        except MissingObjectError:
            return None, f"{name}: {MISSING}"
        try:
            return index_in(io.BytesIO(data), manifest, split, self._bucket.of(name)), ""
        except ShardError as error:
            return None, str(error)

    def faults(
        self, shards: Sequence[Shard], samples: NDArray[np.void] | None, num_classes: int
    ) -> Iterator[tuple[int, str]]:
        """Of the shards of a split, whose index is `samples`."""
        known = [""] * len(shards)
        if self.listed:
            known = [size_fault(shard, self.listed.get(shard.name)) for shard in shards]
        spans = [
            Span(shard.name, 0, 0 if fault else shard.bytes)
            for shard, fault in zip(shards, known, strict=True)
        ]
        stream = Stream(self._bucket, spans, self._requests)
        for number, shard in enumerate(shards):
            fault = known[number] if self.listed else size_fault(shard, self._look_at(shard))
            mine = None if samples is None else samples[samples["shard"] == number]
            checked: Iterable[tuple[int, str]] = [(0, fault)]
            if not fault:
                checked = self._checked(stream.parts(number), shard, mine, num_classes)
            yield from named_faults(shard, checked)

    def _look_at(self, shard: Shard) -> Listed | None:
        """The object; None where there is none."""
        request = look_at(self._bucket, shard.name, timeout_seconds=self._limit)
        try:
            return self._requests.run(request)
        except MissingObjectError:
            return None

    def _checked(
        self,
        parts: Iterator[memoryview],
        shard: Shard,
        samples: NDArray[np.void] | None,
        num_classes: int,
    ) -> Iterator[tuple[int, str]]:
        """A shard with a fault is fetched again: bytes can be damaged on the way."""
        try:
            for size, fault in content_faults(forward_file(parts), shard, samples, num_classes):
                yield size, ""
                if fault:
                    again = parts_of(self._bucket, shard.name, (0, shard.bytes), self._requests)
                    checked = content_faults(forward_file(again), shard, samples, num_classes)
                    yield from ((0, found) for _, found in checked)
        except MissingObjectError:  # it was deleted meanwhile
            yield 0, MISSING
