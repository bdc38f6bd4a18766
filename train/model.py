"""What of a network is trained, and how its parameters are told apart.

Nothing here knows the name of a layer. The head is what changes its shape when the number of
classes does, norms are known by their type, and depth is the order in which a model registers its
modules; so any torchvision classification model works, and `timm:NAME` too.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Any

import torch
from torch import nn

from fastload.advise.models import build_model

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
    with torch.device("meta"):
        here = dict(build_model(name, num_classes).named_parameters())
        there = dict(build_model(name, num_classes + 1).named_parameters())
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
    model: nn.Module, *, weight_decay: float, stem_rate: float
) -> list[dict[str, Any]]:
    """The trainable parameters, grouped by what an optimizer does differently.

    Args:
        model: Any module.
        weight_decay: The decay of weights; norms, known by their type, and vectors such as biases
            get 0.
        stem_rate: Learning rate of the first layer over that of the last layer, in (0, 1]. The
            rates in between are geometric, in eight steps over the modules in the order of
            registration.

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
