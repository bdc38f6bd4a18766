"""An index that is mapped: the rows of one in memory, and one sentence where a row is wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastload import Augment, Loader, Select
from fastload.errors import ShardError
from fastload.files import locked, temporary_of
from fastload.store import collection, mapped
from fastload.store.collection import open_collection
from fastload.store.index import SAMPLE
from fastload.store.mapped import MappedIndex
from tests.shards import numbered


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return numbered(tmp_path / "shards", {"train": 120, "val": 12})


@pytest.fixture
def mapping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every index counts as large."""
    monkeypatch.setattr(collection, "MAPPED_FROM", 1)
    monkeypatch.setattr(mapped, "_CHUNK", 17)


def epoch_of(shards: Path, **options: Any) -> list[tuple[list[int], list[int], int]]:
    """Rows, labels and the sum of the pixels of each batch of two epochs."""
    found = []
    with Loader(shards, batch_size=8, augment=Augment.train(16), **options) as loader:
        for epoch in range(2):
            loader.set_epoch(epoch)
            for images, labels in loader:
                found.append((loader.last_indices().tolist(), labels.tolist(), int(images.sum())))
        assert loader.class_counts.sum() == len(loader.dataset)
    return found


OPTIONS: list[dict[str, Any]] = [
    {},
    {"reweight": "sqrt"},
    {"reweight": "inverse", "epoch_size": 300},
    {"order": "sequential"},
    {"order": "sequential", "reweight": "sqrt"},
    {"split": "val"},
    {"select": Select(first=40)},
    {"reweight": np.arange(1, 121)},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_batches_are_those_of_an_index_in_memory(shards, options, monkeypatch):
    expected = epoch_of(shards, **options)
    monkeypatch.setattr(collection, "MAPPED_FROM", 1)
    monkeypatch.setattr(mapped, "_CHUNK", 17)
    assert isinstance(open_collection(shards, "train").index, MappedIndex)
    assert epoch_of(shards, **options) == expected


@pytest.mark.usefixtures("mapping")
def test_rows_by_class_are_kept_beside_the_index_and_are_a_stable_sort(shards):
    index = open_collection(shards, "train").index
    expected = np.argsort(np.array(index["label"]), kind="stable")
    for _ in range(2):
        rows = open_collection(shards, "train").rows_by_class()
        assert np.array_equal(rows[np.arange(120)], expected)
        assert len(list(shards.glob("train.*.by-class"))) == 1
    assert not [path for path in shards.iterdir() if path.name.startswith(".")]


def table_of(shards: Path) -> Path:
    """Where the table is kept, which is not there yet."""
    open_collection(shards, "train").rows_by_class()
    (table,) = shards.glob("train.*.by-class")
    table.unlink()
    return table


@pytest.mark.usefixtures("mapping")
def test_where_it_cannot_be_written_the_table_is_temporary(shards, tmp_path, monkeypatch):
    temporary_of(table_of(shards)).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rows = open_collection(shards, "train").rows_by_class()
    assert sorted(rows[np.arange(120)].tolist()) == list(range(120))
    assert not list(shards.glob("*by-class"))
    assert list(tmp_path.iterdir()) == [shards]


@pytest.mark.usefixtures("mapping")
def test_what_a_kill_left_of_a_table_is_replaced(shards):
    table = table_of(shards)
    program = (
        "import os, signal, sys\n"
        "from fastload.store import collection, mapped\n"
        "collection.MAPPED_FROM = 1\n"
        "mapped.np.argsort = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
        "collection.open_collection(sys.argv[1], 'train').rows_by_class()\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(shards)], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert temporary_of(table).exists()
    assert len(open_collection(shards, "train").rows_by_class()) == 120
    assert [path for path in shards.iterdir() if "by-class" in path.name] == [table]


@pytest.mark.usefixtures("mapping")
def test_who_wants_a_table_that_is_being_made_waits_for_it(shards, monkeypatch):
    def counting(*arguments: Any) -> Any:
        made.append(arguments)
        return real(*arguments)

    table, real = table_of(shards), mapped._sorted
    made: list[Any] = []
    monkeypatch.setattr(mapped, "_sorted", counting)
    nobody: dict[str, Any] = {
        "held": lambda: pytest.fail("held"),
        "unlockable": lambda _: pytest.fail("no locks"),
    }
    with ThreadPoolExecutor(3) as pool:
        with locked(temporary_of(table), **nobody):
            rows = [pool.submit(open_collection(shards, "train").rows_by_class) for _ in range(3)]
            time.sleep(0.2)
            assert not made
        assert [len(each.result(60)) for each in rows] == [120, 120, 120]
    assert len(made) == 1
    assert not temporary_of(table).exists()


@pytest.mark.usefixtures("mapping")
def test_a_table_of_another_size_is_made_anew(shards):
    open_collection(shards, "train").rows_by_class()
    (table,) = shards.glob("train.*.by-class")
    os.truncate(table, 8)
    assert len(open_collection(shards, "train").rows_by_class()) == 120


@pytest.mark.usefixtures("mapping")
@pytest.mark.parametrize("value", [0, 0xFFFFFFFF])
def test_a_damaged_table_is_named_before_a_wrong_sample_is_drawn(shards, value):
    expected = epoch_of(shards, reweight="sqrt")
    (table,) = shards.glob("train.*.by-class")
    np.full(120, value, np.uint32).tofile(table)
    with pytest.raises(ShardError, match=r"by-class: is damaged .*; remove it, and it is made"):
        epoch_of(shards, reweight="sqrt")
    table.unlink()
    assert epoch_of(shards, reweight="sqrt") == expected


@pytest.mark.usefixtures("mapping")
def test_the_table_needs_no_folder_of_temporary_files(shards, monkeypatch):
    def missing() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", missing)
    assert len(open_collection(shards, "train").rows_by_class()) == 120


def changed(shards: Path, name: str, value: int) -> None:
    """Change a column of row 7 of the index."""
    path = shards / "train.index.npy"
    data = bytearray(path.read_bytes())
    begin = len(data) - 120 * SAMPLE.itemsize
    rows = np.frombuffer(data, SAMPLE, offset=begin)
    rows[name][7] = value
    path.write_bytes(data)


@pytest.mark.usefixtures("mapping")
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("label", -1, "has a label outside"),
        ("label", 99, "has a label outside"),
        ("shard", 99, "names shard 99, the manifest lists"),
        ("offset", 0, "has an image that lies outside its shard"),
        ("offset", 2**63, "has an image that lies outside its shard"),
        ("size", 2**31, "has an image that lies outside its shard"),
        ("height", 0, "has an image of no height or width"),
    ],
)
def test_a_row_that_points_elsewhere_is_one_sentence_when_it_is_read(shards, name, value, message):
    changed(shards, name, value)
    index = open_collection(shards, "train").index
    assert len(index[np.arange(7)]) == 7
    with pytest.raises(ShardError, match=f"train.index.npy: {message}.*rebuild"):
        index[np.arange(5, 9)]


@pytest.mark.usefixtures("mapping")
def test_an_index_that_is_not_what_its_manifest_says_is_refused_when_it_is_opened(shards):
    path = shards / "train.index.npy"
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(ShardError, match=r"train.index.npy: has .* bytes, 120 samples need"):
        open_collection(shards, "train")
    path.unlink()
    with pytest.raises(ShardError, match="copy it again"):
        open_collection(shards, "train")


@pytest.mark.usefixtures("mapping")
def test_labels_that_contradict_the_manifest_end_the_table(shards):
    changed(shards, "label", 0)
    changed(shards, "crc32", 0)
    data = open_collection(shards, "train")
    assert data.listing is not None
    if np.array_equal(np.bincount(data.index["label"]), data.listing.class_counts):
        changed(shards, "label", 1)
    with pytest.raises(ShardError, match="has other class counts than the manifest"):
        open_collection(shards, "train").rows_by_class()
    assert not list(shards.glob("*by-class*"))
