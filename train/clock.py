"""Where the time of an epoch goes: waiting for data, or computing."""

from __future__ import annotations

import time
from collections import deque
from typing import Protocol

import torch

from train.meter import Meter

MOST_QUEUED = 2  # steps: the one that the GPU is at, and the next


class Clock(Protocol):
    """Adds the time of waiting for data and the time of computing to a meter."""

    def begin(self) -> None:
        """A batch has come."""

    def end(self) -> None:
        """The step on the batch is done, or is queued on the GPU."""

    def finish(self) -> None:
        """The epoch is over."""


def clock_for(device: torch.device, meter: Meter) -> Clock:
    """The clock of a device, which counts into the meter."""
    return CudaClock(meter) if device.type == "cuda" else HostClock(meter)


class HostClock:
    """Measures by the host's time: a step is over when its call returns."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._since = time.perf_counter()

    def begin(self) -> None:
        """A batch has come."""
        self._meter.waiting_seconds += self._lap()

    def end(self) -> None:
        """The step on the batch is done."""
        self._meter.compute_seconds += self._lap()

    def finish(self) -> None:
        """The epoch is over."""

    def _lap(self) -> float:
        before, self._since = self._since, time.perf_counter()
        return self._since - before


class CudaClock:
    """Measures by the GPU's own clock, and limits how far the host runs ahead of the GPU.

    Waiting is the time on the GPU between the end of a step and the beginning of the next step. The
    host's work in that time costs nothing as long as a step is queued. At most MOST_QUEUED steps
    are queued, because each holds a batch. The host waits for the oldest of them, so the GPU still
    has work.
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._queued: deque[tuple[torch.cuda.Event, torch.cuda.Event, torch.cuda.Event]] = deque()
        self._last = self._mark()
        self._begun = self._last

    def begin(self) -> None:
        """A batch has come."""
        self._begun = self._mark()

    def end(self) -> None:
        """The step on the batch is queued."""
        end = self._mark()
        self._queued.append((self._last, self._begun, end))
        self._last = end
        if len(self._queued) > MOST_QUEUED:
            self._count()

    def finish(self) -> None:
        """The epoch is over: wait for its last step."""
        while self._queued:
            self._count()

    def _count(self) -> None:
        last, begun, end = self._queued.popleft()
        end.synchronize()
        self._meter.waiting_seconds += last.elapsed_time(begun) / 1000
        self._meter.compute_seconds += begun.elapsed_time(end) / 1000

    def _mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch
        event.record()
        return event
