"""Where the global batches of an epoch begin and end, and which part of each is a rank's.

positions  0 1 2 3 4 5 6 7 | 8 9 ...          global batch of 8
2 ranks    0 0 0 0 1 1 1 1 | 0 0 ...          batch_size 4 each
4 ranks    0 0 1 1 2 2 3 3 | 0 0 ...          batch_size 2 each: the same global batches
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastload.world import World


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
