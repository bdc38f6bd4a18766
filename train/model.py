"""The network: built by name, started from weights, and trained in part or in whole.

Nothing here knows the name of a layer. The head is what changes its shape when the number of
classes does, norms are known by their type, and depth is the order in which a model registers its
modules; so any torchvision classification model works, and `timm:NAME` too.
"""

from __future__ import annotations

import pickle
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision
from torch import Tensor, nn

from fastload.errors import FastloadError, first_line
from fastload.files import explain_os_error
from train.options import ModelOptions

# A download that cannot connect within this time is not going to: the default is to wait for ever.
_DOWNLOAD_TIMEOUT_SECONDS = 20.0

_NORMS = (
    nn.modules.batchnorm._NormBase,  # the one base of BatchNorm and InstanceNorm
    nn.LayerNorm,
    nn.GroupNorm,
    nn.LocalResponseNorm,
)

# What other trainers wrap weights in: torchvision's references, timm, lightning and ours.
_WRAPPERS = ("model", "state_dict", "model_state_dict", "state_dict_ema")
_PREFIXES = ("module.", "_orig_mod.", "model.")


class WeightsError(FastloadError):
    """Weights cannot be had, or do not fit the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What became of a set of weights.

    Attributes:
        kept: Names of the model's tensors that were filled.
        reshaped: Names that both have, in another shape: the head, for another number of classes.
        missing: Names of the model that the weights lack.
        unused: Names of the weights that the model lacks.
    """

    kept: tuple[str, ...]
    reshaped: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"kept {len(self.kept)} tensors"]
        for word, names in (
            ("other shape, started anew:", self.reshaped),
            ("not in the weights, started anew:", self.missing),
            ("not in the model, dropped:", self.unused),
        ):
            if names:
                more = f" and {len(names) - 3} more" if len(names) > 3 else ""
                parts.append(f"{word} {', '.join(names[:3])}{more}")
        return "; ".join(parts)


def build_model(name: str, num_classes: int) -> nn.Module:
    """A model with random weights.

    Args:
        name: Of a torchvision classification model such as "resnet50", or "timm:NAME".
        num_classes: Outputs.

    Returns:
        A module from float [N, 3, H, W] to logits [N, num_classes], in training mode, on torch's
        default device.

    Raises:
        WeightsError: If there is no such model.
    """
    if name.startswith("timm:"):
        return _build_timm(name.removeprefix("timm:"), num_classes)
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        near = [other for other in known if other.startswith(name[:4])]
        raise WeightsError(
            f'model "{name}" is no torchvision classification model; '
            f"try one of {', '.join(near or known[:8])}, or timm:NAME"
        )
    arguments = {"init_weights": True} if name in {"googlenet", "inception_v3"} else {}
    model: nn.Module = torchvision.models.get_model(
        name, weights=None, num_classes=num_classes, **arguments
    )
    return _without_auxiliary_heads(model)


def _without_auxiliary_heads(model: nn.Module) -> nn.Module:
    """Inception and GoogLeNet: one output in training, as torchvision itself switches it off."""
    if hasattr(model, "aux_logits"):
        for name, off in (
            ("aux_logits", False),
            ("AuxLogits", None),
            ("aux1", None),
            ("aux2", None),
        ):
            if hasattr(model, name):
                setattr(model, name, off)
    return model


def _build_timm(name: str, num_classes: int) -> nn.Module:
    timm = _timm()
    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name}*")[:5]) or "a name from timm.list_models()"
        raise WeightsError(f'model "timm:{name}" is not in timm {timm.__version__}; try {near}')
    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes)
    return model


def _timm() -> Any:  # noqa: ANN401  an optional package without types
    try:
        import timm
    except ImportError as error:
        raise WeightsError(
            "timm:NAME needs timm, which is not installed; pip install timm"
        ) from error
    return timm


def head_names(name: str, num_classes: int) -> frozenset[str]:
    """The parameters whose shape depends on the number of classes.

    Args:
        name: As for `build_model`.
        num_classes: As for `build_model`.

    Returns:
        Names such as {"fc.weight", "fc.bias"}.
    """
    with torch.device("meta"):
        here = dict(build_model(name, num_classes).named_parameters())
        there = dict(build_model(name, num_classes + 1).named_parameters())
    return frozenset(key for key, value in here.items() if value.shape != there[key].shape)


# (mean, std) of the three channels, on the scale [0, 1].
Normalisation = tuple[tuple[float, float, float], tuple[float, float, float]]


def _normalisation(mean: Sequence[float], std: Sequence[float]) -> Normalisation:
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


class Weights(NamedTuple):
    """Weights to start from.

    Attributes:
        tensors: Name -> tensor on the CPU, as a state dict without wrappers or prefixes.
        classes: What the outputs mean, in order; None where the file does not say.
        normalise: Mean and deviation of the images they were trained on; None likewise.
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
                model = _timm().create_model(name, pretrained=True)
                return dict(model.state_dict())
            weights = torchvision.models.get_model_weights(options.model)
            chosen = weights[which or "DEFAULT"]
            return dict(chosen.get_state_dict(progress=False, check_hash=True))
    except KeyError as error:
        known = ", ".join(item.name for item in weights)
        raise WeightsError(f"{options.model} has no weights {which}; it has {known}") from error
    except WeightsError:
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
    """The weights in a checkpoint file, whoever wrote it.

    Args:
        path: A plain state dict, or one under "model", "state_dict", ...; names may carry the
            prefixes of DistributedDataParallel, torch.compile or lightning. Only tensors and plain
            values are ever unpickled.

    Raises:
        WeightsError: If the file cannot be read, or holds no tensors.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(
            f"--init {path}: there is no such file; give imagenet, scratch or a file of weights"
        ) from error
    except OSError as error:
        raise WeightsError(f"--init {explain_os_error(error)}") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise WeightsError(
            f"--init {path}: not a file of weights that can be read safely ({first_line(error)})"
        ) from error
    tensors = _unwrapped(content)
    if not tensors:
        raise WeightsError(f"--init {path}: holds no tensors; a state dict was expected")
    facts = content if isinstance(content, dict) else {}
    classes, normalise = facts.get("classes"), facts.get("normalise")
    return Weights(
        tensors,
        tuple(map(str, classes)) if isinstance(classes, list) else None,
        _normalisation(*normalise) if isinstance(normalise, list) else None,
    )


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


def load_weights(
    model: nn.Module, weights: Mapping[str, Tensor], *, head: AbstractSet[str]
) -> Loaded:
    """Fill a model with those weights that fit, by name and shape.

    Args:
        model: Changed in place.
        weights: Name -> tensor.
        head: Parameters that may well have another shape, since their number of classes differs.

    Returns:
        What was kept and what was not.

    Raises:
        WeightsError: If they would fill less than half of the model without its head: they are of
            another model, and this one is left as it was.
    """
    own = model.state_dict()
    fitting = {k: v for k, v in weights.items() if k in own and own[k].shape == v.shape}
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
    model.load_state_dict(fitting, strict=False)
    return loaded


def freeze_all_but(model: nn.Module, names: AbstractSet[str]) -> None:
    """Leave only the parameters `names` to train."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)


def set_training(model: nn.Module) -> None:
    """Training mode, except for modules whose parameters, and their children's, are all frozen.

    So a frozen BatchNorm keeps its statistics, and a frozen block drops nothing out.
    """
    model.eval()
    for module in model.modules():
        if any(parameter.requires_grad for parameter in module.parameters()):
            module.training = True
    if all(parameter.requires_grad for parameter in model.parameters()):
        model.train()


def parameter_groups(
    model: nn.Module, *, weight_decay: float, stem_rate: float
) -> list[dict[str, Any]]:
    """The trainable parameters, grouped by what an optimizer does differently.

    Args:
        model: Any module.
        weight_decay: For weights; norms, known by their type, and vectors such as biases get 0.
        stem_rate: Learning rate of the first layer over that of the last, in (0, 1]; geometric in
            between, in eight steps, over the modules in the order of registration.

    Returns:
        Groups for a torch optimizer, each with "params", "weight_decay" and "rate_scale".
    """
    owners = [
        (module, parameter)
        for module in model.modules()
        for parameter in module.parameters(recurse=False)
    ]
    depths: dict[int, int] = {}
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    seen: set[int] = set()
    last = max(len({id(module) for module, _ in owners}) - 1, 1)
    for module, parameter in owners:
        depth = depths.setdefault(id(module), len(depths))
        if id(parameter) in seen or not parameter.requires_grad:
            continue
        seen.add(id(parameter))
        step = 0 if stem_rate == 1 else round(_DEPTH_STEPS * depth / last)
        decays = parameter.ndim > 1 and not isinstance(module, _NORMS)
        group = groups.setdefault(
            (step, decays),
            {
                "params": [],
                "weight_decay": weight_decay if decays else 0.0,
                "rate_scale": stem_rate ** (1 - step / _DEPTH_STEPS),
            },
        )
        group["params"].append(parameter)
    return list(groups.values())


_DEPTH_STEPS = 8


def imagenet_normalisation(options: ModelOptions) -> Normalisation | None:
    """Mean and deviation that the ImageNet weights asked for were trained with; None for others."""
    if options.init.partition(":")[0] != "imagenet":
        return None
    if options.model.startswith("timm:"):
        config = _timm().get_pretrained_cfg(options.model.removeprefix("timm:"))
        return _normalisation(config.mean, config.std) if config else None
    try:
        weights = torchvision.models.get_model_weights(options.model)
        chosen = weights[options.init.partition(":")[2] or "DEFAULT"].transforms()
    except (KeyError, ValueError):  # no such model or weights, which building the model says
        return None
    return _normalisation(chosen.mean, chosen.std)
