"""Whatever is passed in place of a shard directory, the error says what to pass."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from fastload import Loader, TarDataset
from fastload.console.shell import module_command
from fastload.errors import ShardError
from fastload.store.making import lacks_index
from tests.shards import noisy_picture, numbered


@pytest.fixture
def shards(tmp_path) -> Path:
    directory: Path = numbered(tmp_path / "shards", {"train": 10, "val": 10})
    return directory


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder: Path = tmp_path / "my pictures"
    (folder / "train" / "ash").mkdir(parents=True)
    jpeg = noisy_picture(0, 0, height=20, width=20).jpeg
    (folder / "train" / "ash" / "1.JPG").write_bytes(jpeg)
    return folder


@pytest.mark.parametrize(
    ("passed", "message"),
    [
        (
            "{root}/shards/train-000000.tar",
            "no folder .* that holds manifest.json: {root}/shards",
        ),
        ("{root}/shards/manifest.json", "no folder .* that holds manifest.json: {root}/shards"),
        ("{root}/shards/train", "no folder .* that holds manifest.json: {root}/shards"),
        ("{root}/shards/*.tar", "no folder .* that holds manifest.json: {root}/shards"),
        ("{root}", "no complete set .*, but one in a folder of it; give {root}/shards"),
        ("file://{root}/shards", "is an address, expected a folder; give {root}/shards"),
        ("hdfs://host/shards", "hdfs://host/shards: is an address, .*; copy the data to this"),
        (" s3:bucket/a", "is an address, .*python -m fastload.fetch s3://bucket/a shards/`"),
        ("{root}/x*/y", "no complete set of shards; give a folder, no pattern: {root}/x"),
        ("~/nowhere", "the folder does not exist.; ~ is the shell's, give /.*/nowhere"),
        ("{root}/nowhere", "does not exist.; give a folder of images, a tar or a table"),
        ("{root}/nowhere.tar", "does not exist.; give a folder of images, a tar or a table"),
        ("{root}/my picturs", "does not exist.; .*; did you mean 'my pictures'"),
        ("gs://bucket/train-{{0..9}}.tar", r"has \{{ in it, which no folder of an address may"),
        ("{root}/my pictures", "no index could be made: none of the 1 files of .* --min-side 20"),
        ("{root}/my pictures/train/ash/1.JPG", "no folder of shards; give a folder, a tar"),
        ("{root}/packed/a.zip", "no folder of shards; give a folder, .*; unpack it first"),
        ("{root}/packed", "holds other files., and no images; .*; unpack a.zip first"),
        ("{root}/empty", "the folder is empty or holds other files., and no images; give a folder"),
    ],
)
@pytest.mark.parametrize("kind", [Loader, TarDataset])
def test_what_was_passed_is_told_apart(tmp_path, shards, pictures, kind, passed, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "a.zip").write_bytes(b"PK")
    with pytest.raises(ShardError, match=message.format(root=tmp_path)):
        kind(passed.format(root=tmp_path))
    if "://" not in passed:
        with pytest.raises(ShardError, match=message.format(root=tmp_path)):
            kind([Path(passed.format(root=tmp_path))])


def test_a_whole_home_or_disk_is_not_indexed_unasked(pictures, monkeypatch):
    monkeypatch.setenv("HOME", str(pictures))
    assert not lacks_index(Path(os.sep))
    index = re.escape(module_command("fastload.index", pictures))
    with pytest.raises(ShardError, match=f"but images; index them with `{index}`"):
        Loader(pictures)
    assert lacks_index(pictures / "train")


@pytest.mark.parametrize("path", ["", [], [""], ("", "x")])
def test_no_path_is_not_the_current_folder(shards, monkeypatch, path):
    monkeypatch.chdir(shards)
    with pytest.raises(ValueError, match="path must name at least one shard directory, got"):
        Loader(path)
    assert len(TarDataset(os.curdir)) == 10


@pytest.mark.parametrize(
    ("split", "meant"),
    [
        ("validation", "val"),
        ("valid", "val"),
        ("Train", "train"),
        ("training", "train"),
        ("v", "val"),
    ],
)
def test_a_split_by_another_name_is_told(shards, split, meant):
    for kind in (Loader, TarDataset):
        with pytest.raises(
            ShardError, match=rf"choose one of train, val; did you mean '{meant}'\?"
        ):
            kind(shards, split=split)
