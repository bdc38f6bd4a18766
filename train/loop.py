"""One pass of training and one of evaluation: the loops around the model."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import fastload.console.progress
from fastload import Loader
from train.interrupt import Interrupt, InterruptedRunError
from train.losses import Loss
from train.meter import Meter, Readings, clock_for
from train.model import set_training
from train.optimiser import Precision, Stepper, autocast
from train.ranks import Ranks


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
        read_every: Batches whose losses are read from the device at a time.
    """

    loader: Loader
    model: nn.Module
    forward: nn.Module
    loss: Loss
    stepper: Stepper
    precision: Precision
    device: torch.device
    accumulate: int
    read_every: int

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
    after_step: Callable[[Callable[[], None]], None],
    bar: fastload.console.progress.Progress,
) -> None:
    """Train until the end of the epoch under way.

    Nothing in a step reads from the device (see `meter.Readings` and `meter.CudaClock`), so a GPU
    is never without work because the host looks at a number.

    Args:
        training: What to run.
        progress: Where the epoch stands; moved on.
        rate: The learning rate of the step to come.
        after_batch: Called with images, labels and logits.
        after_step: Called after each step, when the state is consistent but for the meter, with a
            function that brings the meter up to date; may raise to stop.
        bar: Counts the batches.

    Raises:
        DivergedError: If a loss is NaN or infinite; the message has the keys of the batch.
    """
    loader, meter, batches = training.loader, progress.meter, len(training.loader)
    readings = Readings(progress, loader, every=training.read_every)
    set_training(training.model)
    clock = clock_for(training.device, meter)
    for images, labels in loader:
        clock.begin()
        progress.batch += 1
        last = progress.batch % training.accumulate == 0 or progress.batch == batches
        with training.stepper.accumulating(last=last):
            with autocast(training.device, training.precision):
                logits = training.forward(images)
            total = training.loss(logits, labels)
            training.stepper.backward(total)
        if last:
            training.stepper.step(rate())
        truth = labels if labels.ndim == 1 else labels.argmax(1)
        readings.add(total, (logits.detach().argmax(1) == truth).sum())
        clock.end()
        bar.add(note=meter.note)
        after_batch(images, truth, logits)
        if last:
            progress.step += 1
            after_step(readings.read)
    readings.read()
    clock.finish()


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
    bar: fastload.console.progress.Progress,
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
        rows.append(torch.from_numpy(loader.last_indices()))
        bar.add()
        if ranks.any(bool(interrupt.number)):
            raise InterruptedRunError(interrupt.number or signal.SIGTERM)
    parts = (torch.cat(rows).to(ranks.device), torch.cat(logits), torch.cat(labels))
    every = [torch.cat(ranks.gathered_rows(part)) for part in parts]
    order = every[0].argsort()
    return Scores(
        rows=every[0][order],
        logits=every[1][order],
        labels=every[2][order],
        seconds=time.perf_counter() - began,
    )
