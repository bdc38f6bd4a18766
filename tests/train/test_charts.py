"""The charts of report.html."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from train.charts import HEIGHT, WIDTH, line_chart, scatter_chart

SVG = "{http://www.w3.org/2000/svg}"
CLASSES = [(10.0, 0.5, "a < b"), (1000.0, 1.0, "\u4e2d\u6587")]


def lines_of(chart: str) -> list[list[tuple[float, float]]]:
    """The corners of each line, from left to right in pixels, downwards in pixels."""
    found = []
    for path in ElementTree.fromstring(chart).iter(f"{SVG}path"):
        if "stroke-width: 1.5" in path.get("style", "") and path.get("clip-path"):
            numbers = [float(text) for text in re.findall(r"[-\d.]+", path.get("d", ""))]
            found.append(list(zip(numbers[::2], numbers[1::2], strict=True)))
    return found


def marks_of(chart: str) -> list[ElementTree.Element]:
    """The points of a chart that lie between its axes."""
    groups = ElementTree.fromstring(chart).iter(f"{SVG}g")
    return [mark for group in groups if group.get("clip-path") for mark in group]


def test_a_curve_runs_from_left_to_right_and_higher_values_lie_higher():
    (points,) = lines_of(line_chart("Loss", {"a": [(1, 0.0), (2, 1.0), (3, 0.5)]}))

    assert points[0][0] < points[1][0] < points[2][0]
    assert points[1][1] < points[2][1] < points[0][1]
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points)


def test_each_series_has_a_line_and_its_name():
    chart = line_chart("Loss", {"train": [(1, 0.0), (2, 1.0)], "val": [(1, 1.0), (2, 2.0)]})

    assert len(lines_of(chart)) == 2
    texts = [text.text for text in ElementTree.fromstring(chart).iter(f"{SVG}text")]
    assert {"train", "val", "epoch"} <= set(texts)


@pytest.mark.parametrize("epochs", [1, 2, 3, 30])
def test_epochs_are_whole_numbers(epochs):
    chart = line_chart("Loss", {"a": [(epoch, 0.5) for epoch in range(1, epochs + 1)]})

    texts = [str(text.text) for text in ElementTree.fromstring(chart).iter(f"{SVG}text")]
    numbers = texts[: texts.index("epoch")]
    assert 1 <= len(numbers) <= 10
    assert all(text.isdecimal() and int(text) <= epochs for text in numbers)


def test_values_that_are_no_numbers_are_left_out_of_a_curve():
    assert len(marks_of(line_chart("Loss", {"a": [(1, math.nan), (2, 1.0)]}))) == 1


def test_a_scatter_has_a_point_for_each_class_with_its_name():
    chart = scatter_chart("Classes", CLASSES)

    titles = [title.text for title in ElementTree.fromstring(chart).iter(f"{SVG}title")]
    assert titles == ["a < b: 50%, 10 images", "\u4e2d\u6587: 100%, 1000 images"]
    left, right = marks_of(chart)
    assert float(left.attrib["x"]) < float(right.attrib["x"])
    assert float(left.attrib["y"]) > float(right.attrib["y"])


@pytest.mark.parametrize("chart", [line_chart("x", {"a": []}), scatter_chart("x", [])])
def test_a_chart_of_nothing_says_so(chart):
    assert "nothing yet" in chart


def test_equal_data_give_equal_bytes_in_another_process():
    program = f"from train.charts import *; print(scatter_chart('Classes', {CLASSES!r}), end='')"

    said = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=True)

    assert said.stdout.decode() == scatter_chart("Classes", CLASSES)


def test_a_chart_refers_to_its_own_parts_only_and_shares_no_id_with_another():
    series = {"a": [(1.0, 0.5), (2.0, 1.0)]}
    charts = [line_chart("Loss", series), line_chart("Top-1", series)]

    ids = [re.findall(r' id="([^"]+)"', chart) for chart in charts]
    for chart, own in zip(charts, ids, strict=True):
        used = re.findall(r'(?:href="|url\()#([^")]+)', chart)
        assert set(used) == set(own)
        assert len(own) == len(set(own))
    assert not set(ids[0]) & set(ids[1])


def test_a_chart_has_no_date_no_style_for_the_page_and_no_path_for_a_text():
    chart = scatter_chart("Classes", CLASSES)

    assert "<metadata" not in chart
    assert "<style" not in chart
    texts = [text.text for text in ElementTree.fromstring(chart).iter(f"{SVG}text")]
    assert {"training images", "10", "1000", "100%"} <= set(texts)
