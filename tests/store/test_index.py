"""The manifest and index: written, read back, and refused where they do not fit each other."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
from collections.abc import Callable
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


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (
            "99",
            "has format version 99, this fastload reads 1; install a newer fastload, or rebuild",
        ),
        ("0", "has format version 0, this fastload reads 1; rebuild it"),
        ("true", "format_version is true, expected an integer"),
        ("1.0", "format_version is 1.0, expected an integer"),
    ],
)
def test_another_version_is_refused(tmp_path: Path, version: str, message: str):
    (tmp_path / "manifest.json").write_text(f'{{"format_version": {version}}}')
    with pytest.raises(ShardError, match=message):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"samples": 4', '"samples": Infinity', "Infinity is no number of JSON"),
        ('"samples": 4', '"samples": NaN', "NaN is no number of JSON"),
        ('"samples": 4', '"samples": true', "samples of train is true, expected an integer"),
        ('"samples": 4', '"samples": 4.0', "samples of train is 4.0, expected an integer"),
        ('"samples": 4', '"samples": "4"', 'samples of train is "4", expected an integer'),
        ('"samples": 4', '"samples": 4, "samples": 4', "the key 'samples' stands twice"),
        ('"bytes": 10240', '"bytes": -1', r"bytes of train-000000.tar is -1, expected at least 0"),
        ('"bytes": 10240', f'"bytes": {2**64}', f"is {2**64}, expected at least 0 and below 2"),
        ('"bytes": 10240', '"bytes": 2048', "cannot hold 2 samples in 2048 bytes"),
        ("train-000000.tar", "train-000001.tar", "a shard is listed twice"),
        ("rose", "a b", "its fingerprint is '[0-9a-f]{32}', its classes and shards give"),
        ('"splits": {', '"splits": [], "not": {', "splits is a list, expected an object"),
        ('"recipe"', '"receipt"', "it lacks 'recipe'"),
        ('{\n "classes"', '{}{"classes"', "is not JSON"),
    ],
)
def test_a_manifest_that_lies_is_refused_with_what_was_found(
    tmp_path: Path, old: str, new: str, message: str
):
    make_directory(tmp_path)
    path = tmp_path / "manifest.json"
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")
    with pytest.raises(ShardError, match=message):
        read_manifest(tmp_path)


def test_a_manifest_that_is_too_large_is_not_read_whole(tmp_path: Path):
    make_directory(tmp_path)
    os.truncate(tmp_path / "manifest.json", 1 << 40)  # a hole
    with pytest.raises(ShardError, match="has more than 67,108,864 bytes, so it is no manifest"):
        read_manifest(tmp_path)


def test_a_manifest_of_a_million_lists_is_not_parsed(tmp_path: Path):
    (tmp_path / "manifest.json").write_text(f"[{'[],' * (1 << 20)}1]")
    with pytest.raises(ShardError, match="has more than 1,048,576 brackets, so it is no manifest"):
        read_manifest(tmp_path)


def test_an_index_that_claims_25_terabytes_takes_no_memory(tmp_path: Path):
    make_directory(tmp_path)
    path = tmp_path / "train.index.npy"
    data = path.read_bytes()
    path.write_bytes(data.replace(b"(4,), }" + b" " * 12, b"(1000000000000,), }"))
    with pytest.raises(ShardError, match="has 1000000000000 samples, the manifest says 4"):
        read_index(tmp_path, "train")
    path.write_bytes(data[:-1])
    with pytest.raises(ShardError, match=f"has {len(data) - 1} bytes, 4 samples need {len(data)};"):
        read_index(tmp_path, "train")


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def loop(path: Path) -> None:
    path.symlink_to(path)


def listener(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))  # the name of a socket may have some 100 bytes


@pytest.mark.parametrize("name", ["manifest.json", "train.index.npy"])
@pytest.mark.parametrize(
    ("put", "message"),
    [
        (pipe, "is a pipe, expected a regular file"),
        (device, "is a device, expected a regular file"),
        (listener, "is a socket, expected a regular file"),
        (Path.mkdir, "is a folder, expected a regular file"),
        (loop, "symbolic links"),
    ],
)
def test_what_is_no_regular_file_is_refused_and_not_waited_for(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    put: Callable[[Path], None],
    message: str,
):
    monkeypatch.chdir(tmp_path)
    make_directory(tmp_path)
    (tmp_path / name).unlink()
    put(tmp_path / name)
    with pytest.raises(ShardError, match=rf"{name}: .*{message}"):
        read_index(tmp_path, "train")


@pytest.mark.parametrize("path", ["s3://bucket/shards", "gs://b", "https://host/s", "file:///s"])
def test_an_address_is_told_from_a_folder(path: str):
    with pytest.raises(ShardError, match="is an address, expected a folder"):
        read_manifest(path)


def test_a_directory_without_manifest_is_told_from_a_file_and_from_half_a_copy(tmp_path: Path):
    make_directory(tmp_path)
    for name in ("manifest.json", "train-{000000..000001}.tar", "*.tar"):
        with pytest.raises(ShardError, match=r"is no folder of shards; give the folder that holds"):
            read_manifest(tmp_path / name)
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "train-000000.tar").touch()
    with pytest.raises(ShardError, match=r"tars, but no manifest.json, which is written last"):
        read_manifest(tmp_path)
    with pytest.raises(ShardError, match="the folder does not exist"):
        read_manifest(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    "name", ["../evil.tar", "/etc/passwd", "", "..", "a\0b.tar", "a\nb.tar", "\ud800", "x" * 256]
)
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
        ("size", 3, 6000, "outside its shard"),
        ("size", 0, 513, "does not begin where the one before it ends"),
        ("offset", 1, 2048, "does not begin where the one before it ends"),
        ("offset", 1, 2561, "does not begin where the one before it ends"),
        ("offset", 2, 1024, "does not begin where the one before it ends"),
        ("shard", 1, 1, "other samples in a shard"),
        ("shard", 0, 1, "other samples in a shard"),
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
    with pytest.raises(ShardError, match=r"holds \"'<f8'\" \[4,\], expected SAMPLE \[N\]"):
        read_index(tmp_path, "train")
    np.save(tmp_path / "train.index.npy", np.array([{"pickled": 1}], object))
    with pytest.raises(ShardError, match=r"holds \"'\|O'\" \[1,\], expected SAMPLE"):
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
