"""Apply the choices of `augment` to a batch of pixels, with torch, on the device."""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fastload.load.augment import Augment, Choices
from fastload.load.device import moved
from fastload.load.operations import operate


def augment_images(
    augment: Augment,
    images: Tensor,
    labels: Tensor,
    choices: Choices,
    *,
    dtype: torch.dtype = torch.uint8,
    num_classes: int = 0,
) -> tuple[Tensor, Tensor]:
    """Everything after the crop, batched, on the device of `images`.

    Args:
        augment: The augmentation that drew the choices.
        images: uint8 [N, 3, S, S], channels-last, cropped and flipped; not changed.
        labels: int64 [N], on the same device.
        choices: What was drawn.
        dtype: torch.uint8, or a floating-point type for normalised images.
        num_classes: Width of soft labels; needed when `augment.mix` is set.

    Returns:
        Images [N, 3, S, S] of `dtype`, channels-last, and the labels: int64 [N], or float32
        [N, num_classes] when `augment.mix` is set. `images` itself where nothing is to be done.
    """
    if choices.operations is not None and choices.strengths is not None:
        images = operate(images, choices.operations, choices.strengths)
    touched = augment.rotation or augment.jitter or augment.erasing or augment.mix
    if not touched and dtype == torch.uint8:
        return images, labels
    mean, std = (tuple(values) for values in augment.normalise)
    if not touched:
        # One multiplication and one addition per value.
        scale = _channels(tuple(1 / (255 * part) for part in std), images.device)
        shift = _channels(tuple(m / s for m, s in zip(mean, std, strict=True)), images.device)
        return (images * scale).sub_(shift).to(dtype), labels
    pixels = images.float().div_(255)
    pixels = _geometry_and_colour(pixels, choices)
    erased_with = mean
    if dtype != torch.uint8:
        pixels = pixels.sub_(_channels(mean, images.device)).div_(_channels(std, images.device))
        erased_with = (0.0, 0.0, 0.0)
    if choices.erased is not None:
        filling = _channels(erased_with, images.device)
        pixels = torch.where(box_masks(choices.erased, pixels), filling, pixels)
    if choices.partners is not None:
        pixels, labels = _mix(pixels, labels, choices, num_classes)
    if dtype == torch.uint8:
        pixels = pixels.mul(255).round_().clamp_(0, 255)
    return pixels.to(dtype, memory_format=torch.channels_last), labels


@functools.cache  # a process has few of them; to make one for each batch would wait for the GPU
def _channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device).view(1, 3, 1, 1)


def _geometry_and_colour(pixels: Tensor, choices: Choices) -> Tensor:
    if choices.angles is not None:
        pixels = rotate(pixels, _move(choices.angles, pixels))
    if choices.factors is not None and choices.orders is not None:
        pixels = jitter(pixels, choices.factors, choices.orders)
    return pixels


def _move(values: NDArray[np.generic], like: Tensor) -> Tensor:
    return moved(values, like.device)


def box_masks(boxes: NDArray[np.int32], like: Tensor) -> Tensor:
    """Which pixels of `like` [N, C, H, W] lie in the box of their image: bool [N, 1, H, W]."""
    top, left, height, width = _move(boxes, like).view(-1, 4, 1, 1).unbind(1)
    rows = torch.arange(like.shape[2], device=like.device).view(1, -1, 1)
    columns = torch.arange(like.shape[3], device=like.device).view(1, 1, -1)
    inside = (rows >= top) & (rows < top + height)
    inside = inside & (columns >= left) & (columns < left + width)
    return inside.unsqueeze(1)


def rotate(pixels: Tensor, degrees: Tensor) -> Tensor:
    """Rotate counter-clockwise about the centre, bilinear, black outside: torchvision's `rotate`.

    Args:
        pixels: float32 [N, 3, H, W].
        degrees: float32 [N].
    """
    if not len(pixels):
        return pixels  # torch refuses a grid of none
    height, width = pixels.shape[2:]
    cosine, sine = torch.cos(torch.deg2rad(degrees)), torch.sin(torch.deg2rad(degrees))
    zero = torch.zeros_like(cosine)
    # affine_grid's coordinates run over [-1, 1] in both directions, whatever height and width.
    first = torch.stack([cosine, -sine * (height / width), zero], 1)
    second = torch.stack([sine * (width / height), cosine, zero], 1)
    grid = functional.affine_grid(
        torch.stack([first, second], 1), list(pixels.shape), align_corners=False
    )
    return functional.grid_sample(pixels, grid, padding_mode="zeros", align_corners=False)


def _grey(pixels: Tensor) -> Tensor:
    # ITU-R 601-2, the constants of torchvision's rgb_to_grayscale and Pillow's L.
    red, green, blue = pixels.unbind(1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).unsqueeze(1)


def _blend(pixels: Tensor, other: Tensor | float, factors: Tensor) -> Tensor:
    return (factors * pixels + (1 - factors) * other).clamp_(0, 1)


def adjust_brightness(pixels: Tensor, factors: Tensor) -> Tensor:
    """Blend with black. pixels float32 [N, 3, H, W] in [0, 1], factors float32 [N]."""
    return _blend(pixels, 0.0, factors.view(-1, 1, 1, 1))


def adjust_contrast(pixels: Tensor, factors: Tensor) -> Tensor:
    """Blend with the mean grey. pixels float32 [N, 3, H, W] in [0, 1], factors float32 [N]."""
    # Row by row: torch's threads share the sum of a whole image, in parts that depend on the batch.
    sums = _grey(pixels).sum(3, keepdim=True).sum(2, keepdim=True)
    return _blend(pixels, sums.div_(pixels.shape[2] * pixels.shape[3]), factors.view(-1, 1, 1, 1))


def adjust_saturation(pixels: Tensor, factors: Tensor) -> Tensor:
    """Blend with grey. pixels float32 [N, 3, H, W] in [0, 1], factors float32 [N]."""
    return _blend(pixels, _grey(pixels), factors.view(-1, 1, 1, 1))


def adjust_hue(pixels: Tensor, shifts: Tensor) -> Tensor:
    """Turn the hue. pixels float32 [N, 3, H, W] in [0, 1], shifts float32 [N] in turns."""
    red, green, blue = pixels.unbind(1)
    value = pixels.amax(1)
    chroma = value - pixels.amin(1)
    safe = torch.where(chroma > 0, chroma, 1.0)
    hue = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    hue = torch.remainder(hue / 6 + shifts.view(-1, 1, 1), 1.0) * 6
    # f(n) = V - C * clamp(min(k, 4 - k), 0, 1) with k = (n + H) mod 6, n = 5, 3, 1 for R, G, B.
    turned = []
    for channel in (5, 3, 1):
        sextant = torch.remainder(hue + channel, 6.0)
        turned.append(value - chroma * torch.minimum(sextant, 4 - sextant).clamp(0, 1))
    return torch.stack(turned, 1)


_ADJUSTMENTS = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)


def jitter(pixels: Tensor, factors: NDArray[np.float32], orders: NDArray[np.int64]) -> Tensor:
    """Apply the four adjustments to each image in its own order.

    Args:
        pixels: float32 [N, 3, H, W] in [0, 1]; overwritten.
        factors: float32 [N, 4].
        orders: int64 [N, 4], permutations of 0 (brightness), 1, 2, 3 (hue).

    Returns:
        `pixels`.
    """
    idle = np.array([1, 1, 1, 0], np.float32)
    for step in range(4):
        for kind, adjust in enumerate(_ADJUSTMENTS):
            chosen = np.flatnonzero((orders[:, step] == kind) & (factors[:, kind] != idle[kind]))
            if len(chosen):
                where = _move(chosen, pixels)
                pixels[where] = adjust(pixels[where], _move(factors[chosen, kind], pixels))
    return pixels


def _mix(
    pixels: Tensor, labels: Tensor, choices: Choices, num_classes: int
) -> tuple[Tensor, Tensor]:
    if choices.partners is None or choices.shares is None or choices.pasted is None:
        return pixels, labels
    partners, shares = _move(choices.partners, pixels), _move(choices.shares, pixels)
    # MixUp weighs pixels; CutMix pastes them and leaves their weight at 1.
    weights = torch.where(_move(choices.pasted[:, 2] > 0, pixels), 1.0, shares).view(-1, 1, 1, 1)
    others = pixels[partners]
    blended = pixels * weights + others * (1 - weights)
    blended = torch.where(box_masks(choices.pasted, pixels), others, blended)
    # one_hot would look at the labels, and so wait for the GPU.
    hard = torch.zeros(len(labels), num_classes, device=labels.device)
    hard.scatter_(1, labels.view(-1, 1), 1.0)
    soft = hard * shares.view(-1, 1) + hard[partners] * (1 - shares.view(-1, 1))
    return blended, soft
