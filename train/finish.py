"""After the last epoch: the best weights on val and test, and all that is written of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastload.errors import ShardError
from train.checkpoint import read_checkpoint
from train.data import Loaders
from train.interrupt import Interrupt
from train.loop import Scores
from train.metrics import Evaluation, confused_pairs, correct_prior, evaluate_logits
from train.options import Options
from train.recipe import to_toml
from train.record import read_log, write_classes, write_result, write_text
from train.report import Confusion, Report, Thumbnails
from train.session import Session

_PAIRS_SHOWN = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a model scored on one split, as trained and with the prior corrected."""

    plain: Evaluation
    corrected: Evaluation
    seconds: float

    @property
    def figures(self) -> dict[str, float]:
        """All figures; the corrected ones under `corrected_`."""
        corrected = {f"corrected_{name}": value for name, value in self.corrected.figures.items()}
        return {**self.plain.figures, **corrected}

    def row(self) -> dict[str, float | int]:
        """What log.csv says of an evaluation."""
        images = int(self.plain.class_counts.sum())
        return {**self.figures, "images": images, "seconds": self.seconds}

    def figure(self, name: str) -> float:
        """A figure to choose by: higher is better, and NaN is worst."""
        value = self.figures[name]
        if math.isnan(value):
            return -math.inf
        return -value if name == "loss" else value


def judge(
    scores: Scores, train_counts: Tensor, log_prior: Tensor, *, chosen_on: Verdict | None = None
) -> Verdict:
    """All figures of one split.

    Args:
        scores: Each sample of the split once.
        train_counts: int64 [C].
        log_prior: float [C], of `losses.balance`.
        chosen_on: The verdict on the validation split, whose thresholds are used again; None if
            this is the validation split.
    """
    corrected = correct_prior(scores.logits, log_prior)
    return Verdict(
        plain=evaluate_logits(
            scores.logits,
            scores.labels,
            train_counts=train_counts,
            thresholds=chosen_on.plain.thresholds if chosen_on else None,
        ),
        corrected=evaluate_logits(
            corrected,
            scores.labels,
            train_counts=train_counts,
            thresholds=chosen_on.corrected.thresholds if chosen_on else None,
        ),
        seconds=scores.seconds,
    )


def finish(session: Session, folder: Path, interrupt: Interrupt) -> dict[str, Any]:
    """Evaluate the best epoch, and write classes.csv, result.json and report.html.

    Args:
        session: Of the run; its evaluated model takes the best weights.
        folder: Of the run.
        interrupt: Asked between batches.

    Returns:
        What result.json holds.

    Raises:
        InterruptedRunError: If a signal came; `--resume` does this again.
    """
    loaders, options = session.loaders, session.options
    best = read_checkpoint(folder / "best.pt")
    session.training.stepper.evaluated().load_state_dict(best["model"])
    counts, log_prior = torch.from_numpy(loaders.train_counts), session.balance.log_prior
    scores = session.answer(loaders.val, interrupt)
    verdicts = {"val": judge(scores, counts, log_prior)}
    if loaders.test is not None:
        answers = session.answer(loaders.test, interrupt)
        verdicts["test"] = judge(answers, counts, log_prior, chosen_on=verdicts["val"])
    if not session.ranks.writes:
        return {}
    log = read_log(folder / "log.csv")
    result = {
        "name": folder.name,
        "model": options.model.model,
        "epochs": session.progress.epoch,
        "best_epoch": best["epoch"] + 1,
        "best_by": options.run.best_by,
        "classes": len(loaders.classes),
        "train_images": int(counts.sum()),
        "backend": loaders.train.backend,
        "device": str(session.ranks.device),
        "processes": session.ranks.world.size,
        **_speed(log),
        **{split: verdict.figures for split, verdict in verdicts.items()},
        "thresholds": verdicts["val"].plain.thresholds,
    }
    names = zip(loaders.classes, loaders.class_names, counts.tolist(), strict=True)
    write_classes(folder / "classes.csv", list(names), {s: v.plain for s, v in verdicts.items()})
    write_result(folder / "result.json", result)
    if options.record.report:
        report = _report(folder, options, loaders, verdicts, scores, log, best["epoch"] + 1)
        write_text(folder / "report.html", report.html())
    return result


def _speed(log: Sequence[Mapping[str, str]]) -> dict[str, float]:
    """Over all epochs: images per second in training, share of waiting, seconds of each part."""
    rows = {split: [row for row in log if row["split"] == split] for split in ("train", "val")}
    images = sum(float(row["images"]) for row in rows["train"])
    seconds = sum(float(row["seconds"]) for row in rows["train"])
    computing = sum(float(row["compute_seconds"]) for row in rows["train"])
    return {
        "images_per_second": images / seconds,
        "waiting_share": 1 - computing / seconds,
        "training_seconds": seconds,
        "evaluation_seconds": sum(float(row["seconds"]) for row in rows["val"]),
    }


def _report(
    folder: Path,
    options: Options,
    loaders: Loaders,
    verdicts: Mapping[str, Verdict],
    scores: Scores,
    log: Sequence[Mapping[str, str]],
    best_epoch: int,
) -> Report:
    facts = {
        f"{split}: {name}": f"{verdict.figures[key]:.1%}"
        for split, verdict in verdicts.items()
        for name, key in (
            ("top-1", "top1"),
            ("macro-average top-1", "macro_top1"),
            ("macro-average top-1, prior corrected", "corrected_macro_top1"),
        )
    }
    speed = _speed(log)
    facts["best epoch"] = f"{best_epoch} of {len(log) // 2}, by {options.run.best_by} on val"
    facts["training"] = f"{speed['images_per_second']:.0f} images/s on {loaders.train.device}"
    facts["waiting for data"] = f"{speed['waiting_share']:.1%}, back-end {loaders.train.backend}"
    return Report(
        title=folder.name,
        facts={"model": options.model.model, **facts},
        log=log,
        class_names=loaders.class_names,
        train_counts=loaders.train_counts.tolist(),
        accuracies=verdicts["val"].plain.class_top1.tolist(),
        confusions=_confusions(options, loaders, scores),
        options=to_toml(options),
    )


def _confusions(options: Options, loaders: Loaders, scores: Scores) -> list[Confusion]:
    answers = scores.logits.argmax(1)
    thumbnails = _thumbnails(Path(options.data.val_data or options.data.data))

    def picture(where: Tensor) -> bytes | None:
        rows = scores.rows[where]
        return thumbnails[int(rows[0])] if thumbnails is not None and len(rows) else None

    return [
        Confusion(
            truth=loaders.class_names[truth],
            answer=loaders.class_names[answer],
            count=count,
            of=int((scores.labels == truth).sum()),
            mistaken=picture((scores.labels == truth) & (answers == answer)),
            typical=picture(scores.labels == answer),
        )
        for truth, answer, count in confused_pairs(answers, scores.labels, most=_PAIRS_SHOWN)
    ]


def _thumbnails(directory: Path) -> Thumbnails | None:
    try:
        return Thumbnails(directory, "val")
    except ShardError:  # a report without pictures is better than a run without a report
        return None
