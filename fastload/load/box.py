"""Crop boxes: arithmetic on (height, width, draws), vectorised over a batch.

Every crop is one antialiased resize of a part of the upright image. So RandomResizedCrop,
Resize + RandomCrop and Resize + CenterCrop differ only in this module:

    crop, then resize   the box alone: the filter ends at its edges
    resize, then crop   a window, in fractions of a pixel, in a box that holds all that the filter
                        reads around it:

        +-- box, whole pixels ----+
        |  . . . . . . . . . . .  |
        |  . +-- window -------+  |     the window becomes the output
        |  . |                 |  |
        |  . +-----------------+  |
        +-------------------------+
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastload.load.powers import exp, log

# int32 [N, 4] = (top, left, height, width) in pixels of the upright image, always inside it.
Boxes = NDArray[np.int32]
# float64 [N, 4] = (top, left, height, width) in pixels from the corner of the sample's box.
Windows = NDArray[np.float64]

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


def resized_shorter_side(size: int, fraction: float) -> int:
    """The whole number nearest to size / fraction: 256 for 224 and 224 / 256."""
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be in (0, 1], got {fraction}")
    return round(size / fraction)


def resized_sizes(sizes: NDArray[np.integer], shorter: int) -> NDArray[np.float64]:
    """What torchvision's `Resize(shorter)` makes of images.

    Args:
        sizes: [N, 2] = (height, width) of the images, at least 1.
        shorter: The shorter side afterwards.

    Returns:
        float64 [N, 2] of whole numbers; the longer side is rounded down, as torchvision does.
    """
    resized: NDArray[np.float64] = np.trunc(
        float(shorter) * sizes / sizes.min(axis=1, keepdims=True)
    )
    return resized


def random_windows(
    sizes: NDArray[np.integer], uniforms: NDArray[np.float64], *, size: int, fraction: float
) -> tuple[Boxes, Windows]:
    """Torchvision's Resize + RandomCrop: Resize(256), RandomCrop(224) are 224 and 224 / 256.

    Args:
        sizes: [N, 2] = (height, width) of the images, at least 1.
        uniforms: float64 [N, 2] in [0, 1), for top and left.
        size: Side of the crop, in pixels of the resized image.
        fraction: That side over the shorter side of the resized image, in (0, 1].

    Returns:
        Boxes and windows, see `windows_of`.
    """
    resized = resized_sizes(sizes, resized_shorter_side(size, fraction))
    return windows_of(sizes, resized, np.floor(uniforms * (resized - size + 1)), size)


def center_windows(
    sizes: NDArray[np.integer], *, size: int, fraction: float
) -> tuple[Boxes, Windows]:
    """Torchvision's Resize + CenterCrop: Resize(256), CenterCrop(224) are 224 and 224 / 256.

    Args:
        sizes: [N, 2] = (height, width) of the images, at least 1.
        size: Side of the crop, in pixels of the resized image.
        fraction: That side over the shorter side of the resized image, in (0, 1].

    Returns:
        Boxes and windows, see `windows_of`.
    """
    resized = resized_sizes(sizes, resized_shorter_side(size, fraction))
    return windows_of(sizes, resized, np.rint((resized - size) / 2), size)


def windows_of(
    sizes: NDArray[np.integer],
    resized: NDArray[np.float64],
    corners: NDArray[np.float64],
    size: int,
) -> tuple[Boxes, Windows]:
    """Square crops of resized images, as parts of the images themselves.

    Args:
        sizes: [N, 2] = (height, width) of the images.
        resized: float64 [N, 2] = (height, width) of the resized images.
        corners: float64 [N, 2]: top and left of the crops in the resized images.
        size: Side of the crops.

    Returns:
        Boxes, int32 [N, 4]: the pixels that a bilinear antialiased resize of the whole image reads
        for the crop. Windows, float64 [N, 4]: the crops, in pixels from the corner of the box.
    """
    scale = sizes / resized  # pixels of the image in a pixel of the resized one
    reach = np.maximum(scale, 1)  # of the filter, from the centre of an output pixel
    begin, length = corners * scale, size * scale
    first = np.maximum(np.floor(begin + scale / 2 - reach + 0.5), 0)
    end = np.minimum(np.ceil(begin + length - scale / 2 + reach - 0.5), sizes)
    boxes = np.concatenate([first, end - first], axis=1).astype(np.int32)
    return boxes, np.concatenate([begin - first, length], axis=1)
