"""Checks of arguments: an error names the argument, what was expected, and what was passed.

A value of a wrong type is a `TypeError`; a value out of range is a `ValueError`. NumPy's scalars
are integers and numbers; a bool is not. NumPy is imported by the functions that need it: it would
take half of the time of `fastload --help`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterable
from dataclasses import fields
from numbers import Integral, Real
from typing import Any

LONGEST_SHOWN = 120  # characters of a value in a message; a mask of a split has millions


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
    number = _float(value)
    if not (low <= number <= high and math.isfinite(number)):
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
    try:
        names = list(value) if isinstance(value, Collection) and not isinstance(value, str) else [0]
    except TypeError:  # an array of no dimension
        names = [0]
    if not all(isinstance(part, str) for part in names):
        raise TypeError(f"{name} must be a list of names, got {shown(value)}")


def check_kind(name: str, value: object, *kinds: type) -> None:
    """Require an instance of one of the classes."""
    if not isinstance(value, kinds):
        names = dict.fromkeys(
            kind.__name__.rstrip("_").replace("NoneType", "None") for kind in kinds
        )
        raise TypeError(f"{name} must be {' or '.join(names)}, got {shown(value)}")


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """Require one of some names."""
    if not isinstance(value, str) or value not in choices:
        *others, last = (f'"{choice}"' for choice in choices)
        raise ValueError(
            f"{name} must be {', '.join(others)} or {last}, got {shown(value)}"
            f"{did_you_mean(value, choices)}"
        )


def did_you_mean(value: object, known: Iterable[str]) -> str:
    """The end of a message: the known name that `value` is like, as a question; "" if none is."""
    if not isinstance(value, str) or not value:
        return ""
    lower = {name.lower(): name for name in known}
    typed = value.lower()
    close = difflib.get_close_matches(typed, lower, n=1)
    # "validation" and "tr" have little in common with "val" and "train" but how they begin.
    close += [name for name in lower if typed.startswith(name) or name.startswith(typed)]
    return f"; did you mean {lower[close[0]]!r}?" if close else ""


def check_callable(name: str, value: object) -> None:
    """Require a function or None."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be a function or None, got {shown(value)}")


def plain(value: object) -> Any:  # noqa: ANN401  of the type that it was
    """Python's own numbers and tuples for other numbers, arrays and lists of them."""
    import numpy as np

    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Real) and not isinstance(value, int | float):  # such as a fraction
        return int(value) if isinstance(value, Integral) else float(value)
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return tuple(map(plain, value))
    return value


def make_plain(options: object) -> None:
    """Replace the fields of a frozen dataclass by `plain` ones: equal options look alike."""
    for each in fields(options):  # type: ignore[arg-type]  # a dataclass
        object.__setattr__(options, each.name, plain(getattr(options, each.name)))


def shown(value: object) -> str:
    """A value as a user would type it: on one line, cut if long, without NumPy's type names."""
    text = " ".join(_typed(value).split())
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def _typed(value: object) -> str:
    import numpy as np

    if isinstance(value, np.ndarray) and value.size > LONGEST_SHOWN:
        value = value.ravel()[: LONGEST_SHOWN + 1]
    if isinstance(value, np.generic | np.ndarray):
        return repr(value.tolist())
    if isinstance(value, list):
        return f"[{', '.join(map(_typed, value[:LONGEST_SHOWN]))}]"
    if isinstance(value, tuple):
        first = ", ".join(map(_typed, value[:LONGEST_SHOWN]))
        return f"({first}{',' * (len(value) == 1)})"
    return repr(value)


def _numbers(value: object) -> list[float] | None:
    """The numbers of a row of numbers; None if the value is anything else."""
    import numpy as np

    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, tuple | list):
        return None
    if not all(isinstance(part, Real) and not isinstance(part, bool) for part in value):
        return None
    return [_float(part) for part in value]


def _float(value: Any) -> float:  # noqa: ANN401  a number of any kind
    """The number in floating point; infinity where it is an integer beyond all that has."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
