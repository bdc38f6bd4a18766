"""`python -m fastload.inspect`: what is printed, what is drawn, what is said of mistakes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from wcwidth import width as cells

from fastload import inspect
from fastload.advise import contents
from fastload.console.terminal import printable
from fastload.load.loader import Loader
from fastload.store.index import read_index
from fastload.store.manifest import read_manifest
from fastload.world import World
from tests.load.test_drawing import Page
from tests.shards import flip_bit, noisy_picture, numbered, write_shards

pytestmark = pytest.mark.filterwarnings("ignore:fastload's native core")

NAMES = ["rose", "薔薇", "Роза", "a\x1b[31mb", *(f"class {i}" for i in range(4, 40))]
COUNTS = [50, 25, 10, 5, *[1] * 35, 0]


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    labels = [label for label, count in enumerate(COUNTS) for _ in range(count)]
    train = [noisy_picture(i, label, height=30 + i, width=99) for i, label in enumerate(labels)]
    directory = tmp_path_factory.mktemp("inspect") / "shards"
    return write_shards(directory, {"train": train, "val": train[:3]}, classes=NAMES)


def report(shards: Path, **options) -> str:
    manifest = replace(
        read_manifest(shards), stored={"lossless": 120, "original": 5}, cleaning={"is a GIF": 2}
    )
    index = read_index(shards, "train")
    return "\n".join(contents.report(manifest, "train", index, **options))


def test_splits_are_counted(shards):
    lines = report(shards).splitlines()
    assert lines[0].split() == ["split", "images", "classes", "shards", "size"]
    assert lines[1].split()[:4] == ["train", "125", "39", "13"]
    assert lines[2].split()[:4] == ["val", "3", "1", "1"]


def test_classes_are_listed_from_the_most_frequent_and_cut_in_the_middle(shards):
    lines = report(shards).splitlines()
    listed = lines[lines.index("", 1) + 2 : lines.index("", 6)]
    assert len(listed) == 2 * contents.SHOWN + 1
    assert listed[0].split()[:3] == ["0", "rose", "50"]
    assert "16 more; --all lists them" in listed[contents.SHOWN]
    assert listed[-1].split() == ["39", "class", "39", "0"]
    assert len(report(shards, whole=True).splitlines()) == len(lines) + 15


def test_bars_are_in_proportion(shards):
    bars = [line.count("█") for line in report(shards, width=100).splitlines() if "█" in line]
    assert bars[0] > 40
    assert bars[1] == pytest.approx(bars[0] / 2, abs=1)


@pytest.mark.parametrize("width", [40, 60, 80, 300])
def test_lists_of_classes_fit_the_terminal(shards, width):
    lines = report(shards, width=width).splitlines()
    bars = [line for line in lines if "█" in line or "▏" in line]
    assert max(map(cells, bars)) <= min(width, contents.WIDEST)


def test_the_long_tail_is_described(shards):
    text = report(shards)
    assert "imbalance: 50.0 : 1, from 50 images of a class to 1" in text
    # Classes of 10, 5 and thirty-five of 1 image are rare: 50 of 125.
    assert "rare: 37 classes have fewer than 20 images, 40.0% of all images" in text
    # The rarest 32 of 40 classes: one of 0 and 31 of 1 image.
    assert "the rarest 80% of the classes hold 24.8% of the images" in text
    assert "empty: 1 class has no image" in text
    assert 'reweight="sqrt"' in text


def test_sizes_are_those_of_the_index(shards):
    lines = [line.split() for line in report(shards).splitlines()]
    index = read_index(shards, "train")
    assert ["width,", "pixels", "99", "99", "99", "99", "99"] in lines
    median = f"{np.median(index['height']):.0f}"
    assert next(line for line in lines if line[:1] == ["height,"])[4] == median


def test_what_the_cleaning_did_is_told(shards):
    text = report(shards)
    assert "stored: 120 lossless; 5 original" in text
    assert "set aside: 2 is a GIF" in text


def test_a_class_name_cannot_steer_the_terminal(shards):
    assert "\x1b" not in report(shards)
    assert "a\\x1b[31mb" in report(shards)


def test_an_ascii_terminal_gets_ascii(shards):
    text = report(shards, encoding="ascii")
    assert text.isascii()
    assert "\\u8594\\u8587" in text
    assert "####" in text


def test_the_sheet_shows_the_first_samples_of_the_loader(shards, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--sheet", "sheet.html", "--count", "6", "--size", "64", "--seed", "9"]
    assert inspect.main([str(shards), *words]) == 0
    said = capsys.readouterr().out
    assert "shards-inspect.html: counts, sizes, samples and what was set aside" in said
    assert "sheet.html: a contact sheet of 6 samples" in said
    page = Page(Path("sheet.html").read_text(encoding="utf-8"))
    augment = inspect.AUGMENTS["train"](64)
    with Loader(shards, batch_size=6, augment=augment, seed=9, world=World()) as loader:
        images, labels = next(iter(loader))
    assert np.array_equal(np.stack(page.pictures), images.permute(0, 2, 3, 1).numpy())
    assert page.captions == [f"{label} {printable(NAMES[label])}" for label in labels.tolist()]
    assert page.title == "shards, train: 6 samples of epoch 0, seed 9"


def test_the_same_seed_draws_the_same_sheet(shards, tmp_path: Path):
    def draw(name: str, *more: str) -> list[bytes]:
        sheet, out = tmp_path / name, str(tmp_path / "page.html")
        options = ["--out", out, "--sheet", str(sheet), "--count", "4", "--size", "32", *more]
        assert inspect.main([str(shards), *options]) == 0
        page = Page(sheet.read_text(encoding="utf-8"))
        return [picture.tobytes() for picture in page.pictures]

    first = draw("a.html")
    assert draw("b.html") == first
    assert (tmp_path / "b.html").read_bytes() == (tmp_path / "a.html").read_bytes()
    assert draw("c.html", "--seed", "1") != first
    assert draw("c.html", "--augment", "eval") != first
    assert draw("c.html", "--split", "val", "--reweight", "inverse") != first


def test_a_damaged_sample_does_not_stop_the_look(tmp_path, caplog):
    directory = numbered(tmp_path / "shards", {"train": 12})
    flip_bit(directory / "train-000000.tar", int(read_index(directory, "train")["offset"][4]) + 300)
    options = ["--out", str(tmp_path / "page.html"), "--size", "32"]
    assert inspect.main([str(directory), *options]) == 0
    assert "train-000000.tar, sample 000004" in caplog.text


def test_mistakes_are_one_sentence(shards, tmp_path, capsys):
    nowhere, page = str(tmp_path / "nowhere" / "page.html"), str(tmp_path / "page.html")
    (tmp_path / "folder.html").mkdir()
    folder = str(tmp_path / "folder.html")
    empty = write_shards(tmp_path / "empty", {"train": []}, classes=["a"])
    for arguments, said in [
        ([str(tmp_path)], "there is no complete set of shards"),
        ([str(shards), "--split", "test"], "there is no split 'test'"),
        ([str(shards), "--out", nowhere], "there is no such file or folder"),
        ([str(shards), "--out", folder], "is a folder, expected a regular file"),
        ([str(shards), "--out", page, "--sheet", folder], "is a folder, expected"),
        ([str(shards), "--out", page, "--source", nowhere], "is no folder; --source names"),
        ([str(empty)], "split 'train' has no images to draw"),
    ]:
        assert inspect.main(arguments) == 1
        error = capsys.readouterr().err
        assert error.startswith("fastload.inspect: ")
        assert said in error
        assert error.count("\n") == 1
    assert not Path(page).exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--size", "7"], r"--size must be in \[16, 1024\], got 7"),
        (["--count", "0"], r"--count must be in \[1, 1000\], got 0"),
        (["--seed", "-1"], r"--seed must be in \[0, \d+\], got -1"),
        (["--reweight", "cube"], "--reweight must be inverse, sqrt or effective:BETA"),
        (["--count", "7"], "--count is about the contact sheet; name its file with --sheet"),
        (
            ["--out", "a.html", "--sheet", "./a.html"],
            "--sheet must be another file than the page of --out",
        ),
        (["--reweight", "sqrt"], "--reweight is about the contact sheet; name its file with"),
        (
            ["--sheet", "a.png"],
            "--sheet must end in .html, as it is an HTML page, got 'a.png'",
        ),
    ],
)
def test_wrong_arguments_are_refused(shards, arguments, said, capsys):
    with pytest.raises(SystemExit) as caught:
        inspect.main([str(shards), *arguments])
    assert caught.value.code == 2
    assert re.search(said, capsys.readouterr().err)


def test_the_command_runs_in_an_ascii_terminal(shards, tmp_path):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "60", "RANK": "3"}
    done = subprocess.run(
        [sys.executable, "-m", "fastload.inspect", str(shards), "--size", "16"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.isascii()
    assert (tmp_path / "shards-inspect.html").exists()
