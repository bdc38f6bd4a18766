"""One pass of training and one of evaluation: the loops around the model."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import fastload.progress
from fastload import Loader
from fastload.errors import FastloadError
from train.interrupt import Interrupt, InterruptedRunError
from train.losses import Loss
from train.model import set_training
from train.optimiser import Precision, Stepper, autocast
from train.ranks import Ranks


class DivergedError(FastloadError):
    """The loss is no number any more."""


@dataclass(slots=True, kw_only=True)
class Meter:
    """Sums over the batches of an epoch on this rank; kept in the checkpoint.

    Attributes:
        loss: Sum of weighted losses.
        weight: Sum of weights.
        hits: Images whose class scored highest, as they were trained on.
        images: Images trained on.
        waiting_seconds: Time in which no batch was ready.
        compute_seconds: Time of forward and backward passes and steps.
    """

    loss: float = 0.0
    weight: float = 0.0
    hits: int = 0
    images: int = 0
    waiting_seconds: float = 0.0
    compute_seconds: float = 0.0

    @property
    def seconds(self) -> float:
        """Waiting and computing."""
        return self.waiting_seconds + self.compute_seconds

    @property
    def images_per_second(self) -> float:
        """NaN before the first batch."""
        return self.images / self.seconds if self.seconds else math.nan

    @property
    def waiting_share(self) -> float:
        """Share of the time spent waiting for data, in [0, 1]."""
        return self.waiting_seconds / self.seconds if self.seconds else math.nan

    @property
    def mean_loss(self) -> float:
        """NaN before the first batch."""
        return self.loss / self.weight if self.weight else math.nan

    def row(self) -> dict[str, float | int]:
        """What log.csv says of an epoch of training."""
        return {
            "loss": self.mean_loss,
            "top1": self.hits / self.images if self.images else math.nan,
            "images": self.images,
            "seconds": self.seconds,
            "images_per_second": self.images_per_second,
            "waiting_share": self.waiting_share,
            "compute_seconds": self.compute_seconds,
        }

    def over(self, ranks: Ranks) -> Meter:
        """All ranks together: sums of counts, means of times."""
        parts = ranks.gathered(asdict(self))
        totals = {key: sum(part[key] for part in parts) for key in parts[0]}
        for key in ("waiting_seconds", "compute_seconds"):
            totals[key] /= len(parts)
        return Meter(**totals)


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far a run is; kept in the checkpoint.

    Attributes:
        epoch: The epoch under way, from 0.
        batch: Batches of it that each rank has trained on.
        step: Optimizer steps of the whole run.
        trained: True if the epoch waits for its evaluation only.
        history: The figure that chooses the best epoch, after each; higher is better.
        log_rows: Rows of log.csv that belong to the run so far.
        meter: Of the epoch under way.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    trained: bool = False
    history: list[float] = field(default_factory=list)
    log_rows: int = 0
    meter: Meter = field(default_factory=Meter)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Progress:
        """What `dataclasses.asdict` gave."""
        return cls(**{**values, "meter": Meter(**values["meter"])})

    def finish_epoch(self, figure: float) -> None:
        """The epoch was evaluated, with this figure; the next one begins."""
        self.history.append(figure)
        self.epoch, self.batch, self.trained, self.meter = self.epoch + 1, 0, False, Meter()

    def is_best(self, figure: float) -> bool:
        """Whether no epoch had a higher figure; the first is the best until then."""
        return not self.history or figure > max(self.history)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What a pass of training needs.

    Attributes:
        loader: The training split.
        model: The bare module.
        forward: Images to logits: the model, perhaps compiled or wrapped.
        loss: What is minimised.
        stepper: Makes the steps.
        precision: Of `precision_for`.
        device: Where it runs.
        accumulate: Batches per step.
    """

    loader: Loader
    model: nn.Module
    forward: nn.Module
    loss: Loss
    stepper: Stepper
    precision: Precision
    device: torch.device
    accumulate: int

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch; the last may have fewer batches."""
        return math.ceil(len(self.loader) / self.accumulate)


def train_epoch(
    training: Training,
    progress: Progress,
    *,
    rate: Callable[[], float],
    after_batch: Callable[[Tensor, Tensor, Tensor], None],
    after_step: Callable[[], None],
    bar: fastload.progress.Progress,
) -> None:
    """Train until the end of the epoch under way.

    The loss is read after each batch. On a GPU this waits for it, so that the time split between
    waiting and computing is true, and costs the launch of one kernel: well under 1 % of a step.

    Args:
        training: What to run.
        progress: Where the epoch stands; moved on.
        rate: The learning rate of the step to come.
        after_batch: Called with images, labels and logits.
        after_step: Called after each step, when the state is consistent; may raise to stop.
        bar: Counts the batches.

    Raises:
        DivergedError: If a loss is NaN or infinite; the message has the keys of the batch.
    """
    meter, batches = progress.meter, len(training.loader)
    set_training(training.model)
    for images, labels in _timed(training.loader, meter):
        began = time.perf_counter()
        progress.batch += 1
        last = progress.batch % training.accumulate == 0 or progress.batch == batches
        with training.stepper.accumulating(last=last):
            with autocast(training.device, training.precision):
                logits = training.forward(images)
            total = training.loss(logits, labels)
            training.stepper.backward(total)
        if last:
            training.stepper.step(rate())
        loss, weight = float(total.loss.detach()), float(total.weight)
        if not math.isfinite(loss):
            raise _diverged(loss, progress, training.loader)
        meter.loss += loss
        meter.weight += weight
        truth = labels if labels.ndim == 1 else labels.argmax(1)
        meter.hits += int((logits.detach().argmax(1) == truth).sum())
        meter.images += len(images)
        meter.compute_seconds += time.perf_counter() - began
        bar.add(
            note=f"loss {meter.mean_loss:.3f}, {meter.images_per_second:.0f} img/s, "
            f"{meter.waiting_share:.0%} waiting"
        )
        after_batch(images, truth, logits)
        if last:
            progress.step += 1
            after_step()


def _timed(loader: Loader, meter: Meter) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches, and in the meter the time that each was waited for."""
    began = time.perf_counter()
    for batch in loader:
        meter.waiting_seconds += time.perf_counter() - began
        yield batch
        began = time.perf_counter()


def _diverged(loss: float, progress: Progress, loader: Loader) -> DivergedError:
    keys = loader.last_keys()
    more = f" and {len(keys) - 8} more" if len(keys) > 8 else ""
    return DivergedError(
        f"the loss became {loss} in epoch {progress.epoch + 1}, batch {progress.batch}; "
        f"lower --lr, set --clip 1, or look at its images: {', '.join(keys[:8])}{more}"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """The answers of a model on one split: each sample once, in the order of the index.

    Attributes:
        rows: int64 [N], rows of the split's index.
        logits: float32 [N, C].
        labels: int64 [N].
        seconds: How long it took.
    """

    rows: Tensor
    logits: Tensor
    labels: Tensor
    seconds: float


@torch.no_grad()
def score(
    model: nn.Module,
    loader: Loader,
    *,
    ranks: Ranks,
    precision: Precision,
    interrupt: Interrupt,
    bar: fastload.progress.Progress,
) -> Scores:
    """Run a model over a split.

    Args:
        model: Put in evaluation mode.
        loader: Of that split; each rank reads its part.
        ranks: Whose parts are gathered: every rank gets all of them.
        precision: Of `precision_for`; the logits are kept in float32.
        interrupt: Asked after each batch.
        bar: Counts the batches.

    Raises:
        InterruptedRunError: If a signal came.
    """
    began = time.perf_counter()
    model.eval()
    ranks.synchronise_buffers(model)
    rows, logits, labels = [], [], []
    for images, truth in loader:
        with autocast(ranks.device, precision):
            logits.append(model(images).float())
        labels.append(truth)
        rows.append(torch.from_numpy(loader.last_indices()).to(ranks.device))
        bar.add()
        if ranks.any(bool(interrupt.number)):
            raise InterruptedRunError(interrupt.number or signal.SIGTERM)
    every = [torch.cat(ranks.gathered_rows(torch.cat(part))) for part in (rows, logits, labels)]
    order = every[0].argsort()
    return Scores(
        rows=every[0][order],
        logits=every[1][order],
        labels=every[2][order],
        seconds=time.perf_counter() - began,
    )
