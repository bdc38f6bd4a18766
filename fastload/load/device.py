"""Batches to the device: a pinned copy on a side stream; the rest of the augmentation there.

    CPU    the tensor is a view of the rendered memory; nothing is copied
    CUDA   pinned memory --side stream--> device; uint8, a quarter of the bytes of float32

On CUDA one batch is sent ahead of the caller. Three events order it all: the side stream copies and
augments, then records `event`; the caller's stream waits for `event`; the pinned memory is rendered
into again only after `event`, and the device memory is used again only after what the caller's
stream has done with it (`record_stream`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Copies under way, each holding pinned memory; a caller who never waits for the GPU runs far ahead.
MOST_COPIES = 4

Finish = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class Sent:
    """A batch on its way to the device, or there."""

    images: Tensor
    labels: Tensor
    event: torch.cuda.Event | None = None


class Device(Protocol):
    """Where batches go."""

    ahead: int  # batches sent before they are asked for
    copy_seconds: float  # of all batches so far, as far as they are known to be over

    def allocate(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Memory to render into: uint8, C-contiguous."""

    def send(self, pixels: NDArray[np.uint8], labels: NDArray[np.int64], finish: Finish) -> Sent:
        """Start to bring a batch to the device and to finish it there.

        Args:
            pixels: uint8 [N, S, S, 3].
            labels: int64 [N].
            finish: Called with images uint8 [N, 3, S, S], channels-last, and labels, both on the
                device; returns what the caller is to get.
        """

    def receive(self, sent: Sent) -> tuple[Tensor, Tensor]:
        """Images and labels, safe to use on the caller's stream."""


def device_for(device: torch.device) -> Device:
    """The way to a device.

    Raises:
        ValueError: If there is no way to it.
    """
    if device.type == "cuda":
        return CudaDevice(device)
    if device.type == "cpu":
        return CpuDevice()
    return OtherDevice(device)


def _images(pixels: NDArray[np.uint8]) -> Tensor:
    # The array itself goes in, not a view of it: its end says that the memory is free again.
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


class CpuDevice:
    """Batches stay where they were rendered."""

    ahead = 0
    copy_seconds = 0.0

    def allocate(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """See `Device.allocate`."""
        return np.empty(shape, np.uint8)

    def send(self, pixels: NDArray[np.uint8], labels: NDArray[np.int64], finish: Finish) -> Sent:
        """See `Device.send`."""
        return Sent(*finish(_images(pixels), torch.from_numpy(labels)))

    def receive(self, sent: Sent) -> tuple[Tensor, Tensor]:
        """See `Device.receive`."""
        return sent.images, sent.labels


class OtherDevice(CpuDevice):
    """A plain copy, for devices such as Apple's MPS."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def send(self, pixels: NDArray[np.uint8], labels: NDArray[np.int64], finish: Finish) -> Sent:
        """See `Device.send`."""
        began = time.perf_counter()
        images = torch.from_numpy(pixels).to(self._device).permute(0, 3, 1, 2)
        targets = torch.from_numpy(labels).to(self._device)
        self.copy_seconds += time.perf_counter() - began
        return Sent(*finish(images, targets))


@dataclass(frozen=True, slots=True)
class _Copy:
    """Of one batch: events of the side stream, and the pinned array that must last until then."""

    begun: torch.cuda.Event
    copied: torch.cuda.Event
    finished: torch.cuda.Event
    pixels: NDArray[np.uint8]


class CudaDevice:
    """Pinned memory and a side stream; see the module's docstring."""

    ahead = 1

    def __init__(self, device: torch.device) -> None:
        self.copy_seconds = 0.0
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch
        # Batches whose copy may not be over, oldest first: holding the pinned array keeps its
        # memory from being rendered into.
        self._copying: deque[_Copy] = deque()

    def allocate(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """See `Device.allocate`: pinned, where the system has memory to pin."""
        return pinned_memory(shape)

    def send(self, pixels: NDArray[np.uint8], labels: NDArray[np.int64], finish: Finish) -> Sent:
        """See `Device.send`."""
        if len(self._copying) >= MOST_COPIES:
            self._copying[0].finished.synchronize()
        while self._copying and self._copying[0].finished.query():  # type: ignore[no-untyped-call]  # torch
            copy = self._copying.popleft()
            self.copy_seconds += copy.begun.elapsed_time(copy.copied) / 1000
        with torch.cuda.stream(self._stream):
            begun = self._record()
            images = torch.from_numpy(pixels).to(self._device, non_blocking=True)
            targets = moved(labels, self._device)
            copied = self._record()
            answer = finish(images.permute(0, 3, 1, 2), targets)
            finished = self._record()
        self._copying.append(_Copy(begun, copied, finished, pixels))
        return Sent(*answer, finished)

    def _record(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch
        event.record(self._stream)
        return event

    def receive(self, sent: Sent) -> tuple[Tensor, Tensor]:
        """See `Device.receive`."""
        stream = torch.cuda.current_stream(self._device)
        if sent.event is not None:
            stream.wait_event(sent.event)
        sent.images.record_stream(stream)
        sent.labels.record_stream(stream)
        return sent.images, sent.labels


def pinned_memory(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Page-locked uint8 of `shape`; plain where the system can pin no more: slower, still right."""
    try:
        pinned: NDArray[np.uint8] = torch.empty(shape, dtype=torch.uint8, pin_memory=True).numpy()
    except RuntimeError:
        return np.empty(shape, np.uint8)
    return pinned


class GpuMemory:
    """Memory of a GPU for batches that are rendered there, and the way from it to the caller.

    Stands where else `batch.Buffers` and a `device.Device` stand. One stream orders it all: memory
    is taken, written and augmented in its order; the caller's stream waits for `event`.

    Args:
        device: A CUDA device.
    """

    ahead = 1
    copy_seconds = 0.0  # the encoded bytes go there within the graph

    def __init__(self, device: torch.device) -> None:
        index = torch.cuda.current_device() if device.index is None else device.index
        self.device = torch.device("cuda", index)
        self.stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]  # torch

    def take(self, shape: tuple[int, ...]) -> Any:  # noqa: ANN401  a Tensor where others have arrays
        """A uint8 tensor on the GPU, contents unspecified."""
        with torch.cuda.stream(self.stream):
            return torch.empty(shape, dtype=torch.uint8, device=self.device)

    def select(self, pixels: Any, kept: NDArray[np.bool_]) -> Any:  # noqa: ANN401
        """See `Memory.select`."""
        with torch.cuda.stream(self.stream):
            return pixels[moved(np.flatnonzero(kept), self.device)]  # a mask would be waited for

    def copy(self, pixels: Any, out: Tensor) -> None:  # noqa: ANN401
        """Copy a DALI tensor within the GPU: 0.1 ms a batch at 360 GB/s; returns when it is done.

        The memory then is torch's, whose allocator knows what streams still use it; DALI's would be
        given to the next batch as soon as the caller drops it.
        """
        with torch.cuda.stream(self.stream):
            out.copy_(torch.utils.dlpack.from_dlpack(pixels))
            self._record().synchronize()

    def copy_from_cpu(self, pixels: NDArray[np.uint8], out: Tensor) -> None:
        """Copy what the CPU rendered; returns when it is done."""
        with torch.cuda.stream(self.stream):
            out.copy_(torch.from_numpy(pixels))

    def send(self, pixels: Any, labels: NDArray[np.int64], finish: Finish) -> Sent:  # noqa: ANN401
        """See `Device.send`; `pixels` is on the device already."""
        with torch.cuda.stream(self.stream):
            targets = moved(labels, self.device)
            return Sent(*finish(pixels.permute(0, 3, 1, 2), targets), self._record())

    def receive(self, sent: Sent) -> tuple[Tensor, Tensor]:
        """See `Device.receive`."""
        stream = torch.cuda.current_stream(self.device)
        if sent.event is not None:
            stream.wait_event(sent.event)
        sent.images.record_stream(stream)
        sent.labels.record_stream(stream)
        return sent.images, sent.labels

    def _record(self) -> torch.cuda.Event:
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch
        event.record(self.stream)
        return event


def moved(values: NDArray[np.generic], device: torch.device) -> Tensor:
    """A small array as a tensor on the device, of the same shape and type.

    Through pinned memory on CUDA: from pageable memory, the copy would be waited for.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
