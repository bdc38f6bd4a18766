"""What a user asks for, resolved to an order: which samples take part, and how often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastload.arguments import check_integer, check_kind, check_names, check_numbers
from fastload.load.order import Order, OrderKind, Rows
from fastload.load.reweighting import class_weights, describe_weights, expectations


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
    check_kind("select", select, Select)
    rows = select.rows(table)
    labels, sources = table.labels[rows], table.sources[rows]
    expected, weighting = None, ""
    if not (reweight is None and epoch_size is None and select.proportions is None):
        length = len(rows) if epoch_size is None else epoch_size
        check_integer("epoch_size", length, 1)
        weights = _weights(reweight, labels, rows, len(table.labels))
        expected = expectations(weights, length, sources=sources, proportions=select.proportions)
        rule = reweight if isinstance(reweight, str) else None
        weighting = describe_weights(rule, weights, select.proportions)
    return Order(
        kind=kind,
        rows=rows,
        groups=sources * len(table.classes) + labels,
        expected=expected,
        shards=table.shards[rows],
        seed=seed,
        weighting=weighting,
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
    if np.asarray(reweight).dtype == np.bool_:
        raise TypeError("reweight must be a rule or a row of numbers, got a row of bools")
    return weights[rows]
