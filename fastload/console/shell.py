"""Commands to type next, as lines that a shell takes as they are printed."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from fastload.console.terminal import for_encoding, printable
from fastload.installation import PACKAGE, find_origin, name_in_shell, python_name

TRAINER = {"train": "train.run", "predict": "train.predict", "export": "train.export"}
"""The commands of the trainer, which is a package beside fastload, and the module of each."""

_WORDS = {module: f"fastload {command}" for command, module in TRAINER.items()}
_SCRIPTS = {module: f"{module.replace('.', '/')}.py" for module in TRAINER.values()}


def program(module: str) -> str:
    """A command of fastload, as it is called by the door that the user came through.

    Args:
        module: The module of the command, such as "fastload.shard" or "train.run"; "fastload" for
            all of them.

    Returns:
        "fastload shard" or "python -m fastload shard" in a process that was started so; otherwise,
        as in a program that imports fastload, "python -m fastload.shard". The trainer is then
        "train/run.py" in a checkout. Of a wheel it is "python -m fastload train": in a folder with
        a train.py of the user's, `python -m train.run` would run that.
    """
    words = _WORDS.get(module, module.replace(".", " "))
    started = Path(*sys.argv[:1])  # an embedded Python has no argv[0]
    if started.name == "fastload":
        return words
    if started.resolve() == PACKAGE / "__main__.py":
        return f"python -m {words}"
    if module not in _WORDS:
        return f"python -m {module}"
    return f"python -m {words}" if find_origin().checkout is None else _SCRIPTS[module]


def module_command(module: str, *words: str | Path) -> str:
    """The `program` of a module with these words, as a shell in the current folder runs it."""
    first, *rest = program(module).split(" ")
    line: list[str | Path] = [python_name(), *rest, *words]
    if first == "fastload":
        line[0] = name_in_shell(Path(sys.argv[0]).absolute())
    elif first != "python":
        line.insert(1, _near(first))
    return " ".join(map(shell_word, line))


def _near(script: str) -> Path:
    """A script of the checkout, from the current folder."""
    place, here = (find_origin().checkout or Path()) / script, Path.cwd()
    return place.relative_to(here) if place.is_relative_to(here) else place


def with_options(words: Sequence[str | Path], *options: str | Path) -> list[str | Path]:
    """The arguments of a command with more options, in front of a "--", which ends the options."""
    end = words.index("--") if "--" in words else len(words)
    return [*words[:end], *options, *words[end:]]


def exclude_option(name: str) -> str:
    """`--exclude NAME`, as a shell takes it and our parser reads it."""
    return f"--exclude{'=' if name.startswith('-') else ' '}{shell_word(name)}"


def shell_word(word: str | Path) -> str:
    r"""One word of a command, quoted where a shell needs it.

    A path that begins with "-" gets "./" before it. What `say` could not print on standard output
    as it is, such as a line break or a letter that the encoding lacks, is an escape within $'...',
    which bash and zsh read.
    """
    text = str(word)
    if isinstance(word, Path) and text.startswith("-"):
        text = f"./{text}"
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"  # None where it is closed
    if text == for_encoding(printable(text), encoding):
        return shlex.quote(text)
    return "$'" + "".join(map(_octal, os.fsencode(text))) + "'"


def _octal(byte: int) -> str:
    char = chr(byte)
    return char if char.isascii() and char.isprintable() and char not in "\\'" else f"\\{byte:03o}"
