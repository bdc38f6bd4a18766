"""report.html as a page."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

from fastload.installation import install_command
from train import report as reports
from train.confusion import Confusion
from train.report import Report

NAMES = ("<script>alert(1)</script>", "玫瑰 & Роза", "وردة")


class Reader(HTMLParser):
    """Collects tags and text, and notices tags that are not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def report(**changes) -> Report:
    row = {"epoch": "1", "split": "train", "loss": "2.5", "top1": "0.25", "learning_rate": "0.1"}
    val = {"epoch": "1", "split": "val", "loss": "2.25", "top1": "0.5", "macro_top1": "0.5"}
    facts = {
        "title": "run & more",
        "facts": {"model": "resnet18"},
        "log": [row, val],
        "class_names": NAMES,
        "train_counts": [100, 10, 0],
        "accuracies": [0.5, 0.25, math.nan],
        "confusions": [
            Confusion(
                truth=NAMES[0], answer=NAMES[1], count=3, of=8, mistaken=b"\xff\xd8", typical=None
            )
        ],
        "options": "[data]\nbatch_size = 3",
        **changes,
    }
    return Report(**facts)


def read(document: str) -> Reader:
    reader = Reader()
    reader.feed(document)
    assert not reader.open
    return reader


def test_the_report_is_one_well_formed_file_without_scripts_or_links():
    reader = read(report().html())

    assert "script" not in reader.tags
    links = [value for name, value in reader.attributes if name in {"src", "href"}]
    assert links == ["data:image/jpeg;base64,/9g="]


def test_names_in_any_script_are_text():
    text = read(report().html()).text

    for name in NAMES[:2]:
        assert text.count(name) == 3  # a point of the chart, a hard class, a confusion
    assert "run & more" in text
    assert "3 of 8" in text


def test_an_empty_log_and_no_confusions_make_a_report():
    text = read(report(log=[], confusions=[], accuracies=[math.nan] * 3).html()).text

    assert "nothing yet" in text
    assert "every validation image is right" in text


def test_every_chart_is_there():
    reader = read(report().html())

    assert reader.tags.count("svg") == 7
    assert reader.tags.count("figcaption") == 7


def test_without_matplotlib_the_report_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(reports, "can_draw", lambda: False)

    reader = read(report().html())

    assert "svg" not in reader.tags
    assert "Charts need matplotlib, which cannot be imported" in reader.text
    assert install_command("report") in reader.text
    assert "3 of 8" in reader.text


def test_the_same_run_gives_the_same_report():
    assert report().html() == report().html()


def test_a_broken_matplotlib_is_as_good_as_none(tmp_path):
    (tmp_path / "matplotlib").mkdir()
    (tmp_path / "matplotlib" / "__init__.py").write_text(
        "raise RuntimeError('built for another NumPy')"
    )
    program = "from train.charts import can_draw; print(can_draw())"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"


def test_a_name_that_is_no_text_is_shown_as_escapes():
    page = report(class_names=["a\x1b[31m", "b\udcff", "c\u202e"]).html()
    assert page.encode("utf-8")
    for sign in ("\x1b", "\u202e"):
        assert sign not in page
