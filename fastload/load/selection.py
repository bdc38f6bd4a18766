"""Which samples of a split take part, as a user asks for them."""

from __future__ import annotations

from collections.abc import Collection as Names
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastload.arguments import (
    check_integer,
    check_names,
    check_numbers,
    did_you_mean,
    shown,
)
from fastload.calls import explain_calls
from fastload.load.draws import TakingPart
from fastload.load.rows import row_numbers, rows_of
from fastload.store.collection import Collection


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleTable:
    """What an order needs to know of the samples of a split, in the order of the index.

    Attributes:
        labels: int [N], label of each sample; may be mapped.
        shards: [N], shard of each sample, counted over all directories.
        offsets: [N], first byte of each sample in its shard.
        sources: int64 [N], shard directory of each sample.
        classes: Names of the classes; a label is a position in it.
        directories: How many directories there are.
        of_directory: The collection of a single shard directory, which knows more; else None.
    """

    labels: NDArray[np.integer]
    shards: NDArray[np.integer]
    offsets: NDArray[np.integer]
    sources: NDArray[np.int64]
    classes: Sequence[str]
    directories: int = 1
    of_directory: Collection | None = None

    @classmethod
    def of(cls, collection: Collection) -> SampleTable:
        """The table of a collection."""
        return cls(
            labels=collection.index["label"],
            shards=collection.index["file"],
            offsets=collection.index["offset"],
            sources=collection.sources,
            classes=collection.classes,
            directories=len(collection.points),
            of_directory=collection if collection.listing else None,
        )


@explain_calls()
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Select:
    """A part of a split.

    Attributes:
        classes: Names of the classes to keep, as in `Loader.classes`; labels stay as they are.
        indices: Rows of the split's index to keep, in any order and each once; -1 is the last one.
            Or a mask with a bool for each sample of the split, or a slice.
        first: How many of the samples that are left to keep, the first in the order of the index.
        proportions: Share of the epoch for each shard directory, where several are mixed.
    """

    classes: Names[str] | None = None
    indices: ArrayLike | Iterable[int] | slice | None = None
    first: int | None = None
    proportions: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if self.classes is not None:
            check_names("classes", self.classes)
        if self.indices is not None and not isinstance(self.indices, slice):
            # A copy, which a later change of the caller's array cannot reach.
            object.__setattr__(self, "indices", row_numbers("indices", self.indices))
        if self.first is not None:
            check_integer("first", self.first, 1)
        if self.proportions is not None:
            check_numbers("proportions", self.proportions)

    def __repr__(self) -> str:
        said = [(name, getattr(self, name)) for name in self.__slots__]
        return f"Select({', '.join(f'{name}={shown(v)}' for name, v in said if v is not None)})"

    def taking_part(self, table: SampleTable) -> TakingPart:
        """The rows of the index that are kept.

        Raises:
            ValueError: If a class or a row is not there, or nothing is left.
        """
        count = len(table.labels)
        if self.classes is None and self.indices is None and count <= (self.first or count):
            return TakingPart(count)
        kept = np.ones(count, np.bool_)
        if self.classes is not None:
            unknown = sorted(set(self.classes) - set(table.classes))
            if unknown:
                raise ValueError(
                    f"classes has {unknown[0]!r}, which the shards do not have; they have"
                    f" {shown(list(table.classes))}{did_you_mean(unknown[0], table.classes)}"
                )
            kept &= np.isin(table.labels, [table.classes.index(name) for name in self.classes])
        if self.indices is not None:
            times = np.bincount(rows_of("indices", self.indices, count), minlength=count)
            if times.max() > 1:
                raise ValueError(_repeated(int(times.argmax()), times))
            kept &= times == 1
        rows = np.flatnonzero(kept)[: self.first]
        if not len(rows):
            raise ValueError(f"select leaves no samples of the {count} of the split: {self!r}")
        return TakingPart(count, None if len(rows) == count else rows)


def _repeated(row: int, times: NDArray[np.int64]) -> str:
    what = f"indices has row {row} {times[row]} times, a row counts once"
    if times.sum() == len(times) and not times[2:].any():
        return f"{what}; for a mask of 0 and 1 pass bools, such as mask.astype(bool)"
    return f"{what}; pass np.unique(indices), and with `reweight` what is to come more often"
