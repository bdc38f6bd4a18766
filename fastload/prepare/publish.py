"""An index of data in an object store, put beside the data: see `store.remote_index`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress

from fastload.errors import ShardError, StalledError
from fastload.prepare.report import REPORT_NAME
from fastload.store.facts import JSON_BYTES
from fastload.store.objects import Listed
from fastload.store.places import FOLDER_NAME, INDEX_NAME, PlacedData, Places, places_in
from fastload.store.remote import Bucket
from fastload.store.remote_index import files_of_index, note_published
from fastload.store.remote_shards import listed_objects
from fastload.store.uploads import Uploads

_ABANDONED_SECONDS = 86400.0  # files of an index that was not finished by then belong to no run


def publish_index(data: PlacedData, bucket: Bucket) -> str:
    """Put an index beside its data, where every machine finds it; the former one is removed.

    What is there stays where it says the same, and whole until the new one takes its place.

    Args:
        data: The index, on this machine.
        bucket: Where the data lie.

    Returns:
        Its address.

    Raises:
        OSError: If a file of the index cannot be read, or the note of it written.
        ShardError: If the store refuses to take it.
        StalledError: If the store does not answer.
    """
    below, places = Bucket(bucket.of(FOLDER_NAME), bucket.access), data.places
    with Uploads(below) as uploads:
        former = _former(uploads)
        listing = listed_objects(below) or {}
        if former and former.recipe == places.recipe and _is_whole(former, uploads, listing):
            note_published(data.path)
            return below.address
        for name in files_of_index(places):
            inner = places.folder if name in places.digests else ""
            uploads.upload(data.path / inner / name, f"{places.folder}/{name}")
        for name in (REPORT_NAME, INDEX_NAME):
            uploads.upload(data.path / name, name)
        note_published(data.path)
        with suppress(ShardError, StalledError):  # what is left does no harm
            uploads.delete(*_left_over(former, places, listing))
    return below.address


def _former(uploads: Uploads) -> Places | None:
    """What the index says that is there; None where there is none that can be used."""
    content = uploads.read(INDEX_NAME, most=JSON_BYTES)
    if content is None:
        return None
    try:
        return places_in(content, uploads.bucket.of(INDEX_NAME), uploads.bucket.address)
    except ShardError:
        return None


def _is_whole(former: Places, uploads: Uploads, listing: Mapping[str, Listed]) -> bool:
    """Whether all files of an index are there."""
    names = [f"{former.folder}/{name}" for name in files_of_index(former)]
    return all(name in listing or uploads.size(name) is not None for name in names)


def _left_over(former: Places | None, new: Places, listing: Mapping[str, Listed]) -> list[str]:
    """Files of the former index, and of runs that were killed long ago.

    Those of any other index may belong to a run of another machine that is not finished yet.
    """
    long_ago = (time.time() - _ABANDONED_SECONDS) * 1e9
    found = {
        name
        for name, one in listing.items()
        if name.startswith("index-") and one.version.modified_ns < long_ago
    }
    if former is not None:
        found |= {f"{former.folder}/{name}" for name in files_of_index(former)}
    return sorted(name for name in found if not name.startswith(f"{new.folder}/"))
