"""What a run tells the person who started it.

The functions here get values and print them. They exchange nothing with other ranks, so it cannot
stop a job that one rank prints and the others do not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastload import Stats
from fastload.console.terminal import counted, say
from train.assembly import Run
from train.checks import Overfit
from train.evaluation import Verdict
from train.meter import Meter
from train.schedule import REFERENCE_BATCH, is_over

_PASSED = (
    "check passed: model, loss and optimizer learn, so a low accuracy comes from data or schedule"
)
_FAILED = (
    "check failed: one batch is not learned by heart; look at its labels and pixels, and at what "
    "--tune has frozen"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Console:
    """Prints on one rank; the others are silent.

    Attributes:
        writes: True on the rank that prints.
    """

    writes: bool

    def setup(self, run: Run, resumed: Path | None = None) -> None:
        """What is read and trained, on what, and how fast it learns.

        Args:
            run: The run.
            resumed: The checkpoint that was restored; None for a new run.
        """
        options, loaders, ranks = run.options, run.loaders, run.ranks
        reweight, alone = options.data.reweight, options.schedule.head_epochs
        origin = f"weights from {resumed}" if resumed else run.network.origin
        precision = str(run.precision or "float32").removeprefix("torch.")
        self._say(
            f"data:     {counted(int(loaders.train_counts.sum()), 'training image')} of "
            f"{counted(len(loaders.classes), 'class')} in {options.data.data}"
            + ("" if reweight == "none" else f", reweighted: {reweight}")
        )
        self._say(f"loader:   {loaders.train.backend_reason}")
        self._say(
            f"model:    {options.model.model}, {origin}; "
            f"{run.network.num_trained / 1e6:.1f} million parameters are trained"
        )
        self._say(f"device:   {ranks.device}, {precision}, {counted(ranks.world.size, 'process')}")
        self._say(
            f"learning: {options.optimisation.optimizer}, rate {run.peak_rate:.4g} for "
            f"{counted(run.effective_batch, 'image')} a step (--lr is for {REFERENCE_BATCH}), "
            f"{options.schedule.schedule} over {counted(options.schedule.epochs, 'epoch')}"
            + (f", the last layer alone for {counted(alone, 'epoch')}" if alone else "")
        )
        if resumed:
            self._say(f"resumed:  {_where(run)}")
        self.warn(run.warnings)

    def warn(self, sentences: Iterable[str]) -> None:
        """What is likely to be wrong, on standard error."""
        for sentence in sentences if self.writes else ():
            say(f"warning: {sentence}", error=True)

    def epoch(self, run: Run, meter: Meter, verdict: Verdict) -> None:
        """One line for the epoch under way: what was learned, and where the time went.

        Args:
            run: The run.
            meter: The meter of all ranks.
            verdict: The verdict on the validation split.
        """
        val, megabytes = verdict.figures, run.ranks.peak_gpu_megabytes()
        memory = "" if megabytes is None else f", {megabytes:,.0f} MB of GPU memory at most"
        self._say(
            f"epoch {run.position.epoch + 1}/{run.options.schedule.epochs}: "
            f"loss {meter.mean_loss:.3f}, "
            f"val top-1 {percent(val['top1'])}, macro {percent(val['macro_top1'])} "
            f"(prior corrected {percent(val['corrected_macro_top1'])}), "
            f"top-5 {percent(val.get('top5', math.nan))} | {meter.images_per_second:,.0f} img/s, "
            f"{percent(meter.waiting_share)} waiting for data, {meter.compute_seconds:.1f} s "
            f"computing, {verdict.seconds:.1f} s evaluation{memory}"
        )
        self.left_out(run, {"val": verdict})
        stats = run.loaders.train.stats()
        if stats.held_up:
            self._say(f"  limited by {stats.bottleneck}")

    def left_out(self, run: Run, verdicts: Mapping[str, Verdict]) -> None:
        """Say where figures are not of all images of a split."""
        for split, verdict in verdicts.items():
            loader = run.loaders.val if split == "val" else run.loaders.test
            total = int(loader.class_counts.sum()) if loader else 0
            if missing := total - verdict.images:
                found = f"{missing} of {total} {split} images cannot be read"
                self.warn([f"{found}: the figures are of {verdict.images}"])

    def profile(self, stats: Stats) -> None:
        """Where the time of the epoch went, stage by stage."""
        self._say(f"\n{stats}\n")

    def result(self, run: Run, folder: Path, result: Mapping[str, Any]) -> None:
        """The figures of the best epoch, and where everything is."""
        self._say(
            f"\nbest epoch {result['best_epoch']} of {result['epochs']}, by {result['best_by']}"
        )
        self._say(f"{'':6}{'top-1':>9}{'macro':>9}{'corrected':>11}{'top-5':>9}{'macro':>9}")
        for split in ("val", "test"):
            if split in result:
                names = ("top1", "macro_top1", "corrected_macro_top1", "top5", "macro_top5")
                cells = [percent(result[split].get(name, math.nan)) for name in names]
                self._say("{:6}{:>9}{:>9}{:>11}{:>9}{:>9}".format(split, *cells))
        self._say(
            f"{result['images_per_second']:,.0f} img/s in training, "
            f"{result['waiting_share']:.1%} of it waiting for data"
        )
        self._audit(run, result.get("audit"))
        more = ["audit.csv"] * ("audit" in result) + ["report.html"] * run.options.record.report
        written = [name for name in more if (folder / name).is_file()]  # or warned of
        files = ["best.pt", "log.csv", "classes.csv", "result.json", *written]
        self._say(f"in {folder}: {', '.join(files)}")

    def _audit(self, run: Run, found: Mapping[str, int] | None) -> None:
        """How many training images may be mislabelled, and of how many."""
        if found is None:
            return
        total = int(run.loaders.train_counts.sum())
        part = found["images"] < min(total, run.options.record.audit)
        more = f"; --audit {total} looks at all" if run.options.record.audit < total else ""
        unread = ", as the others cannot be read" if part else ""
        self._say(
            f"{found['images']:,} of {counted(total, 'training image')} were looked at again"
            f"{unread}: {found['doubtful']:,} may be mislabelled{more}"
        )

    def overfit(self, found: Overfit) -> None:
        """The verdict of --check."""
        self._say(
            f"one batch, {counted(found.steps, 'step')}: loss {found.first_loss:.3f} -> "
            f"{found.last_loss:.3f}, {found.accuracy:.0%} of it right\n"
            f"{_PASSED if found.learns else _FAILED}"
        )

    def _say(self, text: str) -> None:
        if self.writes:
            say(*text.split("\n"))


def _where(run: Run) -> str:
    """Where a resumed run goes on."""
    position, schedule = run.position, run.options.schedule
    steps = f"step {position.step}"
    if is_over(schedule, position.history):
        return f"after {steps}; all {position.epoch} epochs are done, their best is evaluated"
    epoch = f"epoch {position.epoch + 1} of {schedule.epochs}"
    if position.batch == len(run.loaders.train):
        return f"after {steps}, with the evaluation of {epoch}"
    return f"after {steps}, in {epoch} with batch {position.batch + 1} of {len(run.loaders.train)}"


def percent(share: float) -> str:
    """A share in [0, 1] as a percentage; a dash where there is none."""
    return "-" if math.isnan(share) else f"{share:.1%}"
