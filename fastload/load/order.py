"""The order of samples: a pure function of (seed, epoch), the same for any ranks and threads.

An epoch is an array: position in [0, length) -> row of the index. A global batch is a range of
positions, and a rank's part is a range within it. So the progress of a training run is one integer.

    positions  0 1 2 3 4 5 6 7 | 8 9 ...          global batch of 8
    2 ranks    0 0 0 0 1 1 1 1 | 0 0 ...          batch_size 4 each
    4 ranks    0 0 1 1 2 2 3 3 | 0 0 ...          batch_size 2 each: the same global batches
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastload import randomness
from fastload.arguments import check_integer, check_names, check_numbers, shown
from fastload.world import World

Rows = NDArray[np.int64]
OrderKind = Literal["shuffled", "sequential", "index"]

# Samples that the buffer of the sequential order holds; about 400 MB of page cache at 100 kB each.
SEQUENTIAL_WINDOW = 4096


def class_weights(labels: NDArray[np.integer], rule: str) -> NDArray[np.float64]:
    """How often each sample is drawn, relative to other samples, by the size of its class.

    Args:
        labels: [N], class numbers, at least 0.
        rule: "inverse" (1/n: every class equally often), "sqrt" (1/sqrt(n)), or "effective:BETA"
            with BETA in [0, 1), the (1 - BETA) / (1 - BETA**n) of Cui et al., "Class-balanced loss
            based on effective number of samples" (CVPR 2019, eq. 2). There the number weights the
            loss; here it weights the draws.

    Returns:
        float64 [N], above 0.

    Raises:
        ValueError: If the rule is none of these.
    """
    counts = np.bincount(labels)
    present = np.maximum(counts, 1).astype(np.float64)
    if rule == "inverse":
        weights = 1 / present
    elif rule == "sqrt":
        weights = 1 / np.sqrt(present)
    elif rule.startswith("effective:"):
        beta = _effective_beta(rule)
        # expm1 and log1p: 1 - BETA**n keeps its digits where BETA is close to 1.
        weights = (1 - beta) / -np.expm1(present * np.log(beta)) if beta else np.ones_like(present)
    else:
        raise ValueError(
            f'reweight must be "inverse", "sqrt", "effective:BETA" or an array, got {rule!r}'
        )
    chosen: NDArray[np.float64] = weights[labels]
    return chosen


def _effective_beta(rule: str) -> float:
    try:
        beta = float(rule.partition(":")[2])
    except ValueError:
        beta = -1.0
    if not 0 <= beta < 1:
        raise ValueError(f"BETA of effective:BETA must be in [0, 1), got {rule!r}")
    return beta


def expectations(
    weights: NDArray[np.float64],
    length: int,
    *,
    sources: NDArray[np.integer] | None = None,
    proportions: Sequence[float] | None = None,
) -> NDArray[np.float64]:
    """How many times each sample is expected in an epoch of `length`.

    Args:
        weights: float64 [N], at least 0, finite, not all 0.
        length: Positions of the epoch, at least 1.
        sources: [N], the shard directory that each sample is from.
        proportions: Share of the epoch for each shard directory; any scale.

    Returns:
        float64 [N] with the sum `length`.

    Raises:
        ValueError: If weights or proportions are negative, not finite, or all zero.
    """
    if not _are_shares(weights):
        raise ValueError("reweight: the weights must be finite, at least 0 and not all 0")
    if sources is None or proportions is None:
        scaled: NDArray[np.float64] = weights * (length / weights.sum())
        return scaled
    shares = np.asarray(proportions, np.float64)
    if not _are_shares(shares):
        raise ValueError(
            f"proportions must be finite, at least 0 and not all 0, got {shown(proportions)}"
        )
    totals = np.bincount(sources, weights, minlength=len(shares))
    if len(totals) > len(shares) or ((totals == 0) & (shares > 0)).any():
        raise ValueError(
            f"proportions must have one number for each shard directory, 0 for one without samples,"
            f" got {shown(proportions)}"
        )
    factors = shares / shares.sum() * length / np.where(totals > 0, totals, 1)
    expected: NDArray[np.float64] = weights * factors[sources]
    return expected


def _are_shares(values: NDArray[np.float64]) -> bool:
    return bool(np.isfinite(values).all() and (values >= 0).all() and values.any())


def systematic_counts(expected: NDArray[np.float64], offset: float) -> NDArray[np.int64]:
    """Whole counts with the given expectations, by systematic resampling.

    The expectations are laid end to end as segments of a line, and a ruler with a mark at every
    whole number is laid over the line; the count of a sample is the number of marks on its segment.
    So each sample, and each range of neighbours, gets the floor or the ceiling of what it expects,
    and the sum of the counts is exact.

    Args:
        expected: float64 [N], at least 0, with a whole sum.
        offset: Where the ruler begins, in [0, 1). For a uniform offset, the mean of each count is
            its expectation.

    Returns:
        int64 [N].
    """
    ends = np.cumsum(expected)
    total = round(float(ends[-1]))
    # The offset is kept half a grid step away from whole numbers: otherwise the rounding error of
    # the sum would decide on which side of a mark the end of a segment lies.
    grid = 2**16
    marks = np.floor(ends + (np.floor(offset * grid) + 0.5) / grid).astype(np.int64)
    marks[-1] = total
    np.minimum(marks, total, out=marks)
    counts: NDArray[np.int64] = np.diff(marks, prepend=0)
    return counts


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
        groups: int64 [N], class (and source) of each row; resampling is even within a group.
        expected: float64 [N], how many times each row is expected in an epoch; None for once.
        shards: [N], shard of each row.
        seed: In [0, 2**63).
        window: Samples that the buffer of the sequential order holds.
    """

    kind: OrderKind
    rows: Rows
    groups: NDArray[np.integer]
    expected: NDArray[np.float64] | None
    shards: NDArray[np.integer]
    seed: int = 0
    window: int = SEQUENTIAL_WINDOW

    def __post_init__(self) -> None:
        if self.kind not in ("shuffled", "sequential", "index"):
            raise ValueError(
                f'order must be "shuffled", "sequential" or "index", got {self.kind!r}'
            )
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
        """The order of one epoch: a pure function of seed and epoch number."""
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
        forward = np.argsort(rank[inverse], kind="stable")
        stream = np.repeat(self.rows[forward], self._counts(number)[forward])
        places = np.arange(len(stream), dtype=np.int64)
        delays = randomness.uniforms(self.seed, number, places, 1, stream=randomness.WINDOW)[:, 0]
        rows = stream[np.argsort(places + delays * self.window, kind="stable")]
        return EpochOrder(rows, stream, self.window)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleTable:
    """What an order needs to know of the samples of a split, in the order of the index.

    Attributes:
        labels: int64 [N], label of each sample.
        shards: [N], shard of each sample, counted over all directories.
        sources: int64 [N], shard directory of each sample.
        classes: Names of the classes; a label is a position in it.
    """

    labels: NDArray[np.int64]
    shards: NDArray[np.integer]
    sources: NDArray[np.int64]
    classes: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Select:
    """A part of a split.

    Attributes:
        classes: Names of the classes to keep, as in `Loader.classes`; labels stay as they are.
        indices: Rows of the split's index to keep, in any order; a row counts once.
        first: How many of the samples that are left to keep, the first in the order of the index.
        proportions: Share of the epoch for each shard directory, where several are mixed.
    """

    classes: Sequence[str] | None = None
    indices: ArrayLike | None = None
    first: int | None = None
    proportions: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if self.classes is not None:
            check_names("classes", self.classes)
        if self.indices is not None:
            indices = np.asarray(self.indices)
            if indices.size and not np.issubdtype(indices.dtype, np.integer):
                raise TypeError(
                    f"indices must be integers, rows of the split's index, got {indices.dtype}"
                )
        if self.first is not None:
            check_integer("first", self.first, 1)
        if self.proportions is not None:
            check_numbers("proportions", self.proportions)

    def rows(self, table: SampleTable) -> Rows:
        """The rows of the index that are kept, in its order.

        Raises:
            ValueError: If a class or a row is not there, or nothing is left.
        """
        kept = np.ones(len(table.labels), np.bool_)
        if self.classes is not None:
            unknown = sorted(set(self.classes) - set(table.classes))
            if unknown:
                raise ValueError(f"classes has {unknown[0]!r}, which the shards do not have")
            kept &= np.isin(table.labels, [table.classes.index(name) for name in self.classes])
        if self.indices is not None:
            indices = np.asarray(self.indices, np.int64)
            if indices.size and not 0 <= indices.min() <= indices.max() < len(kept):
                outside = indices[(indices < 0) | (indices >= len(kept))]
                raise ValueError(f"indices must be in [0, {len(kept)}), got {outside[0]}")
            chosen = np.zeros(len(kept), np.bool_)
            chosen[indices] = True
            kept &= chosen
        rows = np.flatnonzero(kept)[: self.first]
        if not len(rows):
            raise ValueError("select leaves no samples")
        return rows


def order_of(
    table: SampleTable,
    *,
    kind: OrderKind,
    select: Select,
    reweight: str | ArrayLike | None,
    epoch_size: int | None,
    seed: int,
) -> Order:
    """The order of all epochs, from what a user asks for; see `Loader`.

    Raises:
        TypeError: If an argument is of a wrong type.
        ValueError: If an argument is out of range or does not fit the table.
    """
    rows = select.rows(table)
    labels, sources = table.labels[rows], table.sources[rows]
    expected = None
    if not (reweight is None and epoch_size is None and select.proportions is None):
        length = len(rows) if epoch_size is None else epoch_size
        check_integer("epoch_size", length, 1)
        weights = _weights(reweight, labels, rows, len(table.labels))
        expected = expectations(weights, length, sources=sources, proportions=select.proportions)
    return Order(
        kind=kind,
        rows=rows,
        groups=sources * len(table.classes) + labels,
        expected=expected,
        shards=table.shards[rows],
        seed=seed,
    )


def _weights(
    reweight: str | ArrayLike | None, labels: NDArray[np.int64], rows: Rows, total: int
) -> NDArray[np.float64]:
    if reweight is None:
        return np.ones(len(rows))
    if isinstance(reweight, str):
        return class_weights(labels, reweight)
    try:
        weights = np.asarray(reweight, np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"reweight must be a rule or a row of numbers, one for each sample: {error}"
        ) from error
    if weights.shape != (total,):
        raise ValueError(
            f"reweight must have a weight for each of the {total} samples of the split, got shape"
            f" {list(weights.shape)}"
        )
    return weights[rows]


def describe_order(order: Order) -> str:
    """What decides the order besides data and seed, as a text that two runs can compare."""
    digest = hashlib.sha256(order.rows.tobytes())
    digest.update(b"" if order.expected is None else order.expected.tobytes())
    window = f" window {order.window}" if order.kind == "sequential" else ""
    return f"{order.kind} {order.length} of {len(order.rows)}{window} {digest.hexdigest()[:16]}"


def batch_bounds(
    length: int, *, start: int, global_batch: int, world_size: int, drop_last: bool
) -> NDArray[np.int64]:
    """Where the global batches of an epoch begin and end, from position `start` on.

    A tail that is smaller than the number of ranks would leave a rank without samples. Such a tail,
    if it is kept, shares the samples of the last two batches evenly with the batch before it.

    Returns:
        int64 [steps + 1]; batch k holds the positions [bounds[k], bounds[k + 1]).
    """
    left = max(0, length - start)
    steps, tail = divmod(left, global_batch)
    bounds = start + global_batch * np.arange(steps + 1, dtype=np.int64)
    if tail == 0 or drop_last:
        return bounds
    bounds = np.append(bounds, length)
    if tail < world_size and steps > 0:
        bounds[-2] = bounds[-3] + (length - bounds[-3] + 1) // 2
    return bounds


def rank_part(start: int, stop: int, world: World) -> tuple[int, int]:
    """The range of positions that one rank takes of the global batch [start, stop).

    The sizes of two ranks' parts differ by one at most; the parts cover the batch without padding.
    """
    size = stop - start
    first = start + size * world.rank // world.size
    return first, start + size * (world.rank + 1) // world.size
