"""The processes of a run, started by torchrun: what they share, and who writes.

Without torchrun there is one process and every method returns at once. Each exchange is of exact
sizes: nothing is padded, so an evaluation sample is counted once on any number of ranks.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, cast

import torch
from torch import Tensor, distributed

from fastload.cores import usable_cores
from fastload.errors import FastloadError
from fastload.world import World, detect

# The other ranks wait so long for one that evaluates, saves a checkpoint or writes the report.
_TIMEOUT = timedelta(minutes=30)

Value = TypeVar("Value")


class DeviceError(FastloadError):
    """The device asked for is not there."""


class LostRankError(FastloadError):
    """Another process of the run has ended; it says why, this one can only end too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """This process among all.

    Attributes:
        world: Rank and size.
        device: Where this process computes.
    """

    world: World
    device: torch.device

    @property
    def writes(self) -> bool:
        """True in the one process that writes files and prints."""
        return self.world.rank == 0

    def summed(self, value: Tensor) -> Tensor:
        """The sum over ranks; `value` itself is left as it is."""
        if self.world.size == 1:
            return value
        total = value.clone()
        distributed.all_reduce(total)
        return total

    def any(self, flag: bool) -> bool:
        """True everywhere if `flag` is true anywhere."""
        if self.world.size == 1:
            return flag
        return bool(self.summed(torch.tensor(float(flag))) > 0)

    def shared(self, value: Value) -> Value:
        """The value of rank 0."""
        if self.world.size == 1:
            return value
        box: list[Value] = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def gathered(self, value: Value) -> list[Value]:
        """The values of all ranks, by rank."""
        if self.world.size == 1:
            return [value]
        box: list[Value] = [value] * self.world.size
        distributed.all_gather_object(box, value)
        return box

    def gathered_rows(self, rows: Tensor) -> list[Tensor]:
        """The rows of all ranks, by rank; each rank may have another number of them, or none.

        Args:
            rows: [n, ...] on `device`; dtype and the other dimensions agree on all ranks.
        """
        if self.world.size == 1:
            return [rows]
        sizes = self.gathered(len(rows))
        found = []
        for rank, size in enumerate(sizes):
            part = (
                rows.contiguous()
                if rank == self.world.rank
                else rows.new_empty(size, *rows.shape[1:])
            )
            distributed.broadcast(part, src=rank)
            found.append(part)
        return found

    def reset_peak_gpu_memory(self) -> None:
        """Begin to measure `peak_gpu_megabytes`; nothing on a CPU."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak_gpu_megabytes(self) -> float | None:
        """The most memory that torch had allocated on this rank's GPU; None on a CPU."""
        if self.device.type != "cuda":
            return None
        return torch.cuda.max_memory_allocated(self.device) / 2**20

    def synchronise_buffers(self, model: torch.nn.Module) -> None:
        """Give every rank the buffers of rank 0: BatchNorm's statistics before evaluation."""
        if self.world.size > 1:
            for buffer in model.buffers():
                distributed.broadcast(buffer, src=0)


def from_first(ranks: Ranks, action: Callable[[], Value]) -> Value:
    """Let rank 0 alone do an action. Every rank gets its result, or raises its error."""
    outcome: Value | Exception | None = None
    if ranks.writes:
        try:
            outcome = action()
        except (FastloadError, OSError) as error:
            outcome = error
    outcome = ranks.shared(outcome)
    if isinstance(outcome, Exception):
        raise outcome
    return cast("Value", outcome)


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Join the processes that torchrun started, and leave them at the end.

    Args:
        device: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:N"; with more than one
            process, each takes the GPU of its local rank.

    Raises:
        DeviceError: If there is no such device.
        LostRankError: If another process ended while this one waited for it.
    """
    world = detect()
    chosen = _device(
        device, local_rank=int(os.environ.get("LOCAL_RANK", "0")), alone=world.size == 1
    )
    if torch.get_num_threads() > usable_cores():  # torch does not know the quota of a container
        torch.set_num_threads(usable_cores())
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
        # Sizes change once an epoch at most, so that trying all convolution kernels pays.
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")  # TF32 for what is not autocast
    if world.size == 1:
        yield Ranks(world=world, device=chosen)
        return
    backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=_TIMEOUT)
    try:
        yield Ranks(world=world, device=chosen)
    except RuntimeError as error:
        if isinstance(error, distributed.DistError) or "gloo" in str(error):
            raise LostRankError(
                "another process of the run has ended, so this one ends too; its own message says "
                "why"
            ) from error
        raise
    finally:
        leave_group()


def leave_group() -> None:
    """Leave the group of processes, when its threads are done with what they exchanged.

    Such a thread takes Python's lock to let a tensor go. What ends the group joins the thread, in
    torch 2.5 with the lock held: where the one still waits for it, neither ever ends.
    """
    time.sleep(0.1)  # gives the lock away
    distributed.destroy_process_group()


def _device(name: str, *, local_rank: int, alone: bool) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f'--device must be auto, cpu, cuda or cuda:N, got "{name}"') from error
    if device.type not in {"cpu", "cuda"}:
        raise DeviceError(f'--device must be auto, cpu, cuda or cuda:N, got "{name}"')
    if device.type == "cpu":
        return device
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = (device.index or 0) if alone else local_rank
    if index >= count:
        raise DeviceError(
            f"--device {name}: GPU {index} was asked for and {count} can be used; "
            "give --device cpu, or check the driver with "
            f"{'rocm-smi' if torch.version.hip else 'nvidia-smi'}"
        )
    return torch.device("cuda", index)
