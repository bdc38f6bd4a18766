"""Images where they lie: what is indexed, in which order; kills, full disks, two runs at once."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fastload import Augment, Loader, TarDataset, doctor, index, inspect, shard, verify
from fastload.console.shell import module_command
from fastload.errors import FastloadError, ShardError, TooManyCorruptError
from fastload.load.loader import Loader as AnyLoader
from fastload.pixels import native
from fastload.prepare.examined import BLOCK_FILES, FOUND
from fastload.prepare.plan import order_of_split
from fastload.prepare.source import read_source
from fastload.store import freshness
from fastload.store.collection import open_collection
from fastload.store.places import cache_folder, read_places
from tests.odd import odd_files
from tests.pictures import (
    encoded,
    flower_tree,
    jpeg,
    orientation_exif,
    picture,
    with_orientation,
    write_tree,
)
from tests.test_odd import upright
from tests.test_shard import snapshot

SIDE = ["--min-side", "16", "--workers", "2"]
UNMENDED = {"no-eoi.jpg", "stray-bytes.jpg", "segment-too-short.jpg"}  # `fastload.shard` mends them

pytestmark = pytest.mark.filterwarnings("ignore:fastload's native core")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    """The user's cache, and no warning that another test has seen."""
    folder: Path = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    freshness._warn_once.cache_clear()
    return folder


def make(root: Path, *options: str) -> int:
    return index.main([str(root), *SIDE, *options])


def report_of(root: Path) -> dict[str, str]:
    with (root / ".fastload/cleaning.csv").open(newline="", encoding="utf-8-sig") as lines:
        return {row["path"]: row["reason"] for row in csv.DictReader(lines)}


def said(capsys) -> str:
    return str(capsys.readouterr().out)


@pytest.fixture(scope="module")
def flowers(tmp_path_factory) -> Path:
    """A data set with a few files of each sort; indexed by nobody yet."""
    root = flower_tree(tmp_path_factory.mktemp("source") / "data")
    twin, stranger = jpeg(2001), jpeg(2002)
    return write_tree(
        root,
        {
            "train/daisy/grey.jpg": encoded(picture(1, mode="L")),
            "train/daisy/empty.jpg": b"",
            "train/daisy/twin.jpg": twin,
            "val/daisy/twin.jpg": twin,
            "train/daisy/stranger.jpg": stranger,
            "train/st. john/stranger.jpg": stranger,
            "train/rose 中文/lossless.png": encoded(picture(4), "PNG"),
            "train/st. john/sub/progressive.jpg": jpeg(2003, progressive=True),
            **{f"train/daisy/turned-{n}.jpg": with_orientation(n, height=50 + n) for n in range(9)},
        },
    )


@pytest.fixture
def root(flowers, tmp_path) -> Path:
    return Path(shutil.copytree(flowers, tmp_path / "data"))


def test_the_samples_are_the_files_in_their_order_and_nothing_is_changed(root, capsys):
    before = snapshot(root)
    assert make(root) == 0
    after = snapshot(root)
    assert {name: data for name, data in after.items() if ".fastload" not in name} == before
    report = report_of(root)
    for split in ("train", "val", "test"):
        files = [file for file in read_source(root).files if file.split == split]
        listed = [files[place] for place in order_of_split(split, len(files), seed=0)]
        kept = [file for file in listed if report.get(file.path, "changed") == "changed"]
        samples = TarDataset(root, split)
        assert [samples.locate(i)[1] for i in range(len(samples))] == [f.path for f in kept]
        assert samples.targets == [file.label for file in kept]
        for i, file in enumerate(kept):
            pixels = upright((root / file.path).read_bytes())
            assert np.array_equal(np.asarray(samples[i][0]), pixels)
    assert "slower      1 of other JPEG, 1 of other format" in said(capsys)


def test_what_is_left_out_and_why_is_what_shard_says(root, tmp_path):
    assert make(root) == 0
    assert shard.main([str(root), "--out", str(tmp_path / "out"), *SIDE]) == 0
    with (tmp_path / "out/cleaning.csv").open(newline="", encoding="utf-8-sig") as lines:
        rows = {row["path"]: row["reason"] for row in csv.DictReader(lines)}
    aside = {path: reason for path, reason in rows.items() if reason != "changed"}
    found = {path: reason for path, reason in report_of(root).items() if reason != "changed"}
    assert found == aside
    assert set(aside.values()) == {"grey", "empty", "two-splits", "two-classes"}


@pytest.mark.parametrize("convert", [False, True])
def test_odd_files_are_read_where_they_lie_or_left_out_with_their_reason(tmp_path, convert):
    root, odd = flower_tree(tmp_path / "data", {"daisy": 1, "rose": 1}), odd_files()
    write_tree(root, {f"train/odd/{one.name}": one.data for one in odd})
    options = ["--convert"] if convert else []
    assert index.main([str(root), "--min-side", "2", "--workers", "2", *options]) == 0
    found = {Path(path).name: why for path, why in report_of(root).items() if why != "changed"}
    samples = TarDataset(root)
    names = [Path(samples.locate(row)[1]).name for row in range(len(samples))]
    assert set(found) | set(names) >= {one.name for one in odd}
    for one in odd:
        if one.name in UNMENDED:
            assert found[one.name] == "unsupported"
        elif not convert:
            assert found.get(one.name, "") == one.reason, one.name
        if one.name in names and not one.reason:
            pixels = np.asarray(samples[names.index(one.name)][0]).astype(int)
            assert abs(pixels - upright(one.data)).mean() < 1, one.name


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("reweight", [None, "sqrt"])
def test_order_and_crops_are_those_of_the_shards_of_the_same_files(root, tmp_path, seed, reweight):
    assert make(root, "--seed", str(seed)) == 0
    assert shard.main([str(root), "--out", str(tmp_path / "out"), "--seed", str(seed), *SIDE]) == 0
    with (tmp_path / "out/train.sources.csv").open(newline="", encoding="utf-8") as lines:
        path_of = {row["key"]: row["path"] for row in csv.DictReader(lines)}
    options: dict[str, Any] = {"batch_size": 7, "drop_last": False, "max_corrupt_fraction": 0}
    loaders = [
        Loader(place, augment=Augment.train(48), reweight=reweight, **options)
        for place in (root, tmp_path / "out")
    ]
    for (here, labels), (there, labels_there) in zip(*loaders, strict=True):
        paths = list(loaders[0].last_keys())
        assert paths == [path_of[key] for key in loaders[1].last_keys()]
        assert labels.tolist() == labels_there.tolist()
        for path, image, other in zip(paths, here.numpy(), there.numpy(), strict=True):
            encoded_anew = path.endswith("png") or "turned" in path  # in shards
            difference = abs(image.astype(int) - other.astype(int)).mean()
            assert difference < (3 if encoded_anew else 1), path


def test_a_second_run_reads_only_what_changed(root, capsys):
    assert make(root) == 0
    before = read_places(root / ".fastload").places
    said(capsys)
    assert make(root) == 0
    assert "already holds this index" in said(capsys)
    write_tree(root, {"train/daisy/new.jpg": jpeg(3009), "train/daisy/0.jpg": jpeg(3010)})
    (root / "train/daisy/1.jpg").unlink()
    assert make(root) == 0
    assert ", 2 were read" in said(capsys)
    after = read_places(root / ".fastload").places
    assert after.fingerprint != before.fingerprint
    assert len(list((root / ".fastload").glob("index-*"))) == 1
    paths = {TarDataset(root).locate(i)[1] for i in range(len(TarDataset(root)))}
    assert "train/daisy/new.jpg" in paths
    assert "train/daisy/1.jpg" not in paths
    assert verify.main([str(root)]) == 0


def test_the_same_data_have_the_same_fingerprint_wherever_they_lie(root, tmp_path):
    assert make(root) == 0
    other = shutil.copytree(root, tmp_path / "moved")
    prints = {open_collection(place, "train").fingerprint for place in (root, other)}
    shutil.rmtree(other / ".fastload")
    assert make(other, "--workers", "1") == 0
    assert prints == {open_collection(other, "train").fingerprint}
    (tmp_path / "data").rename(tmp_path / "elsewhere")  # with its index
    assert len(TarDataset(tmp_path / "elsewhere")) == len(TarDataset(other))
    assert verify.main([str(tmp_path / "elsewhere")]) == 0


def test_other_rules_are_another_index_and_the_words_are_said_again(root, caplog):
    assert make(root) == 0
    count = len(TarDataset(root))
    assert make(root, "--convert", "--exclude", "sub") == 0
    assert len(TarDataset(root)) == count + 1 - 1  # the grey one, not the progressive one
    write_tree(root, {"val/daisy/late.jpg": jpeg(77)})
    with caplog.at_level(logging.WARNING):
        TarDataset(root)
    (sentence,) = caplog.messages
    assert "val/daisy/late.jpg was added since" in sentence
    assert "--convert --min-side=16 --exclude=sub" in sentence


def test_much_that_is_no_more_is_forgotten(root):
    for number in range(3):
        assert make(root, "--seed", "0", "--min-side", str(10 + number)) == 0
    log = root / ".fastload"
    files = len(read_source(root).files)
    for number in range(3 * BLOCK_FILES // files + 3):
        assert index.main([str(root), "--workers", "1", "--min-side", str(1 + number)]) == 0
        if len(list(log.glob("examined-*"))) == 1 and not (log / "examined-0").exists():
            break
    else:
        pytest.fail("it was never written anew")
    assert verify.main([str(root)]) == 0
    assert index.main([str(root), "--workers", "1", "--min-side", str(1 + number)]) == 0
    assert len(list(log.glob("points-*.seek"))) == 1


# Files that change


@pytest.fixture
def indexed(root: Path) -> Path:
    assert make(root) == 0
    return root


def rows_of(root: Path) -> dict[str, int]:
    samples = TarDataset(root)
    return {samples.locate(row)[1]: row for row in range(len(samples))}


def rewrite(path: Path) -> None:
    path.write_bytes(jpeg(4321, height=90, width=70))


def flip_in_place(path: Path) -> None:
    status, data = path.stat(), bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def to_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


CHANGES = {
    "truncated": (lambda path: os.truncate(path, 100), "has 100 bytes, when it was indexed it had"),
    "emptied": (lambda path: os.truncate(path, 0), "has 0 bytes, when it was indexed"),
    "deleted": (Path.unlink, "there is no such file or folder; run `"),
    "replaced": (rewrite, r"has \d+ bytes, when it was indexed it had \d+; run `"),
    "flipped": (flip_in_place, r"its CRC-32 is \w+, the index says \w+; it changed since"),
    "a pipe": (to_pipe, "is a pipe, expected a regular file"),
    "a folder": (to_folder, "is a folder, expected a regular file"),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("opened", [False, True])
def test_a_file_that_changed_is_named_and_replaced_by_the_next(indexed, caplog, name, opened):
    change, words = CHANGES[name]
    options: dict[str, Any] = {
        "order": "shuffled",
        "augment": Augment.eval(32),
        "batch_size": 2,
        "seed": 3,
    }
    with Loader(indexed, **options) as loader:
        order = [row for _ in loader for row in loader.last_indices().tolist()]
    path = "train/daisy/3.jpg"
    row = rows_of(indexed)[path]
    if not opened:
        change(indexed / path)
        caplog.clear()
    with Loader(indexed, max_corrupt_fraction=0.1, **options) as loader:
        if opened:
            change(indexed / path)
        with caplog.at_level(logging.WARNING, logger="fastload"):
            found = [row for _ in loader for row in loader.last_indices().tolist()]
        assert loader.stats().bad_samples == (row in order)
    place = order.index(row)
    expected = [*order[:place], order[place + 1], *order[place + 1 :]]
    assert found == expected
    assert any(message.startswith(path) for message in caplog.messages)
    assert any(re.search(words, message) for message in caplog.messages)
    samples = TarDataset(indexed)
    with pytest.raises(ShardError, match=words):
        samples[row]


@pytest.mark.parametrize("change", [os.utime, lambda path: path.chmod(0o444)])
def test_a_file_that_was_merely_touched_is_read_on(indexed, change):
    change(indexed / "train/daisy/3.jpg")
    with Loader(indexed, max_corrupt_fraction=0, batch_size=1) as loader:
        assert sum(len(images) for images, _ in loader) == len(loader.dataset)


def test_evaluation_ends_at_a_file_that_changed(indexed):
    (indexed / "val/daisy/0.jpg").unlink()
    with (
        Loader(indexed, split="val") as loader,
        pytest.raises(TooManyCorruptError, match=r"val/daisy/0\.jpg"),
    ):
        list(loader)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda root: write_tree(root, {"train/daisy/x.JPG": jpeg(5)}), "x.JPG was added since"),
        (lambda root: write_tree(root, {"train/ash/0.jpg": jpeg(5)}), "train: a folder in it came"),
        (lambda root: (root / "val/daisy/0.jpg").unlink(), "val/daisy/0.jpg is gone since"),
        (lambda root: shutil.rmtree(root / "test/daisy"), "test/daisy: No such file"),
        (lambda root: (root / "val/daisy/0.jpg").rename(root / "val/daisy/z.jpg"), "0.jpg is gone"),
    ],
)
def test_what_came_or_went_is_told_once_when_the_index_is_opened(indexed, caplog, change, words):
    change(indexed)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            TarDataset(indexed)
    (message,) = caplog.messages
    assert words in message
    assert "run `" in message
    assert "which takes only what changed" in message
    assert verify.main([str(indexed)]) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda root: write_tree(root, {"notes.txt": b"x", "train/daisy/.DS_Store": b"x"}),
        lambda root: (root / "train/daisy/.hidden").mkdir(),
        lambda root: os.utime(root / "train"),
    ],
)
def test_what_is_no_image_is_not_told(indexed, caplog, change):
    change(indexed)
    with caplog.at_level(logging.WARNING):
        TarDataset(indexed)
    assert not caplog.messages


# Where the index lies


def test_data_that_cannot_be_written_are_indexed_in_the_cache(root, cache, capsys, monkeypatch):
    """`mkdir` is patched: the superuser, who runs the tests of a container, may write anywhere."""
    mkdir = Path.mkdir

    def refuse(path: Path, *arguments, **options) -> None:
        if root in path.parents:
            raise PermissionError(13, "Permission denied", str(path))
        mkdir(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", refuse)
    before = snapshot(root)
    assert make(root) == 0
    assert snapshot(root) == before
    assert cache_folder(root).is_relative_to(cache)
    assert (cache_folder(root) / "index.json").is_file()
    assert "cannot be written: the index goes to" in capsys.readouterr().err
    assert len(TarDataset(root)) == len(rows_of(root)) > 0
    assert verify.main([str(root)]) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount read-only; run as root")
def test_data_on_a_read_only_disk_are_loaded_through_the_cache(root, cache):
    program = (
        "import sys; from fastload import Loader;"
        "print(len(Loader(sys.argv[1], batch_size=2).dataset))"
    )
    mount = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" || exit 77;'
    run = 'exec "$2" -c "$3" "$1"'
    shell = ["unshare", "-m", "sh", "-c", mount + run, "sh", str(root), sys.executable, program]
    before = snapshot(root)
    done = subprocess.run(shell, capture_output=True, text=True)
    if done.returncode in {1, 77} and "fastload" not in done.stderr:
        pytest.skip("mounting is not allowed here; run as root outside a container")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0
    assert "the index goes to" in done.stderr
    assert snapshot(root) == before
    assert len(TarDataset(root)) == int(done.stdout)


def test_the_index_goes_where_out_says_and_is_found_there(root, tmp_path):
    before = snapshot(root)
    assert make(root, "--out", str(tmp_path / "elsewhere")) == 0
    assert snapshot(root) == before
    with pytest.raises(ShardError, match="but images"):
        open_collection(root, "train")
    assert len(TarDataset(tmp_path / "elsewhere")) > 0
    assert verify.main([str(tmp_path / "elsewhere")]) == 0


@pytest.mark.parametrize("where", ["data/train/new", "shards", "other", "data"])
def test_an_index_is_not_written_into_data_or_shards(root, tmp_path, where, capsys):
    write_tree(tmp_path, {"shards/manifest.json": b"{}", "other/a/1.jpg": jpeg(1)})
    before = snapshot(tmp_path)
    assert make(root, "--out", str(tmp_path / where)) == 1
    assert re.search("lies within .*; choose|holds other things, such as", capsys.readouterr().err)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("where", ["data/.fastload", "data/.cache/index", "new/index"])
def test_the_next_command_names_the_index_that_was_made(root, tmp_path, where, capsys):
    for _ in range(2):
        assert make(root, "--out", str(tmp_path / where)) == 0
        named = root if where == "data/.fastload" else tmp_path / where
        assert said(capsys).rstrip().endswith(f"--data {named}")


@pytest.mark.parametrize("name", ["lock", "examined-0", "points-0.seek"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_file_of_an_index_is_neither_written_nor_waited_for(
    indexed, tmp_path, name, kind, capsys
):
    path, victim = indexed / ".fastload" / name, tmp_path / "victim"
    victim.write_bytes(b"precious")
    path.unlink()
    make_it = {"link": lambda: path.symlink_to(victim), "pipe": lambda: os.mkfifo(path)}
    make_it.get(kind, path.mkdir)()
    assert make(indexed) == 1
    error = capsys.readouterr().err
    assert error.endswith(f"{path}: is a {kind}, expected a regular file; remove it\n")
    assert victim.read_bytes() == b"precious"


def test_a_path_that_cannot_be_looked_at_is_an_error_of_ours(tmp_path):
    with pytest.raises(FastloadError, match="the name is longer than the file system allows"):
        Loader(tmp_path / ("x" * 300))


LISTS = {  # the files of a source, and the text of the last one after it was changed
    "categories.json": (
        {
            "train.json": json.dumps(
                {
                    "images": [{"id": n, "file_name": f"{n}.jpg"} for n in range(8)],
                    "annotations": [{"image_id": n, "category_id": n % 2} for n in range(8)],
                }
            ),
            "categories.json": '[{"id": 0, "name": "x"}, {"id": 1, "name": "y"}]',
        },
        '[{"id": 0, "name": "y"}, {"id": 1, "name": "x"}]',
    ),
    "classes.txt": (
        {
            "labels.csv": "path,label\n" + "".join(f"{n}.jpg,{'ab'[n % 2]}\n" for n in range(8)),
            "classes.txt": "b\na\n",
        },
        "a\nb\n",
    ),
}


@pytest.mark.parametrize("name", LISTS)
def test_another_list_of_classes_is_told_when_the_index_is_opened(tmp_path, name, caplog):
    texts, changed = LISTS[name]
    files = {f"{n}.jpg": jpeg(n) for n in range(8)}
    root = write_tree(tmp_path, files | {one: text.encode() for one, text in texts.items()})
    where = root / next(iter(texts))
    assert make(where) == 0
    TarDataset(where)
    assert not caplog.records
    (root / name).write_text(changed)
    os.utime(root / name, ns=(0, 0))
    TarDataset(where)
    assert f"{root / name} has changed since it was indexed" in caplog.records[-1].getMessage()
    assert verify.main([str(where)]) == 1
    assert make(where) == 0
    assert verify.main([str(where)]) == 0


def test_a_full_disk_is_one_sentence_and_what_was_read_is_kept(root, capsys):
    """The limit of a file's size stands for the disk: only the parent writes."""
    program = (
        "import resource, signal, sys; from fastload import index;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048));"
        "sys.exit(index.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, str(root), *SIDE]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("fastload.index: ")
    assert "grows beyond what" in last
    assert "the same command goes on from there" in last
    assert not (root / ".fastload/index.json").exists()
    assert make(root) == 0
    assert verify.main([str(root)]) == 0


# Several processes


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """Files for a few blocks."""
    root = tmp_path_factory.mktemp("many") / "data"
    pictures = [jpeg(seed, height=20, width=24) for seed in range(2 * BLOCK_FILES + 60)]
    files = {f"train/{'ab'[i % 2]}/{i:05d}.jpg": data for i, data in enumerate(pictures)}
    return write_tree(root, files | {"val/a/0.jpg": jpeg(70000)})


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_killed_goes_on_and_ends_the_same(many, tmp_path, capsys, signal_number):
    root = Path(shutil.copytree(many, tmp_path / "data"))
    command = [sys.executable, "-m", "fastload.index", str(root), "--workers", "1", *SIDE[:2]]
    log = root / ".fastload/examined-0"
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 300
        while not log.exists() or log.stat().st_size < BLOCK_FILES * FOUND.itemsize:
            assert time.monotonic() < deadline
            assert process.poll() is None, process.communicate()
            time.sleep(0.001)
        process.send_signal(signal_number)
        _, error = process.communicate(timeout=300)
    if signal_number == signal.SIGINT:
        assert process.returncode == 130
        assert "the same command goes on from there" in error
    assert "Traceback" not in error
    assert not (root / ".fastload/index.json").exists()
    with log.open("ab") as file:
        file.write(b"FLX1 torn")
    said(capsys)
    assert make(root) == 0
    read = int(said(capsys).partition(" images/s, ")[2].partition(" were")[0].replace(",", ""))
    assert read <= 2 * BLOCK_FILES + 61 - BLOCK_FILES
    whole = Path(shutil.copytree(many, tmp_path / "whole"))
    assert make(whole) == 0
    prints = {open_collection(place, "train").fingerprint for place in (root, whole)}
    assert len(prints) == 1


def test_a_second_run_waits_for_the_first(root, capsys):
    (root / ".fastload").mkdir()
    with (root / ".fastload/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = [sys.executable, "-m", "fastload.index", str(root), *SIDE]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            assert "another fastload.index is at" in process.stderr.readline()
            assert not (root / ".fastload/index.json").exists()
            fcntl.flock(lock, fcntl.LOCK_UN)
            process.communicate(timeout=300)
        assert process.returncode == 0
    assert len(TarDataset(root)) > 0


def test_of_several_loaders_without_an_index_one_makes_it(root):
    program = (
        "import sys; from fastload import Loader, World, Augment;"
        "world = World(rank=int(sys.argv[2]), size=2);"
        "loader = Loader(sys.argv[1], world=world, batch_size=2, augment=Augment.train(16));"
        "print(sum(len(images) for images, _ in loader))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(root), str(rank)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert "has no index yet" in outputs[0][1]
    assert outputs[1][1] == ""
    assert len(list((root / ".fastload").glob("index-*"))) == 1


def test_a_loader_says_why_it_could_not_make_an_index(tmp_path, capfd):
    write_tree(tmp_path, {"data/train/a/0.jpg": b"no image", "data/val/a/0.jpg": b"none"})
    with pytest.raises(ShardError, match=r"data: no index could be made: none of the 2 files"):
        AnyLoader(tmp_path / "data")


@pytest.mark.parametrize("started", ["/else where/bin/fastload", "-c"])
def test_making_an_index_names_commands_as_the_user_typed_the_one_that_runs(
    started, root, monkeypatch, capfd
):
    monkeypatch.setattr(sys, "argv", [started])
    assert len(TarDataset(root)) > 0
    said = capfd.readouterr().err
    for command in ("index", "shard"):
        assert f"`{module_command(f'fastload.{command}', root)}`" in said


def test_shards_are_preferred_and_an_unfinished_run_of_shard_is_not_indexed(root, tmp_path):
    assert shard.main([str(root), "--out", str(tmp_path / "out"), *SIDE]) == 0
    assert len(TarDataset(tmp_path / "out")) > 0
    assert not (tmp_path / "out/.fastload").exists()
    write_tree(tmp_path, {"begun/.fastload/run.json": b"{}", "begun/a/0.jpg": jpeg(1)})
    with pytest.raises(ShardError, match="there is no complete set of shards"):
        Loader(tmp_path / "begun")


# An index that is damaged


def damage_json(key: str, value: object):
    def change(folder: Path) -> None:
        facts = json.loads((folder / "index.json").read_text())
        facts[key] = value
        (folder / "index.json").write_text(json.dumps(facts))

    return change


def truncate(name: str):
    def change(folder: Path) -> None:
        (path,) = folder.glob(f"index-*/{name}")
        os.truncate(path, path.stat().st_size - 3)

    return change


DAMAGES = {
    "no JSON": (
        lambda folder: (folder / "index.json").write_bytes(b"{"),
        "index.json: is not JSON .*; remove",
    ),
    "version": (damage_json("format_version", 99), "has format version 99, .*install a newer"),
    "key": (damage_json("splits", {}), "it lists no split"),
    "type": (damage_json("classes", "ab"), "classes is .ab., expected a list"),
    "count": (damage_json("files", 3), r"files.npy: has \d+ rows, expected 3; the index"),
    "folder": (damage_json("folder", "../x"), "is not a plain file name"),
    "digest": (damage_json("digests", {}), "is not the one that index.json lists"),
    "rows": (truncate("train.index.npy"), r"has [\d,]+ bytes, \d+ samples need [\d,]+; the index"),
    "names": (truncate("files"), "is not the one that index.json lists"),
    "gone": (lambda folder: shutil.rmtree(next(folder.glob("index-*"))), "no such file"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_index_is_an_error_that_says_what_to_do_and_is_made_anew(indexed, name, capsys):
    change, words = DAMAGES[name]
    change(indexed / ".fastload")
    with pytest.raises(ShardError, match=words) as caught:
        Loader(indexed)
    assert "fastload.index" in str(caught.value)
    assert verify.main([str(indexed)]) == 1
    said(capsys)
    assert make(indexed) == 0
    assert "0 were read" in said(capsys)
    assert verify.main([str(indexed)]) == 0


@pytest.mark.parametrize("name", ["examined-0", "points-0.seek"])
@pytest.mark.parametrize("harm", [flip_in_place, lambda path: os.truncate(path, 50), Path.unlink])
def test_what_is_known_of_the_files_may_be_damaged(indexed, name, harm):
    path = indexed / ".fastload" / name
    if path.stat().st_size == 0:
        pytest.skip("without the native core there are no seek tables")
    harm(path)
    write_tree(indexed, {"train/daisy/new.jpg": jpeg(3009)})
    if make(indexed) or verify.main([str(indexed)]):
        shutil.rmtree(indexed / ".fastload")  # as the message of a wrong seek table says
        assert (name, harm) == ("points-0.seek", flip_in_place)
        assert make(indexed) == 0
        assert verify.main([str(indexed)]) == 0


def test_whatever_is_changed_in_an_index_the_samples_are_right_or_the_change_is_named(tmp_path):
    root = write_tree(
        tmp_path / "data",
        {f"train/{'ab'[n % 2]}/{n}.jpg": jpeg(n, height=200, width=300) for n in range(6)},
    )
    assert make(root) == 0
    folder = root / ".fastload"
    (new,) = folder.glob("index-*")
    paths = [folder / "index.json", folder / "points-0.seek", *sorted(new.iterdir())]
    options: dict[str, Any] = {"augment": Augment.train(32), "batch_size": 2, "num_threads": 1}

    def seen() -> list[tuple[list[int], np.ndarray]]:
        with Loader(root, max_corrupt_fraction=0, **options) as loader:
            return [(labels.tolist(), images.numpy().astype(int)) for images, labels in loader]

    def same(found: list[tuple[list[int], np.ndarray]]) -> bool:
        """Whether the pictures are the same: libjpeg-turbo decodes where a seek table is wrong."""
        return len(found) == len(expected) and all(
            labels == others and abs(images - wanted).mean(axis=(1, 2, 3)).max() < 1
            for (labels, images), (others, wanted) in zip(found, expected, strict=True)
        )

    expected, random = seen(), np.random.default_rng(0)
    named: list[str] = []
    for path in paths:
        data = path.read_bytes()
        for _ in range(40 if data else 0):
            at, kind = int(random.integers(len(data))), int(random.integers(4))
            changed = bytearray(data)
            if kind == 0:
                changed[at] ^= 1 << int(random.integers(8))
            elif kind == 1:
                del changed[at:]
            elif kind == 2:
                changed[at:at] = changed[: int(random.integers(1, 40))]
            else:
                changed[at : at + 8] = random.bytes(8)
            path.write_bytes(changed)
            try:
                assert same(seen()), (path.name, kind, at)
            except FastloadError as error:
                named.append(str(error))
        path.write_bytes(data)
    assert same(seen())
    assert len(named) > 100
    assert not [sentence for sentence in named if "\n" in sentence]


def test_names_that_are_not_utf8_are_read(tmp_path):
    root = write_tree(tmp_path / "data", {"train/a/0.jpg": jpeg(1), "val/a/0.jpg": jpeg(2)})
    odd = os.fsencode(root) + b"/train/a/caf\xe9.jpg"
    try:
        with open(odd, "wb") as file:  # noqa: PTH123  a name of bytes
            file.write(jpeg(3))
    except OSError:
        pytest.skip("needs a file system that takes names which are not UTF-8")
    assert make(root) == 0
    names = {os.fsencode(TarDataset(root).locate(row)[1]) for row in range(2)}
    assert names == {b"train/a/0.jpg", b"train/a/caf\xe9.jpg"}


def test_a_link_to_a_file_is_read_through(tmp_path):
    root = write_tree(
        tmp_path / "data", {"train/a/0.jpg": jpeg(1), "train/b/0.jpg": jpeg(2), "store/x": jpeg(3)}
    )
    (tmp_path / "store").mkdir()
    (root / "store/x").rename(tmp_path / "store/x")
    (root / "store").rmdir()
    (root / "train/a/linked.jpg").symlink_to(tmp_path / "store/x")
    assert make(root) == 0
    samples = TarDataset(root)
    (row,) = [i for i in range(3) if samples.locate(i)[1] == "train/a/linked.jpg"]
    assert np.array_equal(np.asarray(samples[row][0]), upright(jpeg(3)))


# The other commands


def test_inspect_and_doctor_read_data_in_place(indexed, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert inspect.main([str(indexed), "--size", "32"]) == 0
    text = said(capsys)
    assert "train" in text
    assert "stored: " in text
    assert (tmp_path / "data-inspect.html").is_file()
    assert doctor.main([str(indexed)]) == 0


def test_a_picture_that_is_turned_is_known_by_its_index(tmp_path):
    image = Image.new("RGB", (64, 48))
    data = encoded(image, exif=orientation_exif(6))
    root = write_tree(tmp_path / "data", {"train/a/0.jpg": data, "train/b/0.jpg": jpeg(1)})
    assert make(root) == 0
    (row,) = [row for row in open_collection(root, "train").index[:] if row["label"] == 0]
    assert (row["height"], row["width"], row["orientation"]) == (64, 48, 6)


# Other sources than folders


def tar_of(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    """Three tars of samples, as webdataset has them."""
    for number in range(3):
        members = {}
        for i in range(4):
            seed = 5000 + 4 * number + i
            members[f"{i}.jpg"], members[f"{i}.cls"] = jpeg(seed), b"%d" % (i % 2)
        tar_of(tmp_path / f"tars/train-{number}.tar", members)
    return tmp_path / "tars"


@pytest.mark.parametrize("where", ["tars", "tars/train-{0..2}.tar", "tars/train-*.tar"])
@pytest.mark.parametrize("asked", ["index", "loader"])
def test_tars_are_read_where_they_lie_by_whatever_they_are_called(
    tars, tmp_path, monkeypatch, where, asked
):
    monkeypatch.chdir(tmp_path)
    before = snapshot(tars)
    if asked == "index":
        assert index.main([where, *SIDE]) == 0
    samples = TarDataset(where)
    assert {name: data for name, data in snapshot(tars).items() if name in before} == before
    pairs = [samples[row] for row in range(len(samples))]
    found = {np.asarray(image).tobytes(): label for image, label in pairs}
    expected = {
        upright(jpeg(5000 + number)).astype(np.uint8).tobytes(): number % 2 for number in range(12)
    }
    assert found.items() <= expected.items()
    assert len(found) == len(samples) >= 8
    with Loader(where, batch_size=2, max_corrupt_fraction=0) as loader:
        assert sum(len(images) for images, _ in loader) == len(samples) // 2 * 2
    assert verify.main([where]) == 0


def test_a_table_of_paths_and_labels_is_read_where_it_lies(root):
    rows = [f"train/daisy/{i}.jpg,{'xy'[i % 2]},train" for i in range(6)]
    (root / "labels.csv").write_text("\n".join(["path,label,split", *rows]))
    assert index.main([str(root / "labels.csv"), *SIDE]) == 0
    samples = TarDataset(root / "labels.csv")
    assert samples.classes == ["x", "y"]
    assert len(samples) == 6
    write_tree(root, {"train/daisy/more.jpg": jpeg(8123)})  # what a table does not list is no news
    assert verify.main([str(root / "labels.csv")]) == 0


def write_labels(root: Path, name: str, labels: list[int]) -> Path:
    """A source of this name: pictures of these labels."""
    pictures = {f"{i}.jpg": jpeg(8200 + i) for i in range(len(labels))}
    if name.endswith(".tar"):
        beside = {f"{i}.cls": b"%d" % label for i, label in enumerate(labels)}
        tar_of(root / name, pictures | beside)
        return root / name
    write_tree(root, pictures)
    rows = [{"path": path, "label": label} for path, label in zip(pictures, labels, strict=True)]
    if name.endswith(".jsonl"):
        (root / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return root / name
    catalogue = {
        "images": [{"id": i, "file_name": path} for i, path in enumerate(pictures)],
        "annotations": [{"image_id": i, "category_id": label} for i, label in enumerate(labels)],
    }
    (root / name).write_text(json.dumps(catalogue))
    return root / name


@pytest.mark.parametrize("name", ["train.tar", "labels.jsonl", "train.json"])
def test_labels_that_changed_where_they_lie_are_told(tmp_path, caplog, name):
    """The images are the same, byte by byte, and so is the size of what holds the labels."""
    before, after = [0, 1, 0, 1, 0, 1], [1, 1, 1, 0, 0, 0]
    source = write_labels(tmp_path, name, before)
    splits = ("train",) if name == "train.tar" else ("train", "val", "test")

    def labelled() -> dict[bytes, int]:
        found = [TarDataset(source, split) for split in splits]
        pairs = [one[row] for one in found for row in range(len(one))]
        return {np.asarray(image).tobytes(): label for image, label in pairs}

    def expected(labels: list[int]) -> dict[bytes, int]:
        pictures = [upright(jpeg(8200 + i)).astype(np.uint8).tobytes() for i in range(6)]
        return dict(zip(pictures, labels, strict=True))

    assert index.main([str(source), *SIDE]) == 0
    with caplog.at_level(logging.WARNING):
        assert labelled() == expected(before)
    assert not caplog.messages
    size, stamp = source.stat().st_size, source.stat().st_mtime_ns
    write_labels(tmp_path, name, after)
    os.utime(source, ns=(stamp + 10**9, stamp + 10**9))
    assert source.stat().st_size == size
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            TarDataset(source)
    (message,) = caplog.messages
    assert f"{source} has changed since it was indexed, and labels in it are not" in message
    assert verify.main([str(source)]) == 1
    assert index.main([str(source), *SIDE]) == 0
    assert labelled() == expected(after)
    assert verify.main([str(source)]) == 0


def test_seek_tables_change_no_pixel(indexed, monkeypatch):
    collection = open_collection(indexed, "train")
    if not native.is_available():
        pytest.skip("needs the native core")
    assert (collection.index["seek_size"] > 0).any()
    options: dict[str, Any] = {"augment": Augment.train(32), "batch_size": 5, "backend": "native"}

    def batches() -> list[np.ndarray]:
        with Loader(indexed, max_corrupt_fraction=0, **options) as loader:
            return [images.numpy().copy() for images, _ in loader]

    with_tables, decode = batches(), native.decode_boxes

    def without(encoded, boxes, flips, out, spent, tables, windows):
        assert tables is not None
        return decode(encoded, boxes, flips, out, spent, None, windows)

    monkeypatch.setattr(native, "decode_boxes", without)
    for one, other in zip(with_tables, batches(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_memory_to_open_a_million_files_is_bounded(tmp_path):
    """The files do not exist: to open an index looks at none of them."""
    program = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from tests.memory import peak_bytes
from tests.places import million
from fastload.store.collection import open_collection
directory = million(Path(sys.argv[1]))
from fastload.load.dataset import TarDataset
samples = TarDataset(directory)
print(len(samples), samples.locate(999_999)[1], peak_bytes())
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "m")], capture_output=True, text=True
    )
    count, name, peak = done.stdout.split()
    assert (count, name) == ("1000000", "train/c999/0999999.jpg"), done.stderr
    assert int(peak) < 2 << 30
