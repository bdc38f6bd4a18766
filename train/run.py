"""Train an image classifier from shards or a folder: `python train/run.py --data data/`.

    images -> Loader -> model -> loss -> backward -> optimizer    every batch: `train_step`
           -> validation -> log, last.pt, best.pt                 every epoch: `train_epochs`
           -> best weights on val and test                        at the end: `outcome`

--help lists all options and docs/training.md explains them. With several GPUs:
`torchrun --nproc-per-node 2 train/run.py ...`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

if not __package__:  # run as a script: Python put train/ on the path, and the checkout is wanted
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fastload.console.interrupt import leave_to_system

if __name__ == "__main__":
    leave_to_system()
    # Between two operations torch's threads wait for each other by spinning, for up to 20 ms: on
    # two cores, one of them taken by another process, that made 9 images/s of 67. Threads that
    # sleep lose some 10 % where all cores are theirs (docs/training.md has the figures). OpenMP
    # reads this when torch loads it, so it stands before the imports; what the user has set stays.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from torch import Tensor

from fastload.console.command import run_command
from fastload.console.terminal import say
from train import checkpoint
from train.assembly import Run, assemble
from train.clock import clock_for
from train.command import Command, check_data, command_line, parse
from train.console import Console
from train.data import check_held_out, corrupt_share
from train.diagnosis import check_first_batch, overfit_one_batch
from train.evaluation import evaluate
from train.interrupt import Interrupt, InterruptedRunError
from train.losses import Total
from train.optimiser import autocast
from train.outcome import evaluate_best, write_outcome
from train.readings import Readings
from train.record import Record, held, open_folder
from train.schedule import is_over
from train.trace import traced


def train(command: Command) -> int:
    """Do what the command line asks for; returns the exit status."""
    check_data(command)
    with ExitStack() as stack:
        run = assemble(command.options, stack, resumed=command.resume and not command.check)
        console = Console(writes=run.ranks.writes)
        if command.check:
            console.setup(run)
            found = overfit_one_batch(run.loaders, run.network)
            console.overfit(found)
            return 0 if found.learns else 1

        # A new run, or one that goes on where it stopped.
        if not command.resume:
            check_held_out(run.options, run.ranks)
        folder = open_folder(command, run.ranks)
        stack.enter_context(held(folder, run.ranks))
        last = folder / "last.pt"
        if command.resume:
            checkpoint.restore(run, last)
        console.setup(run, last if command.resume else None)
        record = stack.enter_context(
            Record(folder, run.options, run.position, writes=run.ranks.writes)
        )
        interrupt = stack.enter_context(Interrupt())
        train_epochs(run, folder, record, console, interrupt)

        # The best epoch, on val and on test.
        best = evaluate_best(run, folder, interrupt)
        console.left_out(run, best.verdicts)
        if run.ranks.writes:
            console.result(run, folder, write_outcome(run, folder, best))
    return 0


def train_epochs(
    run: Run, folder: Path, record: Record, console: Console, interrupt: Interrupt
) -> None:
    """Train and evaluate until the schedule is over; a checkpoint follows each part of an epoch."""
    position, last = run.position, folder / "last.pt"
    while not is_over(run.options.schedule, position.history):
        if not position.trained:
            train_epoch(run, folder, console, interrupt)
            record.add("train", run.row(position.meter.over(run.ranks)))
            checkpoint.save(run, last)
        verdict = evaluate(run, interrupt)
        record.add("val", verdict.row())
        console.epoch(run, position.meter.over(run.ranks), verdict)
        figure = verdict.figure(run.options.run.best_by)
        if position.is_best(figure):
            checkpoint.save_best(run, folder / "best.pt", verdict)
        position.finish_epoch(figure)
        checkpoint.save(run, last)


def train_epoch(run: Run, folder: Path, console: Console, interrupt: Interrupt) -> None:
    """Train to the end of the epoch under way, and save on the way.

    Nothing in a step reads from the device (see `Readings` and `CudaClock`), so a GPU never waits
    for the host to look at a number.

    Raises:
        InterruptedRunError: If a signal came; the state is in last.pt.
        DivergedError: If a loss is NaN or infinite; last.pt is as it was.
    """
    loader, position, device = run.loaders.train, run.position, run.ranks.device
    run.begin_epoch()
    profiled = run.options.record.profile if position.epoch == 0 and run.ranks.writes else 0
    progress = run.progress(loader, f"epoch {position.epoch + 1}", done=position.batch)
    trace = traced(folder / "trace.json", profiled, device)
    with corrupt_share("--max-corrupt-fraction"), progress, trace as trace_step:
        readings = Readings(position, loader, run.ranks, every=run.read_every)
        clock = clock_for(device, position.meter)
        # A state saved after the last batch leaves none; the loader then stands at the next epoch.
        for images, labels in loader if position.batch < len(loader) else ():
            clock.begin()
            position.batch += 1
            ends_step = run.ends_step(position.batch)
            logits, total = train_step(run, images, labels, ends_step=ends_step)
            truth = labels if labels.ndim == 1 else labels.argmax(1)
            readings.add(total, (logits.argmax(1) == truth).sum())
            clock.end()
            progress.add(note=position.meter.note)
            if position.step == 0 and position.batch == 1:
                parts = (run.loaders, run.network)
                console.warn(check_first_batch(*parts, images, truth, logits))
            if ends_step:
                position.step += 1
                trace_step()
                save_when_due(run, folder / "last.pt", readings, interrupt)
        readings.read()
        clock.finish()
    position.trained = True
    if profiled:
        console.profile(loader.stats())


def train_step(
    run: Run, images: Tensor, labels: Tensor, *, ends_step: bool
) -> tuple[Tensor, Total]:
    """Forward, loss and backward of one batch; the optimizer steps if the batch `ends_step`.

    Returns:
        The logits, detached, and the loss.
    """
    stage = run.stage
    with run.stepper.accumulating(stage.wrapped, last=ends_step):
        with autocast(run.ranks.device, run.precision):
            logits = stage.forward(images)
        total = run.balance.loss(logits, labels)
        run.stepper.backward(total)
    if ends_step:
        run.stepper.step(run.rate())
    return logits.detach(), total


def save_when_due(run: Run, last: Path, readings: Readings, interrupt: Interrupt) -> None:
    """After a step: save every `--save-every` steps, and before the run stops for a signal."""
    every = run.options.run.save_every
    stop = run.ranks.any(interrupt.came)
    if stop or (every and run.position.step % every == 0):
        readings.read()
        checkpoint.save(run, last)
    if stop:
        raise interrupt.error()


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    name = command_line().name
    try:
        return run_command(name, lambda: train(parse(argv)))
    except InterruptedRunError as stopped:
        say(f"{name}: {stopped}; continue with --resume", error=True)
        return stopped.status


if __name__ == "__main__":
    raise SystemExit(main())
