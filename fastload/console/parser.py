"""The options of a command: what is wrong with them is one sentence, in the words of the user."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from fastload.arguments import check_integer, did_you_mean, shown
from fastload.console.terminal import say
from fastload.cores import usable_cores

_KINDS = {"int": "a whole number", "float": "a number"}
_NEGATIVE = re.compile(r"-\d+$|-\d*\.\d+$")  # as argparse has it: a value, no option


class CommandParser(argparse.ArgumentParser):
    """An argument parser whose errors are one sentence, and end the command with status 2.

    Options cannot be abbreviated: a typing error is answered with the option that was meant.
    """

    def __init__(self, **arguments: Any) -> None:  # noqa: ANN401  as argparse has them
        super().__init__(**{"allow_abbrev": False, **arguments})
        self.color = False  # Python 3.14 colours the help, which `say` would escape

    @property
    def name(self) -> str:
        """What messages of the command begin with: its program, without Python."""
        return self.prog.removeprefix("python -m ")

    def read(self, argv: Sequence[str] | None = None) -> argparse.Namespace:
        """The options of a command line; those of this process for None."""
        words = self._join_values(sys.argv[1:] if argv is None else argv)
        self._refuse_unknown(words)
        return self.parse_args(words)

    def refuse(self, error: Exception) -> NoReturn:
        """End the command because of a value that the library did not take."""
        self.error(self.in_options(str(error)))

    def in_options(self, text: str) -> str:
        """A message of the library that calls its arguments as the options of this command.

        "min_side must be at least 1, got 0" becomes "--min-side must be at least 1, got 0".
        """
        flags = {
            action.dest: max(action.option_strings, key=len)
            for action in self._actions
            if action.option_strings and action.nargs != 0
        }
        return in_options(text, flags)

    def error(self, message: str) -> NoReturn:
        """Print one sentence, and end the command with status 2."""
        say(f"{self.name}: {self._in_words(message)}", error=True)
        sys.exit(2)

    def print_help(self, file: Any = None) -> None:  # noqa: ANN401  argparse's protocol is private
        """Print the help, in what the terminal can show."""
        if file is None:
            say(*self.format_help().rstrip("\n").split("\n"))
        else:
            super().print_help(file)

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:  # noqa: ANN401
        """The value of a word, as argparse asks for it.

        A path of no letters would be the current folder: `fastload clean "$DATA"` without DATA. An
        option that takes any text takes none, too.
        """
        if not arg_string and not (action.option_strings and action.type in {None, str}):
            raise argparse.ArgumentError(
                action, "must not be empty; is a variable of the shell not set?"
            )
        return super()._get_value(action, arg_string)

    def _join_values(self, words: Sequence[str]) -> list[str]:
        """The words with a name such as -x joined to its option, as argparse takes it: --out=-x."""
        known = self._option_string_actions
        joined: list[str] = []
        for word in words:
            option = known.get(joined[-1]) if joined and "--" not in joined else None
            takes_name = option is not None and option.nargs is None and option.type in {None, Path}
            single = word.startswith("-") and not word.startswith("--") and word != "-"
            if takes_name and single and word not in known:
                joined[-1] += f"={word}"
            else:
                joined.append(word)
        return joined

    def _refuse_unknown(self, words: Sequence[str]) -> None:
        known = self._option_string_actions
        for word in words[: words.index("--")] if "--" in words else words:
            name = word.partition("=")[0]
            if name[:1] != "-" or name == "-" or " " in word or _NEGATIVE.match(word):
                continue
            if name not in known:
                names = {option.lstrip("-"): option for option in known}
                near = difflib.get_close_matches(name.lstrip("-").replace("_", "-"), names, 1)
                hint = f"did you mean {names[near[0]]}?" if near else "--help lists all options"
                if not near and Path(word).exists():
                    hint = f"the file of that name is ./{word}"
                self.error(f"{name} is no option; {hint}")

    def _in_words(self, message: str) -> str:
        """What argparse says, in the words of our other messages."""
        if found := re.fullmatch(r"the following arguments are required: (.*)", message):
            return f"{found[1]} is missing; --help says what is expected"
        if found := re.fullmatch(r"unrecognized arguments: (.*)", message, re.DOTALL):
            return f"{found[1]!r} is too much; quote a name that has spaces in it"
        found = re.fullmatch(r"argument (\S+): (.*)", message, re.DOTALL)
        if not found:
            return message
        name, what = found[1].partition("/")[0], found[2]
        if choice := re.fullmatch(r"invalid choice: (.*) \(choose from (.*)\)", what, re.DOTALL):
            known = choice[2].replace("'", "")
            near = did_you_mean(choice[1].strip("'"), known.split(", "))
            return f"{name} must be one of {known}, got {choice[1]}{near}"
        if value := re.fullmatch(r"invalid (\w+) value: (.*)", what, re.DOTALL):
            return f"{name} must be {_KINDS.get(value[1], value[1])}, got {value[2]}"
        if value := re.fullmatch(r"ignored explicit argument (.*)", what, re.DOTALL):
            return f"{name} takes no value, got {value[1]}"
        if what.startswith("expected "):
            return f"{name} needs a value"
        return f"{name} {what}" if what.startswith("must ") else f"{name}: {what}"


def in_options(text: str, flags: Mapping[str, str]) -> str:
    """A message of the library that calls its arguments as the options of a command.

    Args:
        text: The message. What it says was passed stays as it is.
        flags: Name of an argument -> the option.
    """
    found, got, value = text.partition(", got ")
    found = re.sub(
        r"^\w+(?= must\b)|\b[a-z]+(?:_[a-z]+)+\b",
        lambda match: flags.get(match[0], match[0]),
        found,
    )
    return found + got + value


def whole_number(low: int, high: int | None = None) -> Callable[[str], int]:
    """The type of an option: an integer that is at least `low`, and at most `high` if given."""

    def read(text: str) -> int:
        try:
            value: object = int(text)
        except ValueError:
            value = text
        try:
            check_integer("", value, low, high)
        except (TypeError, ValueError) as error:
            raise argparse.ArgumentTypeError(str(error).lstrip()) from error
        return int(text)

    return read


def add_workers_option(parser: argparse.ArgumentParser) -> None:
    """The option that says how many processes work."""
    parser.add_argument(
        "--workers",
        type=whole_number(1),
        default=usable_cores(),
        metavar="N",
        help="processes (default: one for each core)",
    )


def add_seed_option(parser: argparse.ArgumentParser, of: str) -> None:
    """The option that says which seed; `of` says of what."""
    parser.add_argument(
        "--seed",
        type=whole_number(0, 2**63 - 1),
        default=0,
        metavar="N",
        help=f"{of} (default 0)",
    )


def local_folder(text: str) -> Path:
    """A folder of this machine to write, for argparse.

    Raises:
        ArgumentTypeError: If the text is an address; a folder `s3:` would be made of it.
    """
    if "://" in text:
        raise argparse.ArgumentTypeError(f"must be a folder of this machine, got {text!r}")
    return Path(text)


def positive_number(text: str) -> float:
    """The type of an option: a number above 0 and finite."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {shown(text)}")
    return value
