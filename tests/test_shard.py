"""From a folder to shards: what is stored, in which order; kills and full disks."""

from __future__ import annotations

import csv
import fcntl
import hashlib
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from PIL import Image

from fastload import shard
from fastload.console.shell import module_command
from fastload.cores import usable_cores
from fastload.installation import python_name
from fastload.prepare import examine, finish
from fastload.shard import parse_bytes
from fastload.store.index import read_index
from fastload.store.manifest import read_manifest
from tests.killer import abort_at_007
from tests.pictures import encoded, flower_tree, jpeg, picture, pixels_of, write_tree

SIDE = ["--min-side", "16"]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def make(root: Path, out: Path, *options: str) -> int:
    return shard.main([str(root), "--out", str(out), *SIDE, *options])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with a few files of each sort."""
    root = flower_tree(tmp_path_factory.mktemp("source") / "data")
    twin, stranger = jpeg(2001), jpeg(2002)
    exif = Image.Exif()
    exif[0x0112] = 8
    return write_tree(
        root,
        {
            "train/daisy/grey.jpg": encoded(picture(1, mode="L")),
            "train/daisy/empty.jpg": b"",
            "train/daisy/twin.jpg": twin,
            "val/daisy/twin.jpg": twin,
            "train/daisy/stranger.jpg": stranger,
            "train/st. john/stranger.jpg": stranger,
            "train/rose 中文/turned.jpg": encoded(picture(3), quality=90, exif=exif),
            "train/rose 中文/lossless.png": encoded(picture(4), "PNG"),
            "train/st. john/sub/progressive.jpg": jpeg(2003, progressive=True),
        },
    )


@pytest.fixture(scope="module")
def out(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its shards, several of them."""
    out = tmp_path_factory.mktemp("out") / "shards"
    assert make(root, out, "--shard-size", "16kB") == 0
    return out


def sources_of(out: Path, split: str) -> dict[str, str]:
    with (out / f"{split}.sources.csv").open(newline="", encoding="utf-8") as file:
        return {row["key"]: row["path"] for row in csv.DictReader(file)}


def test_the_directory_holds_what_the_format_says(out: Path):
    manifest = read_manifest(out)
    shards = [one.name for split in manifest.splits.values() for one in split.shards]
    assert len(shards) > 3
    names = {path.name for path in out.iterdir()}
    assert names == {
        *shards,
        *(name.replace(".tar", ".idx") for name in shards),
        *(f"{split}.index.npy" for split in ("train", "val", "test")),
        *(f"{split}.sources.csv" for split in ("train", "val", "test")),
        *("manifest.json", "_info.json", "cleaning.csv"),
    }


def test_the_manifest_says_what_was_done(out: Path):
    manifest = read_manifest(out)
    assert manifest.classes == ("daisy", "rose 中文", "st. john")
    assert {name: split.samples for name, split in manifest.splits.items()} == {
        "train": 20,
        "val": 7,
        "test": 6,
    }
    assert manifest.splits["train"].class_counts == (9, 7, 4)
    assert manifest.cleaning == {"two-classes": 2, "empty": 1, "grey": 1, "two-splits": 1}
    assert sum(manifest.stored.values()) == 33
    assert manifest.stored["re-encoded"] >= 1
    assert manifest.options["shard_bytes"] == 16_000
    for split in manifest.splits.values():
        for one in split.shards:
            data = (out / one.name).read_bytes()
            assert (len(data), hashlib.sha256(data).hexdigest()) == (one.bytes, one.sha256)


# webdataset leaves the last tar to the garbage collector
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_webdataset_tarfile_and_the_index_give_the_same_pixels_and_labels(
    root: Path, out: Path, split: str
):
    manifest = read_manifest(out)
    samples = read_index(out, split)
    sources = sources_of(out, split)
    paths = [str(out / one.name) for one in manifest.splits[split].shards]
    found = list(webdataset.WebDataset(paths, shardshuffle=False).decode("rgb8"))
    assert [sample["__key__"] for sample in found] == list(sources)
    assert len(found) == len(samples)
    for sample, row in zip(found, samples, strict=True):
        source = sources[sample["__key__"]]
        assert sample["cls"] == row["label"]
        assert manifest.classes[sample["cls"]] == source.split("/")[1]
        with (out / manifest.splits[split].shards[row["shard"]].name).open("rb") as file:
            file.seek(int(row["offset"]))
            data = file.read(int(row["size"]))
        assert zlib.crc32(data) == row["crc32"]
        pixels = pixels_of(data)
        assert np.array_equal(pixels, sample["jpg"])
        assert pixels.shape[:2] == (row["height"], row["width"])
        original: Image.Image = Image.open(root / source)
        if "turned" in source:
            original = original.transpose(Image.Transpose.ROTATE_90)
        assert np.abs(pixels - np.asarray(original.convert("RGB"))).mean() < 4


def test_tarfile_finds_the_members_where_the_dali_index_says(out: Path):
    tars = sorted(out.glob("*.tar"))
    assert len(tars) > 3
    for path in tars:
        lines = path.with_suffix(".idx").read_text().splitlines()
        with tarfile.open(path) as tar:
            members = tar.getmembers()
        assert lines[0] == f"v1.2 {len(members) // 2}"
        words = " ".join(lines[1:]).split()
        listed = [words[start : start + 4] for start in range(0, len(words), 4)]
        assert listed == [
            [info.name.split(".")[1], str(info.offset_data), str(info.size), info.name]
            for info in members
        ]
        assert all(info.mtime == info.uid == info.gid == 0 for info in members)
        assert all(info.uname == info.gname == "" for info in members)


def test_timm_finds_its_info(out: Path):
    info = json.loads((out / "_info.json").read_bytes())
    assert set(info["splits"]) == {"train", "val", "test"}
    for name, split in info["splits"].items():
        assert split["name"] == name
        assert split["num_samples"] == sum(split["shard_lengths"])
        assert all((out / file).is_file() for file in split["filenames"])


def test_the_report_lists_what_was_set_aside_or_changed(out: Path):
    with (out / "cleaning.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = {(row["path"], row["reason"]) for row in csv.DictReader(file)}
    assert rows == {
        ("train/daisy/grey.jpg", "grey"),
        ("train/daisy/empty.jpg", "empty"),
        ("train/daisy/twin.jpg", "two-splits"),
        ("train/daisy/stranger.jpg", "two-classes"),
        ("train/st. john/stranger.jpg", "two-classes"),
        ("train/rose 中文/turned.jpg", "changed"),
        ("train/rose 中文/lossless.png", "changed"),
    }


@pytest.mark.parametrize("workers", ["1", "3"])
def test_the_shards_do_not_depend_on_the_number_of_workers(
    root: Path, out: Path, tmp_path: Path, workers: str
):
    assert make(root, tmp_path / "again", "--shard-size", "16kB", "--workers", workers) == 0
    assert snapshot(tmp_path / "again") == snapshot(out)


def test_another_seed_is_another_order_of_the_same_images(root: Path, out: Path, tmp_path: Path):
    assert make(root, tmp_path / "other", "--shard-size", "16kB", "--seed", "1") == 0
    first, second = sources_of(out, "train"), sources_of(tmp_path / "other", "train")
    assert list(first.values()) != list(second.values())
    assert sorted(first.values()) == sorted(second.values())


def test_a_complete_directory_is_left_alone(
    root: Path, out: Path, capsys: pytest.CaptureFixture[str]
):
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert make(root, out, "--shard-size", "16kB", "--workers", "1") == 0
    assert "already holds these shards, complete" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_a_complete_directory_that_lost_a_shard_is_not_called_complete(
    root: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    shutil.copytree(out, tmp_path / "out")
    (tmp_path / "out/val-000000.tar").unlink()
    assert make(root, tmp_path / "out", "--shard-size", "16kB") == 1
    assert "val-000000.tar is missing or damaged; remove" in one_sentence(capsys)


def test_a_damaged_manifest_is_not_answered_with_the_same_command(
    root: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    shutil.copytree(out, tmp_path / "out")
    (tmp_path / "out/manifest.json").write_text("{")
    assert make(root, tmp_path / "out", "--shard-size", "16kB") == 1
    said = one_sentence(capsys)
    assert "manifest.json cannot be used (is not JSON" in said
    assert said.endswith(f"; remove {tmp_path / 'out'} and run again")
    assert "python -m fastload.shard" not in said


def test_the_closing_lines_say_what_to_type_next(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert make(root, tmp_path / "s", "--convert") == 0
    output = capsys.readouterr().out
    assert "34 images of 3 classes" in output
    assert f"train/run.py --loader dali --data {tmp_path / 's'}" in output
    assert "2  two-classes" in output


def test_quarantine_comes_last(root: Path, tmp_path: Path):
    data = tmp_path / "data"
    shutil.copytree(root, data)
    assert make(data, tmp_path / "s", "--quarantine", str(tmp_path / "aside")) == 0
    assert sorted(path for path in snapshot(tmp_path / "aside")) == [
        "train/daisy/empty.jpg",
        "train/daisy/grey.jpg",
        "train/daisy/stranger.jpg",
        "train/daisy/twin.jpg",
        "train/st. john/stranger.jpg",
    ]
    assert (tmp_path / "s" / "cleaning.csv").read_text("utf-8").count(",moved\n") == 5


def test_original_and_resized_storage_are_counted(root: Path, tmp_path: Path):
    assert make(root, tmp_path / "original", "--store", "original") == 0
    stored = read_manifest(tmp_path / "original").stored
    assert stored["original"] == 31
    assert make(root, tmp_path / "small", "--max-side", "32", "--quality", "80") == 0
    manifest = read_manifest(tmp_path / "small")
    assert manifest.stored["re-encoded"] == 33
    assert read_index(tmp_path / "small", "train")["width"].max() == 32


# Faults: what is finished stays, nothing half-written has a final name, and the end is the same.


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A larger data set and its shards; one image in ten is there twice."""
    folder = tmp_path_factory.mktemp("many")
    files = {}
    for number in range(600):
        split = "val" if number % 5 == 4 else "train"
        seed = 5 if number % 100 == 50 else number
        files[f"{split}/class {number % 3}/{number:03d}.jpg"] = jpeg(seed, height=80, width=96)
    write_tree(folder / "data", files)
    assert make(folder / "data", folder / "whole", "--shard-size", "100kB") == 0
    return folder / "data", folder / "whole"


MANY = ["--shard-size", "100kB"]


def start(root: Path, out: Path, *options: str, first: str = "") -> subprocess.Popen[str]:
    """The command in a process of its own; `first` is run before it."""
    arguments = [str(root), "--out", str(out), *SIDE, *MANY, *options]
    program = f"import sys\n{first}\nfrom fastload.shard import main\nsys.exit(main({arguments!r}))"
    script = f"if __name__ == '__main__':\n    exec({program!r})"
    return subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


# Each of the 20 shards takes this much longer, so that a run is in their midst for seconds and not
# for the 0.3 s in which a busy machine may forget the test.
UNHURRIED = """
import time
from fastload.prepare import write
make_durable = write._make_durable
def slowly(*arguments):
    make_durable(*arguments)
    time.sleep(0.3)
write._make_durable = slowly
"""


def wait_for_journals(out: Path, count: int) -> None:
    deadline = time.monotonic() + 300
    while len(list((out / ".fastload").glob("*.tar.json"))) < count:
        assert time.monotonic() < deadline, "no shard was finished in five minutes"
        time.sleep(0.001)


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_killed_goes_on_and_ends_the_same(
    many: tuple[Path, Path], tmp_path: Path, signal_number: int
):
    root, whole = many
    out = tmp_path / "out"
    with start(root, out, first=UNHURRIED) as process:
        wait_for_journals(out, 2)
        process.send_signal(signal_number)
        _, error = process.communicate(timeout=300)
    assert not list(out.glob("*.tar")), "a final name before the end"
    assert not (out / "manifest.json").exists()
    if signal_number == signal.SIGINT:
        assert process.returncode == 130
        assert "the same command goes on from there" in error
        assert "Traceback" not in error
    finished = {
        path.name: path.stat().st_mtime_ns
        for path in out.glob("*.partial")
        if (out / ".fastload" / f"{path.stem}.json").exists()
    }
    assert len(finished) >= 2
    assert make(root, out, *MANY) == 0
    assert snapshot(out) == snapshot(whole)
    kept = [name for name, when in finished.items() if _when(out / Path(name).stem) == when]
    assert kept, "finished shards were written again"


def _when(path: Path) -> int:
    return path.stat().st_mtime_ns


@pytest.mark.parametrize("step", ["_rewrite", "write_index", "write_report", "write_manifest"])
def test_a_run_that_stops_near_its_end_goes_on_and_ends_the_same(
    many: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
):
    root, whole = many
    out = tmp_path / "out"
    calls = []
    real = getattr(finish, step)

    def interrupted(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == (1 if step in {"write_manifest", "write_report"} else 2):
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(finish, step, interrupted)
    assert make(root, out, *MANY) == 130
    assert not (out / "manifest.json").exists()
    monkeypatch.undo()
    assert make(root, out, *MANY) == 0
    assert snapshot(out) == snapshot(whole)


def test_a_full_disk_is_one_sentence_and_the_run_goes_on(many: tuple[Path, Path], tmp_path: Path):
    root, whole = many
    out = tmp_path / "out"
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))"
    with start(root, out, first=limit) as process:
        _, error = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "Traceback" not in error
    message = error.splitlines()[-1]
    assert message.startswith("fastload.shard: ")
    assert ".tar.partial: the file grows beyond what" in message
    assert "finished shards are kept, and the same command goes on from there" in message
    assert not list(out.glob("*.tar*")), "what cannot be finished is removed"
    assert make(root, out, *MANY) == 0
    assert snapshot(out) == snapshot(whole)


@pytest.mark.skipif(
    os.geteuid() != 0, reason="only root may mount a small file system; run as root"
)
def test_a_small_file_system_is_one_sentence_and_the_run_goes_on(
    many: tuple[Path, Path], tmp_path: Path
):
    root, whole = many
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs is not allowed here; run as root outside a container")
    try:
        with start(root, small / "out") as process:
            _, error = process.communicate(timeout=300)
        assert process.returncode == 1
        assert "no space is left on the device" in error
        assert "finished shards are kept" in error
        assert not list((small / "out").glob("*.tar"))
        assert len(list((small / "out").glob("*.tar.partial"))) >= 2
        grow = ["mount", "-o", "remount,size=100m", str(small)]
        subprocess.run(grow, check=True, capture_output=True)
        assert make(root, small / "out", *MANY) == 0
        assert snapshot(small / "out") == snapshot(whole)
    finally:
        subprocess.run(["umount", str(small)], check=True, capture_output=True)


# No file system here lacks locks and syncs of folders, or has a quota that fsync tells of; network
# file systems do.
NETWORK_DISK = """
import errno, fcntl, os, stat
sync, failing = os.fsync, {failing}
def flock(*arguments):
    raise OSError(errno.ENOLCK, "No locks available")
def fsync(descriptor):
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        raise OSError(errno.EINVAL, "Invalid argument")
    if failing and os.readlink(f"/proc/self/fd/{{descriptor}}").endswith(failing):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")
    sync(descriptor)
fcntl.flock, os.fsync = flock, fsync
"""


def test_a_disk_without_locks_and_syncs_gets_the_same_shards(
    many: tuple[Path, Path], tmp_path: Path
):
    root, whole = many
    with start(root, tmp_path / "out", first=NETWORK_DISK.format(failing="''")) as process:
        _, error = process.communicate(timeout=300)
    assert process.returncode == 0
    warnings = [line for line in error.splitlines() if "cannot be locked" in line]
    assert len(warnings) == 1
    assert snapshot(tmp_path / "out") == snapshot(whole)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells which file a descriptor is")
@pytest.mark.parametrize("name", ["train-000003.tar.partial", "train-000002.tar.json.partial"])
def test_a_quota_that_only_the_sync_tells_of_is_one_sentence_and_the_run_goes_on(
    many: tuple[Path, Path], tmp_path: Path, name: str
):
    root, whole = many
    out = tmp_path / "out"
    with start(root, out, first=NETWORK_DISK.format(failing=repr(name))) as process:
        _, error = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "Traceback" not in error
    message = error.splitlines()[-1]
    assert name.removesuffix(".partial") in message
    assert "the disk quota is used up; free some, or choose another place" in message
    assert "the same command goes on from there" in message
    assert not (out / "manifest.json").exists()
    assert make(root, out, *MANY) == 0
    assert snapshot(out) == snapshot(whole)


def test_a_file_that_crashes_its_decoder_is_set_aside_and_the_run_goes_on(
    many: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(examine, "examine_file", abort_at_007)
    assert make(many[0], tmp_path / "out", *MANY) == 0
    manifest = read_manifest(tmp_path / "out")
    assert manifest.cleaning["crash"] == 1
    report = (tmp_path / "out" / "cleaning.csv").read_text()
    assert "train/class 1/007.jpg,crash,ended its process with SIGABRT,set aside" in report


def one_sentence(capsys: pytest.CaptureFixture[str]) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if "fastload.shard: " in line]
    assert len(lines) == 1
    return lines[0]


def test_a_directory_that_holds_something_else_is_refused(
    root: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    before = snapshot(out)
    assert make(root, out, "--shard-size", "16kB", "--convert") == 1
    assert "made from other files or with other options" in one_sentence(capsys)
    assert snapshot(out) == before
    write_tree(tmp_path, {"mine/thesis.txt": b"x"})
    assert make(root, tmp_path / "mine") == 1
    assert "is not empty (it holds 'thesis.txt')" in one_sentence(capsys)
    assert (tmp_path / "mine/thesis.txt").read_bytes() == b"x"


def test_an_unfinished_directory_belongs_to_its_options(
    many: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with start(many[0], tmp_path / "out") as process:
        wait_for_journals(tmp_path / "out", 1)
        process.kill()
    assert make(many[0], tmp_path / "out", *MANY, "--seed", "9") == 1
    assert "was begun with other options (seed 0, now 9)" in one_sentence(capsys)


def test_two_runs_do_not_write_to_one_directory(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "out/.fastload").mkdir(parents=True)
    with (tmp_path / "out/.fastload/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert make(root, tmp_path / "out") == 1
    assert "another fastload.shard is writing" in one_sentence(capsys)


def test_a_class_without_training_images_is_refused_or_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    root = flower_tree(tmp_path / "data")
    write_tree(root, {"val/orphan/1.jpg": jpeg(5000)})
    assert make(root, tmp_path / "out") == 1
    assert "1 of the classes have no image in train: 'orphan'" in one_sentence(capsys)
    assert not (tmp_path / "out").exists()
    assert make(root, tmp_path / "out", "--allow-missing-classes") == 0
    manifest = read_manifest(tmp_path / "out")
    assert manifest.splits["train"].class_counts[manifest.classes.index("orphan")] == 0


def test_a_class_that_cleaning_empties_is_refused_and_nothing_is_read_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    root = flower_tree(tmp_path / "data")
    write_tree(root, {"train/ghost/1.jpg": b"", "train/ghost/2.gif": b"GIF89a"})
    assert make(root, tmp_path / "out") == 1
    assert "no image in train that can be trained on: 'ghost'" in one_sentence(capsys)
    assert not list((tmp_path / "out").glob("*.tar"))
    times = {path.name: _when(path) for path in (tmp_path / "out").glob("*.partial")}
    assert make(root, tmp_path / "out", "--allow-missing-classes") == 0
    assert {
        f"{path.name}.partial": _when(path) for path in (tmp_path / "out").glob("*.tar")
    } == times


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no images"),
        ({"train/a/1.jpg": b"", "train/a/2.jpg": b"x"}, "none of the 2 files of"),
        ({"val/a/1.jpg": b""}, "none of the 1 files of"),
        ({"val/a/1.jpg": jpeg(1), "train/1.jpg": jpeg(2)}, "a folder for val but none for train"),
    ],
)
def test_a_folder_without_images_is_one_sentence(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    files: dict[str, bytes],
    message: str,
):
    (tmp_path / "data").mkdir()
    write_tree(tmp_path / "data", files)
    assert make(tmp_path / "data", tmp_path / "out") == 1
    assert message in one_sentence(capsys)
    assert not list(tmp_path.glob("out/*.tar"))


def test_an_empty_class_folder_is_refused_by_name_or_keeps_its_label(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    root = flower_tree(tmp_path / "data")
    (root / "train/moss").mkdir()
    assert make(root, tmp_path / "out") == 1
    assert "1 of the classes have no image in train: 'moss'" in one_sentence(capsys)
    assert not (tmp_path / "out").exists()
    assert make(root, tmp_path / "out", "--allow-missing-classes") == 0
    manifest = read_manifest(tmp_path / "out")
    assert manifest.classes == ("daisy", "moss", "rose 中文", "st. john")
    assert manifest.splits["train"].class_counts == (9, 0, 5, 3)
    assert set(read_index(tmp_path / "out", "train")["label"].tolist()) == {0, 2, 3}


def test_a_class_folder_without_images_is_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    root = write_tree(flower_tree(tmp_path / "data"), {"train/moss/readme.txt": b"none yet"})
    assert make(root, tmp_path / "out") == 1
    assert "no image in train: 'moss'" in one_sentence(capsys)
    assert not (tmp_path / "out").exists()


def test_a_spelling_that_train_lacks_is_told_from_the_one_it_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    root = write_tree(flower_tree(tmp_path / "data"), {"val/Daisy/1.jpg": jpeg(5001)})
    assert make(root, tmp_path / "out") == 1
    assert "'Daisy' has no image in train, but 'daisy' has (upper and" in one_sentence(capsys)
    assert make(root, tmp_path / "out", "--allow-missing-classes") == 0
    assert "'Daisy' and 'daisy'" in capsys.readouterr().err


def test_what_is_taken_for_what_is_printed_before_anything_is_decoded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    files = {f"{split}/{cls}/1.jpg": b"" for split in ("training_set", "test_set") for cls in "ab"}
    root = write_tree(tmp_path / "data", files | {"meta/names.txt": b""})
    assert make(root, tmp_path / "out") == 1  # the images are empty
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("2 classes, {training_set, test_set}/CLASS")
    assert [" ".join(line.split()) for line in lines[1:6]] == [
        "train from training_set: 2 classes, 2 files",
        "test from test_set: 2 classes, 2 files",
        "classes: a, b",
        "passed over, no images in them: meta",
        "no val: training needs it; --val-fraction 0.1 takes it from train",
    ]


@pytest.mark.parametrize(
    "given", [["my data", "--out", "{}"], ["my data", "--out={}"], ["--out={}", "--", "my data"]]
)
def test_without_val_the_next_command_makes_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: list[str],
):
    root = flower_tree(tmp_path / "my data")
    shutil.rmtree(root / "val")
    monkeypatch.chdir(tmp_path)
    words = [word.format("my shards") for word in given]
    assert shard.main([*SIDE, "--convert", *words]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "next  " in line]
    command = shlex.split(line.removeprefix("next"))
    assert command[:3] == [python_name(), "-m", "fastload.shard"]
    assert shard.main(command[3:]) == 0
    said = capsys.readouterr().out
    train = module_command("train.run", "--loader", "dali", "--data", "my shards-with-val")
    assert f"next        {train}\n" in said
    manifest = read_manifest("my shards-with-val")
    assert manifest.options["convert"]
    assert manifest.options["val_fraction"] == 0.1
    assert manifest.splits["val"].class_counts == (1, 1, 1)
    assert manifest.splits["train"].class_counts == (8, 4, 2)


def test_a_finished_directory_belongs_to_its_fraction(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    root = flower_tree(tmp_path / "data")
    shutil.rmtree(root / "val")
    assert make(root, tmp_path / "out", "--val-fraction", "0.3") == 0
    assert make(root, tmp_path / "out", "--val-fraction", "0.3") == 0
    said = capsys.readouterr().out
    assert "already holds these shards" in said
    assert f"next        {module_command('train.run')}" in said
    assert make(root, tmp_path / "out", "--val-fraction", "0.4") == 1
    assert "with other options" in one_sentence(capsys)


@pytest.mark.parametrize(
    "options", [["--val-fraction", "1"], ["--val-fraction", "x"], ["--layout", "flat"]]
)
def test_options_of_the_layout_are_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
):
    with pytest.raises(SystemExit) as caught:
        make(tmp_path, tmp_path / "out", *options)
    assert caught.value.code == 2
    assert options[0] in capsys.readouterr().err


def test_shards_among_the_images_are_refused(root: Path, capsys: pytest.CaptureFixture[str]):
    assert make(root, root / "shards") == 1
    assert "lies within" in one_sentence(capsys)
    assert not (root / "shards").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere; run as another user")
def test_no_permission_is_one_sentence(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    tmp_path.chmod(0o500)
    assert make(root, tmp_path / "out") == 1
    assert "permission was denied" in one_sentence(capsys)


def test_a_file_in_the_place_of_the_directory_is_one_sentence(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "out").write_bytes(b"")
    assert make(root, tmp_path / "out") == 1
    one_sentence(capsys)
    assert (tmp_path / "out").read_bytes() == b""


def test_any_file_name_is_taken(tmp_path: Path):
    names = ["a b.jpg", "a.b.c.jpg", "中文.jpg", "new\nline.jpg", "-rf.jpg", "'\".jpg", "x" * 240]
    names += [os.fsdecode(b"caf\xe9.jpg")]
    files = {f"train/{cls}/{name}": b"" for cls in ("-v", "é.x") for name in names}
    files = {path: jpeg(n) for n, path in enumerate(files)}
    files = {path + (".jpg" if path.endswith("x" * 9) else ""): d for path, d in files.items()}
    try:
        root = write_tree(tmp_path / "data", files)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert make(root, tmp_path / "out") == 0
    assert read_manifest(tmp_path / "out").splits["train"].samples == len(files)
    with (tmp_path / "out/train.sources.csv").open(
        newline="", encoding="utf-8", errors="surrogateescape"
    ) as lines:
        assert {row["path"] for row in csv.DictReader(lines)} == set(files)


def test_starting_does_not_import_torch():
    program = "import sys, fastload.shard; print([m for m in ('torch', 'torchvision', 'nvidia') "
    program += "if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("text", "size"),
    [("256MB", 256_000_000), ("1GiB", 2**30), ("1.5g", 1_500_000_000), ("100000", 100_000)],
)
def test_sizes_are_read(text: str, size: int):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "MB", "12 parsecs", "-5GB", "1kB", "nan", "1e5MB", "inf"])
def test_sizes_that_are_none_are_refused(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as caught:
        make(tmp_path, tmp_path / "out", f"--shard-size={text}")
    assert caught.value.code == 2
    assert "--shard-size" in capsys.readouterr().err


def test_real_photographs_are_stored_without_loss(flowers_dir: Path, tmp_path: Path):
    """A few classes of the shared photographs, in place: the folder is only read."""
    for split in ("train", "val", "test"):
        (tmp_path / "data" / split).mkdir(parents=True)
        for folder in sorted((flowers_dir / split).iterdir())[:5]:
            (tmp_path / "data" / split / folder.name).symlink_to(folder)
    out = tmp_path / "out"
    workers = str(min(2, usable_cores()))
    assert shard.main([str(tmp_path / "data"), "--out", str(out), "--workers", workers]) == 0
    sources = sources_of(out, "train")
    with tarfile.open(out / "train-000000.tar") as tar:
        for key in list(sources)[:20]:
            data = tar.extractfile(f"{key}.jpg")
            assert data is not None
            stored = Image.open(io.BytesIO(data.read()))
            original = Image.open(tmp_path / "data" / sources[key])
            difference = np.asarray(stored, np.int16) - np.asarray(original, np.int16)
            assert np.abs(difference).mean() < 1
