"""Samples in an object store, fetched before they are needed: see `reader.Reader`.

    read_ahead(rows) ─► neighbours become one range ─► Requests: many in flight
    read(rows) ─► wait for their ranges ─► copied to the thread's Scratch ─► CRC-32

The order of an epoch is known, so what is asked for ahead is what will be read, no more. A sample
that was not asked for (a replacement, `TarDataset`) is fetched at once, together with the others of
its chunk. With a cache a range goes to its file, and is read from there now and in later epochs.

A sample whose CRC-32 is wrong is fetched once more past the cache: bytes can be damaged on a disk,
and on the way. If they are wrong again they are so in the store, and the sample is bad. So is one
whose object is gone or shorter and was nothing but this sample. A tar that is gone or another is an
error.
"""

from __future__ import annotations

import os
import threading
import weakref
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastload.errors import ResourceError, SamplePlace, ShardError
from fastload.pixels.jpeg import Encoded
from fastload.store.cache import Cache
from fastload.store.collection import Collection
from fastload.store.holders import JoinedFiles
from fastload.store.objects import (
    PART_BYTES,
    ChangedObjectError,
    MissingObjectError,
    look_at,
)
from fastload.store.ranges import read_ranges
from fastload.store.reader import FileReader, Reader, Scratch, differing, laid_out
from fastload.store.remote import Bucket
from fastload.store.remote_places import RemotePlaced
from fastload.store.remote_shards import RemoteShards
from fastload.store.requests import Fetch, Requests
from fastload.store.seek_tables import SeekTables

# Bytes between two wanted samples that are fetched with them, instead of a further request. What a
# cache keeps is not fetched in vain: measured on 2,048 photographs of 43 kB, a quarter of the time.
_GAP, _CACHED_GAP = 64 * 1024, 256 * 1024
# Rows among which neighbours are looked for. With more, what the next batch needs would come
# in one request with what later ones need, and the first batch would wait for all of that.
_TOGETHER = 128
_LIMIT_SHARE = 0.8  # of the loader's limit: so the message that names the request comes first

RemoteFiles: TypeAlias = RemoteShards | RemotePlaced


class _Object(NamedTuple):
    """An object that holds samples.

    Attributes:
        bucket: Where it is.
        name: Its name there.
        cache: For what is fetched of it.
        kept_in: See `Fetch.kept_in`.
    """

    bucket: Bucket
    name: str
    cache: Cache | None
    kept_in: tuple[str, int]


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
    if not any(isinstance(part, RemoteFiles) for part in parts):
        return FileReader(collection)
    return RemoteReader(collection, timeout_seconds=timeout_seconds)


class RemoteReader:
    """Reads the samples of a collection whose files lie in object stores; see `Reader`.

    Args:
        collection: Index and objects.
        timeout_seconds: How long the caller waits for a batch.

    Raises:
        ShardError: If a part of the collection lies on a disk, or the cache cannot be used.
    """

    def __init__(self, collection: Collection, *, timeout_seconds: float = 300.0) -> None:
        self._index, self._files = collection.index, collection.files
        self._parts: list[tuple[RemoteFiles, Cache | None]] = []
        self._firsts: list[int] = []  # number of the first file of each part
        count = 0
        for part in _parts_of(collection):
            if not isinstance(part, RemoteFiles):
                raise ShardError(
                    "some of the data lie in an object store and others on a disk; give addresses"
                    " alone, or folders alone"
                )
            self._parts.append((part, _cache_of(part)))
            self._firsts.append(count)
            count += len(part)
        caches = [cache for _, cache in self._parts if cache]
        self._cached = bool(caches)
        self._tables = SeekTables(collection)
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
        lacking, gone = self._fill(wanted, encoded, images)
        if lacking:  # was thrown out of the cache, after it was asked for
            gone |= self._fill_anew(wanted, lacking, images)
        bad, changed = differing(encoded, images, records)
        if again := sorted(bad.keys() - gone.keys()):
            gone |= self._fill_anew(wanted, again, images)
            bad, changed = differing(encoded, images, records)
        for i in changed:
            if i not in gone:
                bad[i] = self._explained(wanted[i], bad[i])
        if encoded.tables is not None:
            bad |= self._tables.read(rows, encoded.tables)
        return encoded, bad | gone

    def locate(self, row: int) -> SamplePlace:
        """See `Reader.locate`."""
        return self._files.place(int(self._index["file"][row]), int(self._index["offset"][row]))

    def file_of(self, row: int) -> str:
        """See `Reader.file_of`."""
        return self._object(row).name

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
        self._tables.close()
        self._finalizer()

    def _expect_own_process(self) -> None:
        if os.getpid() != self._process:
            raise ResourceError(
                "this process was forked from one that reads an object store, whose threads are not"
                " in it; make the Loader after the fork, or start workers with"
                ' multiprocessing_context="spawn" or "forkserver"'
            )

    def _part(self, number: int) -> tuple[RemoteFiles, Cache | None, int]:
        """The part that a file is in, and its number there."""
        place = bisect_right(self._firsts, number) - 1
        return *self._parts[place], number - self._firsts[place]

    def _object_of(self, number: int) -> _Object:
        part, cache, own = self._part(number)
        kept_in = ("", 0) if cache is None else part.in_cache(own)
        return _Object(part.bucket, part.name(own), cache, kept_in)

    def _object(self, row: int) -> _Object:
        return self._object_of(int(self._index["file"][row]))

    def _in_cache(self, row: int) -> bool:
        if not self._cached or (one := self._object(row)).cache is None:
            return False
        file, shift = one.kept_in
        return one.cache.has(file, int(self._index["offset"][row]) + shift)

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
                held = self._object_of(number := numbers[i])
                fetch = Fetch(
                    *(held.bucket, held.name, begins[i], ends[i]),
                    keeper=held.cache,
                    kept_in=held.kept_in,
                )
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

    def _fill(
        self, rows: list[int], encoded: Encoded, images: list[memoryview]
    ) -> tuple[list[int], dict[int, str]]:
        """Copy samples to their places, from memory or from the cache.

        Returns:
            The places of those that are not there, and of those whose object is gone, with reasons.
        """
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
        kept, gone = [], {}
        try:
            for i, one in coming.items():
                data, reason = self._result(one.fetch, rows[i])
                if reason:
                    gone[i] = reason
                elif data is None:
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
        return [i for i in kept if i not in found], gone

    def _result(self, fetch: Fetch, row: int) -> tuple[memoryview | None, str]:
        """What came, or why the object of a sample that lies in it alone has no such bytes."""
        try:
            return fetch.outcome.result(), ""
        except (ChangedObjectError, MissingObjectError) as error:
            part, _, own = self._part(int(self._index["file"][row]))
            if not part.alone(np.array([own]))[0]:
                raise
            return None, f"{error.reason}; {part.remedy(own)}"

    def _read_cached(self, rows: list[int], places: list[int], encoded: Encoded) -> set[int]:
        """Read samples from the cache's files into their places; returns those that were there."""
        if not self._cached or not places:
            return set()
        held, offsets = [], []
        for i in places:
            one = self._object(rows[i])
            file, shift = one.kept_in
            offsets.append(int(self._index["offset"][rows[i]]) + shift)
            held.append(one.cache.file_with(file, offsets[-1]) if one.cache else None)
        there = [k for k, file in enumerate(held) if file is not None]
        chosen = [places[k] for k in there]
        part = Encoded(encoded.buffer, encoded.starts[chosen], encoded.sizes[chosen])
        opened = [file.descriptor for file in held if file is not None]
        complete = read_ranges(opened, np.array(offsets, np.int64)[there], part)
        return {place for place, whole in zip(chosen, complete.tolist(), strict=True) if whole}

    def _fill_anew(
        self, rows: list[int], places: list[int], images: list[memoryview]
    ) -> dict[int, str]:
        """Fetch samples past the cache, and copy them to their places; returns as `_fill`."""
        fetches, gone = [], {}
        for i in places:
            one = self._object(rows[i])
            begin = int(self._index["offset"][rows[i]])
            if one.cache is not None:
                file, shift = one.kept_in
                one.cache.drop(file, begin + shift)
            fetches.append(Fetch(one.bucket, one.name, begin, begin + len(images[i])))
        self._requests.ask(fetches, urgent=True)
        try:
            for i, fetch in zip(places, fetches, strict=True):
                data, reason = self._result(fetch, rows[i])
                if reason:
                    gone[i] = reason
                elif data is not None:
                    images[i][:] = data
        finally:
            self._requests.release(fetches)
        return gone

    def _explained(self, row: int, reason: str) -> str:
        """Why a sample has other bytes in the store.

        Raises:
            ChangedObjectError: If it is in an object of many samples that is another one.
        """
        part, _, own = self._part(int(self._index["file"][row]))
        if part.alone(np.array([own]))[0]:
            return f"{reason}; it changed since it was indexed: {part.remedy(own)}"
        limit = self._requests.timeout_seconds
        request = look_at(part.bucket, part.name(own), timeout_seconds=limit)
        if difference := part.difference(own, self._requests.run(request)):
            raise ChangedObjectError(
                f"{reason}, and the object {difference}: it was replaced while it was in use;"
                f" {part.remedy(own)}",
                where=self.locate(row),
            )
        return reason


def _near(fetch: Fetch, begin: int, end: int) -> bool:
    """Whether a sample is to come with a range that begins before it."""
    apart = begin > fetch.end + (_CACHED_GAP if fetch.keeper else _GAP)
    return not apart and max(end, fetch.end) - fetch.begin <= PART_BYTES


def _parts_of(collection: Collection) -> tuple[object, ...]:
    files = collection.files
    return files.parts if isinstance(files, JoinedFiles) else (files,)


def _cache_of(part: RemoteFiles) -> Cache | None:
    access = part.bucket.access
    if access.cache is None:
        return None
    folder = Path(access.cache).expanduser().absolute()
    return Cache(folder, part.kept_as, most_bytes=access.cache_bytes)


def _end(requests: Requests, caches: list[Cache]) -> None:
    requests.close()
    for cache in caches:
        cache.close()
