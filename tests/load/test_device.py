"""The way to the device: no copy on the CPU; on CUDA nothing is overwritten too early."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch

from fastload.load.augment import Augment
from fastload.load.buffers import MOST_COPIES
from fastload.load.device import (
    CpuDevice,
    CudaDevice,
    Sent,
    SideStream,
    device_for,
    device_of,
    pinned_memory,
)
from fastload.load.loader import Loader
from tests.shards import numbered


def test_on_the_cpu_the_tensor_is_the_rendered_memory():
    pixels = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    device = device_for(torch.device("cpu"))
    with device.sending(pixels, np.array([1, 2])) as sent:
        assert sent.images.data_ptr() == pixels.ctypes.data
    images, labels = device.receive(sent)
    assert isinstance(device, CpuDevice)
    assert images.shape == (2, 3, 4, 4)
    assert images.data_ptr() == pixels.ctypes.data
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert labels.tolist() == [1, 2]


class HostEvent:
    """An event of a stream that the test lets go on."""

    def __init__(self, *, timed: bool) -> None:
        self.reached, self._timed = False, timed

    def query(self) -> bool:
        return self.reached

    def synchronize(self) -> None:
        self.reached = True

    def elapsed_time(self, later: HostEvent) -> float:
        assert self._timed
        assert later._timed
        return 2000.0


class HostStream(SideStream):
    """Tensors on the CPU; `torch.cuda.stream(None)` does nothing."""

    def __init__(self) -> None:
        self.device, self.stream = torch.device("cpu"), None  # type: ignore[assignment]  # no CUDA
        self.events: list[HostEvent] = []

    def record(self, *, timed: bool = False) -> Any:
        self.events.append(HostEvent(timed=timed))
        return self.events[-1]

    def receive(self, sent: Sent) -> tuple[torch.Tensor, torch.Tensor]:
        assert isinstance(sent.event, HostEvent)
        return sent.images, sent.labels


def send(device: CudaDevice) -> weakref.ref[np.ndarray]:
    """Send a batch; whether its memory is in use still, the answer says."""
    pixels = np.zeros((1, 2, 2, 3), np.uint8)
    with device.sending(pixels, np.zeros(1, np.int64)) as sent:
        assert sent.event is None
        sent.images, sent.labels = sent.images.clone(), sent.labels.clone()
    assert sent.event is not None
    return weakref.ref(pixels)


def test_pinned_memory_is_held_until_its_batch_is_finished_and_few_batches_are_under_way():
    device = CudaDevice(side := HostStream())
    used = [send(device)]
    assert len(side.events) == 3  # begun, copied, finished
    used.append(send(device))
    assert [memory() is not None for memory in used] == [True, True]
    assert device.copy_seconds == 0
    side.events[2].reached = True
    used.append(send(device))
    assert [memory() is not None for memory in used] == [False, True, True]
    assert device.copy_seconds == 2
    while len(used) < 3 * MOST_COPIES:
        used.append(send(device))
    assert [memory() is not None for memory in used[-MOST_COPIES:]] == [True] * MOST_COPIES
    assert not any(memory() is not None for memory in used[:-MOST_COPIES])


def test_a_batch_whose_finishing_fails_is_not_held():
    device = CudaDevice(side := HostStream())
    pixels = np.zeros((1, 2, 2, 3), np.uint8)
    memory = weakref.ref(pixels)
    with (
        pytest.raises(LookupError, match="the transform fell over"),
        device.sending(pixels, np.zeros(1, np.int64)),
    ):
        raise LookupError("the transform fell over")
    del pixels
    gc.collect()
    assert memory() is None
    assert len(side.events) == 2


def test_memory_that_cannot_be_pinned_is_replaced_by_plain_memory():
    # Without a driver nothing can be pinned; with one, no machine can pin so much.
    shape = (1 << 20,) if not torch.cuda.is_available() else (1 << 38,)
    memory = pinned_memory(shape)
    assert memory.shape == shape
    assert memory.dtype == np.uint8


@pytest.mark.parametrize(
    ("device", "error", "message"),
    [
        ("gpu", ValueError, r"one such as .* got 'gpu'; did you mean 'cuda'\?"),
        ("CUDA", ValueError, r"got 'CUDA'; did you mean 'cuda'\?"),
        ("cud:0", ValueError, r"got 'cud:0'; did you mean 'cuda'\?"),
        ("cuda:-1", ValueError, "one such as .* got 'cuda:-1'"),
        ("", ValueError, "one such as .* got ''"),
        (-1, ValueError, "one such as .* got -1"),
        ("vulkan", ValueError, "device 'vulkan' cannot be used, .* not built for vulkan; here are"),
        ("meta", ValueError, "one that holds data, got 'meta'"),
        (torch.device("meta"), ValueError, "one that holds data, got device"),
        (True, TypeError, "one such as .* got True"),
        (b"cpu", TypeError, "one such as .* got b'cpu'"),
        (1.0, TypeError, "one such as .* got 1.0"),
    ],
)
def test_a_device_that_is_none_is_refused(device: Any, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        device_of(device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
@pytest.mark.parametrize("device", ["cuda", "cuda:7", 0, torch.device("cuda")])
def test_cuda_without_a_cuda_device_is_refused_in_the_words_of_torch(device: Any):
    # No driver, no CUDA build or no device, torch 2.5: torch's sentence differs.
    match = r"cannot be used, .* (NVIDIA|CUDA|accelerator).*; here are cpu"
    with pytest.raises(ValueError, match=match):
        device_of(device)


@pytest.mark.gpu
def test_a_cuda_device_of_a_number_too_high_is_refused():
    with pytest.raises(
        ValueError, match=r"device 'cuda:77' cannot be used, .*here are cpu, cuda:0"
    ):
        device_of("cuda:77")
    assert device_of("cuda") == device_of(0) == torch.device("cuda:0")


@pytest.mark.gpu
def test_batches_on_the_gpu_equal_those_on_the_cpu(tmp_path):
    shards = numbered(tmp_path / "s", {"train": 200})
    options: dict[str, Any] = {"batch_size": 8, "augment": Augment.train(64)}
    with (
        Loader(shards, device="cpu", **options) as cpu,
        Loader(shards, device="cuda", **options) as gpu,
    ):
        for _ in range(3):
            for (images, labels), (sent, targets) in zip(cpu, gpu, strict=True):
                assert sent.is_cuda
                assert sent.is_contiguous(memory_format=torch.channels_last)
                assert torch.equal(sent.cpu(), images)
                assert torch.equal(targets.cpu(), labels)


@pytest.mark.gpu
def test_pinned_memory_is_not_rendered_into_before_it_was_copied():
    device = CudaDevice(SideStream(torch.device("cuda")))
    pixels = pinned_memory((64, 224, 224, 3))
    kept = []
    for value in range(32):
        pixels = pinned_memory((64, 224, 224, 3))
        pixels[:] = value
        with device.sending(pixels, np.zeros(64, np.int64)) as sent:
            pass
        kept.append(device.receive(sent)[0])
        del pixels
    assert [int(images.float().mean()) for images in kept] == list(range(32))


@pytest.mark.gpu
def test_batches_kept_on_the_gpu_are_not_overwritten(tmp_path):
    shards = numbered(tmp_path / "s", {"train": 200})
    with Loader(shards, batch_size=8, augment=Augment.train(64), device="cuda") as loader:
        kept = [images for images, _ in loader]
        copies = [images.clone() for images in kept]
        for _ in loader:
            pass
    assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))


@pytest.mark.gpu
def test_the_copy_of_the_next_batch_overlaps_the_step_on_this_one():
    cuda = torch.device("cuda")
    device = CudaDevice(SideStream(cuda))
    pixels = pinned_memory((256, 224, 224, 3))  # 39 MB: some ms
    step = torch.ones(4096, 4096, device=cuda)
    product = step @ step  # the first call loads the kernel
    torch.cuda.synchronize()
    begun, over = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begun.record()
    for _ in range(100):  # 0.2 s or more, on any card
        torch.mm(step, step, out=product)
    over.record()
    with device.sending(pixels, np.zeros(256, np.int64)) as sent:
        pass
    assert not over.query(), "to send a batch, the CPU waited for the step"
    torch.cuda.synchronize()
    assert sent.event is not None
    assert begun.elapsed_time(sent.event) < begun.elapsed_time(over), "the copy waited for the step"
