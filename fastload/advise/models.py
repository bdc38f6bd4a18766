"""Classification models by name: torchvision's, and timm's as timm:NAME."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from fastload.errors import FastloadError

_TIMM = "timm:"
_AUXILIARY = {"aux_logits": False, "AuxLogits": None, "aux1": None, "aux2": None}


def require_model(name: str) -> None:
    """Check that there is a model of this name, without building it.

    Raises:
        FastloadError: If there is no such model, or timm is needed and not installed.
    """
    if name.startswith(_TIMM):
        timm, short = import_timm(), name.removeprefix(_TIMM)
        if not timm.is_model(short):
            near = ", ".join(timm.list_models(f"*{short}*")[:5]) or "a name from timm.list_models()"
            raise FastloadError(f'model "{name}" is not in timm {timm.__version__}; try {near}')
        architecture, _, tag = short.partition(".")
        if tag and short not in (known := timm.list_pretrained(f"{architecture}.*")):
            near = ", ".join(known[:8]) or architecture
            raise FastloadError(
                f'model "{name}" is not in timm {timm.__version__}: {architecture} has no weights '
                f"{tag}; try {near}"
            )
        return
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        near = ", ".join([other for other in known if other.startswith(name[:4])] or known[:8])
        raise FastloadError(
            f'model "{name}" is no torchvision classification model; '
            f"try one of {near}, or timm:NAME"
        )


def build_model(
    name: str,
    num_classes: int,
    *,
    size: int | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> nn.Module:
    """A model with random weights.

    Args:
        name: A torchvision classification model such as "resnet50", or "timm:NAME".
        num_classes: Outputs.
        size: Side of the images in pixels, for models that are built for one size, as vision
            transformers are. None is the size that the model was published with, and so is a size
            that it cannot be built for: its forward pass refuses those images.
        arguments: More for the model's builder, such as timm's `drop_path_rate`.

    Returns:
        A module from float [N, 3, H, W] to logits [N, num_classes], in training mode, on torch's
        default device.

    Raises:
        FastloadError: If there is no such model, if it does not take the arguments, or if timm is
            needed and not installed.
    """
    require_model(name)
    more = dict(arguments or {})
    if for_size := _size_argument(name, size):
        try:
            return _built(name, num_classes, {**for_size, **more})
        except (AssertionError, RuntimeError, TypeError, ValueError):
            pass
    try:
        return _built(name, num_classes, more)
    except TypeError as error:
        if not more:
            raise
        words = ", ".join(f"{word} {value}" for word, value in more.items())
        raise FastloadError(
            f'model "{name}" cannot be built with {words} ({error}); leave it out'
        ) from error


def skeleton(name: str, num_classes: int, *, size: int | None = None) -> nn.Module:
    """The model of `build_model` without memory for its weights: all its tensors are meta tensors.

    It takes no random numbers. It tells the names and shapes of a model of any size within a second
    or two, and runs on meta tensors.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            with _WithoutMemory():
                model = build_model(name, num_classes, size=size)
        except Exception:  # noqa: BLE001  whatever a model does with a weight while it is built
            model = build_model(name, num_classes, size=size)
        return model.to("meta")


# A meta tensor has nothing to fill; to skip these halves the time of a skeleton.
_FILLS = {torch.Tensor.normal_, torch.Tensor.uniform_, torch.Tensor.fill_, torch.Tensor.zero_}


class _WithoutMemory(TorchFunctionMode):
    """Within: what `torch.empty` makes, as layers make their weights, is a meta tensor.

    Everything else stays on the CPU, other than under `torch.device("meta")`: torchvision's RegNets
    and timm's stochastic depth compute widths and rates with tensors, and read them.
    """

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401  torch's own signature
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        given = kwargs or {}
        if func in _FILLS and args[0].is_meta:
            return args[0]
        if func is torch.empty and given.get("device") is None:
            given = {**given, "device": "meta"}
        return func(*args, **given)


# torchvision's models that are built for one size of image, by the beginning of their name.
_SIZE_ARGUMENTS = {"vit_": "image_size", "maxvit_": "input_size"}
_SIZE = 224  # that of all torchvision models, unless said


def _size_argument(name: str, size: int | None) -> dict[str, Any]:
    """What builds a model for images of this size; nothing where it needs nothing."""
    if size is None:
        return {}
    if name.startswith(_TIMM):
        config = timm_config(name.removeprefix(_TIMM))
        fixed = config is not None and getattr(config, "fixed_input_size", False)
        return {"img_size": size} if fixed and config.input_size[-1] != size else {}
    word = next((word for start, word in _SIZE_ARGUMENTS.items() if name.startswith(start)), "")
    if not word or size == _SIZE:
        return {}
    return {word: (size, size) if word == "input_size" else size}


def _built(name: str, num_classes: int, for_size: dict[str, Any]) -> nn.Module:
    model: nn.Module
    if name.startswith(_TIMM):
        short = name.removeprefix(_TIMM)
        model = import_timm().create_model(
            short, pretrained=False, num_classes=num_classes, **for_size
        )
        return model
    from torchvision import models

    arguments = {"init_weights": True} if name in {"googlenet", "inception_v3"} else {}
    model = models.get_model(name, weights=None, num_classes=num_classes, **arguments, **for_size)
    return _without_auxiliary_heads(model)


def _without_auxiliary_heads(model: nn.Module) -> nn.Module:
    """Inception and GoogLeNet get one output in training, as torchvision itself can do it."""
    if hasattr(model, "aux_logits"):
        for name, off in _AUXILIARY.items():
            if hasattr(model, name):
                setattr(model, name, off)
    return model


def timm_config(name: str) -> Any:  # noqa: ANN401  timm's PretrainedCfg, or None
    """What timm says of a model and its weights, such as the size and the normalisation of images.

    Args:
        name: As timm calls it, with or without a tag. timm also takes the former name of many
            models, and knows their weights only once it has built the model.
    """
    timm = import_timm()
    found = timm.get_pretrained_cfg(name)
    if found is None and timm.is_model(name):
        with _WithoutMemory(), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the name, which is said where the model is built
            config = timm.create_model(name, pretrained=False).pretrained_cfg
        found = timm.models.PretrainedCfg(**config)
    return found


def import_timm() -> Any:  # noqa: ANN401  an optional package without types
    """The package timm.

    Raises:
        FastloadError: If timm is not installed.
    """
    try:
        import timm
    except ImportError as error:
        raise FastloadError(
            "timm:NAME needs timm, which is not installed; pip install timm"
        ) from error
    return timm
