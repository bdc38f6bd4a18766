"""The evaluated model on one split: its answers, and the figures that the answers come to."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from fastload import Loader
from fastload.errors import TooManyCorruptError
from train.assembly import Run
from train.data import corrupt_share
from train.interrupt import Interrupt
from train.metrics import Evaluation, correct_prior, evaluate_logits
from train.optimiser import autocast
from train.readings import DivergedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """The answers of a model on one split: each sample once, in the order of the index.

    Attributes:
        rows: int64 [N], rows of the split's index.
        logits: float32 [N, C].
        labels: int64 [N].
        seconds: How long the evaluation took.
    """

    rows: Tensor
    logits: Tensor
    labels: Tensor
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The figures of a model on one split.

    Attributes:
        plain: The figures of the model as it was trained.
        corrected: The figures with the class frequencies of training taken out of the logits.
        seconds: How long the evaluation took.
    """

    plain: Evaluation
    corrected: Evaluation
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
    scores = score(run, run.loaders.val, interrupt)
    if not bool(torch.isfinite(scores.logits).all()):
        raise DivergedError(
            f"the model answers with NaN or infinity after epoch {run.position.epoch + 1}; "
            "lower --lr, or set --clip 1"
        )
    return judge(run, scores)


@torch.no_grad()
def score(run: Run, loader: Loader, interrupt: Interrupt) -> Scores:
    """Run the evaluated model over a split. Each rank reads its part, and gets the whole.

    Args:
        run: The run; its evaluated model is put in evaluation mode.
        loader: The loader of that split.
        interrupt: Asked after each batch.

    Raises:
        InterruptedRunError: If a signal came.
        TooManyCorruptError: If more images cannot be read than --max-corrupt-val allows.
    """
    began = time.perf_counter()
    model, ranks = run.stepper.evaluated().eval(), run.ranks
    ranks.synchronise_buffers(model)
    rows, logits, labels = [], [], []
    try:
        with corrupt_share("--max-corrupt-val"), run.progress(loader, "evaluation") as progress:
            for images, truth in loader:
                with autocast(ranks.device, run.precision):
                    logits.append(run.answers(images).float())
                labels.append(truth)
                rows.append(torch.from_numpy(loader.last_indices()))
                progress.add()
                if ranks.any(interrupt.came):
                    raise interrupt.error()
    except TooManyCorruptError as error:
        ranks.any(True)  # the others stop after this batch and do not wait for this rank
        raise TooManyCorruptError(
            f"{error}; the training so far is saved: write the shards again with "
            "`python -m fastload.shard` (in place: put the files back), or leave the images out "
            "with --max-corrupt-val SHARE, and continue with --resume"
        ) from error
    parts = (torch.cat(rows).to(ranks.device), torch.cat(logits), torch.cat(labels))
    every = [torch.cat(ranks.gathered_rows(part)) for part in parts]
    order = every[0].argsort()
    return Scores(
        rows=every[0][order],
        logits=every[1][order],
        labels=every[2][order],
        seconds=time.perf_counter() - began,
    )


def judge(run: Run, scores: Scores, *, chosen_on: Verdict | None = None) -> Verdict:
    """All figures of one split.

    Args:
        run: The run; gives the number of training images and the class frequencies.
        scores: Each sample of the split once.
        chosen_on: The verdict on the validation split, whose thresholds are used again; None if
            this is the validation split.
    """
    counts = torch.from_numpy(run.loaders.train_counts)
    corrected = correct_prior(scores.logits, run.balance.log_prior)
    return Verdict(
        plain=evaluate_logits(
            scores.logits,
            scores.labels,
            train_counts=counts,
            thresholds=chosen_on.plain.thresholds if chosen_on else None,
        ),
        corrected=evaluate_logits(
            corrected,
            scores.labels,
            train_counts=counts,
            thresholds=chosen_on.corrected.thresholds if chosen_on else None,
        ),
        seconds=scores.seconds,
    )
