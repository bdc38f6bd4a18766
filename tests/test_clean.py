"""Cleaning a folder: reasons, duplicates, the report, quarantine; sources stay as they are."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

import pytest

from fastload import clean
from fastload.console.terminal import printable
from fastload.errors import LayoutError
from fastload.prepare import folder
from fastload.prepare.examine import (
    CHUNK_BYTES,
    CHUNK_FILES,
    Dropped,
    Kept,
    chunks_of,
    examine_file,
    find_duplicates,
)
from fastload.prepare.reasons import Reason, Rules
from fastload.prepare.report import Row, count_reasons, write_report
from fastload.prepare.source import File, read_source
from fastload.prepare.transcode import MAX_FILE_BYTES
from tests.pictures import encoded, flower_tree, jpeg, picture, write_tree

SMALL = Rules(min_side=16)


def file(path: str, split: str = "train", label: int = 0, size: int = 1) -> File:
    return File(path, split, label, size, 0)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as lines:
        return list(csv.DictReader(lines))


def test_the_same_image_in_several_splits_stays_in_test_then_val():
    images = [
        (file("train/a/1"), b"x"),
        (file("val/a/1", "val"), b"x"),
        (file("test/a/1", "test"), b"x"),
        (file("train/a/2"), b"y"),
        (file("val/a/2", "val"), b"y"),
        (file("train/a/3"), b"z"),
    ]
    dropped = find_duplicates(images)
    assert dropped == {
        "train/a/1": Dropped(Reason.TWO_SPLITS, "is also test/a/1"),
        "val/a/1": Dropped(Reason.TWO_SPLITS, "is also test/a/1"),
        "train/a/2": Dropped(Reason.TWO_SPLITS, "is also val/a/2"),
    }
    assert find_duplicates(images[::-1]) == dropped


def test_the_same_image_in_two_classes_goes_everywhere():
    images = [
        (file("train/a/1", label=0), b"x"),
        (file("train/b/1", label=1), b"x"),
        (file("test/b/2", "test", label=1), b"x"),
    ]
    dropped = find_duplicates(images)
    assert {path: why.reason for path, why in dropped.items()} == dict.fromkeys(
        ("train/a/1", "train/b/1", "test/b/2"), Reason.TWO_CLASSES
    )
    assert dropped["train/a/1"].detail == "is also test/b/2"
    assert dropped["train/b/1"].detail == "is also train/a/1"
    assert find_duplicates(images[::-1]) == dropped


def test_repeats_within_a_class_and_split_stay():
    assert find_duplicates([(file("train/a/1"), b"x"), (file("train/a/2"), b"x")]) == {}


def test_a_file_is_read_once_and_its_facts_are_those_of_its_stored_bytes(tmp_path: Path):
    data = jpeg(1)
    (tmp_path / "1.jpg").write_bytes(data)
    with_bytes = examine_file(file("1.jpg"), root=tmp_path, rules=SMALL, with_jpeg=True)
    without = examine_file(file("1.jpg"), root=tmp_path, rules=SMALL, with_jpeg=False)
    assert isinstance(with_bytes, Kept)
    assert isinstance(without, Kept)
    assert without.jpeg == b""
    assert with_bytes.size == len(with_bytes.jpeg) == without.size
    assert with_bytes.digest == without.digest
    assert with_bytes.crc32 == without.crc32


def test_the_same_picture_with_other_metadata_is_the_same(tmp_path: Path):
    write_tree(tmp_path, {"a.jpg": jpeg(1), "b.jpg": jpeg(1, comment=b"mine")})
    digests = set()
    for name in ("a.jpg", "b.jpg"):
        result = examine_file(file(name), root=tmp_path, rules=SMALL, with_jpeg=False)
        assert isinstance(result, Kept)
        digests.add(result.digest)
    assert len(digests) == 1


def test_a_pipe_put_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "x.jpg")
    result = examine_file(file("x.jpg"), root=tmp_path, rules=SMALL, with_jpeg=False)
    assert result == Dropped(Reason.UNREADABLE, "cannot be read: is no regular file")


def test_a_file_that_vanishes_ends_the_run(tmp_path: Path):
    with pytest.raises(LayoutError, match=r"gone.jpg has vanished; run again"):
        examine_file(file("gone.jpg"), root=tmp_path, rules=SMALL, with_jpeg=False)


def test_a_file_of_gigabytes_is_not_read(tmp_path: Path):
    big = file("big.jpg", size=MAX_FILE_BYTES + 1)  # it is not even there
    result = examine_file(big, root=tmp_path, rules=SMALL, with_jpeg=False)
    assert isinstance(result, Dropped)
    assert result.reason is Reason.LARGE


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything; run as another user")
def test_an_unreadable_file_is_set_aside(tmp_path: Path):
    write_tree(tmp_path, {"x.jpg": jpeg(1)})
    (tmp_path / "x.jpg").chmod(0)
    result = examine_file(file("x.jpg"), root=tmp_path, rules=SMALL, with_jpeg=False)
    assert result == Dropped(Reason.UNREADABLE, "cannot be read: Permission denied")


def test_chunks_are_bounded_in_files_and_bytes():
    files = [file(str(n), size=1000) for n in range(40)]
    assert [len(chunk) for chunk in chunks_of(files)] == [CHUNK_FILES, CHUNK_FILES, 8]
    large = [file(str(n), size=CHUNK_BYTES // 2 + 1) for n in range(3)]
    assert [len(chunk) for chunk in chunks_of(large)] == [1, 1, 1]


def test_the_report_keeps_any_name(tmp_path: Path):
    names = ['with "quotes", commas', "new\nline", "中文", os.fsdecode(b"caf\xe9"), "-rf"]
    rows = [Row(name, "grey", "has one channel", "set aside") for name in names]
    write_report(tmp_path / "r.csv", rows)
    assert [row["path"] for row in read_rows(tmp_path / "r.csv")] == names


def test_reasons_are_counted_commonest_first():
    rows = [Row("1", "grey", "", "set aside"), Row("2", "gif", "", "moved")]
    rows += [Row("3", "gif", "", "set aside"), Row("4", "changed", "", "stored")]
    assert list(count_reasons(rows).items()) == [("gif", 2), ("grey", 1)]


def test_any_text_can_be_printed():
    assert printable("a\nb\udcff中") == "a\\nb\\udcff中"


def dirty_tree(root: Path) -> Path:
    flower_tree(root)
    same = jpeg(999)
    return write_tree(
        root,
        {
            "train/daisy/grey.jpg": encoded(picture(1, mode="L")),
            "train/daisy/sub/deep.gif": encoded(picture(1).quantize(8), "GIF"),
            "train/daisy/twin.jpg": same,
            "test/daisy/twin.jpg": same,
            "train/daisy/new\nline.jpg": b"",
            "train/rose 中文/-rf.png": encoded(picture(2), "PNG"),
            "train/loose.jpg": jpeg(3),
        },
    )


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_command_reports_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], workers: str
):
    root = dirty_tree(tmp_path / "data")
    before = snapshot(root)
    report = tmp_path / "report.csv"
    arguments = [str(root), "--report", str(report), "--min-side", "16", "--workers", workers]
    assert clean.main(arguments) == 0
    assert snapshot(root) == before
    assert {(row["path"], row["reason"], row["action"]) for row in read_rows(report)} == {
        ("train/daisy/grey.jpg", "grey", "set aside"),
        ("train/daisy/sub/deep.gif", "gif", "set aside"),
        ("train/daisy/twin.jpg", "two-splits", "set aside"),
        ("train/daisy/new\nline.jpg", "empty", "set aside"),
        ("train/rose 中文/-rf.png", "changed", "stored"),
        ("train/loose.jpg", "no-class", "set aside"),
    }
    output = capsys.readouterr().out
    assert "35 files of 3 classes" in output
    assert "31 are fit to train on, 5 are not:" in output
    assert "1  grey" in output
    assert f"next: python -m fastload.shard {root}" in output


def test_converting_takes_what_can_be_rescued(tmp_path: Path):
    root = dirty_tree(tmp_path / "data")
    report = tmp_path / "report.csv"
    assert clean.main([str(root), "--report", str(report), "--min-side", "16", "--convert"]) == 0
    rows = {row["path"]: row for row in read_rows(report)}
    assert rows["train/daisy/grey.jpg"]["detail"] == "L made RGB"
    assert rows["train/daisy/grey.jpg"]["action"] == "stored"
    assert rows["train/daisy/sub/deep.gif"]["reason"] == "gif"


def test_quarantine_moves_what_is_set_aside_and_overwrites_nothing(tmp_path: Path):
    root = dirty_tree(tmp_path / "data")
    before = snapshot(root)
    aside = tmp_path / "aside"
    write_tree(aside, {"train/daisy/grey.jpg": b"mine"})
    report = tmp_path / "report.csv"
    arguments = [str(root), "--report", str(report), "--min-side", "16"]
    assert clean.main([*arguments, "--quarantine", str(aside)]) == 0
    rows = {row["path"]: row["action"] for row in read_rows(report)}
    assert rows["train/daisy/grey.jpg"] == "set aside, not moved: name is taken"
    moved = {path for path, action in rows.items() if action == "moved"}
    assert moved == {
        "train/daisy/sub/deep.gif",
        "train/daisy/twin.jpg",
        "train/daisy/new\nline.jpg",
        "train/loose.jpg",
    }
    after = snapshot(aside)
    assert after.pop("train/daisy/grey.jpg") == b"mine"
    assert after == {path: before[path] for path in moved}
    assert snapshot(root) == {path: data for path, data in before.items() if path not in moved}


def test_quarantine_leaves_what_a_link_leads_to(tmp_path: Path):
    root = flower_tree(tmp_path / "data")
    write_tree(tmp_path / "elsewhere", {"empty.jpg": b"", "fine.jpg": jpeg(1000)})
    (root / "train/linked").symlink_to(tmp_path / "elsewhere")
    report = tmp_path / "report.csv"
    arguments = [str(root), "--report", str(report), "--quarantine", str(tmp_path / "aside")]
    assert clean.main([*arguments, "--min-side", "16"]) == 0
    (row,) = read_rows(report)
    assert row["action"] == "set aside, not moved: lies outside the source"
    assert (tmp_path / "elsewhere/empty.jpg").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "missing is not there"),
        (["data", "--quarantine", "data/aside"], "lies within"),
        (["data", "--report", "data/train/daisy/0.jpg"], "is no cleaning report"),
    ],
)
def test_mistakes_are_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
):
    flower_tree(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    assert clean.main([*arguments, "--min-side", "16"]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments", [["--min-side", "0"], ["--workers", "0"], ["--seed", "-1"], ["--nonsense"]]
)
def test_bad_options_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
):
    with pytest.raises(SystemExit) as caught:
        clean.main([str(tmp_path), *arguments])
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_awkward_images_are_each_set_aside_or_taken_by_the_processes(
    tmp_path: Path, awkward_dir: Path
):
    root = tmp_path / "data"
    shutil.copytree(awkward_dir, root / "train" / "awkward")
    flower_tree(root)
    source = read_source(root)
    rows = folder.clean_folder(source, rules=SMALL, workers=2)
    named = {row.path for row in rows if row.action == "set aside"}
    assert "train/awkward/INDEX.tsv" in named
    assert 100 < len(named) < 190
    assert not {row.reason for row in rows} & {"crash", "slow", "unreadable"}
