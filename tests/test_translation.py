"""The documents in Chinese keep step with those in English."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents import ROOT, blocks_of, check_extras, prose_of, text_of
from tests.pictures import write_tree
from tests.train.pictures import striped_picture

PAGES = sorted((ROOT / "docs" / "zh-CN").glob("*.md"))
RECIPES = sorted((ROOT / "train" / "recipes").glob("*.toml"))
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
ENGLISH, CHINESE = text_of("README.md"), text_of("README.zh-CN.md")
SOURCES = "\n".join(map(text_of, [ROOT / "README.md", *ROOT.glob("docs/*.md"), *RECIPES]))


def code_of(text: str) -> list[str]:
    """The lines of code, without comments."""
    return [line for block in blocks_of(text) for line in block.lines]


def sections_of(text: str) -> list[str]:
    """The text between headings, without code."""
    return re.split(r"^#+ .*", prose_of(text), flags=re.MULTILINE)[1:]


def numbers_of(text: str) -> list[str]:
    """The numbers of a text, sorted, since words stand in another order in Chinese."""
    return sorted(number.replace(",", "") for number in NUMBER.findall(text))


def rows_of(text: str) -> list[str]:
    """The rows of tables below their heads."""
    tables = re.findall(r"^\|[-:| ]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    return [row for table in tables for row in table.splitlines()]


def test_the_readme_in_chinese_has_the_code_of_the_english_one():
    assert code_of(CHINESE) == code_of(ENGLISH)
    assert len(code_of(ENGLISH)) > 15


def test_the_readme_in_chinese_has_the_numbers_and_links_of_the_english_one():
    own = re.sub(r"^.*zh-CN.*\n", "", CHINESE, flags=re.MULTILINE)  # leads to the pages
    chinese, english = sections_of(own), sections_of(ENGLISH)
    assert len(chinese) == len(english) > 5
    for here, there in zip(chinese, english, strict=True):
        assert numbers_of(here) == numbers_of(there), here.strip()[:100]
        links, others = (set(re.findall(r"\]\((.*?)\)", text)) for text in (here, there))
        assert links == others, here.strip()[:100]
    assert rows_of(CHINESE) == rows_of(ENGLISH)


def test_each_readme_leads_to_the_other_in_its_first_line():
    assert "](README.zh-CN.md)" in ENGLISH.splitlines()[0]
    assert "](README.md)" in CHINESE.splitlines()[0]
    for page in PAGES:
        assert f"](docs/zh-CN/{page.name})" in CHINESE


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_has_no_number_that_the_english_documents_lack(page: Path):
    # "1." of a heading and "## 2" are no numbers of anything.
    text = re.sub(r"^## \d+\.", "", text_of(page), flags=re.MULTILINE)
    unknown = set(numbers_of(text)) - set(numbers_of(SOURCES))
    assert not unknown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_row_of_a_page_has_the_numbers_of_a_row_or_a_recipe_in_english(page: Path):
    known = [numbers_of(row) for row in rows_of(SOURCES)]
    for row in rows_of(text_of(page)):
        named = [path for path in RECIPES if f"`{path.stem}`" in row]
        if named:
            facts = numbers_of(row.split("|", 2)[2])
            assert set(facts) <= set(numbers_of(text_of(named[0]))), row
        else:
            assert numbers_of(row) in [*known, []], row


def test_chinese_and_latin_letters_have_a_blank_between_them():
    for path in (ROOT / "README.zh-CN.md", *PAGES):
        text = re.sub("`.*?`", "`x`", text_of(path))
        assert not re.search(r"[\u4e00-\u9fff][A-Za-z0-9`]|[A-Za-z0-9`][\u4e00-\u9fff]", text)
        # A browser shows the end of a line as a blank, so a sentence ends or pauses there.
        assert not re.search(r"[\u4e00-\u9fff]\n *[\u4e00-\u9fff]", text)


# What makes the commands of the pages short: small images, a small network, no download.
SMALLER = {
    "train/run.py": [
        *("--model", "resnet18", "--init", "scratch", "--size", "32", "--start-size", "0"),
        *("--eval-size", "32", "--auto-augment", "none", "--epochs", "1", "--threads", "1"),
        *("--no-tensorboard", "--device", "cpu"),
    ],
    "fastload.tune": ["--seconds", "1", "--size", "32"],
}


@pytest.mark.slow
def test_every_command_of_the_pages_runs(tmp_path: Path):
    pytest.importorskip("onnxruntime", reason="pip install -e '.[export]'")
    classes = {"1355868": "Lactuca virosa L.", "1355920": "玫瑰"}
    pictures = {
        f"{split}/{name}/{n}.jpg": striped_picture(1000 * place + n, label).jpeg
        for place, split in enumerate(("train", "val", "test"))
        for label, name in enumerate(classes)
        for n in range(40 if split == "train" else 4)
    }
    plantnet = tmp_path / "plantnet_300K"
    write_tree(plantnet / "images", pictures)
    (plantnet / "plantnet300K_species_names.json").write_text(json.dumps(classes))
    write_tree(tmp_path / "data", pictures)
    write_tree(tmp_path / "photos", {"1.jpg": striped_picture(1, 0).jpeg})
    ran = 0
    for page in (ROOT / "docs/zh-CN/plantnet300k.md", ROOT / "docs/zh-CN/questions.md"):
        for command in code_of(text_of(page)):
            program, *words = shlex.split(command)
            if program == "pip":
                check_extras(words[-1])
                continue
            assert program == "python", command
            door = words[1] if words[0] == "-m" else words[0]
            if "--resume" not in words:
                words += SMALLER.get(door, [])
            words = [str(ROOT / word) if word.startswith("train/") else word for word in words]
            done = subprocess.run(
                [sys.executable, *words],
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, (command, done.stdout, done.stderr)
            ran += 1
    assert ran >= 12
    for name in (
        *("answers.csv", "answers.html", "runs/plantnet/model.onnx", "plantnet_300K-inspect.html"),
        *("plantnet_300K/.fastload/cleaning.csv", "tuned.toml", "shards/manifest.json"),
        *(f"runs/plantnet/{name}" for name in ("classes.csv", "audit.csv", "report.html")),
    ):
        assert (tmp_path / name).is_file(), name
    assert "玫瑰" in (tmp_path / "answers.csv").read_text(encoding="utf-8-sig")
