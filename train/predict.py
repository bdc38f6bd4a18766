"""What a trained model sees in photographs: `python train/predict.py runs/NAME photos/`.

    RUN -> Trained    PHOTOS -> photographs    both -> answers    `asking`
    answers -> CSV, JSON lines, HTML, or a table on the terminal

--help lists all options and docs/answers.md explains them.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a script: Python put train/ on the path, and the checkout is wanted
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fastload.console.interrupt import leave_to_system

if __name__ == "__main__":
    leave_to_system()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as train/run.py says

from PIL import Image

from fastload.console.command import run_command
from fastload.console.parser import CommandParser, whole_number
from fastload.console.shell import program
from fastload.console.terminal import counted, say
from fastload.cores import usable_cores
from fastload.errors import FastloadError, OutputError
from fastload.files import expect_writable, explain_os_error
from fastload.prepare.naming import SPLITS
from train.answers import PICTURES_SHOWN, WRITERS, Answers
from train.asking import Asked, Labels, answer
from train.photographs import Found, find_photographs
from train.ranks import joined
from train.trained import Trained, open_run

_SHOWN = 20  # photographs on the terminal, and files that were not read
_ANSWERS_SHOWN = 3
_SET_SIZE = 5


class PredictError(FastloadError):
    """There is no answer."""


def _run(options: argparse.Namespace) -> int:
    for path in options.out:
        _check_out(path)
    with joined(options.device) as ranks, warnings.catch_warnings():
        for kind in (DeprecationWarning, UserWarning, Image.DecompressionBombWarning):
            warnings.simplefilter("ignore", kind)  # Pillow's, about odd files
        trained = open_run(options.run, ranks.device)
        asked, labels = _asked(options, trained), Labels(trained)
        found = find_photographs(
            options.photographs,
            split="" if options.split == "all" else options.split,
            is_class=lambda name: labels.of(name) is not None,
        )
        _check_inputs(options.out, found)
        answers = answer(
            trained,
            found,
            asked,
            ranks=ranks,
            batch_size=options.batch_size or trained.options.data.batch_size,
            threads=options.threads or usable_cores(),
            thumbnails=PICTURES_SHOWN if any(map(_is_page, options.out)) else 0,
        )
    _report(answers, found, options.out)
    if not trained.calibrated:
        say(
            f"{trained.path}: has no temperature, which newer runs have: probabilities are those "
            "of the model as it is",
            error=True,
        )
    return 0


def _is_page(path: Path) -> bool:
    return path.suffix.lower() == ".html"


def _asked(options: argparse.Namespace, trained: Trained) -> Asked:
    """How the model is asked, checked against what it can answer."""
    thresholds = trained.corrected_thresholds if options.correct_prior else trained.thresholds
    size = options.sets
    if size is None:
        size = max((k for k in thresholds if k <= _SET_SIZE), default=0)
    elif size and size not in thresholds:
        known = ", ".join(map(str, [0, *thresholds]))
        raise PredictError(f"--sets must be one of {known} for this run, got {size}")
    return Asked(
        top=min(options.top, len(trained.classes)),
        set_size=size,
        corrected=options.correct_prior,
    )


def _check_out(path: Path) -> None:
    """Find out now, and not after the last photograph, that a file cannot be written."""
    if path.suffix.lower() not in WRITERS:
        raise OutputError(f"--out {path}: must end in {', '.join(WRITERS)}, which say what it is")
    if path.is_dir():
        raise OutputError(f"--out {path}: is a folder; give the name of a file")
    if not path.parent.is_dir():
        raise OutputError(
            f"--out {path}: there is no folder {path.parent}; make it, or name another"
        )
    try:
        expect_writable(path)
    except OSError as error:
        raise OutputError(f"--out {explain_os_error(error)}") from error


def _check_inputs(out: Sequence[Path], found: Found) -> None:
    """See that no answers take the place of what they are about, such as a table."""
    named = {os.path.realpath(place) for place in found.places}
    for path in out:
        if os.path.realpath(path) in named:
            raise OutputError(f"--out {path}: is among the photographs; give another name")


def _report(answers: Answers, found: Found, out: Sequence[Path]) -> None:
    """Write the files, and say what a person wants to know.

    Raises:
        PredictError: If no photograph could be read; nothing is written then.
        OSError: If a file cannot be written.
    """
    failed = answers.not_read
    if len(failed) == len(answers.rows):
        first, many = failed[0], len(failed) > 1
        what = (
            f"none of {counted(len(failed), 'photograph')} could be read, the first"
            if many
            else ("the photograph could not be read")
        )
        raise PredictError(f"{what}: {first.name}: {first.reason}")
    for path in dict.fromkeys(out):
        answers.write(path)
    for line in _notes(answers, found):
        say(line, error=True)
    for split, figures in answers.figures.items():
        say(f"{split or 'photographs whose class is known'}:")
        say(*(f"  {name:<22}{_shown(value)}" for name, value in figures.items()), "")
    if not out:
        say(*_table(answers))
    for path in dict.fromkeys(out):
        say(f"{counted(len(answers.rows), 'photograph')} in {path}")


def _shown(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.6f}"


def _table(answers: Answers) -> list[str]:
    lines = []
    read = [row for row in answers.rows if not row.reason]
    for row in read[:_SHOWN]:
        best = zip(row.labels[:_ANSWERS_SHOWN], row.probabilities, strict=False)
        said = ", ".join(f"{answers.class_names[label]} {share:.1%}" for label, share in best)
        lines.append(f"{row.name}: {said}")
    if len(read) > _SHOWN:
        lines.append(f"and {len(read) - _SHOWN:,} more; --out answers.csv writes them all")
    return lines


def _notes(answers: Answers, found: Found) -> list[str]:
    failed, lines = answers.not_read, []
    lines += [f"not read: {row.name}: {row.reason}" for row in failed[:_SHOWN]]
    if len(failed) > _SHOWN:
        lines.append(f"not read: {len(failed) - _SHOWN:,} more")
    if found.passed_over:
        first = found.passed_over[0]
        lines.append(
            f"passed over as no images: {counted(len(found.passed_over), 'file')}: {first}"
        )
    strange = {
        photograph.truth
        for photograph, row in zip(found.photographs, answers.rows, strict=True)
        if photograph.truth and row.truth is None
    }
    if strange and (answers.figures or any(row.split for row in answers.rows)):
        count = sum(row.truth is None for row in answers.rows)
        some = ", ".join(sorted(strange)[:3])
        lines.append(
            f"{counted(count, 'photograph')} of {counted(len(strange), 'class')} that the run does "
            f"not know ({some}) have answers, and do not count in the figures"
        )
    return lines


def command_line() -> CommandParser:
    """What the command takes."""
    parser = CommandParser(
        prog=program("train.predict"),
        description="Say what a trained model sees in photographs, and how sure it is.",
        epilog="Without --out a short table is printed. Where the class of a photograph is known, "
        "by its folder, its shard or its table, the figures of an evaluation are printed too.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, or its best.pt")
    parser.add_argument(
        "photographs",
        nargs="+",
        metavar="PHOTOS",
        help="files, folders, shards, tars, tables, or patterns of them in quotes",
    )
    parser.add_argument(
        "--out",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="answers.csv, answers.jsonl or answers.html; may be given several times",
    )
    parser.add_argument(
        "--top",
        type=whole_number(1),
        default=5,
        metavar="K",
        help="answers for each photograph (default 5)",
    )
    parser.add_argument(
        "--sets",
        type=whole_number(0),
        metavar="K",
        help="also the set of classes that it may be, of K classes on average over val: 1, 3, 5 or "
        "10; 0 leaves it out (default 5, or what there is below)",
    )
    parser.add_argument(
        "--split",
        choices=("all", *SPLITS),
        default="all",
        help="only this split of shards, or of folders named so (default all)",
    )
    parser.add_argument(
        "--correct-prior",
        action="store_true",
        help="as if all classes had been equally frequent in training",
    )
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default auto)"
    )
    parser.add_argument(
        "--batch-size",
        type=whole_number(0),
        default=0,
        metavar="N",
        help="photographs of a batch (default 0: as the run had)",
    )
    parser.add_argument(
        "--threads",
        type=whole_number(0),
        default=0,
        metavar="N",
        help="threads that read and decode (default 0: one for each core)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = command_line()
    options = parser.read(argv)
    return run_command(parser.name, lambda: _run(options))


if __name__ == "__main__":
    raise SystemExit(main())
