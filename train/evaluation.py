"""The evaluated model on one split: its answers, and the figures that the answers come to."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fastload import Loader
from fastload.console.shell import program
from fastload.errors import TooManyCorruptError
from train.assembly import Run
from train.calibration import Calibration, TemperatureFit, calibration_of, temperature_of
from train.data import corrupt_share
from train.interrupt import Interrupt
from train.metrics import (
    Evaluation,
    Largest,
    Marks,
    average_k_thresholds,
    correct_prior,
    evaluate_marks,
    ks_for,
    marks_of,
    values_needed,
)
from train.optimiser import autocast
from train.ranks import Ranks
from train.readings import DivergedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """The answers of a model on one split: each sample once, in the order of the index.

    Attributes:
        rows: int64 [N], rows of the split's index.
        labels: int64 [N].
        answers: int64 [N], the class with the highest score.
        confidences: float32 [N] in [0, 1], the probability of the answer, at the temperature.
        raw_confidences: float32 [N] in [0, 1], the same at temperature 1.
        plain: What the figures need of the model as it was trained.
        corrected: The same with the class frequencies of training taken out of the logits.
        largest: float32 [M] each, the largest probabilities of both; None on a split whose
            thresholds were chosen on another.
        temperature: That of the confidences where one was given, else the one that fits here.
        seconds: How long the evaluation took.
    """

    rows: Tensor
    labels: Tensor
    answers: Tensor
    confidences: Tensor
    raw_confidences: Tensor
    plain: Marks
    corrected: Marks
    largest: tuple[Tensor, Tensor] | None
    temperature: float
    seconds: float

    def calibration(self) -> Calibration:
        """How far the confidences, at the temperature, are from the shares of right answers."""
        return calibration_of(self.confidences, self.answers == self.labels)


class Examination:
    """Takes from the logits of each batch what is needed of them; the logits are not kept.

    Args:
        num_samples: Samples of the split, over all ranks, at most.
        num_classes: C.
        log_prior: float32 [C], see `correct_prior`, on the device of the logits.
        temperature: Of the confidences; None to find the one that fits.
        chooses: Whether the split chooses the thresholds.

    Attributes:
        count: How many samples were seen, on this rank.
    """

    def __init__(
        self,
        num_samples: int,
        num_classes: int,
        log_prior: Tensor,
        *,
        temperature: float | None,
        chooses: bool,
    ) -> None:
        self._log_prior, self._temperature = log_prior, temperature
        count = values_needed(num_samples, num_classes)
        self._largest = (Largest(count), Largest(count)) if chooses else None
        self._fit = TemperatureFit()
        # In place from the start: small tensors of each batch, kept between those that are freed,
        # would leave gaps in the memory, as large as all logits in the end.
        device = log_prior.device
        self._whole = torch.empty(num_samples, 5, dtype=torch.int64, device=device)
        self._parts = torch.empty(num_samples, 6, device=device)
        self.count = 0
        self._finite = torch.tensor(True, device=device)

    def add(self, logits: Tensor, labels: Tensor, rows: Tensor) -> None:
        """See a batch: float [n, C], int64 [n] and int64 [n], all on the device."""
        logits = logits.float()
        self._finite &= torch.isfinite(logits).all()
        probabilities = torch.softmax(logits, 1)
        raw, answers = probabilities.amax(1), logits.argmax(1)
        sure = torch.softmax(logits / self._temperature, 1).amax(1) if self._temperature else raw
        whole, parts = [rows, labels, answers], [sure, raw]
        corrected = correct_prior(logits, self._log_prior)
        for place, (scores, shares) in enumerate(
            ((logits, probabilities), (corrected, torch.softmax(corrected, 1)))
        ):
            marks = marks_of(scores, labels, shares)
            whole.append(marks.ranks)
            parts += [marks.own, marks.losses]
            if self._largest is not None:
                self._largest[place].add(shares)
        if self._temperature is None:
            self._fit.add(logits, labels)
        end = self.count + len(rows)
        torch.stack(whole, 1, out=self._whole[self.count : end])
        torch.stack(parts, 1, out=self._parts[self.count : end])
        self.count = end

    def finish(self, ranks: Ranks, seconds: float) -> Scores:
        """The whole split on every rank. Every rank must call this.

        Raises:
            DivergedError: If a logit was NaN or infinite. On every rank.
        """
        if ranks.any(not bool(self._finite)):
            raise DivergedError("the model answers with NaN or infinity")
        whole = torch.cat(ranks.gathered_rows(self._whole[: self.count]))
        parts = torch.cat(ranks.gathered_rows(self._parts[: self.count]))
        order = whole[:, 0].argsort()
        rows, labels, answers, places, corrected_places = whole[order].T.contiguous()
        sure, raw, own, losses, corrected_own, corrected_losses = parts[order].T.contiguous()
        largest = None
        if self._largest is not None:
            first, second = (
                torch.cat(ranks.gathered_rows(part.values())) for part in self._largest
            )
            largest = (first, second)
        sums = torch.stack(ranks.gathered_rows(self._fit.sums()))
        return Scores(
            rows=rows,
            labels=labels,
            answers=answers,
            confidences=sure,
            raw_confidences=raw,
            plain=Marks(ranks=places, own=own, losses=losses),
            corrected=Marks(ranks=corrected_places, own=corrected_own, losses=corrected_losses),
            largest=largest,
            temperature=self._temperature or temperature_of(sums.sum(0)),
            seconds=seconds,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The figures of a model on one split.

    Attributes:
        plain: The figures of the model as it was trained.
        corrected: The figures with the class frequencies of training taken out of the logits.
        temperature: The temperature of the model as it was trained.
        seconds: How long the evaluation took.
    """

    plain: Evaluation
    corrected: Evaluation
    temperature: float = 1.0
    seconds: float

    @property
    def figures(self) -> dict[str, float]:
        """All figures; the corrected ones under `corrected_`."""
        corrected = {f"corrected_{name}": value for name, value in self.corrected.figures.items()}
        return {**self.plain.figures, **corrected}

    @property
    def images(self) -> int:
        """How many images the figures are of: all of the split but those that were left out."""
        return int(self.plain.class_counts.sum())

    def row(self) -> dict[str, float | int]:
        """The columns of log.csv for an evaluation."""
        return {**self.figures, "images": self.images, "seconds": self.seconds}

    def figure(self, name: str) -> float:
        """A figure to choose by: higher is better, and NaN is worst."""
        value = self.figures[name]
        if math.isnan(value):
            return -math.inf
        return -value if name == "loss" else value


def evaluate(run: Run, interrupt: Interrupt) -> Verdict:
    """Judge the model, or its moving average, on the validation split.

    Raises:
        InterruptedRunError: If a signal came; the epoch's training was saved before.
        DivergedError: If an answer is NaN or infinite.
    """
    try:
        return judge(run, score(run, run.loaders.val, interrupt))
    except DivergedError as error:
        raise DivergedError(
            f"{error} after epoch {run.position.epoch + 1}; lower --lr, or set --clip 1"
        ) from error


@torch.no_grad()
def score(
    run: Run,
    loader: Loader,
    interrupt: Interrupt,
    *,
    temperature: float | None = None,
    chooses: bool = True,
    what: str = "evaluation",
) -> Scores:
    """Run the evaluated model over a split. Each rank reads its part, and gets the whole.

    Args:
        run: The run; its evaluated model is put in evaluation mode.
        loader: The loader of that split.
        interrupt: Asked after each batch.
        temperature: Of the confidences; None to find the one that fits this split.
        chooses: Whether the split chooses the thresholds.
        what: What the progress is of.

    Raises:
        InterruptedRunError: If a signal came.
        TooManyCorruptError: If more images cannot be read than --max-corrupt-val allows.
        DivergedError: If an answer is NaN or infinite.
    """
    began = time.perf_counter()
    model, ranks = run.stepper.evaluated().eval(), run.ranks
    ranks.synchronise_buffers(model)
    examination = Examination(
        int(loader.class_counts.sum()),
        len(run.loaders.classes),
        run.balance.log_prior,
        temperature=temperature,
        chooses=chooses,
    )
    try:
        with corrupt_share("--max-corrupt-val"), run.progress(loader, what) as progress:
            for images, truth in loader:
                with autocast(ranks.device, run.precision):
                    logits = run.answers(images)
                rows = torch.from_numpy(loader.last_indices()).to(ranks.device)
                examination.add(logits, truth, rows)
                progress.add()
                if ranks.any(interrupt.came):
                    raise interrupt.error()
    except TooManyCorruptError as error:
        ranks.any(True)  # the others stop after this batch and do not wait for this rank
        raise TooManyCorruptError(
            f"{error}; the training so far is saved: write the shards again with "
            f"`{program('fastload.shard')}` (in place: put the files back), or leave the images "
            "out with --max-corrupt-val SHARE, and continue with --resume"
        ) from error
    return examination.finish(ranks, time.perf_counter() - began)


def judge(run: Run, scores: Scores, *, chosen_on: Verdict | None = None) -> Verdict:
    """All figures of one split.

    Args:
        run: The run; gives the number of training images.
        scores: Each sample of the split once.
        chosen_on: The verdict on the validation split, whose thresholds are used again; None if
            this is the validation split.
    """
    chosen = (chosen_on.plain.thresholds, chosen_on.corrected.thresholds) if chosen_on else None
    return judge_scores(scores, torch.from_numpy(run.loaders.train_counts), chosen)


def judge_scores(
    scores: Scores,
    train_counts: Tensor,
    chosen: tuple[Mapping[int, float], Mapping[int, float]] | None = None,
) -> Verdict:
    """All figures of one split.

    Args:
        scores: Each sample of the split once.
        train_counts: int64 [C], training images of each class.
        chosen: The thresholds of the model as it was trained, and of the corrected one; None to
            choose them here, where `scores` has the largest probabilities.
    """
    if chosen is None:
        if scores.largest is None:
            raise ValueError("scores must hold the largest probabilities where thresholds are None")
        first, second = (
            average_k_thresholds(largest, len(scores.rows), ks_for(len(train_counts)))
            for largest in scores.largest
        )
        chosen = (first, second)
    plain, corrected = (
        evaluate_marks(marks, scores.labels, train_counts=train_counts, thresholds=thresholds)
        for marks, thresholds in zip((scores.plain, scores.corrected), chosen, strict=True)
    )
    return Verdict(
        plain=plain,
        corrected=corrected,
        temperature=scores.temperature,
        seconds=scores.seconds,
    )
