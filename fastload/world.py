"""World: one rank among all. `detect()` alone reads ranks, from torch.distributed or torchrun."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """One process of a run: `rank` of `size`.

    Attributes:
        rank: In [0, size).
        size: Number of processes that share each global batch, at least 1.
    """

    rank: int = 0
    size: int = 1

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be at least 1, got {self.size}")
        if not 0 <= self.rank < self.size:
            raise ValueError(f"rank must be in [0, {self.size}), got {self.rank}")


def detect() -> World:
    """The world of this process: torch.distributed's where it is initialised, else torchrun's.

    Raises:
        ValueError: If RANK and WORLD_SIZE are set to something other than 0 <= RANK < WORLD_SIZE.
    """
    from torch import distributed  # here, so that naming a World does not load torch

    if distributed.is_available() and distributed.is_initialized():
        return World(rank=distributed.get_rank(), size=distributed.get_world_size())
    return World(rank=int(os.environ.get("RANK", "0")), size=int(os.environ.get("WORLD_SIZE", "1")))
