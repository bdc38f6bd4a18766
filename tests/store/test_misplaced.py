"""Whatever is passed in place of a shard directory, the error says what to pass."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastload import Loader, TarDataset
from fastload.errors import ShardError
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
        ("file://{root}/shards", "is an address, expected a folder; {root}/shards"),
        ("s3://bucket/shards", "s3://bucket/shards: is an address, .*; copy the shards to this"),
        ("{root}/x*/y", "the folder does not exist.; give a folder, no pattern: {root}/x"),
        ("~/nowhere", "the folder does not exist.; ~ is the shell's, give /.*/nowhere"),
        ("{root}/nowhere", "does not exist.; make it with `python -m fastload.shard data/`"),
        ("{root}/my pictures", "no index could be made: none of the 1 files of .* --min-side 20"),
        ("{root}/my pictures/train/ash/1.JPG", "is no folder of shards; give the folder that"),
        ("{root}/empty", "the folder is empty or holds other files.; make it with `python -m"),
    ],
)
@pytest.mark.parametrize("kind", [Loader, TarDataset])
def test_what_was_passed_is_told_apart(tmp_path, shards, pictures, kind, passed, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ShardError, match=message.format(root=tmp_path)):
        kind(passed.format(root=tmp_path))
    if "://" not in passed:
        with pytest.raises(ShardError, match=message.format(root=tmp_path)):
            kind([Path(passed.format(root=tmp_path))])


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
