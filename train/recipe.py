"""Recipes: options as a TOML file, read and written.

What a run used is written to `runs/<name>/options.toml`, which is itself a recipe.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import sys
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastload.errors import FastloadError
from train.options import Field, Options, fields, tables

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RECIPES = Path(__file__).resolve().parent / "recipes"

Tables = dict[str, dict[str, Any]]


class OptionsError(FastloadError):
    """A recipe cannot be read, or says something that is no option."""


def read_recipe(path: Path) -> Tables:
    """The tables of a TOML file, checked against the options that exist.

    Raises:
        OptionsError: If it cannot be read, is not TOML, or holds an unknown table, key or type.
    """
    try:
        found: Tables = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise OptionsError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OptionsError(f"{path}: not a TOML file ({error})") from error
    try:
        build_options(found, path.name)
    except ValueError as error:
        raise OptionsError(f"{path}: {error}") from error
    return found


def find_recipe(name: str) -> Path:
    """The file of that name, or the shipped recipe.

    Raises:
        OptionsError: If there is neither.
    """
    shipped = RECIPES / f"{name}.toml"
    if not Path(name).exists() and "/" not in name and shipped.exists():
        return shipped
    if not Path(name).exists():
        known = ", ".join(sorted(path.stem for path in RECIPES.glob("*.toml")))
        raise OptionsError(f"{name}: no such recipe; give a file, or one of {known}")
    return Path(name)


def build_options(found: Mapping[str, Mapping[str, Any]], origin: str) -> Options:
    """Options from tables; what they do not name has its default.

    Args:
        found: Table -> key -> value.
        origin: Where they are from, for messages.

    Raises:
        ValueError: If a table, key, type or value is none of an option.
    """
    types = tables()
    built = {}
    for name, values in found.items():
        if name not in types or not isinstance(values, Mapping):
            raise ValueError(
                f"[{name}] in {origin} is no table of options; known: {', '.join(types)}"
            )
        known = fields(types[name])
        for key in values:
            if key not in known:
                raise ValueError(_unknown(key, name, list(known), origin))
        built[name] = types[name](
            **{key: _checked(key, value, *known[key]) for key, value in values.items()}
        )
    return Options(**built)


def _unknown(key: str, table: str, known: list[str], origin: str) -> str:
    near = difflib.get_close_matches(key, known, 1)
    hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known)}"
    return f"{key} in [{table}] of {origin} is no option{hint}"


def _checked(key: str, value: Any, item: Field, kind: Any) -> Any:  # noqa: ANN401  a value from outside
    if kind is float and type(value) is int:
        value = float(value) if abs(value) <= sys.float_info.max else math.inf
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list | tuple) or any(type(entry) is not int for entry in value):
            raise ValueError(f"{key} must be a list of whole numbers, got {value!r}")
        return tuple(value)
    if type(value) is not kind:
        raise ValueError(f"{key} must be of type {kind.__name__}, got {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{key} must be a finite number, got {value}")
    if isinstance(value, str) and "\0" in value:
        raise ValueError(f"{key} must be without a NUL character, got {value!r}")
    choices = item.metadata["choices"]
    if choices and value not in choices:
        raise ValueError(f'{key} must be one of {", ".join(choices)}, got "{value}"')
    return value


def to_toml(options: Options) -> str:
    """The recipe that gives these options again."""
    parts = []
    for name, table in dataclasses.asdict(options).items():
        lines = [f"{key} = {_toml_value(value)}" for key, value in table.items()]
        parts.append("\n".join([f"[{name}]", *lines]))
    return "\n\n".join(parts) + "\n"


def _toml_value(value: Any) -> str:  # noqa: ANN401  what _checked lets through
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):  # a JSON string is a TOML basic string, DEL aside
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml_value(entry) for entry in value) + "]"
    return repr(value)
