"""A wrong argument is told by its name, what was expected and what was passed."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest

from fastload.arguments import (
    check_channels,
    check_integer,
    check_interval,
    check_kind,
    check_number,
    shown,
)

NOT_A_NUMBER: list[Any] = ["1", None, True, np.bool_(True), [1], 1j, b"1"]
NOT_A_ROW: list[Any] = [
    0.5,
    "ab",
    None,
    {0.1, 0.9},
    ("0.1", "0.9"),
    (True, False),
    np.zeros((2, 2)),
]


@pytest.mark.parametrize("value", [*NOT_A_NUMBER, 1.0, np.float64(1), math.nan])
def test_what_is_no_integer_is_a_type_error(value):
    expected = f"count must be an integer in [1, 8], got {shown(value)}"
    with pytest.raises(TypeError, match=re.escape(expected)):
        check_integer("count", value, 1, 8)


@pytest.mark.parametrize("value", NOT_A_NUMBER)
def test_what_is_no_number_is_a_type_error(value):
    expected = f"share must be a number in [0, 1], got {shown(value)}"
    with pytest.raises(TypeError, match=re.escape(expected)):
        check_number("share", value, 0, 1)


@pytest.mark.parametrize("value", NOT_A_ROW)
def test_what_is_no_interval_is_a_type_error(value):
    with pytest.raises(
        TypeError, match=r"area must be an interval \(least, most\) within \[0, 1\]"
    ):
        check_interval("area", value, 0, 1)


@pytest.mark.parametrize(
    "value", [-0.1, 1.5, math.nan, math.inf, -math.inf, np.float32(2), 10**400, -(10**400)]
)
def test_a_number_out_of_range_is_a_value_error(value):
    expected = f"share must be in [0, 1], got {shown(value)}"
    with pytest.raises(ValueError, match=re.escape(expected)):
        check_number("share", value, 0, 1)


@pytest.mark.parametrize("value", [-1, math.nan, math.inf])
def test_a_number_without_an_upper_limit_is_finite(value):
    with pytest.raises(ValueError, match=f"factor must be at least 0, and finite, got {value}"):
        check_number("factor", value, 0)


@pytest.mark.parametrize(("value", "high"), [(0, 8), (9, 8), (-1, None), (np.int64(0), None)])
def test_an_integer_out_of_range_is_a_value_error(value, high):
    expected = "in [1, 8]" if high else "at least 1"
    with pytest.raises(ValueError, match=re.escape(f"count must be {expected}, got {int(value)}")):
        check_integer("count", value, 1, high)


@pytest.mark.parametrize(
    "value",
    [
        *((), (0.5,), (0.1, 0.5, 0.9), (0.9, 0.1), (-0.1, 1), (0, 1.1)),
        *((0, math.nan), (0, math.inf), (0, 10**400)),
    ],
)
def test_an_interval_out_of_range_is_a_value_error(value):
    with pytest.raises(ValueError, match=re.escape(f"[0, 1], got {shown(value)}")):
        check_interval("area", value, 0, 1)


@pytest.mark.parametrize("value", [(1, 2), (1, 2, 3, 4), (1, math.nan, 1)])
def test_three_channels_are_three_numbers(value):
    with pytest.raises(ValueError, match="mean must be three finite numbers"):
        check_channels("mean", value)
    with pytest.raises(TypeError, match=r"mean must be three finite numbers, .* got 0\.5"):
        check_channels("mean", 0.5)


def test_another_kind_is_a_type_error():
    with pytest.raises(TypeError, match=r"x must be int or None, got 0\.5"):
        check_kind("x", 0.5, int, type(None))
    check_kind("x", None, int, type(None))


def test_what_fits_passes_as_numpys_scalars_too():
    for value in (1, 8, np.uint8(3), np.int64(8)):
        check_integer("count", value, 1, 8)
    for number in (0, 1, 0.5, np.float32(0.5), np.int8(1)):
        check_number("share", number, 0, 1)
    for interval in ((0, 1), [0.5, 0.5], np.array([0.1, 0.9]), (np.float64(0.1), 1)):
        check_interval("area", interval, 0, 1)
    check_channels("mean", np.array([0.1, 0.2, 0.3]))


def test_values_are_shown_as_they_are_typed():
    assert shown(np.float64(1.5)) == "1.5"
    assert shown((np.float64(0.5), np.int64(1))) == "(0.5, 1)"
    assert shown((0.5,)) == "(0.5,)"
    assert shown([np.int64(2), "a"]) == "[2, 'a']"
    assert shown(np.array([1, 2])) == "[1, 2]"
    assert shown("a") == "'a'"
