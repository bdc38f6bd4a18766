"""Samples of shards in an object store, fetched before they are needed: see `reader.Reader`.

    read_ahead(rows) ─► neighbours become one range ─► Requests: many in flight
    read(rows) ─► wait for their ranges ─► copied to the thread's Scratch ─► CRC-32

The order of an epoch is known, so what is asked for ahead is what will be read, no more. A sample
that was not asked for (a replacement, `TarDataset`) is fetched at once, together with the others of
its chunk. With a cache a range goes to its file, and is read from there now and in later epochs.

A sample whose CRC-32 is wrong is fetched once more past the cache: bytes can be damaged on a disk,
and on the way. If they are wrong again they are so in the store, and the sample is bad.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastload.errors import ResourceError, SamplePlace, ShardError
from fastload.pixels.jpeg import Encoded
from fastload.store.cache import Cache
from fastload.store.collection import Collection
from fastload.store.holders import JoinedFiles
from fastload.store.manifest import Shard
from fastload.store.objects import PART_BYTES, size_of
from fastload.store.ranges import read_ranges
from fastload.store.reader import FileReader, Reader, Scratch, differing, laid_out
from fastload.store.remote import Bucket
from fastload.store.remote_shards import RemoteShards
from fastload.store.requests import Fetch, Requests

# Bytes between two wanted samples that are fetched with them, instead of a further request. What a
# cache keeps is not fetched in vain: measured on 2,048 photographs of 43 kB, a quarter of the time.
_GAP, _CACHED_GAP = 64 * 1024, 256 * 1024
# Rows among which neighbours are looked for. With more, what the next batch needs would come
# in one request with what later ones need, and the first batch would wait for all of that.
_TOGETHER = 128
_LIMIT_SHARE = 0.8  # of the loader's limit: so the message that names the request comes first


@dataclass(slots=True, eq=False)
class _Coming:
    """A range that was asked for, and the rows of the index that are in it.

    Attributes:
        fetch: The range.
        rows: The rows that it was asked for.
        first: Place of the first of them among the rows that were asked for.
        uses: How many reads of these rows are still to come.
    """

    fetch: Fetch
    rows: list[int]
    first: int
    uses: int = 0


def open_reader(collection: Collection, *, timeout_seconds: float = 300.0) -> Reader:
    """The reader that suits where the data lie.

    Raises:
        ShardError: If files are missing, or local data are mixed with those of an object store.
    """
    parts = _parts_of(collection)
    if not any(isinstance(part, RemoteShards) for part in parts):
        return FileReader(collection)
    return RemoteReader(collection, timeout_seconds=timeout_seconds)


class RemoteReader:
    """Reads the samples of a collection whose shards lie in object stores; see `Reader`.

    Args:
        collection: Index and shards.
        timeout_seconds: How long the caller waits for a batch.

    Raises:
        ShardError: If a part of the collection lies on a disk, or the cache cannot be used.
    """

    def __init__(self, collection: Collection, *, timeout_seconds: float = 300.0) -> None:
        self._index, self._files = collection.index, collection.files
        self._objects: list[tuple[Bucket, Shard, Cache | None]] = []  # by number of the file
        caches: list[Cache] = []
        for part in _parts_of(collection):
            if not isinstance(part, RemoteShards):
                raise ShardError(
                    "some of the data lie in an object store and others on a disk; give addresses"
                    " alone, or folders alone"
                )
            cache = _cache_of(part)
            caches += [cache] if cache else []
            self._objects += [(part.bucket, shard, cache) for shard in part.shards]
        self._cached = bool(caches)
        self._requests = Requests(timeout_seconds=timeout_seconds * _LIMIT_SHARE)
        self._coming: dict[int, _Coming] = {}  # by row
        self._later: dict[int, int] = {}  # rows to ask for, and how many reads of each will come
        self._lock, self._process = threading.Lock(), os.getpid()
        self._finalizer = weakref.finalize(self, _end, self._requests, caches)

    @property
    def fetched(self) -> tuple[int, int]:
        """Requests that brought samples since the start, and their bytes."""
        return self._requests.count, self._requests.bytes

    def read_ahead(self, rows: NDArray[np.int64]) -> None:
        """See `Reader.read_ahead`: what is coming already, or in the cache, is not asked for."""
        self._expect_own_process()
        with self._lock:
            for row in rows.tolist():
                self._later[row] = self._later.get(row, 0) + 1
            asked = []
            while len(self._later) >= _TOGETHER:
                asked += self._plan_next()
        self._requests.ask([one.fetch for one in asked])

    def read(self, rows: NDArray[np.int64], scratch: Scratch) -> tuple[Encoded, dict[int, str]]:
        """See `Reader.read`.

        Raises:
            StalledError: If the server did not bring the bytes in time; names the request.
        """
        self._expect_own_process()
        records = self._index[rows]
        encoded = laid_out(records, scratch)
        images = [encoded[i] for i in range(len(rows))]
        wanted = rows.tolist()
        lacking = self._fill(wanted, encoded, images)
        if lacking:  # was thrown out of the cache, after it was asked for
            self._fill_anew(wanted, lacking, images)
        bad, changed = differing(encoded, images, records)
        if bad:
            self._fill_anew(wanted, sorted(bad), images)
            bad, changed = differing(encoded, images, records)
        for i in changed:
            self._check_unchanged(wanted[i], bad[i])
        return encoded, bad

    def locate(self, row: int) -> SamplePlace:
        """See `Reader.locate`."""
        return self._files.place(int(self._index["file"][row]), int(self._index["offset"][row]))

    def file_of(self, row: int) -> str:
        """See `Reader.file_of`."""
        return self._object(row)[1].name

    def forget(self) -> None:
        """See `Reader.forget`: requests are cancelled, a `read` that waits fails."""
        with self._lock:
            left, self._coming = {one.fetch for one in self._coming.values()}, {}
            self._later = {}
        self._requests.cancel()
        self._requests.release(list(left))

    def renew(self) -> None:
        """See `Reader.renew`: a forked child can close this reader, and no more."""
        self._lock = threading.Lock()

    def close(self) -> None:
        """See `Reader.close`."""
        self._coming = {}
        self._finalizer()

    def _expect_own_process(self) -> None:
        if os.getpid() != self._process:
            raise ResourceError(
                "this process was forked from one that reads an object store, whose threads are not"
                " in it; make the Loader after the fork, or start workers with"
                ' multiprocessing_context="spawn" or "forkserver"'
            )

    def _object(self, row: int) -> tuple[Bucket, Shard, Cache | None]:
        return self._objects[int(self._index["file"][row])]

    def _in_cache(self, row: int) -> bool:
        _, shard, cache = self._object(row)
        return cache is not None and cache.has(shard.name, int(self._index["offset"][row]))

    def _plan_next(self) -> list[_Coming]:
        """Note the next rows that are to be asked for as coming; the lock is held."""
        uses = {row: self._later.pop(row) for row in list(islice(self._later, _TOGETHER))}
        new = [row for row in uses if row not in self._coming and not self._in_cache(row)]
        asked = self._ask_for(new)
        for row, count in uses.items():
            if (one := self._coming.get(row)) is not None:
                one.uses += count
        return asked

    def _ask_for(self, rows: list[int]) -> list[_Coming]:
        """Note ranges that cover some rows as coming, in the order of the rows; with the lock."""
        records = self._index[np.array(rows, np.int64)]
        offsets = records["offset"].astype(np.int64)
        begins, ends = offsets.tolist(), (offsets + records["size"]).tolist()
        numbers = records["file"].tolist()
        found: list[_Coming] = []
        one, number = None, -1
        for i in np.lexsort((offsets, records["file"])).tolist():
            if one is None or numbers[i] != number or not _near(one.fetch, begins[i], ends[i]):
                bucket, shard, cache = self._objects[number := numbers[i]]
                fetch = Fetch(bucket, shard.name, begins[i], ends[i], keeper=cache)
                one = _Coming(fetch, [], first=i)
                found.append(one)
            one.fetch.end = max(one.fetch.end, ends[i])
            one.fetch.samples.append(begins[i])
            one.rows.append(rows[i])
            one.first = min(one.first, i)
            self._coming[rows[i]] = one
        return sorted(found, key=lambda one: one.first)

    def _read_from(self, coming: Iterable[_Coming]) -> list[Fetch]:
        """Note that samples were read from ranges; returns the ranges that nobody needs further."""
        done = []
        with self._lock:
            for one in coming:
                one.uses -= 1
                if one.uses <= 0:
                    self._drop(one)
                    done.append(one.fetch)
        return done

    def _drop(self, one: _Coming) -> None:
        for row in one.rows:
            if self._coming.get(row) is one:
                del self._coming[row]

    def _fill(self, rows: list[int], encoded: Encoded, images: list[memoryview]) -> list[int]:
        """Copy samples to their places, from memory or from the cache; returns those not there."""
        with self._lock:
            asked = []
            while any(row in self._later for row in rows):
                asked += self._plan_next()
            # Held from here on: another thread may forget a range at any time.
            coming = {i: self._coming[row] for i, row in enumerate(rows) if row in self._coming}
        self._requests.ask([one.fetch for one in asked])
        unasked = [i for i in range(len(rows)) if i not in coming]
        here = self._read_cached(rows, unasked, encoded)
        with self._lock:
            left = [i for i in unasked if i not in here]
            new = dict.fromkeys(rows[i] for i in left if rows[i] not in self._coming)
            self._ask_for(list(new))
            for i in left:
                coming[i] = self._coming[rows[i]]
                coming[i].uses += 1
        late = {one.fetch for one in coming.values() if not one.fetch.started}
        self._requests.ask(list(late), urgent=True)
        kept = []
        try:
            for i, one in coming.items():
                data = one.fetch.outcome.result()
                if data is None:
                    kept.append(i)
                else:
                    begin = int(self._index["offset"][rows[i]]) - one.fetch.begin
                    images[i][:] = data[begin : begin + len(images[i])]
        except BaseException:
            with self._lock:  # who asks again gets a new request, not the old error
                for one in coming.values():
                    self._drop(one)
            self._requests.release([one.fetch for one in coming.values()])
            raise
        self._requests.release(self._read_from(coming.values()))
        found = self._read_cached(rows, kept, encoded)
        return [i for i in kept if i not in found]

    def _read_cached(self, rows: list[int], places: list[int], encoded: Encoded) -> set[int]:
        """Read samples from the cache's files into their places; returns those that were there."""
        if not self._cached or not places:
            return set()
        held, offsets = [], []
        for i in places:
            _, shard, cache = self._object(rows[i])
            offsets.append(int(self._index["offset"][rows[i]]))
            held.append(cache.file_with(shard.name, offsets[-1]) if cache else None)
        there = [k for k, file in enumerate(held) if file is not None]
        chosen = [places[k] for k in there]
        part = Encoded(encoded.buffer, encoded.starts[chosen], encoded.sizes[chosen])
        opened = [file.descriptor for file in held if file is not None]
        complete = read_ranges(opened, np.array(offsets, np.int64)[there], part)
        return {place for place, whole in zip(chosen, complete.tolist(), strict=True) if whole}

    def _fill_anew(self, rows: list[int], places: list[int], images: list[memoryview]) -> None:
        """Fetch samples past the cache, and copy them to their places."""
        fetches = []
        for i in places:
            bucket, shard, cache = self._object(rows[i])
            begin = int(self._index["offset"][rows[i]])
            if cache is not None:
                cache.drop(shard.name, begin)
            fetches.append(Fetch(bucket, shard.name, begin, begin + len(images[i])))
        self._requests.ask(fetches, urgent=True)
        try:
            for i, fetch in zip(places, fetches, strict=True):
                data = fetch.outcome.result()
                if data is not None:
                    images[i][:] = data
        finally:
            self._requests.release(fetches)

    def _check_unchanged(self, row: int, reason: str) -> None:
        """See that a sample whose bytes are others is in an object as long as at the start."""
        bucket, shard, _ = self._object(row)
        limit = self._requests.timeout_seconds
        found = self._requests.run(size_of(bucket, shard.name, timeout_seconds=limit))
        if found != shard.bytes:
            raise ShardError(
                f"{reason}, and the object has {found} bytes, the manifest says {shard.bytes}: it"
                " was replaced while it was in use; start again with the new data",
                where=self.locate(row),
            )


def _near(fetch: Fetch, begin: int, end: int) -> bool:
    """Whether a sample is to come with a range that begins before it."""
    apart = begin > fetch.end + (_CACHED_GAP if fetch.keeper else _GAP)
    return not apart and max(end, fetch.end) - fetch.begin <= PART_BYTES


def _parts_of(collection: Collection) -> tuple[object, ...]:
    files = collection.files
    return files.parts if isinstance(files, JoinedFiles) else (files,)


def _cache_of(part: RemoteShards) -> Cache | None:
    access = part.bucket.access
    if access.cache is None:
        return None
    folder = Path(access.cache).expanduser().absolute()
    return Cache(folder, part.fingerprint, most_bytes=access.cache_bytes)


def _end(requests: Requests, caches: list[Cache]) -> None:
    requests.close()
    for cache in caches:
        cache.close()
