"""What a run tells the person who started it; nothing on other ranks than the first."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from fastload.load.stats import ENOUGH
from train.checks import Overfit
from train.schedule import REFERENCE_BATCH, is_over
from train.session import Session


def setup(session: Session, resumed: Path | None = None) -> None:
    """What is read and trained, on what, and how fast it learns.

    Args:
        session: Of the run.
        resumed: The checkpoint that was restored; None for a new run.
    """
    if not session.ranks.writes:
        return
    options, loaders, ranks = session.options, session.loaders, session.ranks
    precision = str(session.precision or "float32").removeprefix("torch.")
    print(
        f"data:     {int(loaders.train_counts.sum()):,} training images of "
        f"{len(loaders.classes):,} classes in {options.data.data}"
        + ("" if options.data.reweight == "none" else f", reweighted: {options.data.reweight}")
    )
    print(f"loader:   {loaders.train.backend_reason}")
    origin = f"weights from {resumed}" if resumed else session.network.origin
    trained = f"{session.network.num_trained / 1e6:.1f} million parameters are trained"
    print(f"model:    {options.model.model}, {origin}; {trained}")
    print(f"device:   {ranks.device}, {precision}, {ranks.world.size} process(es)")
    print(
        f"learning: {options.optimisation.optimizer}, rate {session.peak_rate:.4g} for "
        f"{session.effective_batch} images a step (--lr is for {REFERENCE_BATCH}), "
        f"{options.schedule.schedule} over {options.schedule.epochs} epochs",
        flush=True,
    )
    if resumed:
        print(f"resumed:  {_position(session)}", flush=True)
    warnings(session, session.warnings)


def _position(session: Session) -> str:
    """Where a resumed run goes on."""
    progress, schedule = session.progress, session.options.schedule
    steps = f"step {progress.step}"
    if is_over(schedule, progress.history):
        return f"after {steps}; all {progress.epoch} epochs are done, their best is evaluated"
    epoch = f"epoch {progress.epoch + 1} of {schedule.epochs}"
    if progress.trained:
        return f"after {steps}, with the evaluation of {epoch}"
    return (
        f"after {steps}, in {epoch} with batch {progress.batch + 1} of {len(session.loaders.train)}"
    )


def warnings(session: Session, sentences: Iterable[str]) -> None:
    """What is likely to be wrong, on standard error."""
    for sentence in sentences if session.ranks.writes else ():
        print(f"warning: {sentence}", file=sys.stderr, flush=True)


def epoch(session: Session, val: Mapping[str, Any]) -> None:
    """One line for each epoch: what was learned, and where the time went."""
    progress, epochs = session.progress, session.options.schedule.epochs
    train = progress.meter.over(session.ranks)
    if not session.ranks.writes:
        return
    print(
        f"epoch {progress.epoch + 1}/{epochs}: loss {train.mean_loss:.3f}, "
        f"val top-1 {percent(val['top1'])}, macro {percent(val['macro_top1'])} "
        f"(prior corrected {percent(val['corrected_macro_top1'])}), "
        f"top-5 {percent(val.get('top5', math.nan))} | {train.images_per_second:.0f} img/s, "
        f"{percent(train.waiting_share)} waiting for data, {train.compute_seconds:.1f} s "
        f"computing, {val['seconds']:.1f} s evaluation{_memory(session)}",
        flush=True,
    )
    stats = session.loaders.train.stats()
    if stats.waiting_fraction > ENOUGH:
        print(f"  waits for {stats.bottleneck}", flush=True)


def profile(session: Session) -> None:
    """Where the time of the epoch went, stage by stage."""
    if session.ranks.writes:
        print(f"\n{session.loaders.train.stats()}\n", flush=True)


def _memory(session: Session) -> str:
    if session.ranks.device.type != "cuda":
        return ""
    peak = torch.cuda.max_memory_allocated(session.ranks.device) / 2**20
    return f", {peak:,.0f} MB of GPU memory at most"


def result(session: Session, folder: Path, found: Mapping[str, Any]) -> None:
    """The figures of the best epoch, and where everything is."""
    if not session.ranks.writes:
        return
    print(f"\nbest epoch {found['best_epoch']} of {found['epochs']}, by {found['best_by']}")
    print(f"{'':6}{'top-1':>9}{'macro':>9}{'corrected':>11}{'top-5':>9}{'macro':>9}")
    for split in ("val", "test"):
        if split in found:
            names = ("top1", "macro_top1", "corrected_macro_top1", "top5", "macro_top5")
            cells = [percent(found[split].get(name, math.nan)) for name in names]
            print("{:6}{:>9}{:>9}{:>11}{:>9}{:>9}".format(split, *cells))
    print(
        f"{found['images_per_second']:.0f} img/s in training, "
        f"{found['waiting_share']:.1%} of it waiting for data"
    )
    print(f"in {folder}: best.pt, log.csv, classes.csv, result.json, report.html", flush=True)


def overfit(session: Session, found: Overfit) -> int:
    """The verdict of --check; returns the exit status."""
    if session.ranks.writes:
        print(
            f"one batch, {found.steps} steps: loss {found.first_loss:.3f} -> "
            f"{found.last_loss:.3f}, {found.accuracy:.0%} of it right"
        )
        print(_PASSED if found.learns else _FAILED, flush=True)
    return 0 if found.learns else 1


_PASSED = (
    "check passed: model, loss and optimizer learn, so a low accuracy comes from data or schedule"
)
_FAILED = (
    "check failed: one batch is not learned by heart; look at its labels and pixels, and at what "
    "--tune has frozen"
)


def percent(share: float) -> str:
    """A share in [0, 1] as a percentage; a dash where there is none."""
    return "-" if math.isnan(share) else f"{share:.1%}"
