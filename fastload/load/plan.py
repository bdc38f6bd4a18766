"""EpochPlan: what one rank renders in one epoch; it is decided before any byte is read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastload.load.augment import Augment, Choices
from fastload.load.order import EpochOrder
from fastload.load.ranks import rank_part
from fastload.world import World

READ_AHEAD = 1024  # samples; some 100 MB of page cache, a second of work for several cores


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """What one rank renders for one batch of N samples.

    Attributes:
        positions: int64 [N], positions in the epoch.
        rows: int64 [N], rows of the index.
        choices: What was drawn for each sample.
    """

    positions: NDArray[np.int64]
    rows: NDArray[np.int64]
    choices: Choices


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochPlan:
    """One epoch of one rank.

    Attributes:
        number: Number of the epoch.
        order: The row of the index at each position.
        bounds: int64 [steps + 1], where the global batches begin and end.
        world: Which part of each global batch is this rank's.
        augment: What to draw.
        seed: In [0, 2**63).
        index: SAMPLE [N], the index of the split.
    """

    number: int
    order: EpochOrder
    bounds: NDArray[np.int64]
    world: World
    augment: Augment
    seed: int
    index: NDArray[np.void]

    @property
    def steps(self) -> int:
        """Batches to come."""
        return len(self.bounds) - 1

    def batch(self, step: int) -> BatchPlan:
        """Plan one batch: a pure function."""
        first, last = self._part(step)
        positions = np.arange(first, last, dtype=np.int64)
        rows = self.order.rows[first:last]
        return BatchPlan(positions, rows, self._draw(positions, rows))

    def replacement(self, position: int, attempt: int) -> BatchPlan:
        """The sample `attempt` positions further on, with the draws of `position`."""
        positions = np.array([position], np.int64)
        rows = self.order.rows[(positions + attempt) % len(self.order.rows)]
        return BatchPlan(positions, rows, self._draw(positions, rows))

    def ahead(self, step: int) -> NDArray[np.int64]:
        """Rows to read ahead when `step` is planned."""
        if self.order.stream is not None:
            begin, end = self.bounds[step : step + 2] + self.order.window
            return self.order.stream[0 if step == 0 else begin : end]
        distance = self._ahead_steps()
        steps = range(distance + 1) if step == 0 else [step + distance]
        parts = [self._part(s) for s in steps if s < self.steps]
        if not parts:
            return self.order.rows[:0]
        return np.concatenate([self.order.rows[first:last] for first, last in parts])

    def _ahead_steps(self) -> int:
        first, last = self._part(0)
        return max(1, READ_AHEAD // max(1, last - first))

    def _part(self, step: int) -> tuple[int, int]:
        return rank_part(int(self.bounds[step]), int(self.bounds[step + 1]), self.world)

    def _draw(self, positions: NDArray[np.int64], rows: NDArray[np.int64]) -> Choices:
        records = self.index[rows]
        sizes = np.stack([records["height"], records["width"]], axis=1).astype(np.int64)
        return self.augment.draw(self.seed, self.number, positions, sizes)
