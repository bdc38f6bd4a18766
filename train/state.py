"""All that makes a run go on as if it had not stopped: gathered into a checkpoint, and put back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastload import Loader
from fastload.errors import first_line
from train.checkpoint import CheckpointError, read_checkpoint, save_checkpoint
from train.loop import Progress
from train.meter import DivergedError
from train.metrics import Evaluation
from train.optimiser import Stepper
from train.options import Options
from train.ranks import Ranks
from train.recipe import to_toml


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The parts of a run that change.

    Attributes:
        options: What defines the run.
        classes: Names of the classes, by label.
        model: The bare model.
        stepper: Optimizer, scaler and moving average.
        loader: Of the training split.
        progress: How far the run is.
        ranks: The processes of the run.
    """

    options: Options
    classes: Sequence[str]
    model: nn.Module
    stepper: Stepper
    loader: Loader
    progress: Progress
    ranks: Ranks

    def save(self, path: Path) -> None:
        """Write last.pt; every rank calls this, one writes.

        Raises:
            OutputError: If it cannot be written; the former checkpoint is intact.
            DivergedError: If a weight is NaN or infinite; likewise.
        """
        if not all_finite(self.model):
            raise DivergedError(
                f"the weights became NaN or infinite at step {self.progress.step}; lower --lr, or "
                f"set --clip 1 (they are not saved: {path} is as it was)"
            )
        random = self.ranks.gathered(_random_state(self.ranks.device))
        if not self.ranks.writes:
            return
        save_checkpoint(
            path,
            {
                "options": to_toml(self.options),
                "classes": list(self.classes),
                "model": self.model.state_dict(),
                "batching": self._batching,
                "best_by": self.options.run.best_by,
                "loader": self.loader.state_dict(),
                "progress": asdict(self.progress),
                "random": random,
                **self.stepper.state_dict(),
            },
        )

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint.

        Raises:
            CheckpointError: If it cannot be read, or is of another model, other classes or batches.
            StateMismatchError: If the loader's data, seed or sampling are others.
        """
        content = read_checkpoint(path)
        try:
            self._check(path, content)
            self.model.load_state_dict(content["model"])
            self.stepper.load_state_dict(content)
            progress = Progress.from_dict(content["progress"])
            self.loader.load_state_dict(content["loader"])
            random = content["random"]
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = first_line(error)
            raise CheckpointError(
                f"{path}: is of another model or optimizer than the options say ({reason})"
            ) from error
        for name in Progress.__dataclass_fields__:
            setattr(self.progress, name, getattr(progress, name))
        if len(random) == self.ranks.world.size:
            _set_random_state(random[self.ranks.world.rank], self.ranks.device)

    @property
    def _batching(self) -> list[int]:
        """Images of a batch over all ranks, and batches of a step: what steps are counted in."""
        data, optimisation = self.options.data, self.options.optimisation
        return [data.batch_size * self.ranks.world.size, optimisation.accumulate]

    def _check(self, path: Path, content: dict[str, Any]) -> None:
        if content["classes"] != list(self.classes):
            raise CheckpointError(
                f"{path}: was trained on {len(content['classes'])} other classes than the "
                f"{len(self.classes)} of these shards; give the --data it was trained on"
            )
        if content["best_by"] != self.options.run.best_by:
            raise CheckpointError(
                f"{path}: has its best epoch by {content['best_by']}, now it would be by "
                f"{self.options.run.best_by}; give the same --best-by"
            )
        if content["batching"] != self._batching:
            (batch, accumulate), (here, accumulate_here) = content["batching"], self._batching
            raise CheckpointError(
                f"{path}: its steps are of {batch} x {accumulate} images (--batch-size times "
                f"processes x --accumulate), now they would be of {here} x {accumulate_here}; "
                "give the same"
            )


def all_finite(model: nn.Module) -> bool:
    """Whether no parameter is NaN or infinite."""
    return bool(torch.stack([item.isfinite().all() for item in model.parameters()]).all())


def _random_state(device: torch.device) -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _set_random_state(states: dict[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


def save_best(
    path: Path, state: State, evaluation: Evaluation, normalise: Sequence[Sequence[float]]
) -> None:
    """Write best.pt: what it takes to use the model, or to start from it with `--init`.

    Args:
        path: Of the file; the older best is replaced only once the new one is safe on disk.
        state: Whose model, or moving average, is written.
        evaluation: What it scored on the validation split.
        normalise: (mean, std) that its images must have, on the scale [0, 1].

    Raises:
        OutputError: If it cannot be written; the older best is intact.
    """
    if not state.ranks.writes:
        return
    save_checkpoint(
        path,
        {
            "model": state.stepper.evaluated().state_dict(),
            "name": state.options.model.model,
            "options": to_toml(state.options),
            "classes": list(state.classes),
            "epoch": state.progress.epoch,
            "figures": evaluation.figures,
            "thresholds": evaluation.thresholds,
            "normalise": [list(values) for values in normalise],
            "size": state.options.resolution.eval_size or state.options.resolution.size,
        },
    )
