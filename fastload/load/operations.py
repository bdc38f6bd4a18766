"""The operations of `auto_augment` on a batch of uint8 pixels, with torch, on the device.

Images that get the same operation are brought together, and changed at once; the five geometric
operations are one. What is done to which image is known on the host, so nothing waits for the
device. Pixels are those of torchvision's functions for uint8 tensors.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fastload.load.auto_augment import Operation
from fastload.load.device import moved

Pixels = Tensor  # uint8 [n, H, W, 3], contiguous
Kinds = NDArray[np.int64]  # [n]
Strengths = NDArray[np.float64]  # [n]


def operate(
    images: Tensor, operations: NDArray[np.int64], strengths: NDArray[np.float64]
) -> Tensor:
    """Change each image by its own operations, one after another.

    Args:
        images: uint8 [N, 3, H, W], channels-last; not changed.
        operations: int64 [N, K], members of `Operation`.
        strengths: float64 [N, K].

    Returns:
        uint8 [N, 3, H, W], channels-last.
    """
    pixels = images.permute(0, 2, 3, 1).contiguous()
    for kinds, amounts in zip(operations.T, strengths.T, strict=True):
        order, changed = [], []
        for members, change in _CHANGES:
            for chosen in _parts(np.flatnonzero(np.isin(kinds, members)), pixels):
                part = pixels.index_select(0, moved(chosen, pixels.device))
                changed.append(change(part, kinds[chosen], amounts[chosen]).to(torch.uint8))
                order.append(chosen)
        if order:
            places = np.argsort(np.concatenate(order))
            pixels = torch.cat(changed).index_select(0, moved(places, pixels.device))
    return pixels.permute(0, 3, 1, 2)


def _parts(chosen: NDArray[np.int64], pixels: Pixels) -> list[NDArray[np.int64]]:
    """All at once on a GPU, on a CPU so many at a time as its cache holds."""
    most = len(chosen)
    if pixels.device.type == "cpu":
        most = _PART_BYTES // max(1, pixels[:1].numel())
    most = max(1, most)
    return [chosen[first : first + most] for first in range(0, len(chosen), most)]


def inverse_matrices(
    kinds: NDArray[np.int64], amounts: Strengths, height: int, width: int
) -> NDArray[np.float32]:
    """From a pixel of the output to its place in the input, both from the middle of the image.

    Returns:
        float32 [n, 2, 3], for (x, y, 1).
    """
    matrices = np.tile(np.eye(2, 3), (len(kinds), 1, 1))
    # Shears leave the upper left corner where it is. All is done in torchvision's order: the last
    # bits choose among two pixels that are equally near.
    sheared = np.radians(np.degrees(np.arctan(amounts)))
    chosen = kinds == Operation.SHEAR_X
    matrices[chosen, 0, 1] = np.tan(sheared[chosen])
    chosen = kinds == Operation.SHEAR_Y
    matrices[chosen, 1, 0] = np.sin(sheared[chosen]) / np.cos(sheared[chosen])
    matrices[:, 0, 2] = matrices[:, 0, 1] * (height / 2)
    matrices[:, 1, 2] = matrices[:, 1, 0] * (width / 2) - height / 2 + height / 2
    matrices[:, 0, 2] -= np.where(kinds == Operation.TRANSLATE_X, amounts, 0)
    matrices[:, 1, 2] -= np.where(kinds == Operation.TRANSLATE_Y, amounts, 0)
    chosen = kinds == Operation.ROTATE
    angles = np.radians(amounts[chosen] % 360)
    matrices[chosen, 0, 0] = matrices[chosen, 1, 1] = np.cos(angles)
    matrices[chosen, 0, 1] = -np.sin(angles)
    matrices[chosen, 1, 0] = np.sin(angles)
    return matrices.astype(np.float32)


def _warp(pixels: Pixels, kinds: Kinds, amounts: Strengths) -> Tensor:
    """Each pixel of the output is the nearest one of the input; black outside."""
    height, width = pixels.shape[1:3]
    inverses = inverse_matrices(kinds, amounts, height, width)
    # grid_sample's coordinates run over [-1, 1].
    scaled = inverses / np.array([[width / 2], [height / 2]], np.float32)
    to_x, to_y = moved(scaled, pixels.device).view(-1, 2, 3, 1, 1).unbind(1)
    x = torch.linspace((1 - width) / 2, (width - 1) / 2, width, device=pixels.device)
    y = torch.linspace((1 - height) / 2, (height - 1) / 2, height, device=pixels.device)
    # Not a matrix product, which a GPU may round to the 10 bits of TF32.
    grid = torch.stack([_product(to_x, x, y.view(-1, 1)), _product(to_y, x, y.view(-1, 1))])
    warped = functional.grid_sample(
        pixels.permute(0, 3, 1, 2).float(),
        grid.permute(1, 2, 3, 0),
        mode="nearest",
        align_corners=False,
    )
    return warped.permute(0, 2, 3, 1)


def _product(row: Tensor, x: Tensor, y: Tensor) -> Tensor:
    over_x, over_y, constant = row.unbind(1)
    return torch.addcmul(over_x * x, over_y, y).add_(constant)


def _column(values: NDArray[np.generic], dtype: type[np.generic], like: Tensor) -> Tensor:
    """One value for each image, [n, 1, 1, 1]."""
    return moved(values.astype(dtype), like.device).view(-1, 1, 1, 1)


def _grey(pixels: Pixels) -> Tensor:
    """Float32 [n, H, W, 1] of whole numbers, rounded down."""
    red, green, blue = pixels.unbind(3)
    grey = red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114)
    return grey.floor_().unsqueeze(3)


def _blend(pixels: Pixels, other: Tensor, amounts: Strengths) -> Tensor:
    factors = 1 + amounts
    own, rest = _column(factors, np.float32, pixels), _column(1 - factors, np.float32, pixels)
    return pixels.float().mul_(own).addcmul_(other, rest).clamp_(0, 255)


def _brighten(pixels: Pixels, _kinds: Kinds, amounts: Strengths) -> Tensor:
    return pixels.float().mul_(_column(1 + amounts, np.float32, pixels)).clamp_(0, 255)


def _saturate(pixels: Pixels, _kinds: Kinds, amounts: Strengths) -> Tensor:
    return _blend(pixels, _grey(pixels), amounts)


def _contrast(pixels: Pixels, _kinds: Kinds, amounts: Strengths) -> Tensor:
    return _blend(pixels, _grey(pixels).mean((1, 2), keepdim=True), amounts)


def _sharpen(pixels: Pixels, _kinds: Kinds, amounts: Strengths) -> Tensor:
    if min(pixels.shape[1:3]) <= 2:
        return pixels
    values = pixels.float()
    inner = values[:, 1:-1, 1:-1]
    # The sum of nine pixels, the middle one five times: whole numbers, exact on every device.
    rows = values[:, :-2] + values[:, 1:-1] + values[:, 2:]
    blurred = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    blurred.add_(inner, alpha=4).div_(13).round_()
    rest = _column(1 - (1 + amounts), np.float32, pixels)
    inner.addcmul_(blurred.sub_(inner), rest)
    return values.clamp_(0, 255)


def _posterize(pixels: Pixels, _kinds: Kinds, amounts: Strengths) -> Tensor:
    masks = 256 - (1 << (8 - amounts.astype(np.int64)))
    return pixels & _column(masks, np.uint8, pixels)


def _solarize(pixels: Pixels, _kinds: Kinds, amounts: Strengths) -> Tensor:
    inverted = pixels >= _column(amounts, np.uint8, pixels)
    return inverted.view(torch.uint8).neg_().bitwise_xor_(pixels)  # the negative of 1 is 255


def _autocontrast(pixels: Pixels, _kinds: Kinds, _amounts: Strengths) -> Tensor:
    count, height, width = pixels.shape[:3]
    rows = pixels.view(count, height, width * 3)
    lowest = rows.amin(1).view(count, width, 3).amin(1, keepdim=True).float()
    spread = rows.amax(1).view(count, width, 3).amax(1, keepdim=True).float() - lowest
    flat = spread == 0
    lowest.masked_fill_(flat, 0)
    spread.mul_(1 / 255).masked_fill_(flat, 1)
    values = rows.float().sub_(lowest.repeat(1, 1, width)).div_(spread.repeat(1, 1, width))
    return values.clamp_(0, 255).view(pixels.shape)


def _equalize(pixels: Pixels, _kinds: Kinds, _amounts: Strengths) -> Tensor:
    planes = pixels.permute(0, 3, 1, 2).flatten(2).long()  # [n, 3, HW]
    counts = planes.new_zeros(*planes.shape[:2], 256)
    counts.scatter_add_(2, planes, planes.new_ones(1).expand_as(planes))
    upto = counts.cumsum(2)
    # Pillow leaves the pixels of the highest value out, and changes nothing if few others remain.
    highest = upto.argmax(2, keepdim=True)
    step = (planes.shape[2] - counts.gather(2, highest)).div_(255, rounding_mode="floor")
    levels = (upto - counts + step // 2).div_(step.clamp(min=1), rounding_mode="floor")
    same = torch.arange(256, device=pixels.device)
    levels = torch.where(step > 0, levels.clamp_(0, 255), same).to(torch.uint8)
    return torch.stack(levels.gather(2, planes).unbind(1), 2).view(pixels.shape)


_GEOMETRIC = (
    Operation.SHEAR_X,
    Operation.SHEAR_Y,
    Operation.TRANSLATE_X,
    Operation.TRANSLATE_Y,
    Operation.ROTATE,
)
# Working on more than this at a time leaves the cache: 52 images of 64 pixels, 4 of 224.
_PART_BYTES = 640_000
_Change = Callable[[Pixels, Kinds, Strengths], Tensor]
_CHANGES: tuple[tuple[tuple[Operation, ...], _Change], ...] = (
    ((Operation.IDENTITY,), lambda pixels, _kinds, _amounts: pixels),
    (_GEOMETRIC, _warp),
    ((Operation.BRIGHTNESS,), _brighten),
    ((Operation.COLOUR,), _saturate),
    ((Operation.CONTRAST,), _contrast),
    ((Operation.SHARPNESS,), _sharpen),
    ((Operation.POSTERIZE,), _posterize),
    ((Operation.SOLARIZE,), _solarize),
    ((Operation.AUTOCONTRAST,), _autocontrast),
    ((Operation.EQUALIZE,), _equalize),
)
