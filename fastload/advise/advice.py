"""Which parameters to take, by the trials: decisions as pure functions, and their report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastload.advise.expectation import Expectation
from fastload.advise.trials import LoaderTrial, Question, StepTrial, Trials
from fastload.console.terminal import counted, table
from fastload.errors import FastloadError
from fastload.load.backend import BackendName
from fastload.load.buffers import READY_BATCHES

ENOUGH = 0.95  # of the best rate: the remaining 5 % are given up for fewer threads, smaller batches
HEADROOM = 1.25  # the loader over the training step, so that a slow stretch of files stalls nothing
GPU_SHARE = 0.9  # of the GPU's memory that the step may take; evaluation and fragments need some
GPU_LOADER_BYTES = {BackendName.DALI: 1 << 30}  # GPU memory that a back-end keeps for itself
OTHER_LOADER_BYTES = 128 << 20  # of the back-ends on the CPU: two batches

# Pl@ntNet-300K's 0.01 at a batch of 32, for 256 by the linear rule (Goyal et al. 2017): fine-tuning
# with SGD. The default of the trainer is the same.
REFERENCE_BATCH, REFERENCE_RATE = 256, 0.08


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What to take.

    Attributes:
        loader: The trial of the loader that is taken.
        step: The trial of the training step that is taken; None without a GPU, or where no batch
            fitted it.
        accumulate: Batches per optimizer step; 1 without a `step`.
        bottleneck: One sentence: which part limits training, and what would change that.
        expectation: Of the card that is not here, where the question names one: `step` is not
            measured then.
    """

    loader: LoaderTrial
    step: StepTrial | None
    accumulate: int
    bottleneck: str
    expectation: Expectation | None = None

    @property
    def images_per_second(self) -> float:
        """The expected speed of training: of the loader or the step, whichever is slower."""
        step = self.step.images_per_second if self.step else 0.0
        return min(self.loader.images_per_second, step or float("inf"))

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
    expectation: Expectation | None = None,
) -> Advice:
    """What to take, by the trials.

    Args:
        question: What was asked.
        loaders: Trials of the loader. At least one must have delivered images.
        steps: Trials of the training step; empty where there is no GPU.
        gpu_bytes: Memory of the GPU; 0 where there is none.
        expectation: Of a card that is not here; it stands in for `steps`.

    Raises:
        FastloadError: If no back-end delivered an image.
    """
    working = [trial for trial in loaders if trial.images_per_second > 0]
    if not working:
        reasons = "; ".join(f"{trial.backend}: {trial.failed}" for trial in loaders)
        raise FastloadError(f"no back-end delivered an image ({reasons}); see fastload.doctor")
    best = max(working, key=lambda trial: trial.images_per_second)
    if expectation:
        step, needed = expectation.step, expectation.fastest
    else:
        room = gpu_room(gpu_bytes, BackendName(best.backend)) if gpu_bytes else None
        step = choose_step(steps, room=room)
        needed = step.images_per_second if step else 0.0
    loader = choose_loader(working, needed=needed * HEADROOM if needed else None)
    accumulate = 1
    if step:
        accumulate = max(1, -(-question.effective_batch // step.batch_size))
    return Advice(
        loader=loader,
        step=step,
        accumulate=accumulate,
        bottleneck=bottleneck(loader, step, expectation),
        expectation=expectation,
    )


def gpu_room(gpu_bytes: float, backend: BackendName) -> float:
    """Bytes of a GPU's memory that the training step may take beside a back-end."""
    return GPU_SHARE * gpu_bytes - GPU_LOADER_BYTES.get(backend, OTHER_LOADER_BYTES)


def choose_loader(trials: Sequence[LoaderTrial], *, needed: float | None) -> LoaderTrial:
    """The trial with the fewest threads that delivers what is needed.

    A back-end on the CPU that suffices is taken before one that decodes on the GPU, because the
    training step needs the GPU.

    Args:
        trials: At least one.
        needed: Images per second. Where no trial delivers them, or for None, nearly as many as the
            best trial delivers.
    """
    best = max(trial.images_per_second for trial in trials)
    enough = ENOUGH * best if needed is None else min(needed, ENOUGH * best)
    fitting = [trial for trial in trials if trial.images_per_second >= enough]
    return min(
        fitting,
        key=lambda trial: (
            not BackendName(trial.backend).on_cpu,
            trial.num_threads,
            -trial.images_per_second,
        ),
    )


def choose_step(trials: Sequence[StepTrial], *, room: float | None) -> StepTrial | None:
    """The trial with the smallest batch that is nearly as fast as the fastest one that fits.

    Args:
        trials: Any number of them.
        room: Bytes of GPU memory that the step may take; None for no limit.
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


def bottleneck(
    loader: LoaderTrial, step: StepTrial | None, expectation: Expectation | None = None
) -> str:
    """Which part limits training, and what would change that."""
    rate = f"{loader.images_per_second:,.0f} images/s"
    on_threads = f"{rate} on {counted(loader.num_threads, 'thread')}"
    if expectation:
        return _expected_bottleneck(loader, on_threads, expectation)
    if step is None:
        return (
            f"the loader gives {on_threads}, and a GPU that trains faster waits for it; `--gpu` and"
            " the name of a card compares them"
        )
    trained = f"{step.images_per_second:,.0f} images/s"
    if loader.images_per_second < step.images_per_second:
        return f"the loader: it gives {rate}, the GPU trains {trained}; {_FASTER_LOADER}"
    return (
        f"the training step: the GPU trains {trained}, the loader gives {rate}; a smaller model or"
        " image size, or --compile, would help, more threads would not"
    )


_FASTER_LOADER = (
    "more cores, the back-end native, or smaller images (`python -m fastload.shard --max-side`)"
    " would help"
)


def _expected_bottleneck(loader: LoaderTrial, on_threads: str, expectation: Expectation) -> str:
    card, trained = expectation.card.name, f"{rates(expectation)} ({expectation.kind})"
    if not expectation.fastest:
        return f"unknown: the loader gives {on_threads}, the rate of {card} is not known"
    if loader.images_per_second < expectation.slowest:
        return f"the loader: it gives {on_threads}, {card} trains {trained}; {_FASTER_LOADER}"
    if loader.images_per_second < expectation.fastest:
        return f"either: the loader gives {on_threads}, {card} trains {trained}"
    return (
        f"the training step: {card} trains {trained}, the loader gives {on_threads}; a smaller"
        " model or image size would help, more threads would not"
    )


def rates(expectation: Expectation) -> str:
    """The expected rate: "416 to 468 images/s"."""
    slowest, fastest = f"{expectation.slowest:,.0f}", f"{expectation.fastest:,.0f}"
    return f"{slowest} images/s" if slowest == fastest else f"{slowest} to {fastest} images/s"


def left_open(question: Question, advice: Advice) -> list[str]:
    """What the trials could not say."""
    if advice.step is None:
        found = "no batch fitted the GPU" if question.device.type == "cuda" else "no GPU here"
        if advice.expectation:
            found = f"not one image fits {advice.expectation.card.memory_gib:g} GiB, by estimate"
        what = "batch size, accumulation, AMP, channels-last and learning rate"
        return [f"{what} ({found}): the trainer's defaults stay"]
    if not advice.step.channels_last:
        return ["the trainer always takes channels-last, which was the slower layout here"]
    return []


def duration(seconds: float) -> str:
    """A time in words: "45 s", "12 min", "3.4 h"."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def report(question: Question, trials: Trials, advice: Advice, samples: int) -> list[str]:
    """What was measured and what to take, as lines of text."""
    lines = loader_table(trials)
    if trials.steps:
        lines += ["", *_step_table(question.model, trials)]
    taken = f"{advice.loader.backend} with {counted(advice.loader.num_threads, 'thread')}"
    lines += ["", f"the stages of {taken}, measured without a training step:"]
    lines += [*advice.loader.stats.table(), advice.loader.stats.remedy]
    seconds = samples / advice.images_per_second
    epoch = f"{duration(seconds)} per epoch of {counted(samples, 'image')}"
    if advice.step:
        taken += (
            f", batches of {advice.step.batch_size:,}, {advice.accumulate:,} per optimizer step"
        )
    lines += [
        "",
        f"take        {taken}",
        f"prefetch    {READY_BATCHES} batches ready besides those in work; fixed",
        f"expect      {advice.images_per_second:,.0f} images/s, {epoch}{_run(question, seconds)}",
        f"bottleneck  {advice.bottleneck}",
        *(f"left open   {what}" for what in left_open(question, advice)),
    ]
    if trials.left_out:
        lines.append(f"not tried   {', '.join(trials.left_out)}: the time was used up")
    return lines


def _run(question: Question, seconds: float) -> str:
    if question.epochs is None:
        return ""
    return f", {duration(seconds * question.epochs)} for {counted(question.epochs, 'epoch')}"


def loader_table(trials: Trials) -> list[str]:
    """A line for each trial of the loader."""
    rows = [("back-end", "threads", "images/s")]
    rows += [
        (trial.backend, str(trial.num_threads), trial.failed or f"{trial.images_per_second:,.0f}")
        for trial in trials.loaders
    ]
    return table(rows)


def _step_table(model: str, trials: Trials) -> list[str]:
    rows = [(model, "layout", "AMP", "images/s", "GPU memory, MiB")]
    rows += [
        (
            f"batch {trial.batch_size:,}",
            "channels-last" if trial.channels_last else "contiguous",
            trial.amp,
            trial.failed or f"{trial.images_per_second:,.0f}",
            f"{trial.gpu_bytes / 2**20:,.0f}",
        )
        for trial in trials.steps
    ]
    return table(rows)
