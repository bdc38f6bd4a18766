"""Checks of arguments: an error names the argument, what was expected, and what was passed.

A value of a wrong type is a `TypeError`; a value out of range is a `ValueError`. NumPy's scalars
are integers and numbers; a bool is not.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from numbers import Integral, Real

import numpy as np


def check_integer(name: str, value: object, low: int, high: int | None = None) -> None:
    """Require an integer that is at least `low`, and at most `high` if there is such a limit."""
    expected = f"at least {low}" if high is None else f"in [{low}, {high}]"
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer {expected}, got {shown(value)}")
    if int(value) < low or (high is not None and int(value) > high):
        raise ValueError(f"{name} must be {expected}, got {shown(value)}")


def check_number(name: str, value: object, low: float, high: float = math.inf) -> None:
    """Require a finite number in [low, high]."""
    limits = f"in [{low:g}, {high:g}]" if math.isfinite(high) else f"at least {low:g}, and finite"
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number {limits}, got {shown(value)}")
    if not (low <= float(value) <= high and math.isfinite(value)):
        raise ValueError(f"{name} must be {limits}, got {shown(value)}")


def check_interval(name: str, value: object, low: float, high: float) -> None:
    """Require two numbers in [low, high], the second at least the first."""
    expected = f"an interval (least, most) within [{low:g}, {high:g}]"
    numbers = _numbers(value)
    if numbers is None:
        raise TypeError(f"{name} must be {expected}, got {shown(value)}")
    if not (len(numbers) == 2 and low <= numbers[0] <= numbers[1] <= high):
        raise ValueError(f"{name} must be {expected}, got {shown(value)}")


def check_channels(name: str, value: object) -> None:
    """Require three finite numbers, one for each of red, green and blue."""
    expected = "three finite numbers, for red, green and blue"
    numbers = _numbers(value)
    if numbers is None:
        raise TypeError(f"{name} must be {expected}, got {shown(value)}")
    if not (len(numbers) == 3 and all(map(math.isfinite, numbers))):
        raise ValueError(f"{name} must be {expected}, got {shown(value)}")


def check_numbers(name: str, value: object) -> None:
    """Require a row of numbers."""
    if _numbers(value) is None:
        raise TypeError(f"{name} must be a row of numbers, got {shown(value)}")


def check_names(name: str, value: object) -> None:
    """Require a collection of strings; a single string is none."""
    if (
        isinstance(value, str)
        or not isinstance(value, Collection)
        or not all(isinstance(part, str) for part in value)
    ):
        raise TypeError(f"{name} must be a list of names, got {shown(value)}")


def check_kind(name: str, value: object, *kinds: type) -> None:
    """Require an instance of one of the classes."""
    if not isinstance(value, kinds):
        names = dict.fromkeys(
            kind.__name__.rstrip("_").replace("NoneType", "None") for kind in kinds
        )
        raise TypeError(f"{name} must be {' or '.join(names)}, got {shown(value)}")


def check_callable(name: str, value: object) -> None:
    """Require a function or None."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be a function or None, got {shown(value)}")


def shown(value: object) -> str:
    """A value as a user would type it, without the names of NumPy's types."""
    if isinstance(value, np.generic | np.ndarray):
        return repr(value.tolist())
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, tuple):
        return f"({', '.join(map(shown, value))}{',' * (len(value) == 1)})"
    return repr(value)


def _numbers(value: object) -> list[float] | None:
    """The numbers of a row of numbers; None if the value is anything else."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, tuple | list):
        return None
    if not all(isinstance(part, Real) and not isinstance(part, bool) for part in value):
        return None
    return [float(part) for part in value]
