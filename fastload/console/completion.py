"""Completion in a shell: a static script that shtab writes, so that no key press starts Python."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from fastload.console.parser import CommandParser
from fastload.errors import FastloadError
from fastload.installation import install_command

SHELLS = ("bash", "zsh", "fish", "tcsh")

# What the values of an option or an argument are, by the name that --help shows for them.
FOLDERS = frozenset({"CACHE", "DIR", "RUNS", "folder"})
FILES = frozenset(
    ("DATA", "FILE", "FILE.html", "INIT", "PHOTOS", "RUN", "data", "directory", "recipe", "shards")
)


def completion_script(parser: CommandParser, shell: str) -> str:
    """The script that makes a shell complete a command, its options, choices, folders and files.

    Args:
        parser: Of the whole command. Its `prog` is the name of the program in the shell. Actions
            that take a folder or a file are marked so, for shtab.
        shell: One of `SHELLS`.

    Raises:
        FastloadError: If shtab is not installed.
    """
    try:
        import shtab
    except ImportError as error:
        command = install_command("completion")
        raise FastloadError(
            f"completion is written by shtab, which is not installed: {command}"
        ) from error
    for action in actions_of(parser):
        name = action.metavar or action.dest
        if name in FOLDERS | FILES:
            kind = shtab.DIRECTORY if name in FOLDERS else shtab.FILE
            action.complete = kind  # type: ignore[attr-defined]  # where shtab looks for it
    script: str = shtab.complete(parser, shell)
    return script


def actions_of(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """All options and arguments of a parser and of its subcommands."""
    for action in parser._actions:
        yield action
        if isinstance(action.choices, dict):
            for command in action.choices.values():
                yield from actions_of(command)
