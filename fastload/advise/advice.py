"""What trials say about the parameters to take: decisions as pure functions, and their report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from fastload.advise.trials import LoaderTrial, Question, StepTrial, Trials, threads
from fastload.console.terminal import table
from fastload.errors import FastloadError
from fastload.load.buffers import READY_BATCHES

FIRST_LINE = "# Written by `python -m fastload.tune`; a recipe for train/run.py --recipe."

ENOUGH = 0.95  # of the best rate: fewer threads, or a smaller batch, are taken for the rest
HEADROOM = 1.25  # the loader over the training step, so that a slow stretch of files stalls nothing
GPU_SHARE = 0.9  # of the card's memory that the step may take; evaluation and fragments need some
GPU_LOADER_BYTES = {"dali": 1 << 30}  # what a back-end keeps on the card; the others: two batches
OTHER_LOADER_BYTES = 128 << 20

# Pl@ntNet-300K's 0.01 at a batch of 32, for 256 by the linear rule (Goyal et al. 2017): fine-tuning
# with SGD, as the trainer's own default has it.
REFERENCE_BATCH, REFERENCE_RATE = 256, 0.08
RTX_3060 = 400  # ResNet-50 at 224 pixels, images/s: between estimates of 350 and 470


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What to take. The fields from `batch_size` on are 0 or "" where there was no GPU to ask.

    Attributes:
        loader: The trial that is taken.
        step: Likewise, or None.
        accumulate: Batches per optimizer step.
        bottleneck: One sentence: which part limits training, and what would change that.
    """

    loader: LoaderTrial
    step: StepTrial | None
    accumulate: int
    bottleneck: str

    @property
    def images_per_second(self) -> float:
        """What training is expected to reach."""
        step = self.step.images_per_second if self.step else float("inf")
        return min(self.loader.images_per_second, step)

    @property
    def learning_rate(self) -> float:
        """The peak learning rate by the linear rule; 0 without a batch size."""
        if self.step is None:
            return 0.0
        return REFERENCE_RATE * self.step.batch_size * self.accumulate / REFERENCE_BATCH


def advise(
    question: Question,
    loaders: Sequence[LoaderTrial],
    steps: Sequence[StepTrial],
    *,
    gpu_bytes: int = 0,
) -> Advice:
    """What the trials say.

    Args:
        question: What was asked.
        loaders: At least one that did not fail.
        steps: Empty where there is no GPU.
        gpu_bytes: Memory of the card.

    Raises:
        FastloadError: If no back-end delivered anything.
    """
    working = [trial for trial in loaders if trial.images_per_second > 0]
    if not working:
        reasons = "; ".join(f"{trial.backend}: {trial.failed}" for trial in loaders)
        raise FastloadError(f"no back-end delivered an image ({reasons}); see fastload.doctor")
    best = max(working, key=lambda trial: trial.images_per_second)
    kept = GPU_LOADER_BYTES.get(best.backend, OTHER_LOADER_BYTES)
    step = choose_step(steps, room=GPU_SHARE * gpu_bytes - kept if gpu_bytes else None)
    loader = choose_loader(working, needed=step.images_per_second * HEADROOM if step else None)
    accumulate = 1
    if step:
        accumulate = max(1, -(-question.effective_batch // step.batch_size))
    return Advice(
        loader=loader, step=step, accumulate=accumulate, bottleneck=bottleneck(loader, step)
    )


def choose_loader(trials: Sequence[LoaderTrial], *, needed: float | None) -> LoaderTrial:
    """The fewest threads that deliver what is `needed`, else nearly as much as the best.

    A back-end on the CPU that suffices is taken before one that decodes on the GPU, whose cores are
    the training step's.
    """
    best = max(trial.images_per_second for trial in trials)
    enough = ENOUGH * best if needed is None else min(needed, ENOUGH * best)
    fitting = [trial for trial in trials if trial.images_per_second >= enough]
    return min(
        fitting,
        key=lambda trial: (trial.backend == "dali", trial.num_threads, -trial.images_per_second),
    )


def choose_step(trials: Sequence[StepTrial], *, room: float | None) -> StepTrial | None:
    """The smallest batch that is nearly as fast as the best of those that fit.

    Args:
        trials: All of them.
        room: Bytes of the card that the step may take; None for any number.
    """
    fitting = [
        trial
        for trial in trials
        if trial.images_per_second > 0 and (room is None or trial.gpu_bytes <= room)
    ]
    if not fitting:
        return None
    best = max(trial.images_per_second for trial in fitting)
    fast = [trial for trial in fitting if trial.images_per_second >= ENOUGH * best]
    return min(fast, key=lambda trial: (trial.batch_size, -trial.images_per_second))


def bottleneck(loader: LoaderTrial, step: StepTrial | None) -> str:
    """Which part limits training, and what would change that."""
    rate = f"{loader.images_per_second:,.0f} images/s"
    if step is None:
        return (
            f"the loader gives {rate} on {threads(loader.num_threads)}, and a GPU that trains"
            f" faster waits for it; an RTX 3060 is estimated to train ResNet-50 at {RTX_3060}"
        )
    trained = f"{step.images_per_second:,.0f} images/s"
    if loader.images_per_second < step.images_per_second:
        return (
            f"the loader: it gives {rate}, the GPU trains {trained}; more cores, the back-end"
            " native, or smaller images (`python -m fastload.shard --max-side`) would help"
        )
    return (
        f"the training step: the GPU trains {trained}, the loader gives {rate}; a smaller model or"
        " image size, or --compile, would help, more threads would not"
    )


def recipe(question: Question, advice: Advice, samples: int) -> str:
    """The TOML text, with what was measured in its comments."""
    loader, step = advice.loader, advice.step
    seconds = samples / advice.images_per_second
    expected = f"{advice.images_per_second:,.0f} images/s, {duration(seconds)} per epoch"
    lines = [
        FIRST_LINE,
        f"# {samples:,} training images; expected: {expected}.",
        f"# Bottleneck: {advice.bottleneck}.",
        *(f"# Left open: {what}." for what in left_open(question, advice)),
        "",
        "[data]",
        f"data = {json.dumps(question.shards)}",
        f'loader = "{loader.backend}"  # {loader.images_per_second:,.0f} images/s',
        f"threads = {loader.num_threads}",
    ]
    if step:
        lines.append(f"batch_size = {step.batch_size}  # {step.images_per_second:,.0f} images/s")
    lines += ["", "[resolution]", f"size = {question.size}", ""]
    lines += ["[model]", f"model = {json.dumps(question.model)}", ""]
    if step:
        lines += [
            "[optimisation]",
            f"accumulate = {advice.accumulate}",
            f"lr = {REFERENCE_RATE}  # for a batch of {REFERENCE_BATCH}, fine-tuning with SGD",
            f'lr_rule = "linear"  # the peak is {advice.learning_rate:.4g}',
            "",
            "[run]",
            f'amp = "{step.amp}"',
            f"device = {json.dumps(str(question.device))}",
            "",
        ]
    return "\n".join(lines)


def left_open(question: Question, advice: Advice) -> list[str]:
    """What the trials could not say."""
    if advice.step is None:
        found = "no batch fitted the GPU" if question.device.type == "cuda" else "no GPU here"
        what = "batch size, accumulation, AMP, channels-last and learning rate"
        return [f"{what} ({found}): the trainer's defaults stay"]
    if not advice.step.channels_last:
        return ["the trainer always takes channels-last, which was the slower layout here"]
    return []


def duration(seconds: float) -> str:
    """Three digits at most: "45 s", "12 min", "3.4 h"."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def report(question: Question, trials: Trials, advice: Advice, samples: int) -> list[str]:
    """What was measured and what to take, as lines of text."""
    rows = [("back-end", "threads", "images/s")]
    rows += [
        (trial.backend, str(trial.num_threads), trial.failed or f"{trial.images_per_second:,.0f}")
        for trial in trials.loaders
    ]
    lines = table(rows)
    if trials.steps:
        rows = [(question.model, "layout", "AMP", "images/s", "GPU memory, MiB")]  # type: ignore[list-item]  # a table of another width
        rows += [
            (  # type: ignore[misc]  # likewise
                f"batch {trial.batch_size}",
                "channels-last" if trial.channels_last else "contiguous",
                trial.amp,
                trial.failed or f"{trial.images_per_second:,.0f}",
                f"{trial.gpu_bytes / 2**20:,.0f}",
            )
            for trial in trials.steps
        ]
        lines += ["", *table(rows)]
    taken = f"{advice.loader.backend} with {threads(advice.loader.num_threads)}"
    lines += ["", f"{taken}, and nobody who keeps it waiting:"]
    lines += [*advice.loader.stats.table(), advice.loader.stats.remedy]
    epoch = f"{duration(samples / advice.images_per_second)} per epoch of {samples:,} images"
    if advice.step:
        taken += f", batches of {advice.step.batch_size}, {advice.accumulate} per optimizer step"
    lines += [
        "",
        f"take        {taken}",
        f"prefetch    {READY_BATCHES} batches ready besides those in work; fixed",
        f"expect      {advice.images_per_second:,.0f} images/s, {epoch}",
        f"bottleneck  {advice.bottleneck}",
        *(f"left open   {what}" for what in left_open(question, advice)),
    ]
    if trials.left_out:
        lines.append(f"not tried   {', '.join(trials.left_out)}: the time was used up")
    return lines
