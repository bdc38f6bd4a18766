"""A model that was trained, as best.pt has it: everything it takes to use it."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fastload.advise.models import build_model
from fastload.console.terminal import printable
from fastload.errors import first_line
from fastload.load.augment import Augment
from train.losses import balance
from train.options import Normalisation, Options, fields, tables
from train.readings import DivergedError
from train.recipe import build_options
from train.tensorfile import FORMAT, CheckpointError, load_tensors

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_KEYS = frozenset(
    ("model", "name", "options", "classes", "epoch", "thresholds", "normalise", "size")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """The model of a run's best epoch.

    Attributes:
        path: The best.pt that it was read from.
        model: In evaluation mode, on the device: float [N, 3, size, size] to logits [N, C].
        name: The name of the model, for `build_model`.
        classes: Names of the class folders; the position is the label.
        class_names: Readable names of the classes, by label; those of the folders in a best.pt that
            has no others.
        size: The side of the images in pixels.
        normalise: (mean, std) of the three channels, on the scale [0, 1].
        temperature: Logits are divided by it before the softmax; 1.0 where the run has none.
        calibrated: False where the run has no temperature.
        thresholds: k -> the threshold of average-k, on probabilities at temperature 1.
        corrected_thresholds: The same with the class frequencies of training taken out; none in a
            best.pt without them.
        options: The options of the run; an option that this version does not know is left out.
        train_counts: int64 [C], training images of each class; None in a best.pt without them.
    """

    path: Path
    model: nn.Module
    name: str
    classes: tuple[str, ...]
    class_names: tuple[str, ...]
    size: int
    normalise: Normalisation
    temperature: float
    calibrated: bool
    thresholds: dict[int, float]
    corrected_thresholds: dict[int, float]
    options: Options
    train_counts: NDArray[np.int64] | None

    def __post_init__(self) -> None:
        _ = self.view  # checks the size and the normalisation
        names, counts = len(self.class_names), self.train_counts
        if names != len(self.classes) or (counts is not None and counts.shape != (names,)):
            raise ValueError(f"facts of other than its {len(self.classes)} classes")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature must be above 0 and finite, got {self.temperature}")

    @property
    def view(self) -> Augment:
        """How evaluation sees an image: Resize and CenterCrop to `size`, then `normalise`."""
        return replace(Augment.eval(self.size), normalise=self.normalise)

    def log_prior(self) -> torch.Tensor:
        """What `correct_prior` subtracts from the logits: float32 [C] on the CPU.

        Raises:
            CheckpointError: If best.pt does not say how many images training had of each class.
        """
        if self.train_counts is None:
            raise CheckpointError(
                f"{self.path}: does not say how many training images each class had, which the "
                "correction of the class frequencies takes; leave out --correct-prior, or train "
                "again with this version"
            )
        options = self.options
        counts, cpu = self.train_counts, torch.device("cpu")
        return balance(options.data.reweight, options.loss, counts, cpu).log_prior

    def finite(self, logits: torch.Tensor) -> torch.Tensor:
        """The logits, if they are answers.

        Raises:
            DivergedError: If one is NaN or infinite.
        """
        if not bool(torch.isfinite(logits).all()):
            raise DivergedError(
                f"{self.path}: the model answers with NaN or infinity; take the best.pt of another "
                "run"
            )
        return logits


def open_run(path: Path, device: torch.device) -> Trained:
    """The model of a run's best epoch.

    Args:
        path: The folder of a run, or a best.pt.
        device: Where the model is to be.

    Raises:
        CheckpointError: If there is no best.pt, or it is damaged, another trainer's or another
            version's.
        FastloadError: If the model needs a package that is not installed.
    """
    path = _best_of(path)
    content = _content(path)
    try:
        return _trained(path, content, device)
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: does not fit this version of fastload ({first_line(error)}); use the version "
            "that trained it"
        ) from error


def _best_of(path: Path) -> Path:
    """The best.pt of a folder; a file as it is."""
    if not path.exists():
        raise CheckpointError(
            f"{path}: there is no such run; the folder of a run or its best.pt was expected"
        )
    if not path.is_dir():
        return path
    if (path / "best.pt").exists():
        return path / "best.pt"
    if runs := sorted(path.glob("*/best.pt")):
        names = ", ".join(printable(str(run.parent)) for run in runs[:8])
        raise CheckpointError(f"{path}: holds runs, and one was expected: give {names}")
    if (path / "last.pt").exists():
        raise CheckpointError(
            f"{path}: has no best.pt yet, which is written after the first epoch; wait for it, or "
            "continue the run with --resume"
        )
    raise CheckpointError(f"{path}: has no best.pt, so it is no run of the trainer")


def _content(path: Path) -> dict[str, Any]:
    content = load_tensors(path)
    if not isinstance(content, Mapping) or "format" not in content:
        raise CheckpointError(
            f"{path}: is no best.pt of fastload but a file of another trainer; start a run "
            "from it with `--init FILE`, and use that run's best.pt"
        )
    if content["format"] not in (1, FORMAT):
        raise CheckpointError(
            f"{path}: has the format {content['format']}, and this version reads {FORMAT}; use the "
            "version that trained it"
        )
    if "optimizer" in content:
        raise CheckpointError(
            f"{path}: continues a run, it has not all that using its model takes; give the best.pt "
            "beside it"
        )
    if missing := sorted(_KEYS - content.keys()):
        raise CheckpointError(f"{path}: is no best.pt of fastload: it lacks {missing[0]}")
    return dict(content)


def _trained(path: Path, content: Mapping[str, Any], device: torch.device) -> Trained:
    classes = tuple(content["classes"])
    model = build_model(content["name"], len(classes), size=content["size"])
    model.load_state_dict(content["model"])
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this form
    (mean, std), counts = content["normalise"], content.get("train_counts")
    return Trained(
        path=path,
        model=model.eval().requires_grad_(False),
        name=content["name"],
        classes=classes,
        class_names=tuple(content.get("class_names", classes)),
        size=content["size"],
        normalise=((mean[0], mean[1], mean[2]), (std[0], std[1], std[2])),
        temperature=content.get("temperature", 1.0),
        calibrated="temperature" in content,
        thresholds=dict(content["thresholds"]),
        corrected_thresholds=dict(content.get("corrected_thresholds", {})),
        options=_known_options(content["options"], path),
        train_counts=None if counts is None else np.asarray(counts, np.int64),
    )


def _known_options(toml: str, path: Path) -> Options:
    """The options of a run, without those that this version does not know."""
    known = {name: fields(table) for name, table in tables().items()}
    found = {
        name: {key: value for key, value in values.items() if key in known[name]}
        for name, values in tomllib.loads(toml).items()
        if name in known
    }
    return build_options(found, path.name)
