"""TrivialAugment and RandAugment: which operations each image gets, and how strong they are.

Operations and strengths are those of torchvision's `TrivialAugmentWide` and `RandAugment` (0.29),
with 31 magnitudes each. They are drawn here, with NumPy; `operations` carries them out.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fastload.arguments import check_integer, make_plain
from fastload.calls import explain_calls

MAGNITUDES = 31  # num_magnitude_bins of both classes of torchvision
SLOTS = 3  # uniform numbers for one operation: which, magnitude, sign


class Operation(IntEnum):
    """What may be done to an image, in torchvision's order, and what its strength is."""

    IDENTITY = 0
    SHEAR_X = 1  # tangent of the angle
    SHEAR_Y = 2
    TRANSLATE_X = 3  # whole pixels
    TRANSLATE_Y = 4
    ROTATE = 5  # degrees, counter-clockwise
    BRIGHTNESS = 6  # the factor, less 1; so for the next three
    COLOUR = 7
    CONTRAST = 8
    SHARPNESS = 9
    POSTERIZE = 10  # bits that are kept
    SOLARIZE = 11  # the least value that is inverted
    AUTOCONTRAST = 12  # none; nor has EQUALIZE
    EQUALIZE = 13


_SIGNED = np.array([Operation.SHEAR_X <= op <= Operation.SHARPNESS for op in Operation])


@explain_calls()
@dataclass(frozen=True, slots=True, kw_only=True)
class TrivialAugment:
    """One operation of random strength for each image (Müller and Hutter, ICCV 2021).

    As torchvision's `TrivialAugmentWide`: images are translated by up to 32 pixels at any size.
    """

    operations: ClassVar[int] = 1

    def draw(
        self, uniforms: NDArray[np.float64], size: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Operations, int64 [N, 1], and their strengths, float64 [N, 1].

        Args:
            uniforms: float64 [N, 3] in [0, 1).
            size: Side of the images in pixels.
        """
        magnitudes = np.floor(uniforms[:, 1::SLOTS] * MAGNITUDES).astype(np.int64)
        return _drawn(uniforms, magnitudes, self.strengths(size))

    def strengths(self, size: int) -> NDArray[np.float64]:  # noqa: ARG002  as RandAugment's
        """The strength of each operation at each magnitude: float64 [14, 31]."""
        return _strengths(shear=0.99, translation=32.0, degrees=135.0, change=0.99, bits=6)


@explain_calls()
@dataclass(frozen=True, slots=True, kw_only=True)
class RandAugment:
    """Some operations of one strength for each image (Cubuk et al., 2020), as torchvision's.

    Attributes:
        operations: How many operations each image gets, one after another.
        magnitude: The strength of all of them, in [0, 30].
    """

    operations: int = 2
    magnitude: int = 9

    def __post_init__(self) -> None:
        make_plain(self)
        check_integer("operations", self.operations, 1, 16)
        check_integer("magnitude", self.magnitude, 0, MAGNITUDES - 1)

    def draw(
        self, uniforms: NDArray[np.float64], size: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Operations, int64 [N, operations], and their strengths, float64 of the same shape.

        Args:
            uniforms: float64 [N, 3 * operations] in [0, 1).
            size: Side of the images in pixels.
        """
        magnitudes = np.full((len(uniforms), self.operations), self.magnitude, np.int64)
        return _drawn(uniforms, magnitudes, self.strengths(size))

    def strengths(self, size: int) -> NDArray[np.float64]:
        """The strength of each operation at each magnitude: float64 [14, 31]."""
        return _strengths(
            shear=0.3, translation=150.0 / 331.0 * size, degrees=30.0, change=0.9, bits=4
        )


AutoAugment = TrivialAugment | RandAugment


def _drawn(
    uniforms: NDArray[np.float64], magnitudes: NDArray[np.int64], strengths: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    operations = np.floor(uniforms[:, ::SLOTS] * len(Operation)).astype(np.int64)
    negative = _SIGNED[operations] & (uniforms[:, 2::SLOTS] < 0.5)
    chosen = strengths[operations, magnitudes]
    return operations, np.where(negative, -chosen, chosen)


def _strengths(
    *, shear: float, translation: float, degrees: float, change: float, bits: int
) -> NDArray[np.float64]:
    table = np.zeros((len(Operation), MAGNITUDES))
    table[[Operation.SHEAR_X, Operation.SHEAR_Y]] = _line(0, shear)
    table[[Operation.TRANSLATE_X, Operation.TRANSLATE_Y]] = np.trunc(_line(0, translation))
    table[Operation.ROTATE] = _line(0, degrees)
    table[Operation.BRIGHTNESS : Operation.SHARPNESS + 1] = _line(0, change)
    table[Operation.POSTERIZE] = np.rint(8 - np.arange(MAGNITUDES) / ((MAGNITUDES - 1) / bits))
    # torchvision compares pixels with the threshold in float32.
    table[Operation.SOLARIZE] = np.ceil((255 * _line(1, 0)).astype(np.float32))
    return table


def _line(first: float, last: float) -> NDArray[np.float64]:
    """The numbers of `torch.linspace(first, last, 31)`, float32, on a processor with FMA.

    They decide where torchvision truncates: 32 pixels at magnitude 15 of 30 are 15 pixels. Products
    and sums here are exact in float64, and so the same on every processor.
    """
    start, end = np.float32(first), np.float32(last)
    step = np.float64((end - start) / np.float32(MAGNITUDES - 1))
    count = np.arange(MAGNITUDES, dtype=np.float64)
    rising = np.float64(start) + step * count
    falling = np.float64(end) - step * (MAGNITUDES - 1 - count)
    halves = np.where(count < MAGNITUDES // 2, rising, falling)
    return halves.astype(np.float32).astype(np.float64)
