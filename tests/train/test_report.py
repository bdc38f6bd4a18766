"""report.html, and the rows behind it."""

from __future__ import annotations

import csv
import json
import math
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict
from html.parser import HTMLParser

import pytest
import torch

from tests.train.pictures import CLASSES, striped_shards
from train.loop import Progress
from train.metrics import evaluate_logits
from train.record import COLUMNS, Log, RecordError, read_log, write_classes, write_result
from train.report import Confusion, Report, Thumbnails, line_chart, scatter_chart, ticks

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
        if tag not in {"meta", "img", "line", "circle", "polyline"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in {"line", "circle", "polyline"}:
            return
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
        assert name in text
    assert "run & more" in text
    assert "3 of 8" in text


def test_an_empty_log_and_no_confusions_make_a_report():
    text = read(report(log=[], confusions=[], accuracies=[math.nan] * 3).html()).text

    assert "nothing yet" in text
    assert "every validation image is right" in text


def test_a_curve_runs_from_left_to_right_and_higher_values_lie_higher():
    chart = ElementTree.fromstring(line_chart({"a": [(1, 0.0), (2, 1.0), (3, 0.5)]}))

    line = chart.find("polyline")
    assert line is not None
    points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
    assert points[0][0] < points[1][0] < points[2][0]
    assert points[1][1] < points[2][1] < points[0][1]
    width, height = float(chart.attrib["width"]), float(chart.attrib["height"])
    assert all(0 <= x <= width and 0 <= y <= height for x, y in points)


def test_values_that_are_no_numbers_are_left_out_of_a_curve():
    chart = ElementTree.fromstring(line_chart({"a": [(1, math.nan), (2, 1.0)]}))

    assert len(chart.findall("circle")) == 1


def test_a_scatter_has_a_point_for_each_class_with_its_name():
    chart = ElementTree.fromstring(scatter_chart([(10, 0.5, "a < b"), (1000, 1.0, "中文")]))

    titles = [title.text for title in chart.iter("title")]
    assert titles == ["a < b: 50%, 10 images", "中文: 100%, 1000 images"]


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0, 100), (1, 30), (0, 0.0123), (3, 3), (0, 4096), (-2, 2)]
)
def test_ticks_are_few_and_within_the_axis(low, high):
    found = ticks(low, high)

    assert 1 <= len(found) <= 7
    assert all(low - 1e-9 <= value <= high + 1e-9 for value in found)


def test_thumbnails_are_small_jpegs_of_the_split(tmp_path):
    thumbnails = Thumbnails(striped_shards(tmp_path / "shards"), "val")

    jpeg = thumbnails[3]

    assert jpeg is not None
    assert jpeg[:2] == b"\xff\xd8"
    (tmp_path / "shards" / "val-000000.tar").unlink()
    assert thumbnails[3] is None


def test_rows_of_the_log_are_read_again_and_cut_back_on_resume(tmp_path):
    path = tmp_path / "log.csv"
    log = Log(path)
    for step in range(4):
        log.add({"epoch": 1, "step": step, "split": "train", "loss": 0.1 + step, "top1": math.nan})

    resumed = Log(path, keep=2)
    resumed.add({"epoch": 9, "step": 9, "split": "val"})

    rows = read_log(path)
    assert list(rows[0]) == list(COLUMNS)
    assert [row["step"] for row in rows] == ["0", "1", "9"]
    assert (rows[0]["loss"], rows[0]["top1"]) == ("0.1", "")


def test_a_row_cut_in_half_by_a_crash_is_dropped(tmp_path):
    path = tmp_path / "log.csv"
    Log(path).add({"epoch": 1, "split": "train"})
    with path.open("a") as file:
        file.write("1,7,va")

    Log(path, keep=1)

    assert [row["split"] for row in read_log(path)] == ["train"]


def test_a_log_that_lacks_rows_of_the_run_is_refused(tmp_path):
    path = tmp_path / "log.csv"
    Log(path)

    with pytest.raises(RecordError, match="has 0 rows, and the checkpoint was written after 3"):
        Log(path, keep=3)


def test_classes_csv_has_a_row_for_each_class_whatever_its_name(tmp_path):
    logits = torch.eye(4)[[0, 1, 2, 0]]
    found = evaluate_logits(logits, torch.tensor([0, 1, 2, 2]), train_counts=torch.ones(4).long())
    names = [(name, f"{name}, quoted", 5) for name in CLASSES]

    write_classes(tmp_path / "classes.csv", names, {"val": found})

    with (tmp_path / "classes.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == list(CLASSES)
    assert [row["val_top1"] for row in rows] == ["1.0", "1.0", "0.5", ""]
    assert [row["val_images"] for row in rows] == ["1", "1", "2", "0"]


def test_result_json_is_json_even_where_figures_are_missing(tmp_path):
    write_result(tmp_path / "result.json", {"val": {"top1": math.nan, "few": 0.5}, "中": (1, 2)})

    text = (tmp_path / "result.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=pytest.fail) == {
        "val": {"top1": None, "few": 0.5},
        "中": [1, 2],
    }


def test_progress_survives_the_checkpoint():
    progress = Progress(epoch=2, history=[0.1, 0.2])
    progress.meter.loss = 1.25

    assert Progress.from_dict(asdict(progress)) == progress
