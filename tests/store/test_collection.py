"""A collection: several directories are put end to end."""

from __future__ import annotations

import numpy as np

from fastload.store.collection import open_collection
from fastload.store.reader import FileReader, Scratch
from tests.shards import flat_picture, numbered, write_shards


def test_several_directories_are_put_end_to_end(tmp_path):
    one = numbered(tmp_path / "one", {"train": 12})
    pictures = [flat_picture(number + 50, number % 3) for number in range(7)]
    two = write_shards(
        tmp_path / "two", {"train": pictures}, classes=["class 0", "class 1", "class 2"]
    )
    collection = open_collection([one, two], "train")
    assert collection.sources.tolist() == [0] * 12 + [1] * 7
    encoded, bad = FileReader(collection).read(np.array([11, 12, 18]), Scratch())
    assert bad == {}
    images = [bytes(encoded[i]) for i in range(3)]
    assert images == [flat_picture(number, 0).jpeg for number in (11, 50, 56)]
    assert collection.fingerprint != open_collection([two, one], "train").fingerprint
