"""`--store original` keeps a file only if every back-end reads the same picture from it."""

from __future__ import annotations

import csv
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fastload import Augment, Loader
from fastload.pixels import dali, native
from fastload.prepare.duplicates import without_duplicates
from fastload.prepare.examine import examine_file
from fastload.prepare.folder import shard_folder
from fastload.prepare.journal import StateFolder
from fastload.prepare.original import why_not_original
from fastload.prepare.plan import ShardOptions, make_plan
from fastload.prepare.reasons import Reason, Rules
from fastload.prepare.report import REPEAT
from fastload.prepare.source import File, read_source
from fastload.prepare.verdict import Dropped, Kept
from tests.odd import odd_files, sound
from tests.pictures import encoded, flower_tree, jpeg, orientation_exif, picture, write_tree
from tests.variants import inserted, segment, variants, with_adobe, without

FOLDER = "train/odd"
FILES = variants() | {f"odd-{odd.name}": odd.data for odd in odd_files()}


def _available() -> list[str]:
    names = ["libjpeg"]
    names += ["native"] if native.is_available() else []
    return names + ([] if dali.why_unavailable() else ["dali-cpu"])


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The odd files, sharded with `--store original`."""
    place = tmp_path_factory.mktemp("original")
    root = flower_tree(place / "data", {"daisy": 1})
    write_tree(root / FOLDER, FILES)
    rules = Rules(store="original", min_side=2)
    plan = make_plan(read_source(root, seed=0), ShardOptions(rules=rules))
    shard_folder(plan, StateFolder(place / "shards"), workers=2)
    return place / "shards"


def stored_in(shards: Path) -> Iterator[tuple[str, bytes]]:
    """Name of the source and bytes of each stored odd file."""
    with (shards / "train.sources.csv").open(newline="", encoding="utf-8") as lines:
        sources = {row["key"]: Path(row["path"]) for row in csv.DictReader(lines)}
    with tarfile.open(shards / "train-000000.tar") as tar:
        for member in tar:
            source, data = sources[member.name.partition(".")[0]], tar.extractfile(member)
            assert data is not None
            if member.name.endswith(".jpg") and source.parent.name == "odd":
                yield source.name, data.read()


def test_what_is_kept_is_the_file_itself_and_all_else_is_said(shards: Path):
    with (shards / "cleaning.csv").open(newline="", encoding="utf-8-sig") as lines:
        rows = [row for row in csv.DictReader(lines) if row["reason"] != REPEAT]
    said = {Path(row["path"]).name: row for row in rows}
    kept = 0
    for name, data in stored_in(shards):
        kept += data == FILES[name]
        assert (data == FILES[name]) == (name not in said), name
        if name in said:
            assert said[name]["reason"] == "changed"
    assert kept > 80
    assert said["no-eoi.jpg"]["detail"] == (
        "not kept as it is: a scan or the end of the JPEG is missing"
    )


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_every_backend_reads_the_same_batches(shards: Path, flip: float):
    """Within the rounding that tests/pixels allow; and nothing is bad, nothing replaced."""
    if len(_available()) < 2:
        pytest.skip("needs two back-ends; run scripts/setup")
    augment = Augment.eval(48) if not flip else Augment(size=32, flip=1.0)
    read = {}
    for name in _available():
        with Loader(
            shards,
            augment=augment,
            batch_size=1,  # DALI gives up the batch of an image that it refuses, and no other
            backend=name,
            max_corrupt_fraction=0,
        ) as loader:
            batches = [(images.numpy(), labels.numpy()) for images, labels in loader]
        read[name] = batches
    expected = read.pop("libjpeg")
    for name, batches in read.items():
        for (images, labels), (others, other_labels) in zip(batches, expected, strict=True):
            assert (labels == other_labels).all()
            apart = np.abs(images.astype(np.int16) - others.astype(np.int16))
            assert apart.mean() <= 1, name


def test_what_no_rule_keeps():
    refused = {name for name, data in variants().items() if why_not_original(data)}
    damaged = {
        *("stray-byte.jpg", "segment-too-short.jpg", "no-eoi.jpg", "no-eoi-zeros.jpg"),
        *("two-soi.jpg", "two-frames.jpg", "restart-in-header.jpg", "cut-ended.jpg"),
        *("two-of-three-scans.jpg", "progressive-less-1.jpg", "progressive-cut-ended.jpg"),
        *("restarts-out-of-order.jpg", "restart-missing.jpg", "bytes-behind.jpg", "12-bit.jpg"),
        *("arithmetic.jpg", "cmyk.jpg", "grey.jpg", "dnl-alone.jpg", "adobe-2.jpg"),
    }
    assert damaged <= refused
    usual = {
        *("restarts.jpg", "progressive.jpg", "three-scans.jpg", "4-1-1.jpg", "4-4-0.jpg"),
        *("adobe-0.jpg", "adobe-1.jpg", "no-app.jpg", "icc.jpg", "huge-segments.jpg", "mpo.jpg"),
        *("thumbnail.jpg", "fill-before-scan.jpg", "interval-0.jpg", "interval-65535.jpg"),
        *("zeros-behind.jpg", "text-behind.jpg", "16-bit-tables.jpg", "no-huffman-tables.jpg"),
    }
    assert not usual & refused


def test_the_verdict_does_not_depend_on_the_core(monkeypatch: pytest.MonkeyPatch):
    with_core = {name: why_not_original(data) for name, data in variants().items()}
    monkeypatch.setattr(native, "is_available", lambda: False)
    assert {name: why_not_original(data) for name, data in variants().items()} == with_core


COPIES = {
    "comment": sound(1, comment=b"mine"),
    "exif": sound(1, exif=orientation_exif(1)),
    "profile": sound(1, icc_profile=b"no profile" * 50),
    "huge": inserted(sound(1), 2, segment(0xE5, bytes(60_000))),
    "resolution": sound(1, dpi=(300, 300)),
    "no-jfif": without(sound(1), 0xE0),
    "adobe": with_adobe(sound(1), 1),
    "garbage": sound(1) + b"trailer",
    "no-eoi": sound(1)[:-2],
    "restarts": sound(1, restart_marker_blocks=1),
    "optimised": sound(1, optimize=True),
    "progressive": sound(1, progressive=True),
    "mpo": encoded(
        picture(1, height=64, width=64),
        "MPO",
        quality=90,
        save_all=True,
        append_images=[picture(20)],
    ),
}


@pytest.mark.parametrize("store", ["original", "seekable"])
@pytest.mark.parametrize("name", COPIES)
def test_copies_whose_metadata_differ_are_found(store: str, name: str, tmp_path: Path):
    files = {"train/a/1.jpg": sound(1), "test/a/2.jpg": COPIES[name], "test/a/3.jpg": jpeg(9)}
    write_tree(tmp_path, files)
    rules = Rules(store=store, min_side=2)
    examined = []
    for path, data in files.items():
        file = File(path, path.partition("/")[0], 0, len(data), 0)
        examined.append((file, examine_file(file, root=tmp_path, rules=rules, with_jpeg=False)[0]))
    remaining, _ = without_duplicates(examined)
    left = {file.path: verdict for file, verdict in remaining}
    assert left["train/a/1.jpg"] == Dropped(Reason.TWO_SPLITS, "is also test/a/2.jpg")
    assert isinstance(left["test/a/3.jpg"], Kept)
