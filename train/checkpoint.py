"""The two checkpoints of a run: last.pt continues the run, best.pt is the model to use."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastload.console.shell import shell_word
from fastload.errors import first_line
from train.assembly import Run
from train.evaluation import Verdict
from train.meter import Meter, resumed_meter
from train.options import AugmentOptions, Options, fields
from train.position import Position
from train.readings import DivergedError
from train.recipe import to_toml
from train.tensorfile import CheckpointError, read_tensors, write_tensors

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def save(run: Run, path: Path) -> None:
    """Write last.pt. Every rank must call this; one rank writes.

    Raises:
        OutputError: If the file cannot be written; the former checkpoint is intact.
        DivergedError: If a weight is NaN or infinite on any rank; the former checkpoint is intact.
    """
    # One exchange of both, and no rank leaves before it: no other rank waits for ever.
    own = _random_state(run.ranks.device), run.position.meter, all_finite(run.network.model)
    parts = run.ranks.gathered(own)
    if not all(finite for _, _, finite in parts):
        raise DivergedError(
            f"the weights became NaN or infinite at step {run.position.step}; lower --lr, or "
            f"set --clip 1 (they are not saved: {path} is as it was)"
        )
    if not run.ranks.writes:
        return
    write_tensors(
        path,
        {
            "options": to_toml(run.options),
            "classes": list(run.loaders.classes),
            "model": run.network.model.state_dict(),
            "batching": _batching(run),
            "best_by": run.options.run.best_by,
            "loader": run.loaders.train.state_dict(),
            "val": run.loaders.val.state_dict()["data"],
            "normalise": _normalise(run),
            "progress": run.position.state_dict(),
            "random": [random for random, _, _ in parts],
            "meters": [asdict(meter) for _, meter, _ in parts],
            **run.stepper.state_dict(),
        },
    )


def restore(run: Run, path: Path) -> None:
    """Continue from last.pt.

    Raises:
        CheckpointError: If the file or the best.pt beside it cannot be read, or is of another
            model, other classes, batches or validation images.
        StateMismatchError: If the loader's data, seed or sampling are others.
    """
    content = read_tensors(path)
    try:
        _check(run, path, content)
        run.network.model.load_state_dict(content["model"])
        run.stepper.load_state_dict(content)
        position = Position.from_state_dict(content["progress"])
        run.loaders.train.load_state_dict(content["loader"])
        random = content["random"]
        if "meters" in content:
            meters = [Meter(**meter) for meter in content["meters"]]
            position.meter = resumed_meter(meters, run.ranks.world)
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = first_line(error)
        raise CheckpointError(
            f"{path}: is of another model or optimizer than the options say ({reason})"
        ) from error
    if position.history:
        _check_best(run, path.with_name("best.pt"), path)
    run.position.move_to(position)
    if len(random) == run.ranks.world.size:
        _set_random_state(random[run.ranks.world.rank], run.ranks.device)


def save_best(run: Run, path: Path, verdict: Verdict) -> None:
    """Write best.pt: what it takes to use the model, or to start from it with `--init`.

    Args:
        run: The run; its evaluated model is written.
        path: The file. An older best.pt is replaced only once the new one is safe on the disk.
        verdict: The verdict on the validation split.

    Raises:
        OutputError: If the file cannot be written; the older one is intact.
    """
    if not run.ranks.writes:
        return
    resolution = run.options.resolution
    write_tensors(
        path,
        {
            "model": run.stepper.evaluated().state_dict(),
            "name": run.options.model.model,
            "options": to_toml(run.options),
            "classes": list(run.loaders.classes),
            "class_names": list(run.loaders.class_names),
            "train_counts": run.loaders.train_counts.tolist(),
            "epoch": run.position.epoch,
            "figures": verdict.plain.figures,
            "thresholds": verdict.plain.thresholds,
            "corrected_thresholds": verdict.corrected.thresholds,
            "temperature": verdict.temperature,
            "normalise": _normalise(run),
            "size": resolution.eval_size or resolution.size,
        },
    )


def all_finite(model: nn.Module) -> bool:
    """Whether no parameter is NaN or infinite."""
    return bool(torch.stack([item.isfinite().all() for item in model.parameters()]).all())


def _batching(run: Run) -> list[int]:
    """What steps are counted in: images of a batch over all ranks, and batches of a step."""
    data, optimisation = run.options.data, run.options.optimisation
    return [data.batch_size * run.ranks.world.size, optimisation.accumulate]


def _check(run: Run, path: Path, content: dict[str, Any]) -> None:
    classes, best_by = list(run.loaders.classes), run.options.run.best_by
    if content["classes"] != classes:
        raise CheckpointError(
            f"{path}: was trained on other classes ({len(content['classes']):,}) than "
            f"those of this data ({len(classes):,}); give the --data it was trained on"
        )
    if content["best_by"] != best_by:
        raise CheckpointError(
            f"{path}: has its best epoch by {content['best_by']}, now it would be by "
            f"{best_by}; give the same --best-by"
        )
    if content["batching"] != _batching(run):
        (batch, accumulate), (here, accumulate_here) = content["batching"], _batching(run)
        raise CheckpointError(
            f"{path}: its steps are of {batch} x {accumulate} images (--batch-size times "
            f"processes x --accumulate), now they would be of {here} x {accumulate_here}; "
            "give the same"
        )
    here = run.loaders.val.state_dict()["data"]
    if content.get("val", here) != here:
        raise CheckpointError(
            f"{path}: its epochs were judged on other validation images; give the --data and "
            "--val-data that it had"
        )
    _check_normalisation(run, path, content)
    _check_options(run, path, content)


def _normalise(run: Run) -> list[list[float]]:
    return [list(values) for values in run.loaders.train.augment.normalise]


def _check_normalisation(run: Run, path: Path, content: dict[str, Any]) -> None:
    """Refuse other pixels: the file of --init, which said how they are normalised, may be gone."""
    before, now = (
        "/".join(",".join(f"{value:.6g}" for value in values) for values in found)
        for found in (content.get("normalise", _normalise(run)), _normalise(run))
    )
    if before != now:
        raise CheckpointError(
            f"{path}: was trained on images normalised with {before} (mean/std), now they would "
            f"be with {now}; give --normalise {before}"
        )


def _kept_options(options: Options) -> dict[str, Sequence[str]]:
    """Options by table that a resume cannot change: bits, or the best epoch, would be others."""
    corrected = options.run.best_by.startswith("corrected_")  # by what the loss makes of the prior
    return {
        "run": ("seed",),
        "data": ("reweight",),
        "augment": tuple(fields(AugmentOptions)),
        "model": ("model", "init", "tune"),
        "optimisation": ("optimizer",),
        "loss": ("loss", "class_weights", "tau") if corrected else (),
    }


def _check_options(run: Run, path: Path, content: dict[str, Any]) -> None:
    """Refuse what a resume cannot change, and what would be ignored."""
    saved, options = tomllib.loads(content["options"]), run.options
    here = tomllib.loads(to_toml(options))
    for table, keys in _kept_options(options).items():
        for key in keys:
            before, now = saved[table].get(key), here[table][key]
            if key in saved[table] and before != now:
                flag = f"--{key.replace('_', '-')}"
                raise CheckpointError(f"{path}: was trained with {flag} {before}; give the same")
    before, now = (
        tables["resolution"]["eval_size"] or tables["resolution"]["size"]
        for tables in (saved, here)
    )
    if before != now:
        raise CheckpointError(
            f"{path}: its epochs were judged at {before} pixels, now they would be at {now}; give "
            f"--eval-size {before}"
        )
    if (content["average"] is None) != (run.stepper.average is None):
        has = "no moving average" if content["average"] is None else "a moving average"
        raise CheckpointError(f"{path}: has {has}; give --ema as it was")


def _check_best(run: Run, best: Path, last: Path) -> None:
    """Find out now, and not after the last epoch, that the best epoch so far is lost."""
    remedy = (
        "put back a copy of the best epoch so far, or begin a new run from the latest weights: "
        f"--init {shell_word(last)}"
    )
    if not best.exists():
        raise CheckpointError(f"{best}: is missing; {remedy}")
    content, own = read_tensors(best), run.stepper.evaluated().state_dict()
    tensors = content.get("model", {})
    fits = own.keys() == tensors.keys() and all(own[key].shape == tensors[key].shape for key in own)
    if not fits or content.get("classes") != list(run.loaders.classes) or "epoch" not in content:
        raise CheckpointError(f"{best}: is no best.pt of this run; {remedy}")
    _check_normalisation(run, best, content)


def _random_state(device: torch.device) -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _set_random_state(states: dict[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
