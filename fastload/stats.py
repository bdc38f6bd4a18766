"""Counts and seconds of a loader, measured where its parts join: who waits for whom.

workers --(ready batches)--> Loader --(batches)--> the caller
                  ^ waiting_seconds: the caller waited here, so loading is the bottleneck
"""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """A snapshot of a loader, from its creation or its last `reset_stats()`.

    Attributes:
        images: Delivered to the caller.
        batches: Likewise.
        seconds: Between the first request for a batch and the last delivery, in iterations only.
        waiting_seconds: Of these, how long the caller waited in here: for a batch that was not
            ready, and for what is done in his own thread (colours and `transform`, on the CPU).
        ready_batches: Batches that stood ready at a request, on average; 0 means that the caller
            is always faster.
        bad_samples: Samples that could not be decoded: replaced, or left out in evaluation.
    """

    images: int = 0
    batches: int = 0
    seconds: float = 0.0
    waiting_seconds: float = 0.0
    ready_batches: float = 0.0
    bad_samples: int = 0

    @property
    def images_per_second(self) -> float:
        """Images delivered per second of iteration, the caller's own work included."""
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def waiting_fraction(self) -> float:
        """Share of the time that the caller spent waiting for data, in [0, 1]."""
        return min(1.0, self.waiting_seconds / self.seconds) if self.seconds else 0.0


class Meter:
    """Adds up what `Stats` reports. Used by the thread that iterates; not thread-safe."""

    def __init__(self) -> None:
        self._totals = Stats()
        self._ready = 0
        self._since: float | None = None

    def begin(self) -> None:
        """An iteration begins: time counts from here."""
        self._since = time.perf_counter()

    def delivered(self, *, images: int, waited: float, ready: int, bad: int) -> None:
        """One batch goes to the caller."""
        now, totals = time.perf_counter(), self._totals
        elapsed = now - (self._since if self._since is not None else now)
        self._since = now
        self._ready += ready
        batches = totals.batches + 1
        self._totals = Stats(
            images=totals.images + images,
            batches=batches,
            seconds=totals.seconds + elapsed,
            waiting_seconds=totals.waiting_seconds + waited,
            ready_batches=self._ready / batches,
            bad_samples=totals.bad_samples + bad,
        )

    def snapshot(self) -> Stats:
        """What was added up so far."""
        return self._totals
