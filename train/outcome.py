"""The outcome of a run: its best epoch on val and test, and the files with the figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastload.console.terminal import say
from fastload.errors import first_line
from train.assembly import Run
from train.audit import Audit, find_doubtful, find_hard, look_again, write_audit
from train.calibration import Calibration, calibration_of
from train.class_sizes import ClassTable
from train.confusion import find_confusions
from train.console import percent
from train.evaluation import Scores, Verdict, judge, score
from train.interrupt import Interrupt
from train.log import read_log
from train.pictures import Pictures
from train.recipe import to_toml
from train.record import write_classes, write_result, write_text
from train.report import Doubts, Report
from train.tensorfile import read_tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class BestEpoch:
    """The best epoch of a run, evaluated.

    Attributes:
        number: The number of the epoch, from 1.
        verdicts: The verdict on val, and on test where the data has this split.
        scores: The answers on val.
        calibrations: How far the model's confidences are from the share of right answers, on each
            split: at its temperature, and at temperature 1.
        audit: What a second look at the training images has found; None where nobody looked.
    """

    number: int
    verdicts: Mapping[str, Verdict]
    scores: Scores
    calibrations: Mapping[str, tuple[Calibration, Calibration]]
    audit: Audit | None


def evaluate_best(run: Run, folder: Path, interrupt: Interrupt) -> BestEpoch:
    """Evaluate the best epoch on val and test, and audit train. Every rank must call this.

    Args:
        run: The run; its evaluated model takes the best weights.
        folder: The folder of the run.
        interrupt: Asked between batches.

    Raises:
        InterruptedRunError: If a signal came; `--resume` does this again.
    """
    content = read_tensors(folder / "best.pt")
    run.stepper.evaluated().load_state_dict(content["model"])
    temperature = content.get("temperature", 1.0)  # of the very same weights on val
    scores = score(run, run.loaders.val, interrupt, temperature=temperature)
    verdicts, calibrations = {"val": judge(run, scores)}, {"val": _calibrations(scores)}
    if run.loaders.test is not None:
        answers = score(run, run.loaders.test, interrupt, temperature=temperature, chooses=False)
        verdicts["test"] = judge(run, answers, chosen_on=verdicts["val"])
        calibrations["test"] = _calibrations(answers)
    return BestEpoch(
        number=content["epoch"] + 1,
        verdicts=verdicts,
        scores=scores,
        calibrations=calibrations,
        audit=look_again(run, interrupt, temperature=temperature),
    )


def _calibrations(scores: Scores) -> tuple[Calibration, Calibration]:
    raw = calibration_of(scores.raw_confidences, scores.answers == scores.labels)
    return scores.calibration(), raw


def write_outcome(run: Run, folder: Path, best: BestEpoch) -> dict[str, Any]:
    """Write classes.csv, result.json, audit.csv and report.html. One rank calls this.

    The figures are in the first two. Whatever breaks the others, which are to be looked at, is a
    warning: it must not make a failure of a run that is over.

    Returns:
        The content of result.json.
    """
    loaders, options, verdicts = run.loaders, run.options, best.verdicts
    log = read_log(folder / "log.csv")
    counts = loaders.train_counts.tolist()
    result = {
        "name": folder.name,
        "model": options.model.model,
        "epochs": run.position.epoch,
        "best_epoch": best.number,
        "best_by": options.run.best_by,
        "classes": len(loaders.classes),
        "train_images": sum(counts),
        "backend": loaders.train.backend,
        "device": str(run.ranks.device),
        "processes": run.ranks.world.size,
        **_speed(log),
        **{
            split: {
                "images": verdict.images,
                **verdict.figures,
                "calibration_error": best.calibrations[split][0].error,
                "raw_calibration_error": best.calibrations[split][1].error,
            }
            for split, verdict in verdicts.items()
        },
        "temperature": best.scores.temperature,
        "thresholds": verdicts["val"].plain.thresholds,
        **({} if best.audit is None else {"audit": best.audit.counts}),
    }
    names = zip(loaders.classes, loaders.class_names, counts, strict=True)
    write_classes(folder / "classes.csv", list(names), {s: v.plain for s, v in verdicts.items()})
    write_result(folder / "result.json", result)
    audit, images = best.audit, loaders.train.dataset
    _to_look_at(
        folder / "audit.csv",
        None if audit is None else lambda path: write_audit(path, audit, images),
    )
    _to_look_at(
        folder / "report.html",
        (lambda path: write_text(path, _report(run, folder, best, log).html()))
        if options.record.report
        else None,
    )
    return result


def _to_look_at(path: Path, write: Callable[[Path], None] | None) -> None:
    """Write a file, or none; one of an earlier end of the run would tell other figures."""
    try:
        path.unlink(missing_ok=True)
        if write is not None:
            write(path)
    except Exception as error:  # noqa: BLE001  a library's, or of a disk, at the end of a run
        say(
            f"warning: {path} could not be written, --resume tries again; the figures are in "
            f"result.json ({type(error).__name__}: {first_line(error)})",
            error=True,
        )


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


def _report(run: Run, folder: Path, best: BestEpoch, log: Sequence[Mapping[str, str]]) -> Report:
    loaders, options, speed = run.loaders, run.options, _speed(log)
    which = f"{best.number} of {len(log) // 2}, by {options.run.best_by} on val"
    figures = {
        f"{split}: {name}": percent(verdict.figures[key])
        for split, verdict in best.verdicts.items()
        for name, key in (
            ("macro-average top-1", "macro_top1"),
            ("macro-average top-1, prior corrected", "corrected_macro_top1"),
            ("top-1", "top1"),
        )
    }
    train = loaders.train
    return Report(
        title=folder.name,
        facts={
            **figures,
            "best epoch": which,
            "model": options.model.model,
            "training": f"{speed['images_per_second']:.0f} images/s on {train.device}",
            "waiting for data": f"{speed['waiting_share']:.1%}, back-end {train.backend}",
        },
        log=log,
        classes=ClassTable(
            names=loaders.class_names,
            train_counts=loaders.train_counts.tolist(),
            val_counts=best.verdicts["val"].plain.class_counts.tolist(),
            accuracies=best.verdicts["val"].plain.class_top1.tolist(),
        ),
        confusions=find_confusions(
            best.scores.rows.cpu(),
            best.scores.answers.cpu(),
            best.scores.labels.cpu(),
            Pictures(loaders.val.dataset, folder),
        ),
        calibration=best.calibrations["val"],
        temperature=best.scores.temperature,
        doubts=_doubts(best.audit, Pictures(loaders.train.dataset, folder)),
        options=to_toml(options),
    )


def _doubts(found: Audit | None, pictures: Pictures) -> Doubts | None:
    if found is None:
        return None
    return Doubts(
        images=found.images,
        total=found.total,
        doubtful=int(found.doubtful.sum()),
        hard=int((~found.doubtful).sum()),
        first_doubtful=find_doubtful(found, pictures),
        first_hard=find_hard(found, pictures),
    )
