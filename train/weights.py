"""The weights that a network starts from: downloaded, or read from a file, and filled in."""

from __future__ import annotations

import json
import math
import socket
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision
from torch import Tensor, nn

from fastload.advise.models import import_timm, require_model, timm_config
from fastload.console.terminal import counted
from fastload.errors import FastloadError, first_line
from fastload.load.augment import IMAGENET_MEAN, IMAGENET_STD
from train.foreign import find_weights
from train.options import ModelOptions, Normalisation, named_normalisation
from train.tensorfile import CheckpointError, load_around

# A download that has not connected within this time will not connect; torch would wait for ever.
_DOWNLOAD_TIMEOUT_SECONDS = 20.0


def _normalisation(mean: Sequence[float], std: Sequence[float]) -> Normalisation:
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


class WeightsError(FastloadError):
    """Weights cannot be had, or do not fit the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What became of a set of weights.

    Attributes:
        kept: Names of the model's tensors that were filled.
        resampled: Those of them that are position embeddings for another number of patches.
        reshaped: Names that both have, in another shape or type: the head, for another number of
            classes.
        missing: Names of the model that the weights lack.
        unused: Names of the weights that the model lacks.
        doubt: What looks as if they were of a model of another kind or depth; "" if nothing does.
    """

    kept: tuple[str, ...]
    resampled: tuple[str, ...]
    reshaped: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    doubt: str = ""

    def __str__(self) -> str:
        parts = [f"kept {counted(len(self.kept), 'tensor')}"]
        for word, names in (
            ("interpolated for another size:", self.resampled),
            ("other shape or type, started anew:", self.reshaped),
            ("not in the weights, started anew:", self.missing),
            ("not in the model, dropped:", self.unused),
        ):
            if names:
                more = f" and {len(names) - 3} more" if len(names) > 3 else ""
                parts.append(f"{word} {', '.join(names[:3])}{more}")
        return "; ".join(parts)


class Weights(NamedTuple):
    """Weights to start from.

    Attributes:
        tensors: Name -> tensor on the CPU, as a state dict without wrappers or prefixes.
        classes: What the outputs mean, in order; None where the file does not say.
        normalise: Mean and deviation of the images that the weights were trained on; None where the
            file does not say.
        source: Which part of a file they are; "" for all of it.
        left_out: Classes of the file's objects, none of which was made.
    """

    tensors: dict[str, Tensor]
    classes: tuple[str, ...] | None = None
    normalise: Normalisation | None = None
    source: str = ""
    left_out: tuple[str, ...] = ()


def described(init: str, weights: Weights, loaded: Loaded) -> str:
    """Where the weights of a model come from, and what was kept of them, in one line."""
    place = f", {weights.source}" if weights.source else ""
    names = ", ".join(weights.left_out[:3]) + (", ..." if len(weights.left_out) > 3 else "")
    unread = f"; objects left unread: {names}" if names else ""
    return f"weights from {init}{place}: {loaded}{unread}"


def start_weights(options: ModelOptions, own: Mapping[str, Tensor]) -> Weights | None:
    """The weights to start from; None for "scratch".

    Args:
        options: Which model, and from which weights.
        own: The state dict of the model.

    Raises:
        WeightsError: If a download or a file fails; the sentence names the other choices.
    """
    if options.init == "scratch":
        return None
    if is_published(options.init):
        return Weights(_published_weights(options), normalise=published_normalisation(options))
    return read_weights(Path(options.init), own)


_PUBLISHED = {"imagenet": "DEFAULT", "imagenet-v1": "IMAGENET1K_V1", "imagenet-v2": "IMAGENET1K_V2"}
_TIMM = "timm:"

# torchvision builds these with `transform_input` where it gives weights: images normalised as
# ImageNet's are turned into those that the weights were trained on. Here they come so at once.
_TRAINED_ON_HALF = {"googlenet", "inception_v3"}


def is_published(init: str) -> bool:
    """Whether --init names weights to download, not a file."""
    return init.partition(":")[0] in {*_PUBLISHED, "timm"}


def _timm_name(options: ModelOptions) -> str | None:
    """The name of the weights in timm, with or without a tag; None where they are torchvision's.

    Raises:
        WeightsError: If weights of torchvision are asked for a model of timm.
    """
    if options.init.startswith(_TIMM):
        return options.init.removeprefix(_TIMM)
    if not options.model.startswith(_TIMM):
        return None
    name, (word, _, tag) = options.model.removeprefix(_TIMM), options.init.partition(":")
    if word != "imagenet":
        raise WeightsError(
            f"{word} is torchvision's, and {options.model} is timm's; give --init imagenet, or "
            "--init timm:NAME.TAG"
        )
    return f"{name.partition('.')[0]}.{tag}" if tag else name


def _torchvision_weights(options: ModelOptions) -> Any:  # noqa: ANN401  an enum of torchvision
    """The member of torchvision's enum that the options name.

    Raises:
        WeightsError: If the model has no such weights.
    """
    word, _, which = options.init.partition(":")
    name = which or _PUBLISHED[word]
    known = torchvision.models.get_model_weights(options.model)
    if name not in known.__members__:
        raise WeightsError(
            f"{options.model} has no weights {name}; it has {', '.join(known.__members__)}: "
            f"--init imagenet:NAME"
        )
    return known[name]


def _published_weights(options: ModelOptions) -> dict[str, Tensor]:
    try:
        with _impatient():
            if (name := _timm_name(options)) is not None:
                require_model(f"{_TIMM}{name}")
                return dict(import_timm().create_model(name, pretrained=True).state_dict())
            chosen = _torchvision_weights(options)
            return dict(chosen.get_state_dict(progress=False, check_hash=True))
    except FastloadError:
        raise
    except Exception as error:  # each way to download names its failures differently
        what = "weights" if options.init.startswith(_TIMM) else "ImageNet weights"
        of = options.init if options.init.startswith(_TIMM) else options.model
        raise WeightsError(
            f"the {what} of {of} cannot be downloaded ({first_line(error)}); give --init FILE, or "
            "--init scratch"
        ) from error


@contextmanager
def _impatient() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def read_weights(path: Path, own: Mapping[str, Tensor]) -> Weights:
    """The weights in a checkpoint file of any trainer.

    Args:
        path: A file of torch.save with a state dict, or dicts of dicts with some, or a safetensors
            file. Only tensors and plain values are read of it.
        own: The state dict of the model that the weights are for; see `find_weights`.

    Raises:
        WeightsError: If the file cannot be read, holds no tensors, or several sets that fit.
    """
    try:
        content, left_out = load_around(path)
    except FileNotFoundError as error:
        raise WeightsError(
            f"--init {path}: there is no such file; give a file of weights, imagenet, "
            "imagenet-v1, imagenet-v2, imagenet:WEIGHTS, timm:NAME or scratch"
        ) from error
    except CheckpointError as error:
        raise WeightsError(f"--init {error}") from error
    found = find_weights(content, own)
    if found.others:
        raise WeightsError(
            f"--init {path}: holds {len(found.others)} sets of weights that fit: "
            f"{', '.join(found.others)}; save the state dict of one alone: torch.save(..., FILE)"
        )
    if not found.tensors:
        why = "; a state dict was expected"
        if left_out:
            why = f" beside an object of {left_out[0]}, which could run code and is not read: save "
            why += "the state dict alone: torch.save(model.state_dict(), FILE)"
        raise WeightsError(f"--init {path}: holds no tensors{why}")
    facts = content if isinstance(content, dict) else {}
    classes = facts.get("classes")
    if not isinstance(classes, list) or not all(isinstance(name, str | int) for name in classes):
        classes = None
    return Weights(
        found.tensors,
        None if classes is None else tuple(map(str, classes)),
        _stated_normalisation(facts.get("normalise")),
        found.source,
        left_out,
    )


def _stated_normalisation(found: object) -> Normalisation | None:
    """Mean and deviation as best.pt has them; None for what another trainer calls so."""
    if not isinstance(found, list) or len(found) != 2:
        return None
    for values in found:
        if not isinstance(values, list) or len(values) != 3:
            return None
        if not all(isinstance(value, int | float) for value in values):
            return None
    return _normalisation(*found)


def _fits(value: Tensor, own: Tensor) -> bool:
    """Whether a tensor can be copied into one of the model: its shape, and dense numbers of a kind.

    Quantised weights are whole numbers in the shape of the model's: copied, they would be garbage.
    """
    return (
        value.shape == own.shape
        and value.is_floating_point() == own.is_floating_point()
        and value.is_complex() == own.is_complex()
        and value.layout == torch.strided
        and not value.is_meta
    )


def _other_positions(name: str, value: Tensor, own: Tensor) -> bool:
    """Whether a tensor is a position embedding for another number of patches than the model's."""
    return (
        name.endswith(("pos_embed", "pos_embedding"))
        and value.is_floating_point()
        and value.is_contiguous()  # a view that repeats values may claim any size
        and value.ndim == own.ndim == 3
        and value.shape[::2] == own.shape[::2]
        and value.shape[1] != own.shape[1]
        and _prefix_tokens(value.shape[1], own.shape[1]) is not None
    )


def _prefix_tokens(count: int, other: int) -> int | None:
    """How many tokens stand before two square grids of patches; None where neither 0, 1 nor 2."""
    for tokens in (1, 0, 2):
        grids = count - tokens, other - tokens
        if all(grid > 0 and math.isqrt(grid) ** 2 == grid for grid in grids):
            return tokens
    return None


def resample_positions(positions: Tensor, count: int) -> Tensor:
    """A position embedding for another number of patches, as timm's `resample_abs_pos_embed`.

    Args:
        positions: float [1, L, D]: class tokens, then a square grid of patches in rows.
        count: L of the result.
    """
    tokens = _prefix_tokens(positions.shape[1], count) or 0
    before, after = (math.isqrt(length - tokens) for length in (positions.shape[1], count))
    grid = positions[:, tokens:].float().reshape(1, before, before, -1).permute(0, 3, 1, 2)
    grid = nn.functional.interpolate(grid, (after, after), mode="bicubic", antialias=True)
    patches = grid.permute(0, 2, 3, 1).flatten(1, 2).to(positions.dtype)
    return torch.cat([positions[:, :tokens], patches], dim=1)


def load_weights(
    model: nn.Module, weights: Mapping[str, Tensor], *, head: AbstractSet[str]
) -> Loaded:
    """Fill a model with those weights that fit, by name and shape.

    Args:
        model: Changed in place.
        weights: Name -> tensor.
        head: Parameters whose shape depends on the number of classes.

    Returns:
        What was kept and what was not.

    Raises:
        WeightsError: If the weights would fill less than half of the model without its head, in
            tensors or in values. They are of another model then, and this model is left as it was.
            Or if one is NaN or infinite.
    """
    own = model.state_dict()
    resampled = {
        name: resample_positions(value, own[name].shape[1])
        for name, value in weights.items()
        if name in own and _other_positions(name, value, own[name])
    }
    weights = {**weights, **resampled}
    fitting = {k: v for k, v in weights.items() if k in own and _fits(v, own[k])}
    unused = tuple(k for k in weights if k not in own)
    body = {k: v.numel() for k, v in own.items() if k not in head and v.is_floating_point()}
    loaded = Loaded(
        kept=tuple(fitting),
        resampled=tuple(resampled),
        reshaped=tuple(k for k in weights if k in own and k not in fitting),
        missing=tuple(k for k in own if k not in weights),
        unused=unused,
        doubt=_doubt(body, fitting, unused),
    )
    filled = [size for name, size in body.items() if name in fitting]
    if 2 * len(filled) < len(body) or 2 * sum(filled) < sum(body.values()):
        raise WeightsError(
            f"the weights fill {len(fitting)} of {len(own)} tensors, so they are of another model; "
            f"{loaded}"
        )
    if spoiled := [key for key, value in fitting.items() if not bool(value.isfinite().all())]:
        raise WeightsError(
            f"the weights have NaN or infinity in {len(spoiled)} of {len(fitting)} tensors, such "
            f"as {spoiled[0]}; give the file of an earlier epoch"
        )
    model.load_state_dict(fitting, strict=False)
    return loaded


def _doubt(body: Mapping[str, int], fitting: Mapping[str, Tensor], unused: Sequence[str]) -> str:
    """Why weights that fit may be those of another model, such as a deeper one.

    Args:
        body: Names of the model's floating-point tensors, without the head.
        fitting: Weights that fill some.
        unused: Names of the others. Those of another part, as the neck of a detector, say nothing;
            a few buffers of other versions neither.
    """
    anew = [name for name in body if name not in fitting]
    parts = {name.partition(".")[0] for name in body}
    beside = [name for name in unused if name.partition(".")[0] in parts]
    if anew:
        return (
            f"{len(anew)} of {len(body)} tensors before the last layer start anew, such as "
            f"{anew[0]}: are the weights of another model?"
        )
    if len(beside) * _FEW > len(body):
        return (
            f"{len(beside)} tensors of the weights are of layers that the model lacks, such as "
            f"{beside[0]}: are they of another model?"
        )
    return ""


_FEW = 10  # of one unused tensor in ten: masks of attention, say, that other versions save


def normalisation_for(options: ModelOptions) -> Normalisation:
    """Mean and deviation for the images of a run: those of --normalise, or of the weights.

    ImageNet's stand in where nothing says what the weights were trained with.
    """
    return (
        named_normalisation(options.normalise)
        or published_normalisation(options)
        or _file_normalisation(options)
        or (IMAGENET_MEAN, IMAGENET_STD)
    )


def _file_normalisation(options: ModelOptions) -> Normalisation | None:
    """What a file of weights, or the config.json beside it as timm writes it, says of its images.

    A file that cannot be read says nothing; `read_weights` says why.
    """
    if options.init == "scratch" or is_published(options.init):
        return None
    path = Path(options.init)
    try:
        content, _ = load_around(path, device="meta")
    except (CheckpointError, FileNotFoundError):
        return None
    if isinstance(content, dict) and (found := _stated_normalisation(content.get("normalise"))):
        return found
    try:
        beside = json.loads(path.with_name("config.json").read_text(encoding="utf-8"))
        config = beside["pretrained_cfg"]
        return _stated_normalisation([config["mean"], config["std"]])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def published_normalisation(options: ModelOptions) -> Normalisation | None:
    """Mean and deviation that the weights of --init were trained with; None where nothing says so.

    None too for a model or weights that there are not, which building the model says.
    """
    if not is_published(options.init):
        return None
    try:
        if (name := _timm_name(options)) is not None:
            config = timm_config(name)
            return _normalisation(config.mean, config.std) if config else None
        chosen = _torchvision_weights(options).transforms()
    except (FastloadError, RuntimeError, ValueError):
        return None
    if options.model in _TRAINED_ON_HALF:
        return named_normalisation("half")
    return _normalisation(chosen.mean, chosen.std)
