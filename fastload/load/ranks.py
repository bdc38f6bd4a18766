"""Where the global batches of an epoch begin and end, and which part of each is a rank's.

positions  0 1 2 3 4 5 6 7 | 8 9 ...          global batch of 8
2 ranks    0 0 0 0 1 1 1 1 | 0 0 ...          batch_size 4 each
4 ranks    0 0 1 1 2 2 3 3 | 0 0 ...          batch_size 2 each: the same global batches
"""

from __future__ import annotations

from dataclasses import dataclass

from fastload.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """The global batches of an epoch from some position on, by arithmetic.

    A tail that is smaller than the number of ranks would leave a rank without samples. Such a tail,
    if it is kept, shares the samples of the last two batches evenly with the batch before it.

    Attributes:
        length: Positions of the epoch.
        start: The first position.
        global_batch: Samples of a batch over all ranks, at least 1.
        world_size: Number of ranks.
        drop_last: Whether the tail is dropped.
    """

    length: int
    start: int = 0
    global_batch: int
    world_size: int
    drop_last: bool

    @property
    def steps(self) -> int:
        """How many batches there are."""
        return self._whole + (self._tail > 0 and not self.drop_last)

    def bounds(self, step: int) -> tuple[int, int]:
        """The positions [begin, end) of a batch, `step` in [0, steps)."""
        return self._bound(step), self._bound(step + 1)

    @property
    def _whole(self) -> int:
        return max(0, self.length - self.start) // self.global_batch

    @property
    def _tail(self) -> int:
        return max(0, self.length - self.start) % self.global_batch

    def _bound(self, number: int) -> int:
        whole = self._whole
        if number > whole:
            return self.length
        bound = self.start + self.global_batch * number
        if number == whole > 0 and 0 < self._tail < self.world_size and not self.drop_last:
            before = bound - self.global_batch
            return before + (self.length - before + 1) // 2
        return bound


def rank_part(start: int, stop: int, world: World) -> tuple[int, int]:
    """The range of positions that one rank takes of the global batch [start, stop).

    The sizes of two ranks' parts differ by one at most; the parts cover the batch without padding.
    """
    size = stop - start
    first = start + size * world.rank // world.size
    return first, start + size * (world.rank + 1) // world.size
