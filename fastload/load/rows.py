"""Rows of the index as a user names them: numbers, numbers from the end, a mask, a slice."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastload.arguments import shown


def rows_of(name: str, rows: object, count: int) -> NDArray[np.int64]:
    """Rows of an index of `count` samples: numbers in [-count, count) as in a list, or a mask.

    Args:
        name: The argument, for messages.
        rows: A row of integers, where -1 is the last sample; a row of bools, one for each sample;
            a slice, or a range.
        count: Samples there are.

    Returns:
        int64 [N] in [0, count), in the order and as often as they were named.

    Raises:
        TypeError: If `rows` is none of these.
        ValueError: If a number is out of range, or a mask is not as long as there are samples.
    """
    if isinstance(rows, slice):
        try:
            return np.arange(count, dtype=np.int64)[rows]
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name} must be a slice of integers, got {rows}: {error}") from None
    values = row_numbers(name, rows)
    if values.dtype == np.bool_:
        if len(values) != count:
            raise ValueError(
                f"{name} is a mask of {len(values)} bools, and there are {count} samples;"
                " a mask has a bool for each sample"
            )
        return np.flatnonzero(values)
    for number in (int(values.min(initial=0)), int(values.max(initial=0))):
        if len(values) and not -count <= number < count:
            raise ValueError(
                f"{name} must be in [0, {count}), or in [-{count}, -1] from the end, got {number}"
            )
    chosen = values.astype(np.int64)
    return np.where(chosen < 0, chosen + count, chosen)


def row_numbers(name: str, rows: object) -> NDArray[np.integer] | NDArray[np.bool_]:
    """A row of integers or a row of bools, as an array [N] of its own.

    Raises:
        TypeError: If it is neither.
        ValueError: If it is of several dimensions.
    """
    expected = f"{name} must be a row of integers, or of bools, one for each sample of the split"
    if isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Iterable):
        raise TypeError(f"{expected}, got {shown(rows)}")
    try:
        values = np.array(_items(without_torch(rows)))
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{expected}, got {shown(rows)}") from error
    if values.ndim == 0:
        raise TypeError(f"{expected}, got {shown(rows)}")
    if values.ndim > 1:
        raise ValueError(
            f"{expected}, got the shape {list(values.shape)}; of what np.where gives, take [0]"
        )
    if values.dtype == object:  # such as a column of a table: what is in it counts
        values = _unboxed(values)
    if len(values) and values.dtype.kind not in "iub":
        whole = "; convert them with .astype(int)" if values.dtype.kind == "f" else ""
        raise TypeError(f"{expected}, got {values.dtype} {shown(values)}{whole}")
    return values if len(values) else np.zeros(0, np.int64)


def without_torch(values: object) -> object:
    """A tensor, which may be on any device or need a gradient, as an array; else what it is."""
    detach = getattr(values, "detach", None)
    return detach().cpu().numpy() if callable(detach) else values


def _items(rows: Any) -> object:  # noqa: ANN401  of any library
    """What NumPy makes an array of: a generator has no length."""
    if hasattr(rows, "__array__"):
        return rows
    items = list(rows)
    if len({isinstance(item, bool | np.bool_) for item in items}) > 1:
        raise TypeError("numbers and bools are mixed")
    return items


def _unboxed(values: NDArray[np.object_]) -> NDArray[Any]:
    kinds = {type(value) for value in values}
    if all(issubclass(kind, bool | np.bool_) for kind in kinds):
        return values.astype(np.bool_)
    whole = all(issubclass(kind, Integral) and not issubclass(kind, bool) for kind in kinds)
    return values.astype(np.int64) if whole and abs(values).max() < 2**63 else values


def row_of(name: str, row: object, count: int) -> int:
    """One row of an index of `count` samples, in [-count, count) as in a list.

    Raises:
        IndexError: If there is no such row.
        TypeError: If it is no integer.
    """
    kind = str(getattr(row, "dtype", ""))
    if isinstance(row, bool) or kind.endswith("bool"):
        raise TypeError(f"{name} must be an integer in [-{count}, {count}), got {shown(row)}")
    try:
        number = operator.index(row)  # type: ignore[arg-type]  # what has no index is told so
    except TypeError:
        several = isinstance(row, slice | list | tuple) or hasattr(row, "__len__")
        one = "; a part of a data set is torch.utils.data.Subset(dataset, rows)" if several else ""
        raise TypeError(
            f"{name} must be an integer in [-{count}, {count}), got {shown(row)}{one}"
        ) from None
    if not -count <= number < count:
        raise IndexError(f"{name} must be in [{-count}, {count}), got {number}")
    return number % count
