"""Crop boxes: arithmetic on (height, width, draws), vectorised over a batch.

Every crop is a box of the upright image, then one antialiased resize to the output size. So
RandomResizedCrop, Resize + RandomCrop and Resize + CenterCrop differ only in this module.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastload.load.powers import exp, log

# int32 [N, 4] = (top, left, height, width) in pixels of the upright image, always inside it.
Boxes = NDArray[np.int32]

ATTEMPTS = 10  # torchvision RandomResizedCrop.get_params
RANDOM_RESIZED_SLOTS = 2 * ATTEMPTS + 2  # area and ratio of each attempt, then top and left


def attempted_sides(
    sizes: NDArray[np.integer],
    uniforms: NDArray[np.float64],
    *,
    area: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Heights and widths of all attempts at a box of random area and ratio.

    Args:
        sizes: [N, 2] = (height, width) of the images.
        uniforms: float64 [N, 2 * attempts] in [0, 1): the areas, then the ratios.
        area: Interval of the box's share of the image's area.
        ratio: Interval of width / height, uniform in its logarithm.

    Returns:
        Two arrays float64 [N, attempts] of whole numbers, perhaps larger than the image.
    """
    attempts = uniforms.shape[1] // 2
    pixels = sizes[:, 0].astype(np.float64) * sizes[:, 1]
    low, high = log(ratio)
    areas = pixels[:, None] * (area[0] + (area[1] - area[0]) * uniforms[:, :attempts])
    ratios = exp(low + (high - low) * uniforms[:, attempts:])
    return np.rint(np.sqrt(areas / ratios)), np.rint(np.sqrt(areas * ratios))


def first_fit(fits: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """For each row: the first attempt that fits, and whether any attempt fits."""
    return np.argmax(fits, axis=1), np.asarray(np.any(fits, axis=1))


def random_resized_boxes(
    sizes: NDArray[np.integer],
    uniforms: NDArray[np.float64],
    *,
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Boxes:
    """Boxes with the distribution of torchvision's `RandomResizedCrop.get_params`.

    Ten attempts are made at a random area and ratio. The first box that fits the image is put at a
    random place. Where no box fits, the largest box whose ratio lies in `ratio` is put in the
    middle.

    Args:
        sizes: [N, 2] = (height, width) of the images, at least 1.
        uniforms: float64 [N, 22] in [0, 1).
        area: Interval of the box's share of the image's area.
        ratio: Interval of width / height, uniform in its logarithm.

    Returns:
        int32 [N, 4] = (top, left, height, width), inside the image.
    """
    sides = attempted_sides(sizes, uniforms[:, : 2 * ATTEMPTS], area=area, ratio=ratio)
    full = sizes.astype(np.float64)
    height, width = full[:, 0], full[:, 1]
    fits = (sides[0] >= 1) & (sides[0] <= full[:, :1]) & (sides[1] >= 1) & (sides[1] <= full[:, 1:])
    chosen, found = first_fit(fits)
    rows = np.arange(len(sizes))
    fallback_height = np.minimum(height, np.maximum(1, np.rint(width / ratio[0])))
    fallback_width = np.minimum(width, np.maximum(1, np.rint(height * ratio[1])))
    box_height = np.where(found, sides[0][rows, chosen], fallback_height)
    box_width = np.where(found, sides[1][rows, chosen], fallback_width)
    place = uniforms[:, 2 * ATTEMPTS :]
    top = np.where(
        found, np.floor(place[:, 0] * (height - box_height + 1)), (height - box_height) // 2
    )
    left = np.where(
        found, np.floor(place[:, 1] * (width - box_width + 1)), (width - box_width) // 2
    )
    return np.stack([top, left, box_height, box_width], axis=1).astype(np.int32)


def _square_sides(sizes: NDArray[np.integer], fraction: float) -> NDArray[np.float64]:
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be in (0, 1], got {fraction}")
    shorter = sizes.min(axis=1).astype(np.float64)
    sides: NDArray[np.float64] = np.maximum(1, np.rint(shorter * fraction))
    return sides


def random_boxes(
    sizes: NDArray[np.integer], uniforms: NDArray[np.float64], *, fraction: float
) -> Boxes:
    """Square boxes at a random place: Resize(256) + RandomCrop(224) has the fraction 224 / 256.

    torchvision rounds the place of the crop to pixels of the resized image; here the place is a
    pixel of the image itself.

    Args:
        sizes: [N, 2] = (height, width) of the images, at least 1.
        uniforms: float64 [N, 2] in [0, 1), for top and left.
        fraction: Side of the box over the shorter side of the image, in (0, 1].

    Returns:
        int32 [N, 4] = (top, left, height, width), inside the image.
    """
    sides = _square_sides(sizes, fraction)
    corner = np.floor(uniforms * (sizes - sides[:, None] + 1))
    return np.concatenate([corner, sides[:, None], sides[:, None]], axis=1).astype(np.int32)


def center_boxes(sizes: NDArray[np.integer], *, fraction: float) -> Boxes:
    """Square boxes in the middle: Resize(256) + CenterCrop(224) has the fraction 224 / 256.

    Args:
        sizes: [N, 2] = (height, width) of the images, at least 1.
        fraction: Side of the box over the shorter side of the image, in (0, 1].

    Returns:
        int32 [N, 4] = (top, left, height, width), inside the image.
    """
    sides = _square_sides(sizes, fraction)
    corner = np.rint((sizes - sides[:, None]) / 2)
    return np.concatenate([corner, sides[:, None], sides[:, None]], axis=1).astype(np.int32)
