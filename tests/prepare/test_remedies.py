"""A set that is all grey or all small is told about the option that stores it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastload.clean import main as clean
from fastload.prepare.reasons import Reason, Rules
from fastload.prepare.remedies import CONVERTED, find_remedies, remedy_line
from fastload.prepare.report import Row
from fastload.shard import main as shard
from fastload.store.manifest import read_manifest
from tests.pictures import encoded, jpeg, picture, write_tree


def image(seed: int, kind: str) -> tuple[str, bytes]:
    """Extension and bytes of a picture of that kind."""
    large, small = picture(seed, height=64, width=64), picture(seed, height=28, width=28)
    alpha = large.copy()
    alpha.putalpha(200)
    deep = Image.fromarray(np.asarray(large.convert("L"), np.uint16) * 257)
    return {
        "grey": (".jpg", encoded(large.convert("L"))),
        "grey-png": (".png", encoded(large.convert("L"), "PNG")),
        "bilevel": (".png", encoded(large.convert("1"), "PNG")),
        "deep": (".png", encoded(deep, "PNG")),
        "palette": (".png", encoded(large.quantize(32), "PNG")),
        "alpha": (".png", encoded(alpha, "PNG")),
        "cmyk": (".jpg", encoded(large.convert("CMYK"))),
        "misnamed": (".jpg", encoded(large, "PNG")),
        "without-extension": ("", encoded(large)),
        "small": (".png", encoded(small, "PNG")),
        "small-grey": (".png", encoded(small.convert("L"), "PNG")),
        "small-grey-jpeg": (".jpg", encoded(small.convert("L"))),
        "sound": (".jpg", encoded(large)),
    }[kind]


KINDS = {
    **dict.fromkeys(
        ("grey", "grey-png", "bilevel", "deep", "palette", "alpha", "cmyk"), "--convert"
    ),
    **dict.fromkeys(("misnamed", "without-extension"), "--convert"),
    "small": "--min-side 28",
    **dict.fromkeys(("small-grey", "small-grey-jpeg"), "--convert --min-side 28"),
}


def tree(root: Path, *kinds: str) -> Path:
    """A class of each kind; every image another one."""
    files, seed = {}, 0
    for label, kind in enumerate(kinds):
        for split, count in (("train", 3), ("val", 1)):
            for number in range(count):
                seed += 1
                extension, data = image(seed, kind)
                files[f"{split}/class {label}/{number}{extension}"] = data
    return write_tree(root, files)


def next_command(text: str) -> list[str]:
    """The arguments of the `next:` line of the cleaning command."""
    found = re.search(r"^next: \S+ -m fastload.shard (.*)$", text, re.MULTILINE)
    assert found is not None, text
    return shlex.split(found[1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("all_of_them", [True, False])
def test_a_refusal_names_the_option_and_the_next_command_works(
    kind: str, all_of_them: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    root = tree(tmp_path / "my data", kind, kind if all_of_them else "sound")
    out, count = str(tmp_path / "out"), 8 if all_of_them else 4
    assert shard([str(root), "--out", out]) == 1
    error = capsys.readouterr().err
    wanted = f"{count} of the {count} files set aside would be stored with {KINDS[kind]}"
    assert wanted in error
    assert clean([str(root), "--report", str(tmp_path / "report.csv")]) == 0
    text = capsys.readouterr().out
    assert wanted in text
    typed = next_command(text)
    assert typed == [str(root), *KINDS[kind].split()]
    assert shard([*typed, "--out", str(tmp_path / "another")]) == 0
    assert not read_manifest(tmp_path / "another").cleaning


def test_the_next_command_has_the_options_of_this_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    root = tree(tmp_path / "data", "grey", "small")
    report = str(tmp_path / "report.csv")
    given = ["--convert", "--min-side", "20", "--seed", "3"]
    assert clean([str(root), "--report", report, *given]) == 0
    assert next_command(capsys.readouterr().out) == [str(root), *given]


def test_where_each_class_has_an_image_the_closing_lines_name_the_option_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    root = tree(tmp_path / "data", "sound", "sound")
    grey = {
        f"train/class 0/grey {number}.jpg": image(90 + number, "grey")[1] for number in range(5)
    }
    write_tree(root, grey | {"train/class 1/cut.jpg": jpeg(99, height=64)[:-300]})
    assert clean([str(root), "--report", str(tmp_path / "report.csv")]) == 0
    text = capsys.readouterr().out
    line = "5 of the 6 files set aside would be stored with --convert, where they are sound"
    assert line in text
    assert next_command(text) == [str(root)]
    assert shard([str(root), "--out", str(tmp_path / "out")]) == 0
    assert line in capsys.readouterr().out


def test_where_no_option_helps_the_next_command_says_so_or_keeps_the_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    files = {f"train/{name}/{number}.jpg": b"" for name in "ab" for number in range(3)}
    root = write_tree(tmp_path / "data", files)
    report = str(tmp_path / "report.csv")
    assert clean([str(root), "--report", report]) == 0
    assert "next: nothing is left to train on" in capsys.readouterr().out
    write_tree(root, {"train/a/sound.jpg": jpeg(1)})
    assert clean([str(root), "--report", report]) == 0
    typed = next_command(capsys.readouterr().out)
    assert typed == [str(root), "--allow-missing-classes"]
    assert shard([*typed, "--out", str(tmp_path / "out")]) == 0


def rows(reason: Reason, count: int, detail: str = "") -> list[Row]:
    return [
        Row(f"{reason.slug} {detail} {number}.jpg", reason.slug, detail, "set aside")
        for number in range(count)
    ]


def test_an_option_that_would_keep_few_is_not_worth_a_line():
    many = rows(Reason.CORRUPT, 90) + rows(Reason.GREY, 5)
    assert remedy_line(many, Rules()) == ""
    assert "10 of the 100" in remedy_line(many + rows(Reason.CMYK, 5), Rules())
    assert remedy_line(rows(Reason.GREY, 5), Rules(convert=True)) == ""
    stored = [Row("a.jpg", "changed", "L made RGB", "stored")]
    assert remedy_line(stored, Rules()) == ""


def test_one_grey_class_among_many_damaged_files_is_enough_for_advice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    root = tree(tmp_path / "data", "sound", "grey")
    write_tree(root, {f"train/class 0/{number}.png": b"damaged" for number in range(60)})
    assert shard([str(root), "--out", str(tmp_path / "out")]) == 1
    assert "; each class would have one with --convert" in capsys.readouterr().err


def test_the_least_side_keeps_nine_tenths_of_what_is_small():
    details = [f"has {side} x 500 pixels, --min-side is 32" for side in (1, *[30] * 19)]
    small = [row for detail in details for row in rows(Reason.SMALL, 1, detail)]
    small = [
        Row(f"{number}.jpg", row.reason, row.detail, row.action) for number, row in enumerate(small)
    ]
    (remedy,) = find_remedies(small, Rules())
    assert remedy.options == ("--min-side", "30")
    assert len(remedy.paths) == 19


def test_a_small_image_that_is_damaged_too_has_no_remedy():
    detail = f"has 8 x 8 pixels, --min-side is 32, and {Reason.TRUNCATED.words}"
    assert find_remedies(rows(Reason.SMALL, 3, detail), Rules()) == []


def test_each_reason_that_converting_removes_is_listed():
    """As the table in docs/cleaning.md says."""
    page = (Path(__file__).parents[2] / "docs" / "cleaning.md").read_text(encoding="utf-8")
    for reason in CONVERTED:
        (line,) = (line for line in page.splitlines() if line.startswith(f"| `{reason.slug}` |"))
        assert "stored" in line.split("|")[3]
