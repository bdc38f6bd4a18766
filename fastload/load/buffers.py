"""Memory for batches, used again as soon as nothing refers to it; how many batches there are.

The rule: a buffer is free when nothing refers to the array that was lent. So no code gives a buffer
back, and no code may keep a name of a batch that it has handed on. Each step below is a function
that returns: its names end with it. A loop that runs on holds no batch in a name of its own.

    take -> rendered -> Batch -> Device.sending -> Device.receive -> the caller drops it -> free
    |---- batches_ahead ----|    |-- MOST_COPIES --|                 |------ one ------|
"""

from __future__ import annotations

import math
import weakref
from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fastload.errors import ResourceError

KEPT_BYTES = 64 << 20  # of small buffers
READY_BATCHES = 2  # besides those that the workers are at
# Copies to a device under way, each holding memory; without a limit, a caller that never waits for
# the GPU would run far ahead of the GPU.
MOST_COPIES = 4

Allocate = Callable[[tuple[int, ...]], NDArray[np.uint8]]


def batches_ahead(num_threads: int, *, chunk: int, batch: int) -> int:
    """Batches that are planned, being rendered or ready at a time.

    As many as the chunks of all threads fill, and READY_BATCHES.

    Args:
        num_threads: Threads, each of which renders one chunk at a time.
        chunk: Samples of a chunk.
        batch: Samples of the largest batch.
    """
    return READY_BATCHES + math.ceil(num_threads * chunk / batch)


def most_batches(num_threads: int) -> int:
    """Batches that hold memory at a time, at most: a chunk is at most a whole batch."""
    return batches_ahead(num_threads, chunk=1, batch=1) + MOST_COPIES + 1


class Buffers:
    """Memory for batches, used again as soon as the caller has dropped what it was given.

    Fresh pages cost more than writing them: some 5 ms for a batch of 128 at 224 pixels.

    Nothing is called when the caller drops a batch: a Ctrl-C that fell into such a call, in the
    middle of the caller's own code, would be lost. `take` looks instead whether anything still
    refers to what was lent.

    Args:
        allocate: Makes uint8 arrays of a shape, perhaps pinned.
        keep: Buffers to remember, lent or free; more where they are small. At least as many as hold
            memory at a time (`most_batches`): with fewer, a buffer is forgotten before it is free.
    """

    def __init__(self, allocate: Allocate, *, keep: int) -> None:
        self._allocate, self._keep = allocate, keep
        # Each buffer with a reference to what was lent of it, the oldest first. There is no lock: a
        # forked child might find it taken.
        self._known: deque[tuple[NDArray[np.uint8], weakref.ref[NDArray[np.uint8]]]] = deque()

    def take(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """uint8 of `shape`, C-contiguous, contents unspecified.

        Raises:
            ResourceError: If the system has not that much memory.
        """
        count = math.prod(shape)
        buffer = self._take_back(count)
        if buffer is None:
            try:
                buffer = self._allocate((count,))
            except MemoryError:
                raise ResourceError(
                    f"a batch of {shape[0]:,} images takes {count / 1e9:,.1f} GB, and the system"
                    " has not that much memory left; lower batch_size or size"
                ) from None
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
