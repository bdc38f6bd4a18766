"""Shards that go to an object store, one by one as they are finished; a `target.Target`.

    STAGING/NAME.tar.partial ─▶ OUT/NAME.tar.partial ─▶ OUT/.fastload/NAME.tar.json     phase 1
    OUT/NAME.tar.partial ─▶ the store copies it ─▶ OUT/NAME.tar                         phase 2
    the indexes ─▶ OUT/manifest.json

The state lies in the store too, so the same command goes on from any machine. The staging folder
holds what is being written: some shards at most. Whatever a kill leaves in it is removed by the
next run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fastload.console.terminal import say
from fastload.errors import FastloadError, OutputError, ShardError
from fastload.files import sha256_of
from fastload.prepare.journal import STATE_NAME, Journal, difference
from fastload.prepare.staging import staged
from fastload.store.facts import JSON_BYTES
from fastload.store.manifest import Manifest
from fastload.store.objects import MissingObjectError
from fastload.store.remote import Bucket
from fastload.store.remote_shards import read_manifest_bytes, read_remote_manifest
from fastload.store.uploads import Uploads

WRITABLE = ("s3", "gs", "az", "abfs", "abfss")
LARGEST_SHARD = 4 << 30  # stores copy 5 GB at most
_MOST_OBJECTS = 1_000_000  # below the address: those of 250,000 shards
_JOURNALS_AT_ONCE = 16
_LARGEST_JOURNAL = 1 << 30
_RUN, _PROBE = f"{STATE_NAME}/run.json", f"{STATE_NAME}/probe"


class BucketTarget:
    """Shards below an address of an object store.

    Args:
        uploads: Where they go.
        out: Folder of this machine for what is being written; it is there, and is ours.
        staging: The folder that a node of a cluster makes one in; None for that of temporary files.
    """

    at_once = 4  # each takes two shards of local disk where it is written again

    def __init__(self, uploads: Uploads, out: Path, staging: Path | None) -> None:
        self.uploads, self.bucket, self.out, self.staging = uploads, uploads.bucket, out, staging
        self.place: Path | str = self.bucket.address
        self._journals: dict[str, Journal] = {}

    def reach(self) -> None:
        """See that the store is there, and that all can be done in it that is done later.

        Raises:
            ShardError: If it cannot.
        """
        with suppress(MissingObjectError):
            read_manifest_bytes(self.bucket)
            return  # all is there, or the address is refused
        self._refuse_within_shards()
        self.uploads.put(_PROBE, b"")
        self.uploads.rename(_PROBE, f"{_PROBE}-copy")
        self.uploads.delete(f"{_PROBE}-copy")

    def _refuse_within_shards(self) -> None:
        """See that no folder above holds shards: they are copied and checked with all below it.

        Raises:
            OutputError: If one does.
        """
        above = self.bucket.address.rpartition("/")[0]
        while not above.endswith(("/", ":")):
            with suppress(ShardError):  # there is none, or who may write here may not look there
                read_remote_manifest(Bucket(above))
                raise OutputError(
                    f"{self.place} lies within the shards of {above}; choose another --out"
                )
            above = above.rpartition("/")[0]

    def partial_path(self, name: str) -> Path:
        """See `Target.partial_path`."""
        return self.out / f"{name}.partial"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """See `Target.locked`: a run of another machine is not seen; it writes the same bytes."""
        yield

    def claim(self, facts: dict[str, Any]) -> None:
        """See `Target.claim`; reads the journals of a run that it goes on with."""
        names = self.uploads.names(most=_MOST_OBJECTS)
        if _RUN not in names:
            strangers = [name for name in names if not name.startswith(f"{STATE_NAME}/")]
            if strangers:
                raise OutputError(
                    f"{self.place} is not empty (it holds {strangers[0]!r}) and holds no shards; "
                    "choose another --out"
                )
            if self.uploads.put(_RUN, json.dumps(facts).encode("ascii"), new=True):
                return
        found = json.loads(self.uploads.read(_RUN, most=JSON_BYTES) or b"{}")
        if found != facts:
            raise OutputError(difference(self.place, found, facts))
        self._read_journals(set(names))

    def _read_journals(self, names: set[str]) -> None:
        journals = [
            name.removeprefix(f"{STATE_NAME}/").removesuffix(".json")
            for name in names
            if name.startswith(f"{STATE_NAME}/") and name.endswith(".tar.json")
        ]
        there = [name for name in journals if {name, f"{name}.partial"} & names]
        pool = ThreadPoolExecutor(_JOURNALS_AT_ONCE)
        try:
            for name, journal in zip(there, pool.map(self._read_journal, there), strict=True):
                if journal is not None:
                    self._journals[name] = journal
        finally:
            pool.shutdown(cancel_futures=True)

    def _read_journal(self, name: str) -> Journal | None:
        data = self.uploads.read(_journal_name(name), most=_LARGEST_JOURNAL)
        try:
            journal = Journal.from_json(data or b"")
        except (ValueError, TypeError):
            return None
        whole = self.size(f"{name}.partial") in (journal.tar_bytes, None)
        return journal if whole else None

    def read_journal(self, name: str) -> Journal | None:
        """See `Target.read_journal`."""
        return self._journals.get(name)

    def read_manifest(self) -> Manifest | None:
        """See `Target.read_manifest`."""
        try:
            return read_remote_manifest(self.bucket)
        except MissingObjectError:
            return None

    def keep(self, name: str, journal: Journal) -> None:
        """See `Target.keep`."""
        path = self.partial_path(name)
        keep_shard(self.uploads, name, path, journal)
        path.unlink()

    def size(self, name: str) -> int | None:
        """See `Target.size`."""
        return self.uploads.size(name)

    def drop_partial(self, name: str) -> None:
        """See `Target.drop_partial`."""
        self.uploads.delete(f"{name}.partial")

    def name_partial(self, name: str) -> None:
        """See `Target.name_partial`."""
        if self.uploads.size(f"{name}.partial") is not None:
            self.uploads.rename(f"{name}.partial", name)

    def bring_partial(self, name: str) -> Path | None:
        """See `Target.bring_partial`."""
        if self.uploads.size(f"{name}.partial") is None:
            return None
        self.uploads.download(f"{name}.partial", self.partial_path(name))
        return self.partial_path(name)

    def name_rewritten(self, name: str, path: Path) -> None:
        """See `Target.name_rewritten`."""
        self.partial_path(name).unlink()
        self.uploads.upload(path, name)
        path.unlink()
        self.drop_partial(name)

    def sha256_of(self, name: str) -> str:
        """See `Target.sha256_of`."""
        path = self.out / name
        self.uploads.download(name, path)
        try:
            return sha256_of(path)
        finally:
            path.unlink()

    def publish(self) -> None:
        """See `Target.publish`: uploads all that lies in `out`, and removes it there."""
        pool = ThreadPoolExecutor(_JOURNALS_AT_ONCE)
        try:
            list(pool.map(self._publish, sorted(self.out.iterdir())))
        finally:
            pool.shutdown(cancel_futures=True)

    def _publish(self, path: Path) -> None:
        self.uploads.upload(path, path.name)
        path.unlink()

    def remove(self) -> None:
        """See `Target.remove`."""
        try:
            names = self.uploads.names(most=_MOST_OBJECTS)
            self.uploads.delete(
                *(name for name in names if name.startswith(f"{STATE_NAME}/")),
                *(name for name in names if name.endswith(".tar.partial")),
            )
        except FastloadError as error:
            say(f"what the run noted below {STATE_NAME}/ is not removed: {error}", error=True)


def keep_shard(uploads: Uploads, name: str, path: Path, journal: Journal) -> None:
    """Upload a finished shard, and then its journal."""
    uploads.upload(path, f"{name}.partial")
    uploads.put(_journal_name(name), journal.to_json())


def _journal_name(name: str) -> str:
    return f"{STATE_NAME}/{name}.json"


@contextmanager
def bucket_target(address: str, staging: Path | None) -> Iterator[BucketTarget]:
    """The target at an address, with a staging folder of its own in a folder.

    Args:
        address: Of an object store.
        staging: The folder; None for that of temporary files.

    Raises:
        OutputError: If the address cannot be written to, or another run of this machine does.
        OSError: If the staging folder cannot be made.
        ShardError: If the store cannot be used.
    """
    scheme = address.partition("://")[0].lower()
    if scheme not in WRITABLE:
        known = ", ".join(f"{one}://" for one in WRITABLE)
        raise OutputError(f"{address} can only be read; shards are written to {known} or a folder")
    with staged(address, staging) as folder, Uploads(Bucket(address)) as uploads:
        target = BucketTarget(uploads, folder, staging and staging.absolute())
        target.reach()
        yield target
