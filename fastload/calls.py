"""Calls of the public classes: an option that is not there is told, and what to write instead."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TypeVar

from fastload.arguments import did_you_mean, shown

T = TypeVar("T")


def explain_calls(**elsewhere: str) -> Callable[[type[T]], type[T]]:
    """For a class: a call with a wrong name or too many values is told what there is.

    Args:
        elsewhere: For names that people know from other libraries, what to write instead.
    """

    def explained(kind: type[T]) -> type[T]:
        make, known = kind.__init__, inspect.signature(kind)

        @functools.wraps(make)
        def init(self: T, *values: object, **options: object) -> None:
            _check_call(kind.__name__, known, values, options, elsewhere)
            make(self, *values, **options)

        kind.__init__ = init  # type: ignore[method-assign, assignment]  # the same call
        return kind

    return explained


def _check_call(
    kind: str,
    known: inspect.Signature,
    values: tuple[object, ...],
    options: Mapping[str, object],
    elsewhere: Mapping[str, str],
) -> None:
    names = list(known.parameters)
    for name in options:
        if name not in known.parameters:
            how = f": {elsewhere[name]}" if name in elsewhere else did_you_mean(name, names)
            there = "" if how else f"; there are {', '.join(names)}"
            raise TypeError(f"{kind} has no option {name}{how}{there}")
    first = [p.name for p in known.parameters.values() if p.kind is not p.KEYWORD_ONLY]
    if len(values) > len(first):
        place = f"only {' and '.join(first)} without a name" if first else "each option by its name"
        raise TypeError(
            f"{kind} takes {place}, such as {names[len(first)]}=…; got {shown(values[len(first)])}"
        )
    for name in first[len(values) :]:
        if name not in options and known.parameters[name].default is inspect.Parameter.empty:
            raise TypeError(f"{kind} needs {name}")
    for name in first[: len(values)]:
        if name in options:
            raise TypeError(f"{kind} got {name} twice: by its place and by its name")
