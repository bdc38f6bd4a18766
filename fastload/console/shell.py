"""Commands to type next, as lines that a shell takes as they are printed."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from fastload.console.terminal import for_encoding, printable
from fastload.installation import PACKAGE, find_origin, name_in_shell, python_name


def program(module: str) -> str:
    """A command of fastload, as it is called by the door that the user came through.

    Args:
        module: The module of the command, such as "fastload.shard"; "fastload" for all of them.

    Returns:
        "fastload shard" or "python -m fastload shard" in a process that was started so; otherwise,
        as in a program that imports fastload, "python -m fastload.shard".
    """
    started = Path(*sys.argv[:1])  # an embedded Python has no argv[0]
    if started.name == "fastload":
        return module.replace(".", " ")
    if started.resolve() == PACKAGE / "__main__.py":
        return f"python -m {module.replace('.', ' ')}"
    return f"python -m {module}"


def module_command(module: str, *words: str | Path) -> str:
    """The `program` of a module with these words, as a shell in the current folder runs it."""
    called = program(module)
    python = called.startswith("python ")
    found = python_name() if python else name_in_shell(Path(sys.argv[0]).absolute())
    rest = called.removeprefix("python" if python else "fastload")
    return f"{shell_word(found)}{rest}{_rest(words)}"


def trainer_command(*words: str | Path) -> str:
    """`python train/run.py WORDS`, with the Python that runs and the trainer where it lies.

    Of a wheel it is `python -m train.run WORDS`, but where Python would take a train.py of the
    current folder for it.
    """
    python, checkout, here = shell_word(python_name()), find_origin().checkout, Path.cwd()
    taken = any((here / name).exists() for name in ("train.py", "train/__init__.py"))
    if checkout is None and not taken:
        return f"{python} -m train.run{_rest(words)}"
    script = (checkout or PACKAGE.parent) / "train" / "run.py"
    near = script.relative_to(here) if script.is_relative_to(here) else script
    return f"{python} {shell_word(near)}{_rest(words)}"


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


def _rest(words: tuple[str | Path, ...]) -> str:
    return "".join(f" {shell_word(word)}" for word in words)
