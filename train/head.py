"""The last layer of a model in float32, where the rest computes in mixed precision."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn


def answer_in_float32(model: nn.Module, head: AbstractSet[str]) -> None:
    """Let evaluation compute the last layer in float32, within autocast too.

    A logit of bfloat16 has 8 significant bits: the best two of many classes are often equal, and
    the class number would decide between them. Training computes as before.

    Args:
        model: Changed in place; copies of it are changed with it.
        head: The names of the last layer's parameters, from `head_names`.
    """
    for owner in sorted({name.rpartition(".")[0] for name in head} - {""}):
        module: Any = model.get_submodule(owner)
        module.forward = MethodType(_forward, module)


def _forward(module: nn.Module, *inputs: Tensor) -> Any:  # noqa: ANN401  as the module answers
    if module.training:
        return type(module).forward(module, *inputs)
    with torch.autocast(inputs[0].device.type, enabled=False):
        return type(module).forward(module, *(each.float() for each in inputs))
