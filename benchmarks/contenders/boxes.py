"""torchvision's RandomResizedCrop as plain arithmetic, for loaders that take a box."""

from __future__ import annotations

import math
from typing import Any

ATTEMPTS = 10


def random_resized_box(height: int, width: int, draws: Any) -> tuple[int, int, int, int]:
    """Top, left, height and width of a crop.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        draws: At least 22 numbers in [0, 1).
    """
    for attempt in range(ATTEMPTS):
        area = height * width * (0.08 + 0.92 * draws[2 * attempt])
        ratio = math.exp(math.log(3 / 4) + (2 * math.log(4 / 3)) * draws[2 * attempt + 1])
        across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < across <= width and 0 < down <= height:
            top = int(draws[20] * (height - down + 1))
            return top, int(draws[21] * (width - across + 1)), down, across
    across = min(width, round(height * 4 / 3))
    down = min(height, round(width * 4 / 3))
    return (height - down) // 2, (width - across) // 2, down, across
