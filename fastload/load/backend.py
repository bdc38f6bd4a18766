"""Which back-end renders, and what its batches need on their way."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch

from fastload.errors import BackendUnavailableError
from fastload.load.buffers import Buffers
from fastload.load.device import MOST_COPIES, Device, GpuMemory, device_for
from fastload.load.rendering import READY_BATCHES
from fastload.pixels import dali
from fastload.pixels.dali import GRAPHS, DaliRenderer
from fastload.pixels.decode import Memory, Renderer, cpu_renderer

_log = logging.getLogger(__name__)

BACKENDS = ("auto", "native", "libjpeg", "dali", "dali-cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """What renders, and what its batches need on their way.

    Attributes:
        renderer: Bytes to pixels.
        reason: In one sentence which one it is, and why.
        memory: Where the pixels go.
        device: The way from there to the caller.
        num_threads: That render at a time.
        whole_batches: Whether it wants a batch at a time, rather than small chunks of it.
    """

    renderer: Renderer
    reason: str
    memory: Memory
    device: Device | GpuMemory
    num_threads: int
    whole_batches: bool = False


def choose_backend(name: str, device: torch.device, *, num_threads: int) -> Backend:
    """The back-end of that name. `dali` gives way to the fastest on the CPU, and says why.

    Raises:
        BackendUnavailableError: If another that was asked for by name cannot run here.
    """
    if name not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {name!r}")
    why = "asked for"
    if name == "auto":
        why = "the fastest that runs here"
    if name == "dali":
        try:
            return _on_the_gpu(device, num_threads)
        except BackendUnavailableError as error:
            name, why = "auto", f"dali cannot run: {error}"
            _log.warning("%s; the fastest back-end on the CPU takes over", why)
    # Where there is a GPU, building a graph takes DALI a second on the CPU too, so there are few.
    workers = min(GRAPHS, num_threads) if name == "dali-cpu" else num_threads
    renderer = (
        DaliRenderer(num_threads=num_threads // workers)
        if name == "dali-cpu"
        else cpu_renderer(name)
    )
    way = device_for(device)
    return Backend(
        renderer=renderer,
        reason=f"{renderer.name}: {why}",
        memory=Buffers(way.allocate, keep=num_threads + READY_BATCHES + MOST_COPIES + 1),
        device=way,
        num_threads=workers,
    )


def _on_the_gpu(device: torch.device, num_threads: int) -> Backend:
    if device.type != "cuda":
        raise BackendUnavailableError(f"it renders on a GPU, the device is {device}")
    reason = dali.why_unavailable(device=device.index or 0)
    if reason:
        raise BackendUnavailableError(reason)
    memory = GpuMemory(device)
    workers = min(GRAPHS, num_threads)
    return Backend(
        renderer=DaliRenderer(num_threads=num_threads // workers, memory=memory),
        reason=f"dali: asked for, and {torch.cuda.get_device_name(device)} runs it",
        memory=memory,
        device=memory,
        num_threads=workers,
        whole_batches=True,
    )


def with_index(device: torch.device) -> torch.device:
    """The device that its batches will name: "cuda" is "cuda:0" or the current one."""
    if device.type == "cuda" and device.index is None and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return device
