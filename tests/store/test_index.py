"""The manifest and index: written, read back, and refused where they do not fit each other."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastload.errors import ShardError
from fastload.store.index import SAMPLE, read_index, write_index
from fastload.store.manifest import (
    Manifest,
    Shard,
    Split,
    fingerprint,
    read_manifest,
    write_manifest,
)

CLASSES = ("a b", "rose 中文", "bytes \udcff")


def make_directory(folder: Path) -> Manifest:
    shards = tuple(
        Shard(name=f"train-{n:06d}.tar", bytes=10_240, sha256="0" * 64, samples=2) for n in range(2)
    )
    splits = {"train": Split(samples=4, class_counts=(1, 2, 1), shards=shards)}
    manifest = Manifest(
        classes=CLASSES,
        class_names=CLASSES,
        splits=splits,
        options={"seed": 3, "max_side": None},
        stored={"lossless": 4},
        cleaning={"grey": 2},
        fingerprint=fingerprint(CLASSES, splits),
        recipe="r",
    )
    write_manifest(folder, manifest)
    write_index(folder, "train", make_samples())
    return manifest


def make_samples() -> np.ndarray[Any, Any]:
    return np.array(
        [
            (0, 512, 100, 0, 48, 64, 1),
            (0, 2560, 100, 1, 48, 64, 2),
            (1, 512, 100, 1, 48, 64, 3),
            (1, 2560, 100, 2, 48, 64, 4),
        ],
        SAMPLE,
    )


def test_what_is_written_is_read_back(tmp_path: Path):
    manifest = make_directory(tmp_path)
    assert read_manifest(tmp_path) == manifest
    assert np.array_equal(read_index(tmp_path, "train"), make_samples())


def test_the_manifest_is_readable_utf8(tmp_path: Path):
    make_directory(tmp_path)
    text = (tmp_path / "manifest.json").read_text("utf-8")
    assert "rose 中文" in text
    assert json.loads(text)["format_version"] == 1


def test_a_directory_without_manifest_says_how_to_make_one(tmp_path: Path):
    with pytest.raises(ShardError, match=r"no manifest.json.*python -m fastload.shard"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format_version": 1}', "[" * 100_000])
def test_a_damaged_manifest_is_refused(tmp_path: Path, text: str):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ShardError, match="rebuild it"):
        read_manifest(tmp_path)


def test_another_version_is_refused(tmp_path: Path):
    (tmp_path / "manifest.json").write_text('{"format_version": 99}')
    with pytest.raises(ShardError, match="format version 99, this fastload reads 1"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("name", ["../evil.tar", "/etc/passwd", "", ".."])
def test_a_shard_outside_the_directory_is_refused(tmp_path: Path, name: str):
    make_directory(tmp_path)
    facts = json.loads((tmp_path / "manifest.json").read_bytes())
    facts["splits"]["train"]["shards"][0]["name"] = name
    (tmp_path / "manifest.json").write_text(json.dumps(facts))
    with pytest.raises(ShardError, match="not a plain file name"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("field", "row", "value", "message"),
    [
        ("shard", 1, 2, "names shard 2"),
        ("label", 0, -1, r"label outside \[0, 3\)"),
        ("label", 0, 3, r"label outside \[0, 3\)"),
        ("label", 0, 1, "other class counts"),
        ("offset", 0, 0, "outside its shard"),
        ("offset", 0, 10_200, "outside its shard"),
        ("offset", 0, 2**64 - 50, "outside its shard"),
        ("size", 0, 2**32 - 1, "outside its shard"),
        ("height", 2, 0, "no height"),
        ("width", 2, 0, "no height or width"),
    ],
)
def test_an_index_that_points_elsewhere_is_refused(
    tmp_path: Path, field: str, row: int, value: int, message: str
):
    make_directory(tmp_path)
    samples = make_samples()
    samples[field][row] = value
    write_index(tmp_path, "train", samples)
    with pytest.raises(ShardError, match=message):
        read_index(tmp_path, "train")


def test_an_index_of_another_length_or_type_is_refused(tmp_path: Path):
    make_directory(tmp_path)
    write_index(tmp_path, "train", make_samples()[:3])
    with pytest.raises(ShardError, match="3 samples, the manifest says 4"):
        read_index(tmp_path, "train")
    np.save(tmp_path / "train.index.npy", np.zeros(4))
    with pytest.raises(ShardError, match=r"holds float64 \[4\]"):
        read_index(tmp_path, "train")
    np.save(tmp_path / "train.index.npy", np.array([{"pickled": 1}], object))
    with pytest.raises(ShardError, match="is not an index"):
        read_index(tmp_path, "train")
    (tmp_path / "train.index.npy").write_bytes(b"")
    with pytest.raises(ShardError, match="is not an index"):
        read_index(tmp_path, "train")
    (tmp_path / "train.index.npy").unlink()
    with pytest.raises(ShardError, match="no such file"):
        read_index(tmp_path, "train")


def test_an_unknown_split_names_the_known_ones(tmp_path: Path):
    make_directory(tmp_path)
    with pytest.raises(ShardError, match=r"no split 'valid'; choose one of train"):
        read_index(tmp_path, "valid")


def test_the_fingerprint_depends_on_classes_and_bytes(tmp_path: Path):
    manifest = make_directory(tmp_path)
    same = fingerprint(manifest.classes, manifest.splits)
    assert same == manifest.fingerprint
    assert fingerprint(manifest.classes[::-1], manifest.splits) != same
    split = manifest.splits["train"]
    shards = (dataclasses.replace(split.shards[0], sha256="1" * 64), split.shards[1])
    other = {"train": dataclasses.replace(split, shards=shards)}
    assert fingerprint(manifest.classes, other) != same
