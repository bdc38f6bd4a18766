"""Which back-end renders, and what its batches need on their way."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import Enum
from functools import cache

import torch

from fastload.arguments import did_you_mean
from fastload.errors import BackendUnavailableError
from fastload.load.buffers import Buffers, most_batches
from fastload.load.device import Device, GpuMemory, SideStream, allocator_for, device_for
from fastload.pixels import dali
from fastload.pixels.dali import GRAPHS, DaliRenderer
from fastload.pixels.decode import Memory, Renderer, cpu_renderer

_log = logging.getLogger(__name__)

AUTO = "auto"  # asks for the fastest back-end on the CPU


class BackendName(str, Enum):
    """The back-ends by name."""

    NATIVE = "native"
    LIBJPEG = "libjpeg"
    DALI_CPU = "dali-cpu"
    DALI = "dali"

    @property
    def on_cpu(self) -> bool:
        """Whether it renders on the CPU; otherwise it renders on a GPU."""
        return self is not BackendName.DALI

    @property
    def whole_batches(self) -> bool:
        """Whether it wants a batch at a time, rather than small chunks of it."""
        return self is BackendName.DALI


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """What renders, and what its batches need on their way.

    Attributes:
        renderer: Bytes to pixels.
        reason: In one sentence which back-end it is, and why.
        memory: Where the pixels go.
        device: The way from there to the caller.
        num_threads: Threads that render at a time.
    """

    renderer: Renderer
    reason: str
    memory: Memory
    device: Device
    num_threads: int

    @property
    def whole_batches(self) -> bool:
        """Whether it wants a batch at a time, rather than small chunks of it."""
        return BackendName(self.renderer.name).whole_batches


def choose_backend(name: str, device: torch.device, *, num_threads: int) -> Backend:
    """As `find_backend`; that `dali` gives way, and why, is one warning in the log of a process."""
    backend = find_backend(name, device, num_threads=num_threads)
    if name == BackendName.DALI != backend.renderer.name:
        _warn_once(backend.reason)
    return backend


@cache
def _warn_once(reason: str) -> None:
    _log.warning("%s; the fastest back-end on the CPU takes over", reason)


def find_backend(name: str, device: torch.device, *, num_threads: int) -> Backend:
    """The back-end of that name. `dali` gives way to the fastest on the CPU; `reason` says why.

    Args:
        name: AUTO, or one of `BackendName`.
        device: Where batches go.
        num_threads: Threads of the CPU that it may use.

    Raises:
        BackendUnavailableError: If another that was asked for by name cannot run here.
    """
    names = (AUTO, *(known.value for known in BackendName))
    if name not in names:
        meant = did_you_mean(name, names)
        raise ValueError(f"backend must be one of {', '.join(names)}, got {name!r}{meant}")
    why = "the fastest that runs here" if name == AUTO else "asked for"
    if name == BackendName.DALI:
        try:
            return _on_the_gpu(device, num_threads)
        except BackendUnavailableError as error:
            name, why = AUTO, f"dali cannot run: {error}"
    # Where there is a GPU, building a graph takes DALI a second on the CPU too, so there are few.
    workers = min(GRAPHS, num_threads) if name == BackendName.DALI_CPU else num_threads
    renderer = (
        DaliRenderer(num_threads=num_threads // workers)
        if name == BackendName.DALI_CPU
        else cpu_renderer(name)
    )
    return Backend(
        renderer=renderer,
        reason=f"{renderer.name}: {why}",
        memory=Buffers(allocator_for(device), keep=most_batches(num_threads)),
        device=device_for(device),
        num_threads=workers,
    )


def _on_the_gpu(device: torch.device, num_threads: int) -> Backend:
    if device.type != "cuda":
        raise BackendUnavailableError(f"it renders on a GPU, the device is {device}")
    reason = dali.why_unavailable(device=device.index or 0)
    if reason:
        raise BackendUnavailableError(reason)
    memory = GpuMemory(SideStream(device))
    workers = min(GRAPHS, num_threads)
    return Backend(
        renderer=DaliRenderer(num_threads=num_threads // workers, memory=memory),
        reason=f"dali: asked for, and {torch.cuda.get_device_name(device)} runs it",
        memory=memory,
        device=memory,
        num_threads=workers,
    )
