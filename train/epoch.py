"""One epoch of a session: training with its checkpoints, then evaluation."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from train import begin, say
from train.finish import Verdict, judge
from train.interrupt import Interrupt, InterruptedRunError
from train.loop import train_epoch
from train.meter import DivergedError
from train.record import Row, traced
from train.schedule import size_at
from train.session import Session

_TRACE = "trace.json"


def train(session: Session, interrupt: Interrupt, last: Path) -> Row:
    """Train to the end of the epoch under way, and save on the way.

    Args:
        session: Of the run.
        interrupt: Asked after each step.
        last: Where checkpoints go.

    Returns:
        The row for log.csv.

    Raises:
        InterruptedRunError: If a signal came; the state is in `last`.
        DivergedError: If the loss is no number; `last` is as it was.
    """
    options, progress, ranks = session.options, session.progress, session.ranks
    loader = session.loaders.train
    if progress.batch == 0:
        loader.set_epoch(progress.epoch)
    size = size_at(options.resolution, epoch=progress.epoch, epochs=options.schedule.epochs)
    loader.set_size(size)
    loader.reset_stats()
    if ranks.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(ranks.device)
    profiled = options.record.profile if progress.epoch == 0 and ranks.writes else 0

    bar = session.bar(loader, f"epoch {progress.epoch + 1}", done=progress.batch)
    with bar, traced(last.with_name(_TRACE), profiled, ranks.device) as trace_step:

        def after_batch(images: Tensor, labels: Tensor, logits: Tensor) -> None:
            if progress.step == 0 and progress.batch == 1:
                parts = (session.loaders, session.network)
                say.warnings(session, begin.check_first_batch(*parts, images, labels, logits))

        def after_step(read: Callable[[], None]) -> None:
            trace_step()
            every = options.run.save_every
            stop = ranks.any(bool(interrupt.number))
            if stop or (every and progress.step % every == 0):
                read()
                session.state.save(last)
            if stop:
                raise InterruptedRunError(interrupt.number or signal.SIGTERM)

        train_epoch(
            session.training,
            progress,
            rate=session.rate,
            after_batch=after_batch,
            after_step=after_step,
            bar=bar,
        )
    progress.trained = True
    if profiled:
        say.profile(session)
    group = session.training.stepper.optimizer.param_groups[0]
    row: dict[str, float | int] = {
        **progress.meter.over(ranks).row(),
        "learning_rate": group["lr"] / group["rate_scale"],
        "size": size,
    }
    if ranks.device.type == "cuda":
        row["peak_gpu_megabytes"] = round(torch.cuda.max_memory_allocated(ranks.device) / 2**20)
    return row


def evaluate(session: Session, interrupt: Interrupt) -> Verdict:
    """Judge the model, or its moving average, on the validation split.

    Raises:
        InterruptedRunError: If a signal came; the epoch's training was saved before.
        DivergedError: If an answer is NaN or infinite.
    """
    scores = session.answer(session.loaders.val, interrupt)
    counts = torch.from_numpy(session.loaders.train_counts)
    if not bool(torch.isfinite(scores.logits).all()):
        raise DivergedError(
            f"the model answers with NaN or infinity after epoch {session.progress.epoch + 1}; "
            "lower --lr, or set --clip 1"
        )
    return judge(scores, counts, session.balance.log_prior)
