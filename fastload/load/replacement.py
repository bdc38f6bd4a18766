"""A bad sample: what is reported of it, and the neighbour that takes its place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastload.console.shell import program
from fastload.errors import TooManyCorruptError
from fastload.load.plan import EpochPlan
from fastload.pixels.decode import Renderer, render_upright
from fastload.store.reader import Reader, Scratch

NEIGHBOURS = 64  # tried in place of a bad sample


@dataclass(frozen=True, slots=True)
class BadSample:
    """A sample that could not be used.

    Attributes:
        row: Row of the index.
        position: Position in the epoch.
        reason: What is wrong with the sample.
    """

    row: int
    position: int
    reason: str


def render_neighbour(
    position: int,
    out: NDArray[np.uint8],
    *,
    plan: EpochPlan,
    reader: Reader,
    renderer: Renderer,
    scratch: Scratch,
) -> int:
    """Render the next sample of the epoch's order that is not bad, with the draws of `position`.

    Args:
        position: Position of the bad sample.
        out: uint8 [1, S, S, 3], written in place.
        plan: The epoch.
        reader: Reads the bytes.
        renderer: Renders the pixels.
        scratch: The calling thread's own.

    Returns:
        The row of the index that was used.

    Raises:
        TooManyCorruptError: If the next 64 samples are bad too.
    """
    for attempt in range(1, NEIGHBOURS + 1):
        neighbour = plan.replacement(position, attempt)
        encoded, bad = reader.read(neighbour.rows, scratch)
        choices = neighbour.choices
        if bad:
            continue
        boxes, flips, windows = choices.boxes, choices.flips, choices.windows
        if not render_upright(renderer, encoded, boxes, flips, out, windows=windows):
            return int(neighbour.rows[0])
    raise TooManyCorruptError(
        f"the sample at position {position} of epoch {plan.number} and the {NEIGHBOURS} after it"
        f" cannot be decoded; check with `{program('fastload.verify')}`"
    )
