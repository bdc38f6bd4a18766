"""Train an image classifier from shards: `python train/run.py --loader dali`.

    shards -> Loader -> model -> loss -> step      every batch
           -> evaluation -> log, checkpoints       every epoch
           -> best weights on val and test         at the end

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

if __name__ == "__main__":
    # Between two operations torch's threads wait for each other by spinning, for up to 20 ms: on
    # two cores, one of them taken by another process, that made 9 images/s of 67. Threads that
    # sleep lose some 10 % where all cores are theirs (docs/training.md has the figures). OpenMP
    # reads this when torch loads it, so it stands before the imports; what the user has set stays.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from fastload.console.command import run_command
from train import begin, epoch, say
from train.command import Command, parse
from train.finish import finish
from train.interrupt import Interrupt, InterruptedRunError
from train.record import Records
from train.schedule import is_over
from train.session import prepare
from train.state import save_best


def train(command: Command) -> int:
    """Do what the command line asks for; returns the exit status."""
    options = command.options
    with ExitStack() as stack:
        # What is learned from, what learns, and how.
        session = prepare(options, stack)
        if command.check:
            say.setup(session)
            found = begin.overfit_one_batch(session.loaders, session.network)
            return say.overfit(session, found)

        # A new run, or one that goes on where it stopped.
        folder = begin.open_folder(command, session.ranks)
        last, progress = folder / "last.pt", session.progress
        if command.resume:
            session.state.restore(last)
        say.setup(session, last if command.resume else None)
        records = stack.enter_context(
            Records(folder, options, progress, writes=session.ranks.writes)
        )
        interrupt = stack.enter_context(Interrupt())

        while not is_over(options.schedule, progress.history):
            if not progress.trained:
                records.add("train", epoch.train(session, interrupt, last))
                session.state.save(last)
            verdict = epoch.evaluate(session, interrupt)
            records.add("val", verdict.row())
            say.epoch(session, verdict.row())
            figure = verdict.figure(options.run.best_by)
            if progress.is_best(figure):
                normalise = session.loaders.train.augment.normalise
                save_best(folder / "best.pt", session.state, verdict.plain, normalise)
            progress.finish_epoch(figure)
            session.state.save(last)

        # The best epoch, on val and on test.
        say.result(session, folder, finish(session, folder, interrupt))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    try:
        return run_command("train/run.py", lambda: train(parse(argv)))
    except InterruptedRunError as stopped:
        print(f"train/run.py: {stopped}; continue with --resume", file=sys.stderr)
        return stopped.status


if __name__ == "__main__":
    raise SystemExit(main())
