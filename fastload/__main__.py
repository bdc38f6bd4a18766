"""One command for all: `fastload shard data/` is `python -m fastload.shard data/`.

`fastload COMMAND ...` imports the module of that command only and passes on its exit status.
`fastload` alone is an overview, which imports neither NumPy nor torch. The trainer is a package
beside this one, which imports fastload; here it is a name, that is looked up when it is typed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType

from fastload.console.command import run_command
from fastload.console.completion import SHELLS, completion_script
from fastload.console.interrupt import left_to_system
from fastload.console.parser import CommandParser
from fastload.console.shell import TRAINER, module_command, program
from fastload.console.terminal import say, table
from fastload.installation import PACKAGE, version

COMMANDS = {
    "sample": "draw a small data set to try everything with",
    "inspect": "print what the data hold, and draw augmented samples",
    "clean": "say which images must not be trained on, and why",
    "index": "index images where they lie, to train without a copy",
    "shard": "clean images, and store them as shards to train from",
    "train": "train an image classifier",
    "predict": "say what a trained model sees in photographs",
    "export": "write a trained model as a file for other programs",
    "verify": "check every byte of shards, or of indexed images",
    "fetch": "copy shards or photographs from an object store",
    "tune": "find the parameters for this machine",
    "doctor": "try every back-end on ten images",
}
"""The commands, and what each does."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    return run_command("fastload", lambda: _run(words))


def _run(words: list[str]) -> int:
    if words and words[0] in COMMANDS:
        with left_to_system():
            module = module_of(words[0])
        status: int = module.main(words[1:])
        return status
    if words and not words[0].startswith("-"):
        words = words[:1]  # the options behind an unknown command are not those of the overview
    parser = command_line()
    options = parser.read(words)
    if options.version:
        say(f"fastload {version()}")
    elif options.print_completion:
        whole = command_line("fastload", with_options=True)
        say(*completion_script(whole, options.print_completion).split("\n"))
    else:
        parser.print_help()
    return 0


def command_line(name: str = "", *, with_options: bool = False) -> CommandParser:
    """What `fastload` takes.

    Args:
        name: Of the program, instead of what the user typed.
        with_options: Import all commands, and add what each takes.
    """
    parser = CommandParser(
        prog=name or program("fastload"),
        usage="%(prog)s COMMAND ...",
        description="\n".join(["An image loader for training. The usual path:", "", *_path()]),
        epilog="%(prog)s COMMAND --help says what a command takes.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    parser.add_argument(
        "--print-completion",
        choices=SHELLS,
        metavar="SHELL",
        help=f"print the script that completes `fastload` in {', '.join(SHELLS)}",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", prog=parser.prog)
    for command, what in COMMANDS.items():
        takes = [module_of(command).command_line()] if with_options else []
        commands.add_parser(command, help=what, parents=takes, add_help=not takes)
    return parser


def module_of(command: str) -> ModuleType:
    """The module that a command is, imported."""
    if command not in TRAINER:
        return import_module(f"fastload.{command}")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # train/run.py says why
    trainer = spec_from_file_location("train", PACKAGE.parent / "train" / "__init__.py")
    if trainer and trainer.name not in sys.modules:  # by its place: the user may have a train.py
        sys.modules[trainer.name] = module_from_spec(trainer)
    return import_module(TRAINER[command])


def _path() -> list[str]:
    steps = [
        (module_command("fastload.sample", "data/"), "or your own: data/{train,val,test}/CLASS/"),
        (module_command("fastload.inspect", "data/"), "what they hold, indexed where they lie"),
        (module_command("fastload.shard", "data/"), "a copy in shards/, where that reads faster"),
        (module_command("train.run", "--data", "data/"), "or shards/"),
    ]
    lines = table([(do, f"# {why}") for do, why in steps], left=(0, 1))
    return [f"  {line.rstrip()}" for line in lines]


if __name__ == "__main__":
    sys.exit(main())
