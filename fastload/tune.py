"""Which parameters to take on this machine: `python -m fastload.tune shards/`.

    loader trials   every back-end with all threads, then the best one with fewer; where the threads
                    of the one that is taken spend their time
    step trials     the training step on synthetic images by batch size, on a GPU only
    advise          both -> back-end, threads, batch size, accumulation, AMP; what is the bottleneck
    recipe          a TOML file for `fastload train --recipe`

With `--gpu "RTX 3060"` no GPU is needed: the loader is measured here, what the card would do is
taken from published rates, and each line says which.

Trials are short, and their time is limited. A trial that fails or runs out of memory is a line of
the report. What does not fit the time is left out, and the report names it. Without a GPU the
loader is tuned, and the report says what is left open.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fastload.console.interrupt import leave_to_system

if __name__ == "__main__":
    leave_to_system()

import torch

from fastload.advise.advice import advise, gpu_room, report
from fastload.advise.cards import Card, card_table, find_card
from fastload.advise.expectation import expect
from fastload.advise.forecast import EPOCHS, card_report
from fastload.advise.models import require_model
from fastload.advise.recipe import recipe_text, write_recipe
from fastload.advise.trials import TIME_SECONDS, Question, run_trials
from fastload.console.command import run_command
from fastload.console.parser import CommandParser, positive_number, whole_number
from fastload.console.shell import module_command, program
from fastload.console.terminal import say
from fastload.cores import explain_cores
from fastload.errors import FastloadError
from fastload.files import expect_writable
from fastload.load.backend import BackendName
from fastload.store.collection import read_contents
from fastload.store.making import make_missing_indexes


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = command_line()
    options = parser.read(argv)
    card = None
    if options.gpu is not None:
        try:
            card = find_card(options.gpu)
        except ValueError as error:
            parser.refuse(error)
    question = Question(
        shards=options.shards,
        model=options.model,
        size=options.size,
        device=torch.device("cpu") if card else options.device,
        effective_batch=options.effective_batch,
        epochs=options.epochs,
        seconds=options.seconds,
    )
    return run_command(
        parser.name, lambda: _tune(question, options.out, card=card, images=options.images)
    )


def _tune(question: Question, out: Path, *, card: Card | None, images: int | None) -> int:
    on_gpu = question.device.type == "cuda"
    if on_gpu and not torch.cuda.is_available():
        raise FastloadError(f"{question.device}: PyTorch finds no GPU; leave out --device")
    expect_writable(out)
    make_missing_indexes(question.shards)
    contents = read_contents(question.shards)
    if "train" not in contents.splits:
        raise FastloadError(f"{question.shards}: there is no split train to tune with")
    if not contents.splits["train"].samples:
        raise FastloadError(f"{question.shards}: split train has no images to tune with")
    samples = images or contents.splits["train"].samples
    require_model(question.model)  # a wrong name ends the command here
    expectation = None
    if card:
        room = gpu_room(card.memory_gib * 2**30, BackendName.NATIVE)
        expectation = expect(card, question, classes=len(contents.classes), room=room)
    trials = run_trials(question)
    memory = torch.cuda.get_device_properties(question.device).total_memory if on_gpu else 0
    advice = advise(
        question, trials.loaders, trials.steps, gpu_bytes=memory, expectation=expectation
    )
    write_recipe(out, recipe_text(question, advice, samples))
    lines = (
        card_report(question, trials, advice, expectation, samples)
        if expectation
        else report(question, trials, advice, samples)
    )
    limit = explain_cores()
    say(
        *lines,
        *([f"machine     {limit}"] if limit else []),
        f"written to  {out}",
        f"next        {module_command('train.run', '--recipe', out)}",
    )
    return 0


def command_line() -> CommandParser:
    """What the command takes."""
    parser = CommandParser(
        prog=program("fastload.tune"),
        description="Find the parameters for this machine; takes less than 3 minutes.",
        epilog=f"Cards that --gpu knows: {', '.join(card_table().cards)}.",
    )
    parser.add_argument("shards", help="a shard directory, or a folder, tar or table of images")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("tuned.toml"),
        metavar="FILE",
        help="the recipe to write (default tuned.toml)",
    )
    parser.add_argument(
        "--model",
        default="resnet50",
        metavar="NAME",
        help="of torchvision, or timm:NAME (default resnet50)",
    )
    parser.add_argument(
        "--size",
        type=whole_number(1),
        default=224,
        metavar="N",
        help="side of the training images in pixels (default 224)",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--gpu",
        metavar="CARD",
        help='a card that is not here, such as "RTX 3060": what to expect, by published rates',
    )
    where.add_argument(
        "--device",
        type=_device,
        default="auto",
        help="auto, cpu, cuda or cuda:1 (default auto: the GPU where there is one)",
    )
    parser.add_argument(
        "--images",
        type=whole_number(1),
        metavar="N",
        help="training images of an epoch (default: those of the shards)",
    )
    parser.add_argument(
        "--epochs",
        type=whole_number(1),
        metavar="N",
        help=f"of the run, for the recipe and its expected time (default {EPOCHS})",
    )
    parser.add_argument(
        "--effective-batch",
        type=whole_number(1),
        default=256,
        metavar="N",
        help="images per optimizer step to reach by accumulation (default 256)",
    )
    parser.add_argument(
        "--seconds",
        type=positive_number,
        default=TIME_SECONDS,
        help=f"time for all trials, in seconds (default {TIME_SECONDS:.0f})",
    )
    return parser


def _device(text: str) -> torch.device:
    if text == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(text)
    except RuntimeError:
        raise argparse.ArgumentTypeError(
            f"must be a device such as cpu or cuda:0, got {text!r}"
        ) from None


if __name__ == "__main__":
    sys.exit(main())
