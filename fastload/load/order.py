"""The order of samples: a pure function of (seed, epoch, position), the same for any ranks.

    position -> place (a permutation, a window) -> draw -> row of the index

A global batch is a range of positions, and a rank's part is a range within it. So the progress of a
training run is one integer. Rows are computed for the positions that are asked for: neither time
nor memory grows with the epoch, but where `Order` says so.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from numbers import Integral
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from fastload import randomness
from fastload.arguments import check_choice, check_integer, shown
from fastload.errors import ResourceError, first_line
from fastload.load.draws import BySample, Draws, EachOnce, Rows, Sampling
from fastload.load.shuffle import permuted

OrderKind = Literal["shuffled", "sequential", "index"]
ORDERS: tuple[OrderKind, ...] = get_args(OrderKind)

# Samples that the buffer of the sequential order holds; about 400 MB of page cache at 100 kB each.
SEQUENTIAL_WINDOW = 4096


class EpochOrder(Protocol):
    """The order of one epoch: the row of the index at each position."""

    @property
    def length(self) -> int:
        """Positions of the epoch."""

    def rows(self, positions: Rows) -> Rows:
        """Rows of the index: int64 [N], at positions in [0, length), in any order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where the samples that take part lie, which the sequential order goes by.

    Attributes:
        forward: int64 [N], rows shard by shard, by their offsets; None where rows lie so already.
        ends: int64 [F], the place in `forward` behind each shard's last row.
    """

    forward: Rows | None
    ends: Rows

    @classmethod
    def of(cls, shards: NDArray[np.integer], offsets: NDArray[np.integer], rows: Rows) -> Layout:
        """The layout of some rows.

        Args:
            shards: [N], the shard of each of them.
            offsets: [N], the first byte of each of them in its shard.
            rows: int64 [N], the rows.
        """
        forward = np.lexsort((offsets, shards))
        _, counts = np.unique(shards, return_counts=True)
        return cls(forward=rows[forward], ends=np.cumsum(counts))

    def rows(self, places: Rows) -> Rows:
        """The rows at some places."""
        return places if self.forward is None else self.forward[places]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The order of every epoch of a run.

    "shuffled" is an exact global permutation. "index" is the order of the index. "sequential" reads
    whole shards in a seeded order strictly forward and shuffles within a buffer of `window`
    samples, for hard disks and network file systems. Reweighting draws the same counts there,
    but the copies of a sample stay within the window of each other, a class that lies in one
    shard appears while that shard is read, and the order of an epoch is made as a whole, which
    takes memory in proportion to it.

    Attributes:
        kind: "shuffled", "sequential" or "index".
        sampling: Which samples take part, and how often.
        layout: For the sequential order, where they lie; else None.
        seed: In [0, 2**63).
        window: Samples that the buffer of the sequential order holds.
        weighting: What reweighting goes by, as `reweighting.describe_weights` says it.
    """

    kind: OrderKind
    sampling: Sampling
    layout: Layout | None = None
    seed: int = 0
    window: int = SEQUENTIAL_WINDOW
    weighting: str = ""

    def __post_init__(self) -> None:
        check_choice("order", self.kind, ORDERS)
        if not isinstance(self.seed, Integral) or isinstance(self.seed, bool):
            raise TypeError(f"seed must be an integer in [0, 2**63), got {shown(self.seed)}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be in [0, 2**63), got {shown(self.seed)}")
        if self.kind == "index" and not isinstance(self.sampling, EachOnce):
            raise ValueError(
                'order "index" takes each sample once: reweight, epoch_size and proportions'
                ' need "shuffled" or "sequential"'
            )
        check_integer("window", self.window, 1)

    @property
    def length(self) -> int:
        """Positions of an epoch over all ranks."""
        return self.sampling.length

    @property
    def grows(self) -> bool:
        """Whether an epoch takes memory in proportion to its length."""
        once = isinstance(self.sampling, EachOnce)
        return isinstance(self.sampling, BySample) or (self.kind == "sequential" and not once)

    def epoch(self, number: int) -> EpochOrder:
        """The order of one epoch: a pure function of seed and epoch number.

        Raises:
            ResourceError: If the system has not the memory for an epoch of this length.
        """
        try:
            return self._epoch(number)
        except MemoryError as error:
            raise ResourceError(
                f"the order of an epoch of {self.length:,} samples takes more memory than the"
                f" system has ({first_line(error)}); lower epoch_size"
            ) from error

    def _epoch(self, number: int) -> EpochOrder:
        if self.kind == "sequential":
            return self._sequential(number)
        draws = self.sampling.epoch(self.seed, number)
        if self.kind == "index":
            return InOrder(draws, self.length)
        first = np.zeros(1, np.int64)
        return Shuffled(draws, self.length, randomness.hashes(self.seed, number, first))

    def _sequential(self, number: int) -> EpochOrder:
        if self.layout is None:
            raise TypeError("the sequential order needs a layout")
        layout, ends = self.layout, self.layout.ends
        visits = np.argsort(randomness.hashes(self.seed, number, np.arange(len(ends))))
        stream: Draws = Visits.of(layout, visits)
        if not isinstance(self.sampling, EachOnce):
            drawn = self.sampling.epoch(self.seed, number)
            every = drawn.rows(np.arange(self.length, dtype=np.int64))
            counts = np.bincount(every, minlength=self.sampling.taking_part.total)
            forward = stream.rows(np.arange(int(ends[-1]), dtype=np.int64))
            stream = Listed(np.repeat(forward, counts[forward]))
        return Windowed(stream, self.length, self.window, self.seed, number)


@dataclass(frozen=True, slots=True)
class Listed:
    """Draws that are written down.

    Attributes:
        listed: int64 [length], the row of each.
    """

    listed: Rows

    def rows(self, draws: Rows) -> Rows:
        """See `Draws`."""
        return self.listed[draws]


@dataclass(frozen=True, slots=True)
class InOrder:
    """The draws as they are."""

    draws: Draws
    length: int

    def rows(self, positions: Rows) -> Rows:
        """See `EpochOrder`."""
        return self.draws.rows(positions)


@dataclass(frozen=True, slots=True)
class Shuffled:
    """A permutation of all draws."""

    draws: Draws
    length: int
    key: NDArray[np.uint64]

    def rows(self, positions: Rows) -> Rows:
        """See `EpochOrder`."""
        return self.draws.rows(permuted(positions, lengths=self.length, keys=self.key))


@dataclass(frozen=True, slots=True)
class Visits:
    """Draws shard by shard, in the order of an epoch, each shard from its begin to its end.

    Attributes:
        layout: Where the rows lie.
        shards: int64 [F], the shards in the order in which they are visited.
        behind: int64 [F], the draw behind the last one of each visit.
    """

    layout: Layout
    shards: Rows
    behind: Rows

    @classmethod
    def of(cls, layout: Layout, shards: Rows) -> Visits:
        """The visits of some shards in this order."""
        counts = np.diff(layout.ends, prepend=0)
        return cls(layout, shards, np.cumsum(counts[shards]))

    def rows(self, draws: Rows) -> Rows:
        """See `Draws`."""
        visit = np.searchsorted(self.behind, draws, side="right")
        ends = self.layout.ends[self.shards[visit]]
        return self.layout.rows(ends - (self.behind[visit] - draws))


@dataclass(frozen=True, slots=True)
class Windowed:
    """A stream, shuffled within a window: place q comes when q + window x U(q) is reached.

    What stands at a position is decided by the places at most two windows away, so those alone are
    sorted: those of positions that lie near each other together.

    Attributes:
        draws: The stream.
        length: Positions of the epoch.
        window: The row at position p is that at a place q of the stream with |p - q| < window.
        seed: Of the run.
        number: Of the epoch.
    """

    draws: Draws
    length: int
    window: int
    seed: int
    number: int

    def rows(self, positions: Rows) -> Rows:
        """See `EpochOrder`."""
        apart = np.flatnonzero(np.abs(np.diff(positions)) > 4 * self.window) + 1
        return np.concatenate([self._near(part) for part in np.split(positions, apart)])

    def _near(self, positions: Rows) -> Rows:
        if not len(positions):
            return positions
        low = max(0, int(positions.min()) - 2 * self.window)
        high = min(self.length, int(positions.max()) + 1 + 2 * self.window)
        places = np.arange(low, high, dtype=np.int64)
        delays = randomness.uniforms(self.seed, self.number, places, 1, stream=randomness.WINDOW)
        order = np.argsort(places + delays[:, 0] * self.window, kind="stable")
        return self.draws.rows(places[order[positions - low]])

    def stream(self, first: int, last: int) -> Rows:
        """The rows at places [first, last) in the order in which they lie in the shards."""
        return self.draws.rows(np.arange(first, min(last, self.length), dtype=np.int64))


def describe_order(order: Order) -> str:
    """What decides the order besides data and seed, as a text that two runs can compare.

    The text is made of whole numbers and names, so that it is the same on every processor.
    """
    part = order.sampling.taking_part
    rows = b"all" if part.chosen is None else part.chosen.astype("<i8").tobytes()
    digest = hashlib.sha256(rows + order.weighting.encode())
    window = f" window {order.window}" if order.kind == "sequential" else ""
    return f"{order.kind} {order.length} of {len(part)}{window} {digest.hexdigest()[:16]}"
