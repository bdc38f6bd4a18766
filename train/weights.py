"""The weights that a network starts from: downloaded, or read from a file, and filled in."""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torchvision
from torch import Tensor, nn

from fastload.advise.models import import_timm
from fastload.console.terminal import counted
from fastload.errors import FastloadError, first_line
from train.options import ModelOptions
from train.tensorfile import CheckpointError, load_tensors

# A download that has not connected within this time will not connect; torch would wait for ever.
_DOWNLOAD_TIMEOUT_SECONDS = 20.0

# The keys under which trainers save weights: torchvision's references, timm, lightning and ours.
_WRAPPERS = ("model", "state_dict", "model_state_dict", "state_dict_ema")
_PREFIXES = ("module.", "_orig_mod.", "model.")


# (mean, std) of the three channels, on the scale [0, 1].
Normalisation = tuple[tuple[float, float, float], tuple[float, float, float]]


def _normalisation(mean: Sequence[float], std: Sequence[float]) -> Normalisation:
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


class WeightsError(FastloadError):
    """Weights cannot be had, or do not fit the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What became of a set of weights.

    Attributes:
        kept: Names of the model's tensors that were filled.
        reshaped: Names that both have, in another shape or type: the head, for another number of
            classes.
        missing: Names of the model that the weights lack.
        unused: Names of the weights that the model lacks.
    """

    kept: tuple[str, ...]
    reshaped: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"kept {counted(len(self.kept), 'tensor')}"]
        for word, names in (
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
    """

    tensors: dict[str, Tensor]
    classes: tuple[str, ...] | None = None
    normalise: Normalisation | None = None


def start_weights(options: ModelOptions) -> Weights | None:
    """The weights to start from; None for "scratch".

    Raises:
        WeightsError: If a download or a file fails; the sentence names the other choices.
    """
    if options.init == "scratch":
        return None
    if options.init == "imagenet" or options.init.startswith("imagenet:"):
        return Weights(_imagenet_weights(options), normalise=imagenet_normalisation(options))
    return read_weights(Path(options.init))


def _imagenet_weights(options: ModelOptions) -> dict[str, Tensor]:
    _, _, which = options.init.partition(":")
    try:
        with _impatient():
            if options.model.startswith("timm:"):
                name = options.model.removeprefix("timm:")
                model = import_timm().create_model(name, pretrained=True)
                return dict(model.state_dict())
            weights = torchvision.models.get_model_weights(options.model)
            chosen = weights[which or "DEFAULT"]
            return dict(chosen.get_state_dict(progress=False, check_hash=True))
    except KeyError as error:
        known = ", ".join(item.name for item in weights)
        raise WeightsError(f"{options.model} has no weights {which}; it has {known}") from error
    except FastloadError:
        raise
    except Exception as error:  # each way to download names its failures differently
        raise WeightsError(
            f"the ImageNet weights of {options.model} cannot be downloaded "
            f"({first_line(error)}); give --init FILE, or --init scratch"
        ) from error


@contextmanager
def _impatient() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def read_weights(path: Path) -> Weights:
    """The weights in a checkpoint file of any trainer.

    Args:
        path: A file with a state dict, or with one under "model", "state_dict", ...; names may have
            the prefixes of DistributedDataParallel, torch.compile or lightning. Only tensors and
            plain values are unpickled.

    Raises:
        WeightsError: If the file cannot be read, or holds no tensors.
    """
    try:
        content = load_tensors(path)
    except FileNotFoundError as error:
        raise WeightsError(
            f"--init {path}: there is no such file; give imagenet, scratch or a file of weights"
        ) from error
    except CheckpointError as error:
        raise WeightsError(f"--init {error}") from error
    tensors = _unwrapped(content)
    if not tensors:
        raise WeightsError(f"--init {path}: holds no tensors; a state dict was expected")
    facts = content if isinstance(content, dict) else {}
    classes = facts.get("classes")
    return Weights(
        tensors,
        tuple(map(str, classes)) if isinstance(classes, list) else None,
        _stated_normalisation(facts.get("normalise")),
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


def _unwrapped(content: object) -> dict[str, Tensor]:
    while isinstance(content, Mapping):
        inner = next(
            (content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None
        )
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping):
        return {}
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    while prefix := next((p for p in _PREFIXES if _all_start_with(p, tensors)), ""):
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors


def _all_start_with(prefix: str, names: Collection[str]) -> bool:
    return len(names) > 0 and all(name.startswith(prefix) for name in names)


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
        WeightsError: If the weights would fill less than half of the model without its head. They
            are of another model then, and this model is left as it was. Or if one is NaN or
            infinite.
    """
    own = model.state_dict()
    fitting = {k: v for k, v in weights.items() if k in own and _fits(v, own[k])}
    loaded = Loaded(
        kept=tuple(fitting),
        reshaped=tuple(k for k in weights if k in own and k not in fitting),
        missing=tuple(k for k in own if k not in weights),
        unused=tuple(k for k in weights if k not in own),
    )
    total = sum(value.numel() for key, value in own.items() if key not in head)
    filled = sum(own[key].numel() for key in fitting if key not in head)
    if 2 * filled < total:
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


def imagenet_normalisation(options: ModelOptions) -> Normalisation | None:
    """Mean and deviation that the ImageNet weights asked for were trained with; None for others."""
    if options.init.partition(":")[0] != "imagenet":
        return None
    if options.model.startswith("timm:"):
        config = import_timm().get_pretrained_cfg(options.model.removeprefix("timm:"))
        return _normalisation(config.mean, config.std) if config else None
    try:
        weights = torchvision.models.get_model_weights(options.model)
        chosen = weights[options.init.partition(":")[2] or "DEFAULT"].transforms()
    except (KeyError, ValueError):  # no such model or weights, which building the model says
        return None
    return _normalisation(chosen.mean, chosen.std)
