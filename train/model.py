"""What of a network is trained, and how its parameters are told apart.

Nothing here knows the name of a layer. The head is what changes its shape when the number of
classes does, norms are known by their type, weights by the word that torch's modules have for them,
and depth is the order in which a model registers its modules; so any torchvision classification
model works, and `timm:NAME` too.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from fastload.advise.models import skeleton

_NORMS = (
    nn.modules.batchnorm._NormBase,  # the one base of BatchNorm and InstanceNorm
    nn.LayerNorm,
    nn.GroupNorm,
    nn.LocalResponseNorm,
)


def head_names(name: str, num_classes: int) -> frozenset[str]:
    """The parameters whose shape depends on the number of classes.

    Args:
        name: The name of a model, for `build_model`.
        num_classes: Outputs of the model.

    Returns:
        Names such as {"fc.weight", "fc.bias"}.
    """
    here = dict(skeleton(name, num_classes).named_parameters())
    there = dict(skeleton(name, num_classes + 1).named_parameters())
    return frozenset(key for key, value in here.items() if value.shape != there[key].shape)


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
    model: nn.Module,
    *,
    weight_decay: float,
    stem_rate: float = 1.0,
    decay_norms: bool = False,
    head: AbstractSet[str] = frozenset(),
    head_rate: float = 1.0,
) -> list[dict[str, Any]]:
    """The trainable parameters, grouped by what an optimizer does differently.

    Decayed is what multiplies the input of a module. torch's modules, and those derived from them,
    call it a weight: `weight`, `in_proj_weight`, `weight_ih_l0`. Not decayed are norms, which are
    known by their type, vectors such as biases, and what a composed module adds or scales with
    under a name of its own: class tokens, embeddings of positions, tables of relative positions,
    layer scales, temperatures. That is what the recipes of torchvision (`class_token`,
    `position_embedding` and `relative_position_bias_table` in set_weight_decay of its references)
    and of timm (`no_weight_decay` of a model) exempt. What a model itself names in
    `no_weight_decay()`, as timm's do, is exempt too.

    Args:
        model: Any module.
        weight_decay: The decay of weights; the others get 0.
        stem_rate: Learning rate of the first layer over that of the last layer, in (0, 1]. The
            rates in between are geometric, in eight steps over the modules in the order of
            registration.
        decay_norms: Decay every parameter.
        head: Names of the parameters of the last layer.
        head_rate: Factor on the learning rate of the last layer.

    Returns:
        Groups for a torch optimizer, each with "params", their "names", "weight_decay" and
        "rate_scale".
    """
    exempt = tuple(model.no_weight_decay()) if hasattr(model, "no_weight_decay") else ()  # type: ignore[operator]  # timm's method

    def decays(name: str, module: nn.Module, parameter: nn.Parameter) -> bool:
        if decay_norms:
            return True
        weight = "weight" in name.rpartition(".")[2] and _is_matrix(name, module, parameter)
        return weight and not any(fnmatchcase(name, pattern) for pattern in exempt)

    return [
        {
            "params": list(named.values()),
            "names": list(named),
            "weight_decay": weight_decay if decayed else 0.0,
            "rate_scale": stem_rate ** (1 - step / _DEPTH_STEPS) * (head_rate if of_head else 1.0),
        }
        for (step, decayed, of_head), named in _grouped(
            model, decays, layerwise=stem_rate != 1, head=head if head_rate != 1 else frozenset()
        ).items()
    ]


def former_names(model: nn.Module, *, layerwise: bool) -> list[list[str]]:
    """The parameters in each group of a checkpoint that does not name them.

    Args:
        model: The model of the checkpoint, with the same parameters to train.
        layerwise: Whether it was trained with learning rates that fall towards the stem.
    """
    return [list(named) for named in _grouped(model, _is_matrix, layerwise=layerwise).values()]


def _is_matrix(_: str, module: nn.Module, parameter: nn.Parameter) -> bool:
    return parameter.ndim > 1 and not isinstance(module, _NORMS)


def _grouped(
    model: nn.Module,
    decays: Callable[[str, nn.Module, nn.Parameter], bool],
    *,
    layerwise: bool,
    head: AbstractSet[str] = frozenset(),
) -> dict[tuple[int, bool, bool], dict[str, nn.Parameter]]:
    """The trainable parameters by (step of depth, is decayed, is of the head), in order."""
    owners = [
        (module, f"{path}.{name}" if path else name, parameter)
        for path, module in model.named_modules()
        for name, parameter in module.named_parameters(recurse=False)
    ]
    depths: dict[int, int] = {}
    groups: dict[tuple[int, bool, bool], dict[str, nn.Parameter]] = {}
    seen: set[int] = set()
    last = max(len({id(module) for module, _, _ in owners}) - 1, 1)
    for module, name, parameter in owners:
        depth = depths.setdefault(id(module), len(depths))
        if id(parameter) in seen or not parameter.requires_grad:
            continue
        seen.add(id(parameter))
        step = round(_DEPTH_STEPS * depth / last) if layerwise else 0
        key = step, decays(name, module, parameter), name in head
        groups.setdefault(key, {})[name] = parameter
    return groups


_DEPTH_STEPS = 8
