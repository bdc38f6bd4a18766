"""What the batches of an epoch add up to: losses, hits and seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from fastload.world import World
from train.ranks import Ranks

_TIMES = ("waiting_seconds", "compute_seconds")


@dataclass(slots=True, kw_only=True)
class Meter:
    """Sums over the batches of an epoch on this rank; kept in the checkpoint.

    Attributes:
        loss: Sum of weighted losses.
        weight: Sum of weights.
        hits: Images whose class scored highest in the training step.
        images: Images trained on.
        waiting_seconds: Time in which no batch was ready.
        compute_seconds: Time of forward passes, backward passes and steps.
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
        """Share of the time spent waiting for data, in [0, 1]; NaN before the first batch."""
        return self.waiting_seconds / self.seconds if self.seconds else math.nan

    @property
    def mean_loss(self) -> float:
        """NaN before the first batch."""
        return self.loss / self.weight if self.weight else math.nan

    @property
    def note(self) -> str:
        """Loss and speed for a line of progress; "" before the first reading."""
        if not self.images:
            return ""
        return (
            f"loss {self.mean_loss:.3f}, {self.images_per_second:.0f} img/s, "
            f"{self.waiting_share:.0%} waiting"
        )

    def row(self) -> dict[str, float | int]:
        """The columns of log.csv for an epoch of training."""
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
        """The meter of all ranks: sums of counts, means of times. Every rank must call this."""
        return joined_meter(ranks.gathered(self))


def joined_meter(parts: Sequence[Meter]) -> Meter:
    """The meter of all ranks: sums of counts, means of times."""
    totals = {item.name: sum(getattr(part, item.name) for part in parts) for item in fields(Meter)}
    for name in _TIMES:
        totals[name] /= len(parts)
    return Meter(**totals)


def resumed_meter(saved: Sequence[Meter], world: World) -> Meter:
    """The meter of this rank, so that all ranks together have what was saved.

    Args:
        saved: The meters of all ranks that saved, by rank; there may be more or fewer ranks now.
        world: This rank among all.
    """
    if len(saved) == world.size:
        return saved[world.rank]
    total = joined_meter(saved)
    if world.rank == 0:
        return total
    return Meter(**{name: getattr(total, name) for name in _TIMES})
