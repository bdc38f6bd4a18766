"""Everything a run is made of, put together from its options."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

import torch

import fastload.console.progress
from fastload import Loader
from train import begin
from train.data import Loaders, open_loaders
from train.interrupt import Interrupt
from train.loop import Progress, Scores, Training, score
from train.losses import Balance, balance
from train.meter import read_every
from train.network import Network, build_network
from train.optimiser import Precision, Stepper, make_optimizer, precision_for
from train.options import Options
from train.ranks import Ranks, joined
from train.schedule import base_rate, rate_factor
from train.state import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The parts of a run.

    Attributes:
        options: What defines the run.
        ranks: Its processes.
        precision: Of mixed precision, or None.
        loaders: What is read.
        network: What learns.
        balance: How the long tail is treated.
        training: How a batch becomes a step.
        state: What a checkpoint holds.
        warnings: What is likely to be wrong.
        effective_batch: Images of one optimizer step.
        peak_rate: The learning rate at its highest.
    """

    options: Options
    ranks: Ranks
    precision: Precision
    loaders: Loaders
    network: Network
    balance: Balance
    training: Training
    state: State
    warnings: tuple[str, ...]
    effective_batch: int
    peak_rate: float

    @property
    def progress(self) -> Progress:
        """How far the run is."""
        return self.state.progress

    def bar(
        self, loader: Loader, what: str, *, done: int = 0
    ) -> fastload.console.progress.Progress:
        """How many batches of a loader are done, for whoever watches the first rank."""
        return fastload.console.progress.Progress(
            len(loader),
            "batches",
            done=done,
            what=what,
            quiet_seconds=self.options.record.quiet_seconds,
            silent=not self.ranks.writes,
        )

    def rate(self) -> float:
        """The learning rate of the step to come."""
        return self.peak_rate * rate_factor(
            self.options.schedule,
            step=self.progress.step,
            steps_per_epoch=self.training.steps_per_epoch,
            history=self.progress.history,
        )

    def answer(self, loader: Loader, interrupt: Interrupt) -> Scores:
        """Run the evaluated model over a split; see `loop.score`."""
        with self.bar(loader, "evaluation") as bar:
            return score(
                self.training.stepper.evaluated(),
                loader,
                ranks=self.ranks,
                precision=self.precision,
                interrupt=interrupt,
                bar=bar,
            )


def prepare(options: Options, stack: ExitStack) -> Session:
    """Join the ranks, open the shards, build the model and what trains it.

    Args:
        options: What defines the run.
        stack: Closes what was opened.

    Raises:
        FastloadError: If device, shards, model or weights cannot be had.
    """
    ranks = stack.enter_context(joined(options.run.device))
    precision = precision_for(options.run.amp, ranks.device)
    begin.seed_everything(options.run.seed, ranks)
    loaders = open_loaders(options, ranks, stack, dtype=precision or torch.float32)
    network = build_network(options, loaders.classes, ranks)
    warnings = begin.check_setup(options, loaders, network)

    optimisation = options.optimisation
    stepper = Stepper(
        network.model,
        network.forward,
        make_optimizer(network.groups, optimisation, device=ranks.device, precision=precision),
        optimisation,
        device=ranks.device,
        precision=precision,
        batch_size=options.data.batch_size,
        ranks=ranks,
    )
    treatment = balance(options.data.reweight, options.loss, loaders.train_counts, ranks.device)
    effective_batch = options.data.batch_size * optimisation.accumulate * ranks.world.size
    return Session(
        options=options,
        ranks=ranks,
        precision=precision,
        loaders=loaders,
        network=network,
        balance=treatment,
        training=Training(
            loader=loaders.train,
            model=network.model,
            forward=network.forward,
            loss=treatment.loss,
            stepper=stepper,
            precision=precision,
            device=ranks.device,
            accumulate=optimisation.accumulate,
            read_every=read_every(ranks.device),
        ),
        state=State(
            options=options,
            classes=loaders.classes,
            model=network.model,
            stepper=stepper,
            loader=loaders.train,
            progress=Progress(),
            ranks=ranks,
        ),
        warnings=tuple(warnings),
        effective_batch=effective_batch,
        peak_rate=base_rate(
            optimisation,
            scratch=options.model.init == "scratch",
            effective_batch=effective_batch,
        ),
    )
