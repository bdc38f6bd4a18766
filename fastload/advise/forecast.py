"""The report for a card that is not here: what it would do with the loader that was measured here.

The first word of each line says what it answers; the lines of `from` say where a figure is from.
"""

from __future__ import annotations

import math

from fastload.advise.advice import HEADROOM, Advice, duration, left_open, loader_table, rates
from fastload.advise.cards import Card
from fastload.advise.expectation import Expectation
from fastload.advise.trials import LoaderTrial, Question, Trials
from fastload.console.terminal import counted
from fastload.cores import usable_cores

EPOCHS = 30  # the trainer's default


def card_report(
    question: Question, trials: Trials, advice: Advice, expectation: Expectation, samples: int
) -> list[str]:
    """What to expect and what to take, as lines of text.

    Args:
        question: What was asked.
        trials: Of the loader, here.
        advice: What to take, by them and by the expectation.
        expectation: Of the card.
        samples: Number of training images.
    """
    loader = advice.loader
    lines = [
        *loader_table(trials),
        "",
        f"card        {_described(expectation.card)}; not here: only the loader is measured",
        f"rate        {_rate(question, expectation)}",
        *(f"from        {sentence}" for sentence in expectation.basis),
        f"expect      {_expected(question, loader, expectation, samples)}",
        f"bottleneck  {advice.bottleneck}",
        f"cores       {cores_needed(loader, expectation)}",
        f"take        {_taken(advice)}",
        *_reasons(advice, expectation),
        *(f"left open   {what}" for what in left_open(question, advice)),
    ]
    if trials.left_out:
        lines.append(f"not tried   {', '.join(trials.left_out)}: the time was used up")
    return lines


def _described(card: Card) -> str:
    return f"{card.name}, {card.memory_gib:g} GiB, compute capability {card.capability}"


def _rate(question: Question, expectation: Expectation) -> str:
    what = f"{question.model} at {question.size} pixels"
    if not expectation.fastest:
        return f"unknown for {what}"
    return f"{rates(expectation)} for {what}, {expectation.kind}, not measured here"


def _expected(
    question: Question, loader: LoaderTrial, expectation: Expectation, samples: int
) -> str:
    epochs = question.epochs or EPOCHS
    what = f"per epoch of {counted(samples, 'image')}", f"for {counted(epochs, 'epoch')}"
    ways = [rate for rate in (expectation.fastest, expectation.slowest) if rate]
    ends = [samples / min(loader.images_per_second, rate) for rate in ways]
    if not ends:
        seconds = samples / loader.images_per_second
        return f"{duration(seconds)} {what[0]} at least, by the loader; the card is unknown"
    times = [_span([seconds * count for seconds in ends]) for count in (1, epochs)]
    return f"{times[0]} {what[0]}, {times[1]} {what[1]}, evaluation not counted"


def _span(ends: list[float]) -> str:
    words = [duration(seconds) for seconds in ends]
    return words[0] if words[0] == words[-1] else f"{words[0]} to {words[-1]}"


def cores_needed(loader: LoaderTrial, expectation: Expectation) -> str:
    """How many cores like these feed the card."""
    each = loader.images_per_second / loader.num_threads
    here = counted(usable_cores(), "core")
    if not expectation.fastest:
        return f"{here} here; each feeds {each:,.0f} images/s"
    count = math.ceil(HEADROOM * expectation.fastest / each)
    return (
        f"{counted(count, 'core')} like these feed{'s' * (count == 1)} the card with a reserve of"
        f" {HEADROOM - 1:.0%} ({each:,.0f} images/s each); {here} here"
    )


def _taken(advice: Advice) -> str:
    taken = f"--loader {advice.loader.backend} with {counted(advice.loader.num_threads, 'thread')}"
    if advice.step is None:
        return taken
    return (
        f"{taken}, batches of {advice.step.batch_size:,}, {advice.accumulate:,} per optimizer"
        f" step, AMP {advice.step.amp}, channels-last"
    )


def _reasons(advice: Advice, expectation: Expectation) -> list[str]:
    card, step, loader = expectation.card, advice.step, advice.loader
    lines = []
    if step:
        lines.append(
            f"batch       {step.batch_size:,} takes about {step.gpu_bytes / 2**30:.1f} of"
            f" {card.memory_gib:g} GiB, estimated: by batches of ResNet-50 that we measured on an"
            " H200 (benchmarks/rows/gpu.jsonl) and by what the model keeps for its backward pass"
        )
    lines.append(
        "AMP         bf16: the card computes with it"
        if card.computes_bf16
        else "AMP         fp16 with loss scaling: before compute capability 8.0 there is no bf16"
    )
    if not card.has_tensor_cores:
        lines.append(
            "layout      the trainer always takes channels-last; without tensor cores, as here,"
            " nobody says that it gains"
        )
    if expectation.fastest and loader.images_per_second < HEADROOM * expectation.fastest:
        lines.append(f"loader      {_dali(card)}")
    return lines


def _dali(card: Card) -> str:
    if card.listed_with_engine:
        return (
            "try --loader dali on that machine: NVIDIA lists the architecture with a JPEG engine,"
            " which on an H200 left a sixth of native's CPU time (docs/dali.md)"
        )
    return (
        "--loader dali would not help much: NVIDIA lists no JPEG engine for the architecture, so"
        " the CPU keeps half of the work (docs/dali.md)"
    )
