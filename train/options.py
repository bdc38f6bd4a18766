"""All options of a run: defaults, then a recipe, then the command line.

Options are frozen dataclasses, one for each table of a recipe:

    [data] [augment] [resolution] [model] [optimisation] [schedule] [loss] [run] [record]

Each field is a key of its table and a flag of the command line: `batch_size` in [data] is
`--batch-size`. What a run used is written to `runs/<name>/options.toml`, which is itself a recipe.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import sys
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fastload.errors import FastloadError
from fastload.sampler import class_weights

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RECIPES = Path(__file__).resolve().parent / "recipes"


class OptionsError(FastloadError):
    """A recipe cannot be read, or says something that is no option."""


def _option(default: object, help: str, *, choices: Sequence[str] = ()) -> Any:  # noqa: A002, ANN401  argparse's word; as dataclasses.field
    return field(default=default, metadata={"help": help, "choices": tuple(choices)})


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

    data: str = _option("shards", "shard directory, written by `python -m fastload.shard`")
    val_data: str = _option("", "another shard directory for val and test (default: --data)")
    loader: str = _option(
        "auto", "back-end", choices=("auto", "native", "libjpeg", "dali", "dali-cpu")
    )
    batch_size: int = _option(64, "images per batch and process")
    reweight: str = _option(
        "none", "draw rare classes more often: none, inverse, sqrt or effective:BETA"
    )
    threads: int = _option(0, "decoding threads (0: one for each core)")
    max_corrupt_fraction: float = _option(0.01, "stop when more samples than this are unreadable")

    def __post_init__(self) -> None:
        _require(self.batch_size >= 1, f"batch_size must be at least 1, got {self.batch_size}")
        _require_rule("reweight", self.reweight)
        _require(self.threads >= 0, f"threads must be at least 0, got {self.threads}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentOptions:
    """How a training image is varied."""

    crop: str = _option(
        "random-resized",
        "random-resized: RandomResizedCrop; random: Pl@ntNet-300K's Resize(256) and "
        "RandomCrop(224), in proportion; centre: as in evaluation",
        choices=("random-resized", "random", "centre"),
    )
    flip: float = _option(0.5, "probability of mirroring left and right")
    rotation: float = _option(0.0, "largest angle in degrees")
    jitter: float = _option(0.0, "strength of brightness, contrast and saturation changes")
    erasing: float = _option(0.0, "probability of random erasing")
    mixup: float = _option(0.0, "alpha of MixUp (0: off)")
    cutmix: float = _option(0.0, "alpha of CutMix (0: off)")

    def __post_init__(self) -> None:
        for name in ("flip", "erasing"):
            share = getattr(self, name)
            _require(0 <= share <= 1, f"{name} must be in [0, 1], got {share}")
        for name, limit in (("rotation", 180), ("jitter", 10), ("mixup", 100), ("cutmix", 100)):
            number = getattr(self, name)
            _require(0 <= number <= limit, f"{name} must be in [0, {limit}], got {number}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolutionOptions:
    """How large the images are."""

    size: int = _option(224, "side of the training images in pixels")
    eval_size: int = _option(0, "side in evaluation (0: as --size)")
    start_size: int = _option(0, "side at the start, for progressive resizing (0: off)")
    ramp_from: float = _option(0.3, "share of the run at which the side begins to grow")
    ramp_to: float = _option(0.8, "share of the run at which it has reached --size")

    def __post_init__(self) -> None:
        _require(self.size >= 1, f"size must be at least 1, got {self.size}")
        for name in ("eval_size", "start_size"):
            _require(
                getattr(self, name) >= 0, f"{name} must be at least 0, got {getattr(self, name)}"
            )
        _require(
            0 <= self.ramp_from < self.ramp_to <= 1,
            "ramp_from and ramp_to must rise within [0, 1], "
            f"got {self.ramp_from} and {self.ramp_to}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """Which network, from which weights, and which of them are trained."""

    model: str = _option("resnet50", "a torchvision classification model, or timm:NAME")
    init: str = _option(
        "imagenet", "imagenet, imagenet:WEIGHTS (such as IMAGENET1K_V1), scratch, or a FILE"
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
    sync_batchnorm: bool = _option(False, "BatchNorm statistics over all GPUs")

    def __post_init__(self) -> None:
        _require(0 < self.stem_rate <= 1, f"stem_rate must be in (0, 1], got {self.stem_rate}")


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
    momentum: float = _option(0.9, "of sgd; beta1 of adamw")
    weight_decay: float = _option(1e-4, "never applied to norms and biases")
    clip: float = _option(0.0, "largest norm of the gradient (0: off)")
    accumulate: int = _option(1, "batches per optimizer step")
    ema: float = _option(
        0.0, "decay of the moving average that is evaluated, such as 0.999 (0: off)"
    )

    def __post_init__(self) -> None:
        _require(self.lr >= 0, f"lr must be at least 0, got {self.lr}")
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
            self.name not in {".", ".."} and not set("/\\\0") & set(self.name),
            f'name must be a plain folder name, got "{self.name}"',
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordOptions:
    """What is recorded besides log.csv, result.json and the checkpoints."""

    report: bool = _option(True, "write report.html")
    tensorboard: bool = _option(True, "write TensorBoard events where it is installed")
    wandb: str = _option("", "project of Weights & Biases to log to")
    profile: int = _option(0, "write a trace of so many steps with torch.profiler (0: off)")

    def __post_init__(self) -> None:
        _require(self.profile >= 0, f"profile must be at least 0, got {self.profile}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Everything that defines a run: one field for each table of a recipe."""

    data: DataOptions = DataOptions()
    augment: AugmentOptions = AugmentOptions()
    resolution: ResolutionOptions = ResolutionOptions()
    model: ModelOptions = ModelOptions()
    optimisation: OptimisationOptions = OptimisationOptions()
    schedule: ScheduleOptions = ScheduleOptions()
    loss: LossOptions = LossOptions()
    run: RunOptions = RunOptions()
    record: RecordOptions = RecordOptions()

    def to_toml(self) -> str:
        """The recipe that gives these options again."""
        tables = []
        for name, table in dataclasses.asdict(self).items():
            lines = [f"{key} = {_toml_value(value)}" for key, value in table.items()]
            tables.append("\n".join([f"[{name}]", *lines]))
        return "\n\n".join(tables) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What the command line asks for.

    Attributes:
        options: Defaults, recipe and flags together.
        resume: Continue the run of that name, or the latest.
        check: Only overfit one batch, and say what that shows.
    """

    options: Options
    resume: bool = False
    check: bool = False


Tables = dict[str, dict[str, Any]]


def parse(argv: Sequence[str] | None = None) -> Command:
    """Read the command line; ends the process with status 2 where an option is wrong.

    Raises:
        OptionsError: If a recipe, or the run to resume, cannot be read.
    """
    parser = _parser()
    given = vars(parser.parse_args(argv))
    recipe, resume = given.pop("recipe"), given.pop("resume")
    check = given.pop("check")
    flags = _by_table(given)
    if recipe and resume:
        parser.error("--resume takes the options of its run: leave out --recipe")
    tables = read_recipe(_recipe_path(recipe)) if recipe else {}
    try:
        if resume:
            named = _build({"run": flags.get("run", {})}, "the command line").run
            folder = (
                latest_run(Path(named.runs)) if not named.name else Path(named.runs) / named.name
            )
            tables = read_recipe(folder / "options.toml")
            flags.setdefault("run", {}).update(runs=named.runs, name=folder.name)
        options = _build(_merged(tables, flags), recipe or "the command line")
    except ValueError as error:
        parser.error(str(error))
    return Command(options=options, resume=resume, check=check)


def latest_run(runs: Path) -> Path:
    """The run in `runs` whose checkpoint is newest.

    Raises:
        OptionsError: If no run there has a checkpoint.
    """
    found = sorted(runs.glob("*/last.pt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise OptionsError(
            f"{runs}: no run with a last.pt to resume; give --runs DIR or --name NAME"
        )
    return found[-1].parent


def read_recipe(path: Path) -> Tables:
    """The tables of a TOML file, checked against the options that exist.

    Raises:
        OptionsError: If it cannot be read, is not TOML, or holds an unknown table, key or type.
    """
    try:
        tables: Tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionsError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OptionsError(f"{path}: not a TOML file ({error})") from error
    try:
        _build(tables, path.name)
    except ValueError as error:
        raise OptionsError(f"{path}: {error}") from error
    return tables


def _recipe_path(name: str) -> Path:
    shipped = RECIPES / f"{name}.toml"
    if not Path(name).exists() and "/" not in name and shipped.exists():
        return shipped
    if not Path(name).exists():
        known = ", ".join(sorted(path.stem for path in RECIPES.glob("*.toml")))
        raise OptionsError(f"{name}: no such recipe; give a file, or one of {known}")
    return Path(name)


def _fields(table: type) -> dict[str, tuple[dataclasses.Field[Any], Any]]:
    hints = typing.get_type_hints(table)
    return {item.name: (item, hints[item.name]) for item in dataclasses.fields(table)}


def _table_types() -> dict[str, type]:
    return typing.get_type_hints(Options)


def _build(tables: Mapping[str, Mapping[str, Any]], origin: str) -> Options:
    types = _table_types()
    built = {}
    for name, values in tables.items():
        if name not in types or not isinstance(values, Mapping):
            raise ValueError(
                f"[{name}] in {origin} is no table of options; known: {', '.join(types)}"
            )
        fields = _fields(types[name])
        for key in values:
            if key not in fields:
                raise ValueError(_unknown(key, name, list(fields), origin))
        built[name] = types[name](
            **{key: _checked(key, value, *fields[key]) for key, value in values.items()}
        )
    return Options(**built)


def _unknown(key: str, table: str, known: list[str], origin: str) -> str:
    near = difflib.get_close_matches(key, known, 1)
    hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known)}"
    return f"{key} in [{table}] of {origin} is no option{hint}"


def _checked(key: str, value: Any, item: dataclasses.Field[Any], kind: Any) -> Any:  # noqa: ANN401  a value from outside
    if kind is float and type(value) is int:
        value = float(value)
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list | tuple) or any(type(entry) is not int for entry in value):
            raise ValueError(f"{key} must be a list of whole numbers, got {value!r}")
        return tuple(value)
    if type(value) is not kind:
        raise ValueError(f"{key} must be of type {kind.__name__}, got {value!r}")
    choices = item.metadata["choices"]
    if choices and value not in choices:
        raise ValueError(f'{key} must be one of {", ".join(choices)}, got "{value}"')
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="train/run.py",
        description="Train an image classifier from shards. Results go to runs/<name>/.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--recipe", default="", help="a TOML file, or the name of one in train/recipes/"
    )
    parser.add_argument("--resume", action="store_true", help="continue --name, or the latest run")
    parser.add_argument("--check", action="store_true", help="overfit one batch, report, and stop")
    for name, table in _table_types().items():
        group = parser.add_argument_group(name, (table.__doc__ or "").strip())
        for key, (item, kind) in _fields(table).items():
            _add_flag(group, key, item, kind)
    return parser


def _add_flag(group: Any, key: str, item: dataclasses.Field[Any], kind: Any) -> None:  # noqa: ANN401  argparse's group has no public type
    flag = "--" + key.replace("_", "-")
    default = ",".join(map(str, item.default)) if isinstance(item.default, tuple) else item.default
    text = item.metadata["help"].replace("%", "%%")
    if default not in {"", True, False} or default == 0:
        text += f" (default: {default})"
    arguments: dict[str, Any] = {"dest": key, "default": argparse.SUPPRESS, "help": text}
    if kind is bool:
        group.add_argument(flag, action=argparse.BooleanOptionalAction, **arguments)
        return
    if item.metadata["choices"]:
        arguments["choices"] = item.metadata["choices"]
    else:
        arguments["metavar"] = key.split("_")[-1].upper()
    group.add_argument(
        flag, type=_whole_numbers if typing.get_origin(kind) is tuple else kind, **arguments
    )


def _whole_numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"whole numbers such as 20,25 expected, got {text}"
        ) from error


def _by_table(flags: Mapping[str, Any]) -> Tables:
    tables: Tables = {}
    for name, table in _table_types().items():
        values = {key: flags[key] for key in _fields(table) if key in flags}
        if values:
            tables[name] = values
    return tables


def _merged(under: Tables, over: Tables) -> Tables:
    return {
        name: {**under.get(name, {}), **over.get(name, {})}
        for name in _table_types()
        if name in under or name in over
    }


def _toml_value(value: Any) -> str:  # noqa: ANN401  what _checked lets through
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):  # a JSON string is a TOML basic string, DEL aside
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml_value(entry) for entry in value) + "]"
    return repr(value)
