"""A trained model as a file for other programs: `python train/export.py runs/NAME`.

    RUN -> Trained -> ONNX, TorchScript or safetensors -> asked about photographs -> written

--help lists all options, and docs/answers.md says how to use the files.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a script: Python put train/ on the path, and the checkout is wanted
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fastload.console.interrupt import leave_to_system

if __name__ == "__main__":
    leave_to_system()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as train/run.py says

import torch
from torch import Tensor

from fastload.console.command import run_command
from fastload.console.parser import CommandParser
from fastload.console.shell import program
from fastload.console.terminal import counted, say
from fastload.files import expect_writable, write_atomically
from train.agreement import TOLERANCE, compare, photographs_of
from train.answering import facts_of
from train.exported import FORMATS, ExportError, explained
from train.trained import Trained, open_run


def _run(options: argparse.Namespace) -> int:
    for name in options.format:
        FORMATS[name].require(name)
    trained = open_run(options.run, torch.device("cpu"))
    places = {name: _place(name, options, trained) for name in options.format}
    for path in places.values():
        expect_writable(path)
    images = photographs_of(trained, options.check)
    for name, path in places.items():
        _export(name, path, trained, images)
    size, classes = trained.size, len(trained.classes)
    say(
        f"takes `images`, uint8 [N, 3, {size}, {size}], RGB: any number of them, {size} x {size} "
        "pixels only",
        f"gives `probabilities` (temperature {trained.temperature:.3g}) and `logits`, float32 "
        f"[N, {classes}]",
        f"a photograph becomes such an image so: {facts_of(trained).preprocessing}",
    )
    return 0


def _export(name: str, path: Path, trained: Trained, images: Tensor) -> None:
    """Make a file, ask it, and write it if it answers as the model."""
    kind = FORMATS[name]
    with explained(trained, name):
        data = kind.write(trained, facts_of(trained))
        found = compare(trained, images, kind.open(trained, data))
    if not found.holds:
        raise ExportError(
            f"{path}: is not written, as the exported model answers otherwise than the model: of "
            f"{counted(found.images, 'photograph')}, {found.different:,} get another answer, and "
            f"probabilities differ by up to {found.deviation:.2g} ({TOLERANCE:g} is allowed); try "
            "another --format, or another version of torch"
        )
    write_atomically(path, data)
    say(
        f"{path}: {trained.name}, {counted(len(trained.classes), 'class')}, "
        f"{len(data) / 1e6:,.1f} MB, {kind.note}; asked about "
        f"{counted(found.images, 'photograph')} it answers as the model, probabilities differ by "
        f"at most {found.deviation:.1e}"
    )


def _place(name: str, options: argparse.Namespace, trained: Trained) -> Path:
    """Where a file goes; found out before the work is done."""
    file = f"model{FORMATS[name].extension}"
    out: Path | None = options.out
    if out is None:
        return trained.path.parent / file
    if out.is_dir():
        return out / file
    if len(options.format) > 1:
        raise ExportError(f"--out {out}: must be a folder that is there, for several formats")
    if not out.parent.is_dir():
        raise ExportError(f"--out {out}: there is no folder {out.parent}; make it, or name another")
    return out


def _formats(text: str) -> list[str]:
    names = list(dict.fromkeys(text.split(",")))
    if unknown := [name for name in names if name not in FORMATS]:
        raise argparse.ArgumentTypeError(
            f"must be {', '.join(FORMATS)}, or several with commas between them, got {unknown[0]!r}"
        )
    return names


def command_line() -> CommandParser:
    """What the command takes."""
    parser = CommandParser(
        prog=program("train.export"),
        description="Write a trained model as a file for other programs, with the names of its "
        "classes and how to prepare photographs.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a run, or its best.pt")
    parser.add_argument(
        "--format",
        type=_formats,
        default=["onnx"],
        metavar="NAMES",
        help="onnx, torchscript or safetensors, or several: onnx,safetensors (default: onnx)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="a file or a folder (default: the run's folder)"
    )
    parser.add_argument(
        "--check",
        type=Path,
        nargs="+",
        default=(),
        metavar="PHOTOS",
        help="files and folders of photographs to compare the answers on (default: the run's val)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = command_line()
    options = parser.read(argv)
    return run_command(parser.name, lambda: _run(options))


if __name__ == "__main__":
    raise SystemExit(main())
