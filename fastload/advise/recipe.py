"""Advice as a recipe: a TOML file for `fastload train --recipe`.

Only this module knows the tables and keys of the trainer's recipes, and its tests read the recipe
with the trainer's own parser.
"""

from __future__ import annotations

import json
from pathlib import Path

from fastload.advise.advice import REFERENCE_BATCH, REFERENCE_RATE, Advice, duration, left_open
from fastload.advise.trials import Question
from fastload.console.terminal import counted
from fastload.errors import OutputError
from fastload.files import write_atomically

FIRST_LINE = "# Written by `python -m fastload.tune`; a recipe for train/run.py --recipe."

_LOADER = """\
[data]
data = {data}
loader = {loader}  # {loader_rate:,.0f} images/s
threads = {threads}
{batch_size}
[resolution]
size = {size}

[model]
model = {model}
"""
_BATCH_SIZE = "batch_size = {batch_size}  # {what}\n"
_STEP = """
[optimisation]
accumulate = {accumulate}
lr = {rate}  # for a batch of {batch}, fine-tuning with SGD
lr_rule = "linear"  # the peak is {peak:.4g}

[run]
amp = {amp}
device = {device}
"""
_EPOCHS = """
[schedule]
epochs = {epochs}
"""


def recipe_text(question: Question, advice: Advice, samples: int) -> str:
    """The TOML text, with what was measured in its comments.

    Args:
        question: What was asked.
        advice: What to take.
        samples: Number of training images.
    """
    loader, step = advice.loader, advice.step
    batch_size = step_text = ""
    if step:
        what = f"{step.images_per_second:,.0f} images/s"
        if advice.expectation:
            what = f"an estimated {step.gpu_bytes / 2**30:.1f} GiB"
        batch_size = _BATCH_SIZE.format(batch_size=step.batch_size, what=what)
        step_text = _STEP.format(
            accumulate=advice.accumulate,
            rate=REFERENCE_RATE,
            batch=REFERENCE_BATCH,
            peak=advice.learning_rate,
            amp=_string(step.amp),
            device=_string("cuda" if advice.expectation else str(question.device)),
        )
    loader_text = _LOADER.format(
        data=_string(question.shards),
        loader=_string(loader.backend),
        loader_rate=loader.images_per_second,
        threads=loader.num_threads,
        batch_size=batch_size,
        size=question.size,
        model=_string(question.model),
    )
    epochs_text = _EPOCHS.format(epochs=question.epochs) if question.epochs else ""
    return f"{_comments(question, advice, samples)}\n{loader_text}{step_text}{epochs_text}"


def _comments(question: Question, advice: Advice, samples: int) -> str:
    seconds = samples / advice.images_per_second
    expected = f"{advice.images_per_second:,.0f} images/s, {duration(seconds)} per epoch"
    lines = [
        FIRST_LINE,
        f"# {counted(samples, 'training image')}; expected: {expected}.",
        f"# Bottleneck: {advice.bottleneck}.",
        *_origin(advice),
        *(f"# Left open: {what}." for what in left_open(question, advice)),
    ]
    return "".join(f"{line}\n" for line in lines)


def _origin(advice: Advice) -> list[str]:
    if advice.expectation is None:
        return []
    card = advice.expectation.card.name
    return [
        f"# For {card}, which was not there: only the loader is measured.",
        *(f"# From: {sentence}" for sentence in advice.expectation.basis),
    ]


def _string(text: str) -> str:
    """A TOML string: what JSON writes is one, except for escapes of surrogates and DEL itself."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def write_recipe(path: Path, text: str) -> None:
    """Write the recipe; overwrites only what this command wrote.

    Raises:
        OutputError: If another file of that name is there.
        OSError: If it cannot be written.
    """
    if path.exists() and not path.read_bytes().startswith(FIRST_LINE.encode()):
        raise OutputError(f"{path}: is there and was not written by fastload.tune; choose --out")
    write_atomically(path, text.encode())
