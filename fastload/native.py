"""The C++ core behind one thin binding; says when it is absent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastload.jpeg import Encoded


def is_available() -> bool:
    """Whether the core can be used."""
    return False


def why_unavailable() -> str:
    """The reason why not."""
    return "FASTLOAD_NATIVE=0 or not built"


def decode_boxes(
    encoded: Encoded, boxes: NDArray[np.int32], flips: NDArray[np.bool_], out: NDArray[np.uint8]
) -> NDArray[np.int32]:
    """Decode boxes."""
    raise NotImplementedError
