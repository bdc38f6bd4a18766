"""The sample: flowers of ten species, the same for the same seed, dirty where it says so."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastload import sample
from fastload.console.shell import module_command
from fastload.prepare.flowers import SPECIES
from fastload.prepare.folder import clean_folder
from fastload.prepare.reasons import Rules
from fastload.prepare.report import count_reasons
from fastload.prepare.sample_folder import (
    MARKER_NAME,
    Picture,
    class_counts,
    encode_picture,
    plan_pictures,
    spoiled_files,
)
from fastload.prepare.source import read_source


@pytest.mark.parametrize("images", [100, 101, 1200, 5000])
def test_the_tail_is_long_and_every_species_is_in_every_split(images: int):
    counts = class_counts(images)
    assert sum(counts) == images
    assert counts == sorted(counts, reverse=True)
    assert counts[0] >= 4 * counts[-1]
    pictures = plan_pictures(images)
    assert len({picture.path for picture in pictures}) == images
    splits = Counter((picture.path.split("/")[0], picture.species) for picture in pictures)
    assert len(splits) == 3 * len(SPECIES)
    assert min(splits.values()) >= 1


def test_the_default_runs_from_four_hundred_to_a_dozen():
    counts = class_counts(1200)
    assert 350 <= counts[0] <= 420
    assert 10 <= counts[-1] <= 20


def test_a_picture_depends_on_its_seed_species_and_number_alone():
    first = encode_picture(Picture(3, 7, "a"), seed=0)
    assert encode_picture(Picture(3, 7, "b"), seed=0) == first
    others = [Picture(3, 8, ""), Picture(4, 7, "")]
    assert all(encode_picture(other, seed=0) != first for other in others)
    assert encode_picture(Picture(3, 7, ""), seed=1) != first


def test_pictures_are_photographs_in_size_and_bytes():
    sizes, samplings = [], set()
    for species in range(len(SPECIES)):
        for number in range(2):
            data = encode_picture(Picture(species, number, ""), seed=0)
            image = Image.open(io.BytesIO(data))
            assert image.mode == "RGB"
            assert 300 <= min(image.size) <= max(image.size) <= 700
            sizes.append(len(data) / (image.width * image.height) * 500 * 375)
            samplings.add(image.layer[0][1:3])  # type: ignore[attr-defined]  # JPEG's own
            pixels = np.asarray(image)
            assert pixels.std() > 15
    assert 55_000 < np.median(sizes) < 125_000
    assert samplings == {(1, 1), (2, 2)}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sample") / "data"
    assert sample.main([str(root), "--images", "100", "--workers", "2"]) == 0
    return root


def test_the_folder_holds_what_was_planned(small: Path, capsys: pytest.CaptureFixture[str]):
    source = read_source(small)
    assert source.classes == tuple(sorted(species.name for species in SPECIES))
    assert len(source.files) == 100 + len(dict(spoiled_files(0)))
    first = plan_pictures(100)[0]
    assert (small / first.path).read_bytes() == encode_picture(first, seed=0)
    assert sample.main([str(small), "--images", "100"]) == 0
    said = capsys.readouterr().out
    assert "already holds this sample" in said
    assert module_command("fastload.inspect", small) in said


def test_each_spoiled_file_is_noticed(small: Path):
    rows = clean_folder(read_source(small), rules=Rules(), workers=2)
    found = {Path(row.path).name: row.reason for row in rows}
    assert found == {
        "animation.gif": "gif",
        "transparent.png": "alpha",
        "grey.jpg": "grey",
        "for-print.jpg": "cmyk",
        "truncated.jpg": "truncated",
        "empty.jpg": "empty",
        "really-a-png.jpg": "mislabelled",
        "also-in-val.jpg": "two-splits",
        "which-is-it.jpg": "two-classes",
        "camera-held-upright.jpg": "changed",
    }
    assert sum(count_reasons(rows).values()) == 10


def test_a_stopped_run_is_continued(small: Path, tmp_path: Path):
    root = tmp_path / "data"
    before = {path: path.read_bytes() for path in sorted(small.rglob("*")) if path.is_file()}
    root.mkdir()
    marker = (small / MARKER_NAME).read_bytes().replace(b"true", b"false")
    (root / MARKER_NAME).write_bytes(marker)
    for path, data in list(before.items())[5:60]:
        copy = root / path.relative_to(small)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(data)
    assert sample.main([str(root), "--images", "100", "--workers", "2"]) == 0
    after = {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
    assert list(after.values()) == list(before.values())


def test_a_folder_with_something_else_is_refused(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert sample.main([str(small), "--images", "100", "--seed", "1"]) == 1
    said = capsys.readouterr().err
    assert "holds a sample made with other options (--seed was 0, not " in said
    (tmp_path / "thesis.txt").write_bytes(b"")
    assert sample.main([str(tmp_path)]) == 1
    assert "is not empty; choose another folder" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--images", "99"], ["--workers", "0"], ["--seed", "-1"]])
def test_bad_options_are_refused(tmp_path: Path, options: list[str]):
    with pytest.raises(SystemExit, match="2"):
        sample.main([str(tmp_path), *options])
