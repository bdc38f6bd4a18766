"""What an epoch has come to: losses, hits and seconds, gathered without making a GPU wait.

Readings   numbers of the latest batches, on the device until some are read together
a clock    waiting for data and computing, by the host's time or the GPU's own
    |
Meter      sums of the epoch, kept in the checkpoint
"""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastload import Loader
from fastload.errors import FastloadError
from train.losses import Total
from train.ranks import Ranks

READ_EVERY = 50  # batches on a GPU: some seconds of ResNet-50 on a consumer card
MOST_QUEUED = 2  # steps: the one that the GPU is at, and the next


class DivergedError(FastloadError):
    """The loss is no number any more."""


@dataclass(slots=True, kw_only=True)
class Meter:
    """Sums over the batches of an epoch on this rank; kept in the checkpoint.

    Attributes:
        loss: Sum of weighted losses.
        weight: Sum of weights.
        hits: Images whose class scored highest, as they were trained on.
        images: Images trained on.
        waiting_seconds: Time in which no batch was ready.
        compute_seconds: Time of forward and backward passes and steps.
    """

    loss: float = 0.0
    weight: float = 0.0
    hits: int = 0
    images: int = 0
    waiting_seconds: float = 0.0
    compute_seconds: float = 0.0

    @property
    def seconds(self) -> float:
        """Waiting and computing."""
        return self.waiting_seconds + self.compute_seconds

    @property
    def images_per_second(self) -> float:
        """NaN before the first batch."""
        return self.images / self.seconds if self.seconds else math.nan

    @property
    def waiting_share(self) -> float:
        """Share of the time spent waiting for data, in [0, 1]."""
        return self.waiting_seconds / self.seconds if self.seconds else math.nan

    @property
    def mean_loss(self) -> float:
        """NaN before the first batch."""
        return self.loss / self.weight if self.weight else math.nan

    @property
    def note(self) -> str:
        """How it goes, for a line of progress; "" before the first reading."""
        if not self.images:
            return ""
        return (
            f"loss {self.mean_loss:.3f}, {self.images_per_second:.0f} img/s, "
            f"{self.waiting_share:.0%} waiting"
        )

    def row(self) -> dict[str, float | int]:
        """What log.csv says of an epoch of training."""
        return {
            "loss": self.mean_loss,
            "top1": self.hits / self.images if self.images else math.nan,
            "images": self.images,
            "seconds": self.seconds,
            "images_per_second": self.images_per_second,
            "waiting_share": self.waiting_share,
            "compute_seconds": self.compute_seconds,
        }

    def over(self, ranks: Ranks) -> Meter:
        """All ranks together: sums of counts, means of times."""
        parts = ranks.gathered(asdict(self))
        totals = {key: sum(part[key] for part in parts) for key in parts[0]}
        for key in ("waiting_seconds", "compute_seconds"):
            totals[key] /= len(parts)
        return Meter(**totals)


class Position(Protocol):
    """Where a run stands: `loop.Progress`."""

    epoch: int
    batch: int
    meter: Meter


class Readings:
    """Loss, weight and hits of the latest batches, on the device until they are read together.

    Reading one number makes the host wait for all that a GPU has to do, so some batches are read at
    a time, and all before a checkpoint is written. What the meter then holds does not depend on
    when that was.

    Args:
        progress: Has the meter, and says which batch of the epoch is the latest.
        loader: Whose batches they are.
        every: So many batches are read at a time.
    """

    def __init__(self, progress: Position, loader: Loader, *, every: int) -> None:
        self._progress, self._loader, self._every = progress, loader, every
        self._values: list[Tensor] = []
        self._rows: list[NDArray[np.int64]] = []

    def add(self, total: Total, hits: Tensor) -> None:
        """Keep the numbers of the batch that was received last."""
        self._values.append(torch.stack([total.loss.detach(), total.weight, hits]))
        self._rows.append(self._loader.last_indices())
        if len(self._values) >= self._every:
            self.read()

    def read(self) -> None:
        """Add all to the meter.

        Raises:
            DivergedError: If a loss is NaN or infinite; the message has the keys of its batch.
        """
        if not self._values:
            return
        meter, rows = self._progress.meter, self._rows
        numbers = torch.stack(self._values).tolist()
        self._values, self._rows = [], []
        for place, (loss, weight, hits) in enumerate(numbers):
            if not math.isfinite(loss):
                batch = self._progress.batch - len(numbers) + place + 1
                raise _diverged(loss, self._progress.epoch, batch, self._loader.keys(rows[place]))
            meter.loss += loss
            meter.weight += weight
            meter.hits += int(hits)
            meter.images += len(rows[place])


class Clock(Protocol):
    """Tells waiting for data from computing."""

    def begin(self) -> None:
        """A batch has come."""

    def end(self) -> None:
        """Its step is done, or on its way."""

    def finish(self) -> None:
        """The epoch is over."""


def clock_for(device: torch.device, meter: Meter) -> Clock:
    """The clock of a device, which counts into the meter."""
    return CudaClock(meter) if device.type == "cuda" else HostClock(meter)


def read_every(device: torch.device) -> int:
    """Batches whose numbers are read from a device at a time."""
    return READ_EVERY if device.type == "cuda" else 1


class HostClock:
    """Tells waiting for data from computing, where a step is over when its line is."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._since = time.perf_counter()

    def begin(self) -> None:
        """A batch has come."""
        self._meter.waiting_seconds += self._lap()

    def end(self) -> None:
        """Its step is done."""
        self._meter.compute_seconds += self._lap()

    def finish(self) -> None:
        """The epoch is over."""

    def _lap(self) -> float:
        before, self._since = self._since, time.perf_counter()
        return self._since - before


class CudaClock:
    """The same by the GPU's own clock, and a limit to how far the host runs ahead of it.

    Waiting is the time between the end of a step and the beginning of the next one on the GPU: what
    the host does meanwhile costs nothing as long as a step is queued. At most MOST_QUEUED steps
    are, for each holds a batch; waiting for an older one leaves the GPU its work.
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
        """Its step is queued."""
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


def _diverged(loss: float, epoch: int, batch: int, keys: list[str]) -> DivergedError:
    more = f" and {len(keys) - 8} more" if len(keys) > 8 else ""
    return DivergedError(
        f"the loss became {loss} in epoch {epoch + 1}, batch {batch}; "
        f"lower --lr, set --clip 1, or look at its images: {', '.join(keys[:8])}{more}"
    )
