"""Batches to the device: a pinned copy on a side stream; the rest of the augmentation there.

    CPU    the tensor is a view of the rendered memory; nothing is copied
    CUDA   pinned memory --side stream--> device; uint8, a quarter of the bytes of float32

    with device.sending(pixels, labels) as sent:    copied; what is done here is done on the device
        sent.images, sent.labels = ...
    images, labels = device.receive(sent)           safe to use on the caller's stream

On CUDA one batch is sent ahead of the caller. Three rules order it all: the side stream copies and
augments, then records `event`; the caller's stream waits for `event`; the pinned memory is rendered
into again only after `event`, and the device memory is used again only after what the caller's
stream has done with it (`record_stream`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastload.arguments import did_you_mean, shown
from fastload.errors import first_line
from fastload.load.buffers import MOST_COPIES, Allocate


@dataclass(slots=True)
class Sent:
    """A batch on its way to the device, or there.

    Attributes:
        images: uint8 [N, 3, S, S], channels-last, until the sender puts the finished ones here.
        labels: int64 [N], until the sender puts the finished ones here.
        event: When both are finished; None where they are when `Device.sending` ends.
    """

    images: Tensor
    labels: Tensor
    event: torch.cuda.Event | None = None


class Device(Protocol):
    """Where batches go."""

    ahead: int  # batches sent before they are asked for
    copy_seconds: float  # seconds of all copies that are known to be over

    def sending(
        self, pixels: NDArray[np.uint8], labels: NDArray[np.int64]
    ) -> AbstractContextManager[Sent]:
        """Start to bring a batch to the device; within the context, finish it there.

        Args:
            pixels: uint8 [N, S, S, 3].
            labels: int64 [N].
        """

    def receive(self, sent: Sent) -> tuple[Tensor, Tensor]:
        """Images and labels, safe to use on the caller's stream."""


def device_for(device: torch.device) -> Device:
    """The way to a device."""
    if device.type == "cuda":
        return CudaDevice(SideStream(device))
    if device.type == "cpu":
        return CpuDevice()
    return OtherDevice(device)


def allocator_for(device: torch.device) -> Allocate:
    """What makes the CPU's memory that batches for a device are rendered into."""
    return pinned_memory if device.type == "cuda" else plain_memory


def device_of(device: str | int | torch.device) -> torch.device:
    """The device that an argument names, with its index; data was put there once, to try it.

    Raises:
        TypeError: If it is no name, number or device.
        ValueError: If it names none that holds data, or none that this machine has.
    """
    expected = 'device must be one such as "cpu", "cuda" or "cuda:0"'
    if not isinstance(device, str | int | torch.device) or isinstance(device, bool):
        raise TypeError(f"{expected}, got {shown(device)}")
    try:
        found = torch.device(device)
    except (RuntimeError, ValueError) as error:
        if isinstance(device, int) and device >= 0:  # torch 2.5, on a machine without accelerators
            raise ValueError(_unusable(device, _first_sentence(error))) from error
        name = "cuda" if device == "gpu" else device
        meant = did_you_mean(name, ("cpu", "cuda", "mps", "xpu"))
        raise ValueError(f"{expected}, got {shown(device)}{meant}") from error
    if found.type == "meta":
        raise ValueError(f"device must be one that holds data, got {shown(device)}")
    reason = _why_unusable(found)
    if reason:
        raise ValueError(_unusable(device, reason))
    return with_index(found)


def _unusable(device: str | int | torch.device, reason: str) -> str:
    return (
        f"device {shown(device)} cannot be used, PyTorch {torch.__version__} says: {reason};"
        f" here are {', '.join(_usable())}"
    )


def _first_sentence(error: Exception) -> str:
    return first_line(error).split(". ")[0].rstrip(".")


def _why_unusable(device: torch.device) -> str:
    try:
        torch.empty(1, device=device)
    except NotImplementedError:  # its text is about an operator, over many lines
        return f"not built for {device.type}"
    except (RuntimeError, AssertionError, ImportError) as error:
        return _first_sentence(error)
    return ""


def _usable() -> list[str]:
    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return ["cpu", *cuda, *(["mps"] if torch.backends.mps.is_available() else [])]


def with_index(device: torch.device) -> torch.device:
    """The device that its batches will name: "cuda" is "cuda:0" or the current one."""
    if device.type == "cuda" and device.index is None and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return device


class CpuDevice:
    """Batches stay where they were rendered."""

    ahead = 0
    copy_seconds = 0.0

    @contextmanager
    def sending(self, pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> Iterator[Sent]:
        """See `Device.sending`."""
        # The tensor refers to the array that was lent, so it counts as a user of the buffer.
        yield Sent(torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.from_numpy(labels))

    def receive(self, sent: Sent) -> tuple[Tensor, Tensor]:
        """See `Device.receive`."""
        return sent.images, sent.labels


class OtherDevice:
    """A plain copy, for devices such as Apple's MPS."""

    ahead = 0

    def __init__(self, device: torch.device) -> None:
        self.copy_seconds = 0.0
        self._device = device

    @contextmanager
    def sending(self, pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> Iterator[Sent]:
        """See `Device.sending`."""
        began = time.perf_counter()
        images = torch.from_numpy(pixels).to(self._device).permute(0, 3, 1, 2)
        targets = torch.from_numpy(labels).to(self._device)
        self.copy_seconds += time.perf_counter() - began
        yield Sent(images, targets)

    def receive(self, sent: Sent) -> tuple[Tensor, Tensor]:
        """See `Device.receive`."""
        return sent.images, sent.labels


class SideStream:
    """A CUDA stream beside the caller's, on which batches are brought and finished.

    Args:
        device: A CUDA device.

    Attributes:
        device: The same, with its index.
        stream: The stream.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = with_index(device)
        self.stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]  # torch

    def record(self, *, timed: bool = False) -> torch.cuda.Event:
        """An event after all that the stream was given so far."""
        event = torch.cuda.Event(enable_timing=timed)  # type: ignore[no-untyped-call]  # torch
        event.record(self.stream)
        return event

    def receive(self, sent: Sent) -> tuple[Tensor, Tensor]:
        """See `Device.receive`: the caller's stream waits, the caller does not."""
        stream = torch.cuda.current_stream(self.device)
        if sent.event is not None:
            stream.wait_event(sent.event)
        sent.images.record_stream(stream)
        sent.labels.record_stream(stream)
        return sent.images, sent.labels


@dataclass(frozen=True, slots=True)
class _Copy:
    """Events of the side stream for one batch, and the pinned array that must last until then."""

    begun: torch.cuda.Event
    copied: torch.cuda.Event
    finished: torch.cuda.Event
    pixels: NDArray[np.uint8]


class CudaDevice:
    """Pinned memory and a side stream; see the module's docstring.

    Args:
        side: The stream that copies and augments.
    """

    ahead = 1

    def __init__(self, side: SideStream) -> None:
        self.copy_seconds = 0.0
        self._side = side
        # Batches whose copy may not be over, oldest first: holding the pinned array keeps its
        # memory from being rendered into.
        self._copying: deque[_Copy] = deque()

    @contextmanager
    def sending(self, pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> Iterator[Sent]:
        """See `Device.sending`."""
        self._let_go()
        with torch.cuda.stream(self._side.stream):
            begun = self._side.record(timed=True)
            images = torch.from_numpy(pixels).to(self._side.device, non_blocking=True)
            targets = moved(labels, self._side.device)
            copied = self._side.record(timed=True)
            sent = Sent(images.permute(0, 3, 1, 2), targets)
            yield sent
            sent.event = finished = self._side.record(timed=True)
        self._copying.append(_Copy(begun, copied, finished, pixels))

    def receive(self, sent: Sent) -> tuple[Tensor, Tensor]:
        """See `Device.receive`."""
        return self._side.receive(sent)

    def _let_go(self) -> None:
        """Let go of the memory of batches that are finished; wait for one where there are many."""
        if len(self._copying) >= MOST_COPIES:
            self._copying[0].finished.synchronize()
        while self._copying and self._copying[0].finished.query():  # type: ignore[no-untyped-call]  # torch
            copy = self._copying.popleft()
            self.copy_seconds += copy.begun.elapsed_time(copy.copied) / 1000


def plain_memory(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """uint8 of `shape`, contents unspecified."""
    return np.empty(shape, np.uint8)


def pinned_memory(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Page-locked uint8 of `shape`; plain where the system can pin no more: slower, still right."""
    try:
        pinned: NDArray[np.uint8] = torch.empty(shape, dtype=torch.uint8, pin_memory=True).numpy()
    except RuntimeError:
        return plain_memory(shape)
    return pinned


class GpuMemory:
    """Memory of a GPU for batches that are rendered there, and the way from it to the caller.

    It is both the `Memory` and the `Device` of a back-end. One stream orders it all: memory is
    taken, written and augmented in the order of the stream; the caller's stream waits for `event`.

    Args:
        side: The stream.

    Attributes:
        device: The GPU.
        stream: The CUDA stream.
    """

    ahead = 1
    copy_seconds = 0.0  # DALI's graph copies the encoded bytes, and they count as decoding

    def __init__(self, side: SideStream) -> None:
        self.device, self.stream = side.device, side.stream
        self._side = side

    def take(self, shape: tuple[int, ...]) -> Any:  # noqa: ANN401  a Tensor where others have arrays
        """A uint8 tensor on the GPU, contents unspecified."""
        with torch.cuda.stream(self.stream):
            return torch.empty(shape, dtype=torch.uint8, device=self.device)

    def select(self, pixels: Any, kept: NDArray[np.bool_]) -> Any:  # noqa: ANN401
        """See `Memory.select`."""
        with torch.cuda.stream(self.stream):
            # Places, not a mask: the CPU would wait to learn how many images a mask keeps.
            return pixels[moved(np.flatnonzero(kept), self.device)]

    def copy(self, pixels: Any, out: Tensor) -> None:  # noqa: ANN401
        """Copy a DALI tensor within the GPU: 0.1 ms a batch at 360 GB/s; returns when it is done.

        The caller gets torch's memory, because torch's allocator knows which streams still use it.
        DALI would give its memory to the next batch as soon as the caller drops the tensor.
        """
        with torch.cuda.stream(self.stream):
            out.copy_(torch.utils.dlpack.from_dlpack(pixels))
            self._side.record().synchronize()

    def copy_from_cpu(self, pixels: NDArray[np.uint8], out: Tensor) -> None:
        """Copy what the CPU rendered; returns when it is done."""
        with torch.cuda.stream(self.stream):
            out.copy_(torch.from_numpy(pixels))

    @contextmanager
    def sending(self, pixels: Any, labels: NDArray[np.int64]) -> Iterator[Sent]:  # noqa: ANN401
        """See `Device.sending`; `pixels` is on the device already."""
        with torch.cuda.stream(self.stream):
            sent = Sent(pixels.permute(0, 3, 1, 2), moved(labels, self.device))
            yield sent
            sent.event = self._side.record()

    def receive(self, sent: Sent) -> tuple[Tensor, Tensor]:
        """See `Device.receive`."""
        return self._side.receive(sent)


def moved(values: NDArray[np.generic], device: torch.device) -> Tensor:
    """A small array as a tensor on the device, of the same shape and type.

    The copy to CUDA goes through pinned memory, where the system can pin more: a copy from pageable
    memory makes the CPU wait.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    if device.type != "cuda":
        return tensor.to(device)
    with suppress(RuntimeError):
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
