"""A transform of the caller's own, on each image: between the crop and the rest of `Augment`.

    crop, flip -> uint8 [N, 3, S, S] -> the transform, image by image -> uint8 [N, 3, S, S] -> apply

It runs on the device, in the caller's thread, one image after another: it need not be thread-safe.
Before each image torch's generators are set from (seed, epoch, position); after the batch they are
as they were. So what torchvision's v2 transforms draw is a function of these three, like all draws
of `Augment`, and the caller's own random numbers stay what they would be without a transform.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastload import randomness
from fastload.arguments import check_callable, shown

Transform = Callable[[Tensor], Tensor]


def check_transform(transform: Transform | None) -> None:
    """Require None, or something that can be called with one image.

    Raises:
        TypeError: If it is neither.
    """
    check_callable("transform", transform)
    called = transform.forward if isinstance(transform, torch.nn.Module) else transform
    try:
        inspect.signature(called).bind("image") if called else None
    except TypeError as error:
        raise TypeError(
            f"transform must take one image, got {shown(transform)} ({error}); what is done with"
            " whole batches is a line in your loop: for images, labels in loader: …"
        ) from None
    except ValueError:
        return  # a function in C may not say what it takes


def seeds_of(seed: int, epoch: int, positions: NDArray[np.int64]) -> list[int]:
    """What torch's generators are set to before each image: a number in [0, 2**64)."""
    hashes = randomness.hashes(seed, epoch, positions, stream=randomness.TRANSFORM)
    words: list[int] = hashes.tolist()
    return words


def transform_images(transform: Transform, images: Tensor, seeds: list[int]) -> Tensor:
    """Give each image to the transform.

    Args:
        transform: Called with uint8 [3, S, S] on the device, channels last in memory; it may change
            and keep the image. Returns one of the same shape and type.
        images: uint8 [N, 3, S, S], channels-last.
        seeds: For each image what torch's generators are set to, the CPU's and the device's.

    Returns:
        uint8 [N, 3, S, S], channels-last, in memory of its own.

    Raises:
        TypeError: If a result is no uint8 tensor.
        ValueError: If a result has another shape.
    """
    on_cuda = images.device.type == "cuda"
    generators = [torch.default_generator]
    if on_cuda:
        generators.append(torch.cuda.default_generators[images.device.index])
    results = torch.empty_like(images)
    with torch.random.fork_rng([images.device] if on_cuda else [], device_type="cuda"):
        for image, result, seed in zip(images, results, seeds, strict=True):
            for generator in generators:
                generator.manual_seed(seed)
            result.copy_(_checked(transform(image), image))
    return results


def _checked(result: object, image: Tensor) -> Tensor:
    size = image.shape[-1]
    if not isinstance(result, Tensor):
        raise TypeError(
            f"transform must return a uint8 tensor [3, {size}, {size}] like the image that it is"
            f" given, got {shown(result)}"
        )
    if result.dtype != torch.uint8:
        raise TypeError(
            f"transform must return uint8, as it is given, got {result.dtype}; leave ToDtype and"
            " Normalize out and give the Loader dtype=torch.float32 and"
            " augment=Augment.train(…, normalise=(mean, std))"
        )
    if result.shape != image.shape:
        raise ValueError(
            f"transform must return [3, {size}, {size}], as it is given, got"
            f" {list(result.shape)}; the size of the batches is that of augment=Augment.train(size)"
        )
    return result
