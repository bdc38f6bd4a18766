"""Diagrams: heights in proportion, nothing out of the frame, whatever the numbers."""

from __future__ import annotations

import re

import numpy as np
import pytest

from fastload.advise.diagrams import histogram, long_tail


def path_of(diagram: str) -> str:
    (path,) = re.findall(r'class="bars" d="([^"]*)"', diagram)
    return str(path)


def tops(diagram: str) -> list[float]:
    """Heights of the bars, in units of the drawing, from left to right."""
    return [200 - float(y) for y in re.findall(r"V([\d.]+)H", path_of(diagram))]


def test_a_short_tail_is_drawn_in_proportion():
    heights = tops(long_tail(np.array([10, 40, 20]), rare=20))
    assert heights == [200, 100, 50]


def test_a_long_tail_is_logarithmic_and_says_so():
    diagram = long_tail(np.array([1000, 1, 30, 0]), rare=20)
    heights = tops(diagram)
    assert heights == sorted(heights, reverse=True)
    assert heights[0] == 200
    assert heights[-1] == 0
    assert heights[1] > 90  # 30 of 1,000, which would be 6 in proportion
    assert "Images of each class, logarithmic: from 1,000 to 0" in diagram
    assert all(f">{mark}<" in diagram for mark in ("1", "10", "100", "1,000", "4 classes"))


@pytest.mark.parametrize("classes", [1, 2, 3, 499, 500, 501, 21_841])
def test_any_number_of_classes_fills_the_width_in_a_bounded_number_of_steps(classes):
    path = path_of(long_tail(np.arange(1, classes + 1), rare=20))
    ends = [float(x) for x in re.findall(r"H([\d.]+)", path)]
    assert ends[-1] == 1000
    assert ends == sorted(ends)
    assert len(ends) <= 500


@pytest.mark.parametrize(
    "values",
    [[5], [7, 7, 7], [1, 100_000], [0.0003, 0.5], np.arange(1, 65_536), [0.1, 0.2, 0.3]],
    ids=["one", "equal", "wide", "small", "all", "fractions"],
)
def test_a_histogram_counts_every_value(values):
    values = np.array(values)
    diagram = histogram("width, pixels", values)
    heights = tops(diagram)
    assert max(heights) == 200
    (most,) = re.findall(r'bottom:100.0%">([\d,]+)<', diagram)
    counted = sum(heights) / 200 * int(most.replace(",", ""))
    assert counted == pytest.approx(len(values), rel=0.01)
