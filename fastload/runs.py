"""Where to cut a row of things into runs: at most so many of them, and at most so much in all."""

from __future__ import annotations

from collections.abc import Iterable


def run_bounds(
    sizes: Iterable[int], *, count: int | None = None, total: int | None = None
) -> list[int]:
    """Bounds of consecutive runs, each as long as the limits allow.

    Args:
        sizes: Size of each thing, such as its bytes.
        count: Things of a run at most; None for no limit.
        total: Sum of the sizes of a run at most; None for no limit. A thing that is larger stands
            alone.

    Returns:
        Run i holds the things [bounds[i], bounds[i + 1]). The first bound is 0 and the last is the
        number of things, so that nothing gives [0].
    """
    bounds, held, end = [0], 0, 0
    for place, size in enumerate(sizes):
        full = count is not None and place - bounds[-1] == count
        heavy = total is not None and held + size > total
        if (full or heavy) and place > bounds[-1]:
            bounds.append(place)
            held = 0
        held += size
        end = place + 1
    return bounds if bounds[-1] == end else [*bounds, end]
