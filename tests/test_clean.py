"""Cleaning a folder: the report and quarantine; sources stay as they are."""

from __future__ import annotations

import csv
import shlex
import shutil
from pathlib import Path

import pytest

from fastload import clean
from fastload.console.shell import module_command
from fastload.prepare import folder
from fastload.prepare.reasons import Rules
from fastload.prepare.source import read_source
from tests.pictures import encoded, flower_tree, jpeg, picture, write_tree

SMALL = Rules(min_side=16)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as lines:
        return list(csv.DictReader(lines))


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
    assert f"next: {module_command('fastload.shard', root)}" in output


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


@pytest.mark.parametrize("words", [["./-data"], ["--", "-data"], ["--", "-data/"]])
def test_the_next_command_takes_a_folder_that_begins_with_a_hyphen(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
):
    flower_tree(tmp_path / "-data")
    monkeypatch.chdir(tmp_path)
    assert clean.main(words) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "next: " in line]
    again = shlex.split(line)[4:]
    assert clean.main(["--report", "again.csv", *again]) == 0
    assert "next: nothing" not in capsys.readouterr().out


def test_the_layout_is_said_and_its_options_are_in_the_next_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    root = write_tree(flower_tree(tmp_path / "my data"), {"old/daisy/1.jpg": jpeg(7)})
    arguments = [str(root), "--min-side", "16", "--report", str(tmp_path / "report.csv")]
    assert clean.main(arguments) == 1
    assert "old beside them holds images too" in capsys.readouterr().err
    assert clean.main([*arguments, "--exclude", "old"]) == 0
    output = capsys.readouterr().out
    assert output.splitlines()[1] == "  train from train: 3 classes, 17 files"
    again = module_command("fastload.shard", root, "--min-side", "16", "--exclude", "old")
    assert f"next: {again}\n" in output


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
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"fastload.clean: {arguments[0]} ")


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
