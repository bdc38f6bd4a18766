"""report.html as a page."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

from fastload.console.page import Picture
from fastload.installation import install_command
from train import report as reports
from train.audit import Finding
from train.calibration import Bin, Calibration
from train.class_sizes import ClassTable
from train.confusion import Confusion
from train.report import Doubts, Report

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
        if tag not in {"meta", "img", "br", "wbr"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


PICTURE = Picture(jpeg=b"\xff\xd8", place='<"a">/b.jpg', link="../%22a%22/b.jpg")
LOST = Picture(jpeg=None, place="val-000000.tar, sample <7>")


def classes(**changes) -> ClassTable:
    facts = {
        "names": NAMES,
        "train_counts": [100, 10, 0],
        "val_counts": [8, 4, 0],
        "accuracies": [0.5, 0.25, math.nan],
    }
    return ClassTable(**{**facts, **changes})


def calibration(error: float) -> Calibration:
    bins = (Bin(count=0, confidence=math.nan, accuracy=math.nan),) * 13
    filled = (
        Bin(count=4, confidence=0.9, accuracy=0.75),
        Bin(count=8, confidence=0.96, accuracy=1.0),
    )
    return Calibration(error=error, bins=(*bins, *filled))


def report(**changes) -> Report:
    row = {"epoch": "1", "split": "train", "loss": "2.5", "top1": "0.25", "learning_rate": "0.1"}
    val = {"epoch": "1", "split": "val", "loss": "2.25", "top1": "0.5", "macro_top1": "0.5"}
    facts = {
        "title": "run & more",
        "facts": {"model": "resnet18"},
        "log": [row, val],
        "classes": classes(),
        "calibration": (calibration(0.015), calibration(0.205)),
        "temperature": 1.5,
        "confusions": [
            Confusion(
                truth=NAMES[0], answer=NAMES[1], count=3, of=8, mistaken=[PICTURE], typical=[LOST]
            )
        ],
        "doubts": Doubts(
            images=110,
            total=110,
            doubtful=1,
            hard=0,
            first_doubtful=[
                Finding(picture=PICTURE, truth=NAMES[1], answer=NAMES[2], probability=0.75)
            ],
            first_hard=[],
        ),
        "options": "[data]\nbatch_size = 3",
        **changes,
    }
    return Report(**facts)


def read(document: str) -> Reader:
    reader = Reader()
    reader.feed(document)
    assert not reader.open
    return reader


def test_the_report_is_one_well_formed_file_without_scripts_that_links_to_files_only():
    reader = read(report().html())

    assert "script" not in reader.tags
    shown = [value for name, value in reader.attributes if name == "src"]
    assert shown == ["data:image/jpeg;base64,/9g="] * 2
    links = [value for name, value in reader.attributes if name == "href"]
    assert links == ["../%22a%22/b.jpg", "audit.csv", "../%22a%22/b.jpg"]
    assert "val-000000.tar, sample <7>" in reader.text
    assert [value for name, value in reader.attributes if name == "alt"] == ['<"a">/b.jpg'] * 2


def test_names_in_any_script_are_text():
    text = read(report().html()).text

    for name, count in zip(NAMES, (3, 4, 1), strict=True):
        # a point of the chart, a hard class, a confusion, a training image to look at
        assert text.count(name) == count
    assert "run & more" in text
    assert "3 of 8" in text


def test_an_empty_log_and_no_confusions_make_a_report():
    text = read(
        report(log=[], confusions=[], classes=classes(accuracies=[math.nan] * 3)).html()
    ).text

    assert "nothing yet" in text
    assert "no image of val got a wrong answer" in text


def test_a_val_of_which_nothing_was_read_makes_a_report():
    bins = (Bin(count=0, confidence=math.nan, accuracy=math.nan),) * 15
    nothing = Calibration(error=math.nan, bins=bins)
    text = read(report(calibration=(nothing, nothing), doubts=None).html()).text
    assert "no image of val was read" in text
    assert "nan" not in text


def test_every_chart_is_there():
    reader = read(report().html())

    assert reader.tags.count("svg") == 8
    assert reader.tags.count("figcaption") == 9  # and that of a training image to look at


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
    page = report(classes=classes(names=["a\x1b[31m", "b\udcff", "c\u202e"])).html()
    assert page.encode("utf-8")
    for sign in ("\x1b", "\u202e"):
        assert sign not in page


def test_of_classes_that_are_equally_hard_those_with_most_images_stand_first():
    table = classes(train_counts=[3, 300, 30], accuracies=[0.0, 0.0, 0.0])
    text = read(report(classes=table).html()).text
    listed = text.partition("hardest classes")[2]
    assert listed.index(NAMES[1]) < listed.index(NAMES[2]) < listed.index(NAMES[0])


def test_accuracy_by_class_size_and_the_images_to_look_at_are_there():
    text = read(report().html()).text

    for words in ("10–19110425%", "50–1001100850%", "0100–"):  # the cells of three rows
        assert words in text
    assert "All 110 training images were looked at again" in text
    assert "confident of another class than the label for 1, and answers 0 others" in text
    assert "looks like وردة, 75.0%" in text
    assert "audit was 0" in read(report(doubts=None).html()).text.replace("--audit", "audit")


def test_the_worth_of_a_probability_is_shown_before_and_after_the_temperature():
    reader = read(report().html())

    assert "1.5 points off at the temperature 1.5" in reader.text
    assert "and 20.5 points off without it" in reader.text
    assert "87%–93%490%75%" in reader.text  # the cells of a row
    empty = Calibration(error=math.nan, bins=())
    assert "nothing yet" in read(report(calibration=(empty, empty)).html()).text
