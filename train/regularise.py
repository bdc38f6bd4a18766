"""What is dropped at random while a model trains, and what begins at zero.

No parameter is added and none gets another name: what a model lacks is put on a module as a hook.
So checkpoints are those of the plain model, which evaluation and `fastload.advise.models` build.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.regnet import ResBottleneckBlock
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import StochasticDepth, stochastic_depth

from fastload.errors import FastloadError
from train.options import RegularisationOptions

_TAKES_DROP_PATH = (
    "torchvision's ResNet, ResNeXt, RegNet, ConvNeXt, EfficientNet, Swin and MaxViT, and most of "
    "timm's models do"
)
_TAKES_ZERO_INIT = "torchvision's ResNet, ResNeXt and RegNet, and timm's ResNets and RegNets do"


class RegulariseError(FastloadError):
    """The model has nothing that the option could act on."""


def builder_arguments(name: str, options: RegularisationOptions) -> dict[str, Any]:
    """What the builder of a model needs to know; torchvision's are changed once they are built."""
    if options.drop_path < 0 or not name.startswith("timm:"):
        return {}
    return {"drop_path_rate": options.drop_path}


def regularise(
    model: nn.Module, name: str, options: RegularisationOptions, *, head: AbstractSet[str]
) -> None:
    """Have a model drop what the options say, and begin at zero.

    Args:
        model: The model, built with `builder_arguments`; changed in place.
        name: Its name, for messages.
        options: What is dropped, and what begins at zero.
        head: Names of the parameters of the last layer.

    Raises:
        RegulariseError: If the model has no residual branches that are known.
    """
    if options.drop_path >= 0:
        _set_drop_path(model, name, options.drop_path)
    if options.dropout >= 0:
        _set_dropout(model, head, options.dropout)
    if options.zero_init:
        _zero_init(model, name)


def _set_drop_path(model: nn.Module, name: str, rate: float) -> None:
    """Stochastic depth whose rate rises in a straight line from 0 in the first block to `rate`.

    That is the linear rule of Huang et al., "Deep networks with stochastic depth" (ECCV 2016), and
    of torchvision.
    """
    if name.startswith("timm:"):  # which was built with the rate
        if rate and not any(getattr(module, "drop_prob", 0) for module in model.modules()):
            raise _no_branches(name)
        return
    own = [module for module in model.modules() if isinstance(module, StochasticDepth)]
    places: list[nn.Module] = [*own] or _last_norms(model)
    if not places:
        raise _no_branches(name)
    for number, module in enumerate(places):
        probability = rate * number / max(len(places) - 1, 1)
        if isinstance(module, StochasticDepth):
            module.p = probability
        elif probability:
            module.register_forward_hook(partial(_drop_branch, probability))


def _no_branches(name: str) -> RegulariseError:
    return RegulariseError(
        f"--drop-path: {name} has no residual branches that could be dropped; {_TAKES_DROP_PATH}; "
        "leave it out"
    )


def _drop_branch(probability: float, module: nn.Module, _: Any, branch: Tensor) -> Tensor:  # noqa: ANN401  torch's hook
    dropped: Tensor = stochastic_depth(branch, probability, "row", training=module.training)
    return dropped


def _set_dropout(model: nn.Module, head: AbstractSet[str], rate: float) -> None:
    """Dropout on what enters the last layer, in place of one that stands right before it."""
    for path in {name.rpartition(".")[0] for name in head}:
        children = list(model.get_submodule(path.rpartition(".")[0]).children())
        last = model.get_submodule(path)
        former = children[children.index(last) - 1] if children[0] is not last else None
        if isinstance(former, nn.Dropout):
            former.p = 0.0
        if rate:
            last.register_forward_pre_hook(partial(_drop_inputs, rate))


def _drop_inputs(rate: float, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    first, *rest = inputs
    return functional.dropout(first, rate, training=module.training), *rest


def _zero_init(model: nn.Module, name: str) -> None:
    """Let each residual branch add nothing at first: the weight of its last norm is 0.

    Goyal et al., "Accurate, large minibatch SGD" (2017, section 5.1); torchvision's
    `zero_init_residual`, timm's `zero_init_last`.
    """
    blocks = [module for module in model.modules() if hasattr(module, "zero_init_last")]
    for block in blocks:  # timm's
        block.zero_init_last()  # type: ignore[operator]  # a method, which the hasattr above found
    norms = _last_norms(model)
    for norm in norms:
        nn.init.zeros_(norm.get_parameter("weight"))
    if not blocks and not norms:
        raise RegulariseError(
            f"--zero-init: {name} has no residual branches that end with a norm; "
            f"{_TAKES_ZERO_INIT}; leave it out"
        )


def _last_norms(model: nn.Module) -> list[nn.Module]:
    """The norm at the end of each residual branch of torchvision's ResNets and RegNets."""
    found = []
    for module in model.modules():
        if isinstance(module, BasicBlock):
            found.append(module.bn2)
        elif isinstance(module, Bottleneck):
            found.append(module.bn3)
        elif isinstance(module, ResBottleneckBlock):
            found.append(module.f.get_submodule("c.1"))
    return found
