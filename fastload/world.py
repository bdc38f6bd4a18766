"""World: one rank among all ranks. `detect()` alone asks torch.distributed and torchrun."""

from __future__ import annotations

import os
from dataclasses import dataclass

from fastload.arguments import check_integer, make_plain
from fastload.calls import explain_calls


@explain_calls()
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
        make_plain(self)
        check_integer("size", self.size, 1)
        check_integer("rank", self.rank, 0, self.size - 1)


def detect() -> World:
    """The world of this process: torch.distributed's where it is initialised, else torchrun's.

    Raises:
        ValueError: If RANK and WORLD_SIZE are set, but not to integers 0 <= RANK < WORLD_SIZE.
    """
    from torch import distributed  # here, so that naming a World does not load torch

    if distributed.is_available() and distributed.is_initialized():
        return World(rank=distributed.get_rank(), size=distributed.get_world_size())
    rank, size = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    try:
        return World(rank=int(rank), size=int(size))
    except ValueError as error:
        raise ValueError(
            f"RANK and WORLD_SIZE of the environment must be integers with 0 <= RANK < WORLD_SIZE,"
            f" got RANK={rank} and WORLD_SIZE={size}"
        ) from error
