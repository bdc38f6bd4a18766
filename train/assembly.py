"""A run put together from its options: what is read, what learns, and how."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
import torch

from fastload import Loader, randomness
from fastload.console.progress import Progress
from train.compiled import Forward
from train.data import Loaders, open_loaders
from train.diagnosis import check_setup
from train.head import answer_in_float32
from train.losses import Balance, balance
from train.meter import Meter
from train.network import Network, Stage, build_network
from train.optimiser import Precision, Stepper, make_optimizer, precision_for
from train.options import Options
from train.position import Position
from train.ranks import Ranks, joined
from train.readings import read_every
from train.schedule import base_rate, rate_factor, size_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The parts of a run.

    Attributes:
        options: What defines the run.
        ranks: The processes of the run.
        precision: The dtype of mixed precision, or None.
        loaders: What is read.
        network: What learns.
        balance: The loss, and how the long tail is treated.
        stepper: Turns losses into steps.
        answers: How evaluation calls the model, or its moving average.
        warnings: What is likely to be wrong, one sentence each.
        read_every: Batches whose losses are read from the device at a time.
        position: Where the run stands; the one part that changes, with the weights.
    """

    options: Options
    ranks: Ranks
    precision: Precision
    loaders: Loaders
    network: Network
    balance: Balance
    stepper: Stepper
    answers: Forward
    warnings: tuple[str, ...]
    read_every: int
    position: Position = field(default_factory=Position)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch; the last step may have fewer batches."""
        return math.ceil(len(self.loaders.train) / self.options.optimisation.accumulate)

    @property
    def effective_batch(self) -> int:
        """Images of one optimizer step."""
        per_rank = self.options.data.batch_size * self.options.optimisation.accumulate
        return per_rank * self.ranks.world.size

    @property
    def peak_rate(self) -> float:
        """The learning rate at its highest."""
        return base_rate(
            self.options.optimisation,
            scratch=self.options.model.init == "scratch",
            effective_batch=self.effective_batch,
        )

    @property
    def size(self) -> int:
        """The side of the training images in the epoch under way, in pixels."""
        return size_at(
            self.options.resolution, epoch=self.position.epoch, epochs=self.options.schedule.epochs
        )

    @property
    def stage(self) -> Stage:
        """What the epoch under way trains, and how it is called."""
        alone = self.position.epoch < self.options.schedule.head_epochs
        return self.network.stages[0 if alone else -1]

    def rate(self) -> float:
        """The learning rate of the step to come."""
        return self.peak_rate * rate_factor(
            self.options.schedule,
            step=self.position.step,
            steps_per_epoch=self.steps_per_epoch,
            history=self.position.history,
        )

    def begin_epoch(self) -> None:
        """Set loader and model to the epoch under way, which may have begun before a resume."""
        loader = self.loaders.train
        if self.position.batch == 0:
            loader.set_epoch(self.position.epoch)
        loader.set_size(self.size)
        loader.reset_stats()
        self.ranks.reset_peak_gpu_memory()
        self.stage.begin(self.network.model)

    def ends_step(self, batch: int) -> bool:
        """Whether the optimizer steps after this batch of an epoch, the first of which is 1."""
        return batch % self.options.optimisation.accumulate == 0 or batch == len(self.loaders.train)

    def row(self, meter: Meter) -> dict[str, float | int]:
        """The columns of log.csv for the training of the epoch under way.

        Args:
            meter: The meter of all ranks.
        """
        rate = self.stepper.learning_rate
        row = {**meter.row(), "learning_rate": rate, "size": self.size}
        megabytes = self.ranks.peak_gpu_megabytes()
        return row if megabytes is None else {**row, "peak_gpu_megabytes": round(megabytes)}

    def progress(self, loader: Loader, what: str, *, done: int = 0) -> Progress:
        """Counts the batches of a loader on standard error; silent on all ranks but the first."""
        return Progress(
            len(loader),
            "batches",
            done=done,
            what=what,
            quiet_seconds=self.options.record.quiet_seconds,
            silent=not self.ranks.writes,
        )


def assemble(options: Options, stack: ExitStack, *, resumed: bool = False) -> Run:
    """Join the ranks, open the shards, build the model and its optimizer.

    Args:
        options: What defines the run.
        stack: Closes what was opened.
        resumed: True if a checkpoint will give the weights, so that none are looked for.

    Raises:
        FastloadError: If device, shards, model or weights cannot be had.
    """
    ranks = stack.enter_context(joined(options.run.device))
    precision = precision_for(options.run.amp, ranks.device)
    _seed(options.run.seed, ranks)
    loaders = open_loaders(options, ranks, stack, dtype=precision or torch.float32)
    network = build_network(options, loaders.classes, ranks, resumed=resumed)
    if precision is not None:
        answer_in_float32(network.model, network.head)
    warnings = check_setup(options, loaders, network)
    optimizer = make_optimizer(
        network.groups, options.optimisation, device=ranks.device, precision=precision
    )
    stepper = Stepper(
        network.model,
        optimizer,
        options.optimisation,
        device=ranks.device,
        precision=precision,
        batch_size=options.data.batch_size,
        ranks=ranks,
    )
    return Run(
        options=options,
        ranks=ranks,
        precision=precision,
        loaders=loaders,
        network=network,
        balance=balance(options.data.reweight, options.loss, loaders.train_counts, ranks.device),
        stepper=stepper,
        answers=network.forward_of(stepper.evaluated()),
        warnings=tuple(warnings),
        read_every=read_every(ranks.device),
    )


def _seed(seed: int, ranks: Ranks) -> None:
    """Seed torch with another number on each rank, so that dropout differs between ranks."""
    word = randomness.hashes(seed, 0, np.array([ranks.world.rank], np.int64))[0]
    torch.manual_seed(int(word >> np.uint64(1)))
