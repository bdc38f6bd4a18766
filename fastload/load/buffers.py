"""Memory for batches, used again as soon as nobody refers to it."""

from __future__ import annotations

import math
import weakref
from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

KEPT_BYTES = 64 << 20  # of small buffers

Allocate = Callable[[tuple[int, ...]], NDArray[np.uint8]]


class Buffers:
    """Memory for batches, used again as soon as the caller has dropped what he was given.

    Fresh pages cost more than writing them: some 5 ms for a batch of 128 at 224 pixels.

    Nothing is called when he drops it: a Ctrl-C that fell into such a call, in the midst of his own
    code, would be lost. `take` looks instead whether somebody still has what was lent.

    Args:
        allocate: Makes uint8 arrays of a shape, perhaps pinned.
        keep: Buffers to remember, lent or free; more where they are small. As many as are under way
            at a time, or none comes back before it is forgotten.
    """

    def __init__(self, allocate: Allocate, *, keep: int) -> None:
        self._allocate, self._keep = allocate, keep
        # Each with who has it, the oldest first. No lock: a forked child might find it taken.
        self._known: deque[tuple[NDArray[np.uint8], weakref.ref[NDArray[np.uint8]]]] = deque()

    def take(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """uint8 of `shape`, C-contiguous, contents unspecified."""
        count = math.prod(shape)
        buffer = self._take_back(count)
        if buffer is None:
            buffer = self._allocate((count,))
        # A view of a view: its base is `buffer` itself, so `lent` dies with its last user.
        lent = buffer[:count].reshape(shape)
        self._known.append((buffer, weakref.ref(lent)))
        if len(self._known) > max(self._keep, KEPT_BYTES // max(1, buffer.nbytes)):
            self._known.popleft()
        return lent

    def select(self, pixels: NDArray[np.uint8], kept: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """See `Memory.select`."""
        return pixels[kept]

    def _take_back(self, count: int) -> NDArray[np.uint8] | None:
        """A free buffer of at least `count` bytes; those that are too small are let go."""
        found = None  # the last one, which may still be in the processor's cache
        for _ in range(len(self._known)):
            try:
                known = self._known.popleft()
            except IndexError:  # another thread has the rest in its hands
                break
            if known[1]() is not None:
                self._known.append(known)
            elif len(known[0]) >= count:
                if found is not None:
                    self._known.append(found)
                found = known
        return found[0] if found else None
