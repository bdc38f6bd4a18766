"""Which images a model takes, found by a forward pass that costs neither memory nor time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fastload.advise.models import skeleton
from fastload.errors import FastloadError, first_line

_TRIED = 16  # sizes: some seconds at most, and only where there is something to say
_COMMON = (224, 256, 384)  # the sizes that most models are published with
_NORM = "more than 1 value per channel"  # how torch's BatchNorm begins to refuse a batch


class View(NamedTuple):
    """Images that a run shows a model.

    Attributes:
        flag: The option that asks for the size.
        size: Side of the images in pixels.
        built_for: The side that the model is built for, if it is built for one.
    """

    flag: str
    size: int
    built_for: int


class SizeError(FastloadError):
    """A model does not take images of a size, or batches of a number of them."""


def refusal(model: nn.Module, *, size: int, images: int, num_classes: int) -> str:
    """Why a model does not take a batch, in the mode that it is in; "" where it does.

    The model computes on meta tensors; what fails there may be no fault of the model, and is tried
    with real ones. The model is left as it was, and so are torch's random numbers.

    Args:
        model: The model.
        size: Side of the images in pixels.
        images: Images of the batch.
        num_classes: C of the scores [N, C] that are expected.
    """
    images = min(images, 2)  # more change no shape that could be wrong
    device = next((item.device for item in model.parameters()), torch.device("cpu"))
    reason = ""
    for place in dict.fromkeys((torch.device("meta"), device)):
        state = {name: value.detach().to(place) for name, value in model.named_parameters()}
        state |= {name: value.to(place, copy=True) for name, value in model.named_buffers()}
        batch = torch.zeros(images, 3, size, size, device=place)
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                scores = functional_call(model, state, (batch,))
        except Exception as error:  # noqa: BLE001  a model refuses a batch in any way
            reason = first_line(error)
            continue
        if isinstance(scores, Tensor) and scores.shape == (images, num_classes):
            return ""
        found = list(scores.shape) if isinstance(scores, Tensor) else f"a {type(scores).__name__}"
        return f"it gives {found}, not scores [{images}, {num_classes}]"
    return reason


def require_size(model: nn.Module, name: str, view: View, *, images: int, num_classes: int) -> None:
    """Check that a model takes images of a size, in the mode that it is in.

    Args:
        model: What `build_model` gave for the images of --size.
        name: Its name.
        view: The size, and the option that asks for it.
        images: Images of a batch.
        num_classes: C of the scores [N, C] that are expected.

    Raises:
        SizeError: If it does not; the sentence names what it would take.
    """
    size = view.size
    reason = refusal(model, size=size, images=images, num_classes=num_classes)
    if not reason:
        return
    if images == 1 and not refusal(model, size=size, images=2, num_classes=num_classes):
        why = ": its BatchNorm gets a single value of each channel" if _NORM in reason else ""
        raise SizeError(
            f"{name} cannot be trained on batches of one image of {size} pixels{why}; give "
            "--batch-size 2 or more"
        )
    known = sorted(itertools.islice(_sizes_taken(model, name, view, num_classes), 2))
    remedy = f"give {view.flag} {' or '.join(map(str, known))}" if known else "take another model"
    raise SizeError(
        f"{name} does not take images of {size} pixels, which {view.flag} asks for ({reason}); "
        f"{remedy}"
    )


def _sizes_taken(model: nn.Module, name: str, view: View, num_classes: int) -> Iterator[int]:
    """Sizes near one that a model does not take; for another --size it is built anew."""
    size = view.size
    patches = {step * count for step in (14, 32) for count in range(1, 2 * size // step + 2)}
    near = sorted(patches, key=lambda other: (abs(other - size), other))[:_TRIED]
    for other in dict.fromkeys((*near, view.built_for, *_COMMON)):
        rebuilt = view.flag == "--size"
        bones = skeleton(name, num_classes, size=other).train(model.training) if rebuilt else model
        if other != size and not refusal(bones, size=other, images=2, num_classes=num_classes):
            yield other
