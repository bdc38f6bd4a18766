"""EpochPlan: what one rank renders in one epoch; it is decided before any byte is read."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fastload.load.augment import Augment, Choices
from fastload.load.order import EpochOrder, Windowed
from fastload.load.ranks import Batches, rank_part
from fastload.store.mapped import Index
from fastload.world import World

READ_AHEAD = 1024  # samples; some 100 MB of page cache, a second of work for several cores
ORDERED = 4096  # samples whose rows are computed at a time: then NumPy's calls cost nothing
_KEPT = 4  # such runs of steps: those that are planned and those that are read ahead


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
        batches: The global batches.
        world: Which part of each global batch is this rank's.
        augment: What to draw.
        seed: In [0, 2**63).
        index: PLACE [N], the index of the split.
        reads_stream: Whether a sequential order is read ahead as it lies, for all ranks; else each
            rank asks for its own samples.
    """

    number: int
    order: EpochOrder
    batches: Batches
    world: World
    augment: Augment
    seed: int
    index: Index
    reads_stream: bool = True
    # Rows by run of steps. A thread that finds none computes it, which two may do at a time.
    _known: dict[int, list[NDArray[np.int64]]] = field(default_factory=dict, repr=False)

    @property
    def steps(self) -> int:
        """Batches to come."""
        return self.batches.steps

    def batch(self, step: int) -> BatchPlan:
        """Plan one batch: a pure function."""
        first, last = self._part(step)
        positions = np.arange(first, last, dtype=np.int64)
        rows = self._rows(step)
        return BatchPlan(positions, rows, self._draw(positions, rows))

    def replacement(self, position: int, attempt: int) -> BatchPlan:
        """The sample `attempt` positions further on, with the draws of `position`."""
        positions = np.array([position], np.int64)
        rows = self.order.rows((positions + attempt) % self.order.length)
        return BatchPlan(positions, rows, self._draw(positions, rows))

    def ahead(self, step: int) -> NDArray[np.int64]:
        """Rows to read ahead when `step` is planned."""
        if isinstance(self.order, Windowed) and self.reads_stream:
            begin, end = self.batches.bounds(step)
            begin += self.order.window if step else -self.order.window
            return self.order.stream(max(0, begin), end + self.order.window)
        distance = max(1, READ_AHEAD // self._part_size)
        steps = range(distance + 1) if step == 0 else [step + distance]
        parts = [self._rows(s) for s in steps if s < self.steps]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    @property
    def _part_size(self) -> int:
        first, last = self._part(0)
        return max(1, last - first)

    def _rows(self, step: int) -> NDArray[np.int64]:
        """This rank's rows of a batch."""
        run, place = divmod(step, max(1, ORDERED // self._part_size))
        found = self._known.get(run)
        if found is None:
            found = self._known[run] = self._rows_of_run(run)
            for old in sorted(self._known)[:-_KEPT]:
                self._known.pop(old, None)
        return found[place]

    def _rows_of_run(self, run: int) -> list[NDArray[np.int64]]:
        count = max(1, ORDERED // self._part_size)
        steps = range(run * count, min((run + 1) * count, self.steps))
        parts = [np.arange(*self._part(step), dtype=np.int64) for step in steps]
        rows = self.order.rows(np.concatenate(parts))
        return np.split(rows, np.cumsum([len(part) for part in parts])[:-1])

    def _part(self, step: int) -> tuple[int, int]:
        return rank_part(*self.batches.bounds(step), self.world)

    def _draw(self, positions: NDArray[np.int64], rows: NDArray[np.int64]) -> Choices:
        records = self.index[rows]
        sizes = np.stack([records["height"], records["width"]], axis=1).astype(np.int64)
        return self.augment.draw(self.seed, self.number, positions, sizes)
