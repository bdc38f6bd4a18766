"""All options of a run, with their defaults.

Options are frozen dataclasses, one for each table of a recipe:

    [data] [augment] [resolution] [model] [regularisation] [optimisation] [schedule] [loss] [run]
    [record]

Each field is a key of its table (recipe.py) and a flag of the command line (command.py):
`batch_size` in [data] is `--batch-size`.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastload.console.progress import QUIET_SECONDS
from fastload.load.augment import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    LARGEST_SIZE,
    LEAST_STD,
    RandomResizedCrop,
)
from fastload.load.auto_augment import AutoAugment, RandAugment, TrivialAugment
from fastload.load.backend import AUTO, BackendName
from fastload.load.reweighting import class_weights

_CROP_AREA = RandomResizedCrop().area[0]


def _option(default: object, help: str, *, choices: Sequence[str] = ()) -> Any:  # noqa: A002, ANN401  argparse's word; as dataclasses.field
    return field(default=default, metadata={"help": help, "choices": tuple(choices)})


def auto_augment(rule: str) -> AutoAugment | None:
    """What a rule such as "randaugment:2:9" names.

    Raises:
        ValueError: If it names nothing.
    """
    kind, *numbers = rule.split(":")
    try:
        if rule == "none":
            return None
        if rule == "trivial":
            return TrivialAugment()
        if kind == "randaugment" and len(numbers) in {0, 2}:
            names = ("operations", "magnitude")
            return RandAugment(**dict(zip(names, map(int, numbers), strict=False)))
    except ValueError as error:
        raise ValueError(f'{_AUTO_RULES}, got "{rule}": {error}') from error
    raise ValueError(f'{_AUTO_RULES}, got "{rule}"')


_AUTO_RULES = (
    'auto_augment must be "none", "trivial", "randaugment" or "randaugment:OPERATIONS:MAGNITUDE" '
    "such as randaugment:2:9"
)


def _require_rule(name: str, rule: str) -> None:
    if rule == "none":
        return
    try:
        class_weights(np.zeros(1, np.int64), rule)
    except ValueError as error:
        raise ValueError(
            f'{name} must be "none", "inverse", "sqrt" or "effective:BETA" with BETA in [0, 1), '
            f'got "{rule}"'
        ) from error


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise ValueError(sentence)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataOptions:
    """What is read, and how often."""

    data: str = _option(
        "shards", "shard directory or its address, or a folder, tar or table of images"
    )
    val_data: str = _option("", "other data for val and test (default: --data)")
    cache: str = _option("", "folder for what is read of an object store")
    loader: str = _option(AUTO, "back-end", choices=(AUTO, *(name.value for name in BackendName)))
    batch_size: int = _option(64, "images per batch and process")
    reweight: str = _option(
        "none", "draw rare classes more often: none, inverse, sqrt or effective:BETA"
    )
    threads: int = _option(0, "decoding threads (0: one for each core)")
    max_corrupt_fraction: float = _option(
        0.01, "stop when a larger share of an epoch is unreadable; what is less is replaced"
    )
    max_corrupt_val: float = _option(
        0.0, "the same for val and test, where it is left out and said to be"
    )

    def __post_init__(self) -> None:
        _require(self.batch_size >= 1, f"batch_size must be at least 1, got {self.batch_size}")
        _require_rule("reweight", self.reweight)
        # More than any processor has; 100,000 would stop the whole machine.
        _require(0 <= self.threads <= 1024, f"threads must be in [0, 1024], got {self.threads}")
        for name in ("max_corrupt_fraction", "max_corrupt_val"):
            share = getattr(self, name)
            _require(0 <= share <= 1, f"{name} must be in [0, 1], got {share}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentOptions:
    """How a training image is varied."""

    crop: str = _option(
        "random-resized",
        "random-resized: RandomResizedCrop; random: Pl@ntNet-300K's Resize(256) and "
        "RandomCrop(224), in proportion; centre: as in evaluation",
        choices=("random-resized", "random", "centre"),
    )
    crop_area: float = _option(
        _CROP_AREA, "smallest share of the image that random-resized takes; the largest is 1"
    )
    flip: float = _option(0.5, "probability of mirroring left and right")
    auto_augment: str = _option(
        "none", "none, trivial (TrivialAugment), randaugment or randaugment:OPERATIONS:MAGNITUDE"
    )
    rotation: float = _option(0.0, "largest angle in degrees")
    jitter: float = _option(0.0, "strength of brightness, contrast and saturation changes")
    hue: float = _option(0.0, "largest change of hue, as a share of the colour circle")
    erasing: float = _option(0.0, "probability of random erasing")
    mixup: float = _option(0.0, "alpha of MixUp (0: off)")
    cutmix: float = _option(0.0, "alpha of CutMix (0: off)")

    def __post_init__(self) -> None:
        for name in ("flip", "erasing"):
            share = getattr(self, name)
            _require(0 <= share <= 1, f"{name} must be in [0, 1], got {share}")
        auto_augment(self.auto_augment)
        limits = {"rotation": 180, "jitter": 10, "hue": 0.5, "mixup": 100, "cutmix": 100}
        for name, limit in limits.items():
            number = getattr(self, name)
            _require(0 <= number <= limit, f"{name} must be in [0, {limit}], got {number}")
        _require(
            1e-6 <= self.crop_area <= 1, f"crop_area must be in [1e-06, 1], got {self.crop_area}"
        )
        _require(
            self.crop == "random-resized" or self.crop_area == _CROP_AREA,
            f'crop_area is of the crop "random-resized" alone: leave it out with "{self.crop}"',
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolutionOptions:
    """How large the images are."""

    size: int = _option(224, "side of the training images in pixels")
    eval_size: int = _option(0, "side in evaluation (0: as --size)")
    start_size: int = _option(0, "side at the start, for progressive resizing (0: off)")
    ramp_from: float = _option(0.3, "share of the run at which the side begins to grow")
    ramp_to: float = _option(0.8, "share of the run at which it has reached --size")

    def __post_init__(self) -> None:
        for name, least in (("size", 1), ("eval_size", 0), ("start_size", 0)):
            side = getattr(self, name)
            _require(
                least <= side <= LARGEST_SIZE,
                f"{name} must be in [{least}, {LARGEST_SIZE}], got {side}",
            )
        _require(
            0 <= self.ramp_from < self.ramp_to <= 1,
            "ramp_from and ramp_to must rise within [0, 1], "
            f"got {self.ramp_from} and {self.ramp_to}",
        )


# (mean, std) of the three channels, on the scale [0, 1].
Normalisation = tuple[tuple[float, float, float], tuple[float, float, float]]

_NORMALISATIONS: dict[str, Normalisation | None] = {
    "auto": None,
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


def named_normalisation(text: str) -> Normalisation | None:
    """Mean and deviation that --normalise names; None for "auto".

    Raises:
        ValueError: If it names none.
    """
    if text in _NORMALISATIONS:
        return _NORMALISATIONS[text]
    try:
        parts = [[float(word) for word in part.split(",")] for part in text.split("/")]
        mean, std = ((part * 3)[:3] if len(part) == 1 else part for part in parts)
        (a, b, c), (d, e, f) = mean, std
    except ValueError:
        a = b = c = d = e = f = math.nan
    _require(
        0 <= min(a, b, c) <= max(a, b, c) <= 1 and LEAST_STD <= min(d, e, f) <= max(d, e, f) <= 1,
        'normalise must be "auto", "imagenet", "half" or MEAN/STD with one number or three of '
        f'each, MEAN in [0, 1] and STD in [{LEAST_STD:g}, 1], such as 0.498/0.502, got "{text}"',
    )
    return (a, b, c), (d, e, f)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """Which network, from which weights, and which of them are trained."""

    model: str = _option("resnet50", "a torchvision classification model, or timm:NAME")
    init: str = _option(
        "imagenet",
        "imagenet, imagenet-v1, imagenet-v2, imagenet:WEIGHTS, timm:NAME.TAG, scratch, or a FILE",
    )
    normalise: str = _option(
        "auto",
        "mean/std of the images: auto (as the weights were trained), imagenet, half, or numbers "
        "such as 0.498/0.502 or 0.5,0.5,0.4/0.2,0.2,0.2",
    )
    tune: str = _option(
        "all",
        "all; head: the last layer only, the rest frozen; layerwise: slower towards the stem",
        choices=("all", "head", "layerwise"),
    )
    stem_rate: float = _option(
        0.1, "with --tune layerwise: the stem's learning rate over the head's"
    )
    compile: bool = _option(False, "compile the model with torch.compile")
    cuda_graphs: bool = _option(
        False, "with --compile: record the model's steps as CUDA graphs, for steps of a few ms"
    )
    sync_batchnorm: bool = _option(False, "BatchNorm statistics over all GPUs")

    def __post_init__(self) -> None:
        named_normalisation(self.normalise)
        _require(0 < self.stem_rate <= 1, f"stem_rate must be in (0, 1], got {self.stem_rate}")
        _require(
            self.compile or not self.cuda_graphs,
            "--cuda-graphs needs --compile",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RegularisationOptions:
    """What is dropped at random while it trains, and what begins at zero."""

    drop_path: float = _option(
        -1.0, "stochastic depth: largest probability to drop a residual branch (-1: the model's)"
    )
    dropout: float = _option(-1.0, "probability of dropout before the last layer (-1: the model's)")
    zero_init: bool = _option(
        False, "with --init scratch: the last norm of each residual branch begins at 0"
    )

    def __post_init__(self) -> None:
        for name in ("drop_path", "dropout"):
            rate = getattr(self, name)
            _require(
                rate == -1 or 0 <= rate < 1,
                f"{name} must be in [0, 1), or -1 for what the model has, got {rate}",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimisationOptions:
    """How a gradient becomes a step."""

    optimizer: str = _option("sgd", "sgd (Nesterov) or adamw", choices=("sgd", "adamw"))
    lr: float = _option(0.0, "peak learning rate for a batch of 256 (0: chosen, and said)")
    lr_rule: str = _option(
        "auto",
        "how it follows the effective batch; auto: linear for sgd, sqrt for adamw",
        choices=("auto", "linear", "sqrt", "none"),
    )
    head_rate: float = _option(1.0, "factor on the learning rate of the last layer")
    momentum: float = _option(0.9, "of sgd; beta1 of adamw")
    weight_decay: float = _option(1e-4, "of weights; not of norms, biases, embeddings and scales")
    decay_norms: bool = _option(False, "apply --weight-decay to every parameter")
    clip: float = _option(0.0, "largest norm of the gradient (0: off)")
    accumulate: int = _option(1, "batches per optimizer step")
    ema: float = _option(
        0.0, "decay of the moving average that is evaluated, such as 0.999 (0: off)"
    )

    def __post_init__(self) -> None:
        _require(self.lr >= 0, f"lr must be at least 0, got {self.lr}")
        _require(
            0 < self.head_rate <= 1000, f"head_rate must be in (0, 1000], got {self.head_rate}"
        )
        _require(self.accumulate >= 1, f"accumulate must be at least 1, got {self.accumulate}")
        _require(self.clip >= 0, f"clip must be at least 0, got {self.clip}")
        _require(0 <= self.momentum < 1, f"momentum must be in [0, 1), got {self.momentum}")
        _require(
            self.weight_decay >= 0, f"weight_decay must be at least 0, got {self.weight_decay}"
        )
        _require(0 <= self.ema < 1, f"ema must be in [0, 1), got {self.ema}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleOptions:
    """How long, and how the learning rate changes."""

    epochs: int = _option(30, "passes over the training split (or its reweighted equal)")
    schedule: str = _option("cosine", "of the learning rate", choices=("cosine", "step", "plateau"))
    warmup_epochs: float = _option(
        1.0, "epochs in which the learning rate rises in a straight line"
    )
    head_epochs: int = _option(
        0, "train the last layer alone for so many epochs, then all, with a warm-up of its own"
    )
    step_epochs: tuple[int, ...] = _option(
        (20, 25), "epochs at which `step` lowers it, such as 20,25"
    )
    step_factor: float = _option(0.1, "factor at each step or plateau")
    patience: int = _option(3, "epochs without a new best before `plateau` lowers it")
    early_stop: int = _option(0, "stop after so many epochs without a new best (0: never)")

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, f"epochs must be at least 1, got {self.epochs}")
        _require(
            self.warmup_epochs >= 0, f"warmup_epochs must be at least 0, got {self.warmup_epochs}"
        )
        _require(
            0 <= self.head_epochs < self.epochs,
            f"head_epochs must be in [0, {self.epochs}), so that epochs for all layers are left, "
            f"got {self.head_epochs}",
        )
        _require(
            all(epoch >= 0 for epoch in self.step_epochs),
            f"step_epochs must be at least 0, got {min(self.step_epochs, default=0)}",
        )
        _require(0 < self.step_factor < 1, f"step_factor must be in (0, 1), got {self.step_factor}")
        _require(self.patience >= 1, f"patience must be at least 1, got {self.patience}")
        _require(self.early_stop >= 0, f"early_stop must be at least 0, got {self.early_stop}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LossOptions:
    """What is minimised."""

    loss: str = _option(
        "cross-entropy",
        "balanced: balanced softmax, cross-entropy of logits adjusted by the class frequencies",
        choices=("cross-entropy", "focal", "balanced"),
    )
    class_weights: str = _option(
        "none", "weights of the classes in the loss: none, inverse, sqrt or effective:BETA"
    )
    focal_gamma: float = _option(2.0, "of the focal loss")
    label_smoothing: float = _option(0.0, "in [0, 1)")
    tau: float = _option(1.0, "strength of the balanced loss and of the correction at evaluation")

    def __post_init__(self) -> None:
        _require_rule("class_weights", self.class_weights)
        _require(self.focal_gamma >= 0, f"focal_gamma must be at least 0, got {self.focal_gamma}")
        _require(
            0 <= self.label_smoothing < 1,
            f"label_smoothing must be in [0, 1), got {self.label_smoothing}",
        )
        _require(
            not (self.loss == "focal" and self.label_smoothing),
            f"label_smoothing must be 0 with the focal loss, got {self.label_smoothing}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Where it runs, and where its results go."""

    runs: str = _option("runs", "directory of all runs")
    name: str = _option("", "of this run (default: the model and the time)")
    seed: int = _option(0, "of the weights, the order and the crops")
    device: str = _option("auto", "auto, cpu, cuda, cuda:1, ...")
    amp: str = _option(
        "auto",
        "mixed precision; auto: bf16 or fp16 on a GPU, off elsewhere",
        choices=("auto", "bf16", "fp16", "off"),
    )
    best_by: str = _option(
        "macro_top1",
        "validation figure that chooses best.pt",
        choices=("top1", "top5", "macro_top1", "macro_top5", "corrected_macro_top1", "loss"),
    )
    save_every: int = _option(1000, "optimizer steps between checkpoints within an epoch (0: none)")

    def __post_init__(self) -> None:
        _require(0 <= self.seed < 2**63, f"seed must be in [0, 2**63), got {self.seed}")
        _require(self.save_every >= 0, f"save_every must be at least 0, got {self.save_every}")
        _require(
            self.name not in {".", ".."} and not set("/\\") & set(self.name),
            f'name must be a plain folder name, got "{self.name}"',
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordOptions:
    """What is recorded besides log.csv, result.json and the checkpoints."""

    report: bool = _option(True, "write report.html; its charts need matplotlib")
    audit: int = _option(
        50_000,
        "look at so many training images at most again after training, for labels that may be "
        "wrong; of more, at some drawn evenly (0: none)",
    )
    tensorboard: bool = _option(True, "write TensorBoard events where it is installed")
    wandb: str = _option("", "project of Weights & Biases to log to")
    profile: int = _option(
        0, "trace so many steps of the first epoch, and say where its time went (0: off)"
    )
    quiet_seconds: float = _option(
        QUIET_SECONDS, "how far it is, so often where there is no terminal (0: every batch)"
    )

    def __post_init__(self) -> None:
        _require(self.audit >= 0, f"audit must be at least 0, got {self.audit}")
        _require(self.profile >= 0, f"profile must be at least 0, got {self.profile}")
        _require(
            self.quiet_seconds >= 0, f"quiet_seconds must be at least 0, got {self.quiet_seconds}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Everything that defines a run: one field for each table of a recipe."""

    data: DataOptions = DataOptions()
    augment: AugmentOptions = AugmentOptions()
    resolution: ResolutionOptions = ResolutionOptions()
    model: ModelOptions = ModelOptions()
    regularisation: RegularisationOptions = RegularisationOptions()
    optimisation: OptimisationOptions = OptimisationOptions()
    schedule: ScheduleOptions = ScheduleOptions()
    loss: LossOptions = LossOptions()
    run: RunOptions = RunOptions()
    record: RecordOptions = RecordOptions()

    def __post_init__(self) -> None:
        _require(
            not self.regularisation.zero_init or self.model.init == "scratch",
            f"--zero-init is for --init scratch; the weights of --init {self.model.init} would "
            "take its place: leave it out",
        )
        if not self.schedule.head_epochs:
            return
        _require(
            self.model.tune != "head",
            "--head-epochs is for runs that train all layers in the end; --tune head trains the "
            "last layer alone for all --epochs: leave out one of the two",
        )
        _require(
            self.model.init != "scratch",
            "--head-epochs trains the last layer on what trained weights see; those of --init "
            "scratch are random: leave it out, or give --init",
        )


Field = dataclasses.Field[Any]


def tables() -> dict[str, type]:
    """The tables of a recipe, and the dataclass of each."""
    return typing.get_type_hints(Options)


def fields(table: type) -> dict[str, tuple[Field, Any]]:
    """The options in a table: name -> (field, its type)."""
    hints = typing.get_type_hints(table)
    return {item.name: (item, hints[item.name]) for item in dataclasses.fields(table)}
