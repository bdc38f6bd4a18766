"""Classification models by name: torchvision's, and timm's as timm:NAME."""

from __future__ import annotations

from typing import Any

from torch import nn

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
        return
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        near = ", ".join([other for other in known if other.startswith(name[:4])] or known[:8])
        raise FastloadError(
            f'model "{name}" is no torchvision classification model; '
            f"try one of {near}, or timm:NAME"
        )


def build_model(name: str, num_classes: int) -> nn.Module:
    """A model with random weights.

    Args:
        name: A torchvision classification model such as "resnet50", or "timm:NAME".
        num_classes: Outputs.

    Returns:
        A module from float [N, 3, H, W] to logits [N, num_classes], in training mode, on torch's
        default device.

    Raises:
        FastloadError: If there is no such model, or timm is needed and not installed.
    """
    require_model(name)
    model: nn.Module
    if name.startswith(_TIMM):
        short = name.removeprefix(_TIMM)
        model = import_timm().create_model(short, pretrained=False, num_classes=num_classes)
        return model
    from torchvision import models

    arguments = {"init_weights": True} if name in {"googlenet", "inception_v3"} else {}
    model = models.get_model(name, weights=None, num_classes=num_classes, **arguments)
    return _without_auxiliary_heads(model)


def _without_auxiliary_heads(model: nn.Module) -> nn.Module:
    """Inception and GoogLeNet get one output in training, as torchvision itself can do it."""
    if hasattr(model, "aux_logits"):
        for name, off in _AUXILIARY.items():
            if hasattr(model, name):
                setattr(model, name, off)
    return model


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
