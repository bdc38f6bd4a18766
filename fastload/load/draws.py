"""Which samples an epoch draws, and how often: draw in [0, length) -> row of the index.

    Sampling (of a run) -> epoch(seed, number) -> Draws (of an epoch) -> rows(draws)

`EachOnce` draws each sample once. `ByGroup` draws classes by expected counts, and all samples of a
class alike. `BySample` has an expected count for each sample. With both, each sample and each class
comes the floor or the ceiling of what it expects. The first two take the same memory and the same
time for a draw however many samples there are, besides a table of the samples by class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fastload import randomness
from fastload.load.reweighting import systematic_counts
from fastload.load.shuffle import permuted
from fastload.store.mapped import RowsByClass

Rows = NDArray[np.int64]


class Draws(Protocol):
    """The draws of one epoch, in no order that means anything."""

    def rows(self, draws: Rows) -> Rows:
        """Rows of the index: int64 [N], of draws in [0, length)."""


class Sampling(Protocol):
    """What an epoch draws."""

    @property
    def length(self) -> int:
        """Draws of an epoch over all ranks."""

    @property
    def taking_part(self) -> TakingPart:
        """The rows that may be drawn."""

    def epoch(self, seed: int, number: int) -> Draws:
        """The draws of one epoch: a pure function."""


@dataclass(frozen=True, slots=True)
class TakingPart:
    """Rows of the index that take part, in its order: all of them, or a choice.

    Attributes:
        total: Rows of the index.
        chosen: int64 [N], ascending; None for all rows.
    """

    total: int
    chosen: Rows | None = None

    def __len__(self) -> int:
        return self.total if self.chosen is None else len(self.chosen)

    def rows(self, places: Rows) -> Rows:
        """The rows at some places among those that take part."""
        return places if self.chosen is None else self.chosen[places]

    def all(self) -> Rows:
        """All rows that take part, as an array of their number."""
        return np.arange(self.total, dtype=np.int64) if self.chosen is None else self.chosen


@dataclass(frozen=True, slots=True)
class EachOnce:
    """Each sample once.

    Attributes:
        taking_part: The rows that are drawn.
    """

    taking_part: TakingPart

    @property
    def length(self) -> int:
        """See `Sampling`."""
        return len(self.taking_part)

    def epoch(self, seed: int, number: int) -> Draws:  # noqa: ARG002  all epochs draw the same
        """See `Sampling`."""
        return self.taking_part


@dataclass(frozen=True, slots=True, kw_only=True)
class ByGroup:
    """Groups of samples by expected counts; within a group all samples alike.

    A group gets a whole number of draws by systematic resampling, and deals them out among its
    samples in an order of the epoch: so a sample comes the floor or the ceiling of the draws over
    the samples, and that is the floor or the ceiling of what it expects.

    Attributes:
        taking_part: The rows that may be drawn.
        members: int [N], the rows of the first group, of the second and so on; or mapped.
        sizes: int64 [G], samples of each group.
        expected: float64 [G], draws that each group expects; neighbouring groups together get the
            floor or the ceiling of what they expect together.
    """

    taking_part: TakingPart
    members: NDArray[np.integer] | RowsByClass
    sizes: Rows
    expected: NDArray[np.float64]

    @property
    def length(self) -> int:
        """See `Sampling`."""
        return round(float(self.expected.sum()))

    def epoch(self, seed: int, number: int) -> Draws:
        """See `Sampling`."""
        counts = systematic_counts(self.expected, _offset(seed, number))
        groups = np.arange(len(self.sizes), dtype=np.int64)
        keys = randomness.hashes(seed, number, groups, stream=randomness.RESAMPLE)
        ends = np.cumsum(self.sizes)
        return _DrawnByGroup(self.members, self.sizes, ends, np.cumsum(counts), keys)


@dataclass(frozen=True, slots=True)
class _DrawnByGroup:
    members: NDArray[np.integer] | RowsByClass
    sizes: Rows
    ends: Rows  # int64 [G], of each group among the members
    drawn: Rows  # int64 [G], where each group's draws end
    keys: NDArray[np.uint64]

    def rows(self, draws: Rows) -> Rows:
        groups = np.searchsorted(self.drawn, draws, side="right")
        first = np.where(groups > 0, self.drawn[groups - 1], 0)
        sizes = self.sizes[groups]
        within = permuted((draws - first) % sizes, lengths=sizes, keys=self.keys[groups])
        found: Rows = self.members[self.ends[groups] - sizes + within].astype(np.int64)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class BySample:
    """Samples by an expected count of each. An epoch takes some 60 bytes a sample while it is made.

    Attributes:
        taking_part: The rows that may be drawn.
        groups: int64 [N], class of each of them, and the source within it; resampling is even
            within a group and within each range of neighbouring groups.
        expected: float64 [N], draws that each of them expects.
    """

    taking_part: TakingPart
    groups: Rows
    expected: NDArray[np.float64]

    @property
    def length(self) -> int:
        """See `Sampling`."""
        return round(float(self.expected.sum()))

    def epoch(self, seed: int, number: int) -> Draws:
        """See `Sampling`."""
        seen = np.arange(len(self.groups), dtype=np.int64)
        words = randomness.hashes(seed, number, seen, stream=randomness.RESAMPLE)
        # The samples of a group are put in a new order each epoch: otherwise the same samples of a
        # class would share a mark of the ruler in every epoch.
        keys = (self.groups.astype(np.uint64) << np.uint64(40)) | (words >> np.uint64(24))
        ruler = np.argsort(keys, kind="stable")
        counts = systematic_counts(self.expected[ruler], _offset(seed, number))
        return _DrawnBySample(self.taking_part.rows(ruler), np.cumsum(counts))


@dataclass(frozen=True, slots=True)
class _DrawnBySample:
    samples: Rows
    ends: Rows

    def rows(self, draws: Rows) -> Rows:
        return self.samples[np.searchsorted(self.ends, draws, side="right")]


def _offset(seed: int, number: int) -> float:
    """Where the ruler of an epoch begins, in [0, 1)."""
    first = np.zeros(1, np.int64)
    return float(randomness.uniforms(seed, number, first, 1, stream=randomness.RESAMPLE)[0, 0])
