"""The order of samples: a pure function of (seed, epoch), the same for any ranks and threads.

An epoch is an array: position in [0, length) -> row of the index. A global batch is a range of
positions, and a rank's part is a range within it. So the progress of a training run is one integer.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from numbers import Integral
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fastload import randomness
from fastload.arguments import check_choice, check_integer, shown
from fastload.errors import ResourceError, first_line
from fastload.load.reweighting import systematic_counts

Rows = NDArray[np.int64]
OrderKind = Literal["shuffled", "sequential", "index"]
ORDERS: tuple[OrderKind, ...] = get_args(OrderKind)

# Samples that the buffer of the sequential order holds; about 400 MB of page cache at 100 kB each.
SEQUENTIAL_WINDOW = 4096
POSITION_BYTES = 88  # of memory while an order is made, at most: "What it costs" in docs/loader.md


def most_positions() -> int:
    """Positions of an epoch whose order this machine's memory can hold while it is made."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // POSITION_BYTES


def permutation(seed: int, epoch: int, length: int) -> Rows:
    """A permutation of [0, length), the same for every NumPy version: it sorts distinct hashes."""
    words = randomness.hashes(seed, epoch, np.arange(length, dtype=np.int64))
    return np.argsort(words).astype(np.int64)


@dataclass(frozen=True, slots=True)
class EpochOrder:
    """The order of one epoch: the row of the index at each position, and what to read ahead.

    Attributes:
        rows: int64 [length], rows of the index.
        stream: int64 [length], for the sequential order: the rows in the order in which they lie in
            the shards. None for other orders.
        window: `rows[p]` stands at `stream[q]` with |p - q| < window.
    """

    rows: Rows
    stream: Rows | None = None
    window: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The order of every epoch of a run.

    "shuffled" is an exact global permutation. "index" is the order of the index. "sequential" reads
    whole shards in a seeded order strictly forward and shuffles within a buffer of `window`
    samples, for hard disks and network file systems. Reweighting draws the same counts there,
    but the copies of a sample stay within the window of each other, and a class that lies in one
    shard appears while that shard is read.

    Attributes:
        kind: "shuffled", "sequential" or "index".
        rows: int64 [N], the rows of the index that take part, in the order of the index.
        groups: int64 [N], class of each row, and the source within it; resampling is even within
            a group and within each range of neighbouring groups.
        expected: float64 [N], how many times each row is expected in an epoch; None for once.
        shards: [N], shard of each row.
        offsets: [N], first byte of each row in its shard.
        seed: In [0, 2**63).
        window: Samples that the buffer of the sequential order holds.
        weighting: What `expected` is made of, as `reweighting.describe_weights` says it.
    """

    kind: OrderKind
    rows: Rows
    groups: NDArray[np.integer]
    expected: NDArray[np.float64] | None
    shards: NDArray[np.integer]
    offsets: NDArray[np.integer]
    seed: int = 0
    window: int = SEQUENTIAL_WINDOW
    weighting: str = ""

    def __post_init__(self) -> None:
        check_choice("order", self.kind, ORDERS)
        if not isinstance(self.seed, Integral) or isinstance(self.seed, bool):
            raise TypeError(f"seed must be an integer in [0, 2**63), got {shown(self.seed)}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be in [0, 2**63), got {shown(self.seed)}")
        if self.kind == "index" and self.expected is not None:
            raise ValueError(
                'order "index" takes each sample once: reweight, epoch_size and proportions'
                ' need "shuffled" or "sequential"'
            )
        check_integer("window", self.window, 1)

    @property
    def length(self) -> int:
        """Positions of an epoch over all ranks."""
        return len(self.rows) if self.expected is None else round(float(self.expected.sum()))

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
        if self.kind == "index":
            return EpochOrder(self.rows)
        if self.kind == "sequential":
            return self._sequential(number)
        places = permutation(self.seed, number, self.length)
        if self.expected is None:
            return EpochOrder(self.rows[places])
        return EpochOrder(np.repeat(self.rows, self._counts(number))[places])

    def _counts(self, number: int) -> NDArray[np.int64]:
        """How many times each of `rows` appears in this epoch."""
        if self.expected is None:
            return np.ones(len(self.rows), np.int64)
        seen = np.arange(len(self.rows), dtype=np.int64)
        words = randomness.hashes(self.seed, number, seen, stream=randomness.RESAMPLE)
        # The samples of a group are put in a new order each epoch: otherwise the same samples of a
        # class would share a mark of the ruler in every epoch.
        keys = (self.groups.astype(np.uint64) << np.uint64(40)) | (words >> np.uint64(24))
        ruler = np.argsort(keys, kind="stable")
        offset = randomness.uniforms(self.seed, number, seen[:1], 1, stream=randomness.RESAMPLE)[
            0, 0
        ]
        counts = np.empty(len(self.rows), np.int64)
        counts[ruler] = systematic_counts(self.expected[ruler], float(offset))
        return counts

    def _sequential(self, number: int) -> EpochOrder:
        shards, inverse = np.unique(self.shards, return_inverse=True)
        words = randomness.hashes(self.seed, number, shards.astype(np.int64))
        rank = np.empty(len(shards), np.int64)
        rank[np.argsort(words)] = np.arange(len(shards))
        forward = np.lexsort((self.offsets, rank[inverse]))
        stream = np.repeat(self.rows[forward], self._counts(number)[forward])
        places = np.arange(len(stream), dtype=np.int64)
        delays = randomness.uniforms(self.seed, number, places, 1, stream=randomness.WINDOW)[:, 0]
        rows = stream[np.argsort(places + delays * self.window, kind="stable")]
        return EpochOrder(rows, stream, self.window)


def describe_order(order: Order) -> str:
    """What decides the order besides data and seed, as a text that two runs can compare.

    The text is made of whole numbers and names, so that it is the same on every processor.
    """
    digest = hashlib.sha256(order.rows.astype("<i8").tobytes() + order.weighting.encode())
    window = f" window {order.window}" if order.kind == "sequential" else ""
    return f"{order.kind} {order.length} of {len(order.rows)}{window} {digest.hexdigest()[:16]}"
