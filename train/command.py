"""The command line: defaults, then a recipe, then flags."""

from __future__ import annotations

import argparse
import itertools
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastload.console.parser import CommandParser
from fastload.console.shell import program
from train.options import Field, Options, fields, tables
from train.recipe import OptionsError, Tables, build_options, find_recipe, read_recipe

_PLAIN = re.compile(r"[^*?\[{]*")  # a part of a path that is no pattern


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What the command line asks for.

    Attributes:
        options: Defaults, recipe and flags together.
        resume: Continue the run of that name, or the latest.
        check: Only overfit one batch, and say what that shows.
    """

    options: Options
    resume: bool = False
    check: bool = False


def parse(argv: Sequence[str] | None = None) -> Command:
    """Read the command line; ends the process with status 2 where an option is wrong.

    Raises:
        OptionsError: If a recipe, or the run to resume, cannot be read.
    """
    parser = command_line()
    given = vars(parser.read(argv))
    recipe, resume = given.pop("recipe"), given.pop("resume")
    check = given.pop("check")
    flags = _by_table(given)
    if recipe and resume:
        parser.error("--resume takes the options of its run: leave out --recipe")
    under = read_recipe(find_recipe(recipe)) if recipe else {}
    try:
        if resume:
            named = build_options({"run": flags.get("run", {})}, "the command line").run
            folder = (
                latest_run(Path(named.runs)) if not named.name else Path(named.runs) / named.name
            )
            if not (folder / "last.pt").exists():
                raise OptionsError(
                    f"{folder}: has no last.pt, so there is nothing to resume; begin the run "
                    "without --resume, or give another --name"
                )
            under = read_recipe(folder / "options.toml")
            begun = _begun_in(folder, Path(under.get("run", {}).get("runs", "/")))
            _find_data(under.get("data", {}), begun)
            flags.setdefault("run", {}).update(runs=named.runs, name=folder.name)
        options = build_options(_merged(under, flags), recipe or "the command line")
    except ValueError as error:
        parser.refuse(error)
    return Command(options=options, resume=resume, check=check)


def check_data(command: Command) -> None:
    """See that the data of a run to resume is where its options say.

    Raises:
        OptionsError: If a relative path leads nowhere from here.
    """
    data = command.options.data
    for flag, value in (("--data", data.data), ("--val-data", data.val_data)):
        if command.resume and _is_relative(value) and not _leads_somewhere(Path(value)):
            raise OptionsError(
                f"{command.options.run.name}: was trained on {value}, which is not in "
                f"{Path.cwd()}; resume where the run was begun, or give {flag}"
            )


def _find_data(data: dict[str, Any], begun: Path | None) -> None:
    """Make relative paths of data lead where they led when the run was begun.

    Args:
        data: The options of the run's data, changed in place.
        begun: Where the run was begun; None where that is not known.
    """
    if begun is None or begun == Path.cwd():
        return
    for key in ("data", "val_data"):
        value = data.get(key, "")
        if _is_relative(value) and _leads_somewhere(begun / value):
            data[key] = str(begun / value)


def _is_relative(place: str) -> bool:
    return bool(place) and "://" not in place and not Path(place).is_absolute()


def _begun_in(folder: Path, runs: Path) -> Path | None:
    """Where a run was begun, by its folder and its --runs; None where these do not tell."""
    place = folder.absolute().parent.parts
    above = len(place) - len(runs.parts)
    known = not runs.is_absolute() and ".." not in runs.parts and place[above:] == runs.parts
    return Path(*place[:above]) if known else None


def _leads_somewhere(path: Path) -> bool:
    """Whether a path is there; of a pattern, the folder in which it begins."""
    return Path(*itertools.takewhile(_PLAIN.fullmatch, path.parts)).exists()


def latest_run(runs: Path) -> Path:
    """The run in `runs` whose checkpoint is newest.

    Raises:
        OptionsError: If no run there has a checkpoint.
    """
    found = sorted(runs.glob("*/last.pt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise OptionsError(
            f"{runs}: no run with a last.pt to resume; give --runs DIR or --name NAME"
        )
    return found[-1].parent


def command_line() -> CommandParser:
    """What the command takes."""
    parser = CommandParser(
        prog=program("train.run"),
        usage="%(prog)s [--recipe NAME] [--resume] [--check] [options]",
        description="Train an image classifier from shards, or from images where they lie. "
        "Results go to runs/<name>/.",
    )
    parser.add_argument(
        "--recipe", default="", help="a TOML file, or the name of one in train/recipes/"
    )
    parser.add_argument("--resume", action="store_true", help="continue --name, or the latest run")
    parser.add_argument("--check", action="store_true", help="overfit one batch, report, and stop")
    for name, table in tables().items():
        group = parser.add_argument_group(name, (table.__doc__ or "").strip())
        for key, (item, kind) in fields(table).items():
            _add_flag(group, key, item, kind)
    return parser


def _add_flag(group: Any, key: str, item: Field, kind: Any) -> None:  # noqa: ANN401  argparse's group has no public type
    flag = "--" + key.replace("_", "-")
    default = ",".join(map(str, item.default)) if isinstance(item.default, tuple) else item.default
    text = item.metadata["help"].replace("%", "%%")
    if default not in {"", True, False} or default == 0:
        text += f" (default: {default})"
    arguments: dict[str, Any] = {"dest": key, "default": argparse.SUPPRESS, "help": text}
    if kind is bool:
        group.add_argument(flag, action=argparse.BooleanOptionalAction, **arguments)
        return
    if item.metadata["choices"]:
        arguments["choices"] = item.metadata["choices"]
    else:
        arguments["metavar"] = key.split("_")[-1].upper()
    group.add_argument(
        flag, type=_whole_numbers if typing.get_origin(kind) is tuple else kind, **arguments
    )


def _whole_numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"must be whole numbers such as 20,25, got {text!r}"
        ) from error


def _by_table(flags: Mapping[str, Any]) -> Tables:
    found: Tables = {}
    for name, table in tables().items():
        values = {key: flags[key] for key in fields(table) if key in flags}
        if values:
            found[name] = values
    return found


def _merged(under: Tables, over: Tables) -> Tables:
    return {
        name: {**under.get(name, {}), **over.get(name, {})}
        for name in tables()
        if name in under or name in over
    }
