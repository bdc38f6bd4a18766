"""What a user asks for, resolved to an order: which samples are drawn, how often, in which order.

Select -> TakingPart;  reweight, epoch_size, proportions -> Sampling;  both and a kind -> Order
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastload.arguments import check_integer, check_kind, shown
from fastload.load.draws import ByGroup, BySample, EachOnce, Sampling, TakingPart
from fastload.load.order import Layout, Order, OrderKind
from fastload.load.reweighting import class_weights, describe_weights, expectations
from fastload.load.rows import without_torch
from fastload.load.selection import SampleTable, Select
from fastload.store.mapped import RowsByClass

LONGEST_EPOCH = 2**36  # positions; the shuffle is tested up to here
POSITION_BYTES = 88  # of memory while an order is made as a whole, at most: `Order.grows`


def most_positions() -> int:
    """Positions of an epoch that this machine's memory can hold, of an order made as a whole."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // POSITION_BYTES


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
    part = select.taking_part(table)
    sampling: Sampling = EachOnce(part)
    weighting = ""
    if not (reweight is None and epoch_size is None and select.proportions is None):
        length = len(part) if epoch_size is None else epoch_size
        check_integer("epoch_size", length, 1, LONGEST_EPOCH)
        if reweight is None or isinstance(reweight, str):
            sampling = _by_group(table, part, length, reweight, select.proportions)
            weighting = describe_weights(reweight, None, select.proportions)
        else:
            weights = _weights(reweight, part)
            sampling = _by_sample(table, part, length, weights, select.proportions)
            weighting = describe_weights(None, weights, select.proportions)
    order = Order(
        kind=kind,
        sampling=sampling,
        layout=_layout(table, part) if kind == "sequential" else None,
        seed=seed,
        weighting=weighting,
    )
    if order.grows and order.length > (most := most_positions()):
        raise ValueError(
            f"epoch_size must be at most {most:,}, whose order fills the memory of this"
            f" machine, got {order.length:,}"
        )
    return order


def _layout(table: SampleTable, part: TakingPart) -> Layout:
    known = table.of_directory
    if part.chosen is None and known is not None and known.listing is not None:
        return Layout(forward=None, ends=known.listing.shard_ends)
    rows = part.all()
    return Layout.of(table.shards[rows], table.offsets[rows], rows)


def _by_group(
    table: SampleTable,
    part: TakingPart,
    length: int,
    rule: str | None,
    proportions: Sequence[float] | None,
) -> Sampling:
    members: NDArray[np.integer] | RowsByClass
    if part.chosen is None and table.of_directory is not None:
        counts, members = table.of_directory.class_counts, table.of_directory.rows_by_class()
        groups = np.flatnonzero(counts)
        sizes = counts[groups]
    else:
        rows = part.all()
        of_rows = _groups(table, rows)
        members = rows[np.argsort(of_rows, kind="stable")]
        groups, sizes = np.unique(of_rows, return_counts=True)
        counts = np.bincount(table.labels[rows])
    of_class, of_source = np.divmod(groups, table.directories)
    weights = np.ones(len(groups))
    if rule is not None:
        weights = class_weights(counts, rule)[of_class]
    return ByGroup(
        taking_part=part,
        members=_narrow(members, part.total),
        sizes=sizes,
        expected=expectations(
            weights, length, counts=sizes, sources=of_source, proportions=proportions
        ),
    )


def _by_sample(
    table: SampleTable,
    part: TakingPart,
    length: int,
    weights: NDArray[np.float64],
    proportions: Sequence[float] | None,
) -> Sampling:
    rows = part.all()
    sources = table.sources[rows]
    return BySample(
        taking_part=part,
        groups=_groups(table, rows),
        expected=expectations(weights, length, sources=sources, proportions=proportions),
    )


def _groups(table: SampleTable, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """By class, then by directory: a class is one range of the ruler wherever its samples lie."""
    labels = table.labels[rows].astype(np.int64)
    return labels * table.directories + table.sources[rows]


def _narrow(
    rows: NDArray[np.integer] | RowsByClass, total: int
) -> NDArray[np.integer] | RowsByClass:
    """Rows in half of the memory, where they have room."""
    if isinstance(rows, RowsByClass) or total > 2**32:
        return rows
    return rows.astype(np.uint32, copy=False)


def _weights(reweight: ArrayLike, part: TakingPart) -> NDArray[np.float64]:
    expected = "reweight must be a rule or a row of numbers, one for each sample"
    try:
        weights = np.asarray(without_torch(reweight))
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{expected}, got {shown(reweight)}") from error
    if weights.dtype.kind not in "iuf":
        raise TypeError(f"{expected}, got {shown(reweight)}")
    if weights.shape != (part.total,):
        raise ValueError(
            f"reweight must have a weight for each of the {part.total} samples of the split, got"
            f" shape {list(weights.shape)}; of a weight for each class pass"
            " weights[dataset.targets]"
        )
    return weights[part.all()].astype(np.float64)
