"""The way to the device: no copy on the CPU; on CUDA nothing is overwritten too early."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fastload.load.augment import Augment
from fastload.load.device import CpuDevice, CudaDevice, device_for, pinned_memory
from fastload.load.loader import Loader
from tests.shards import numbered

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def same(images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return images, labels


def test_on_the_cpu_the_tensor_is_the_rendered_memory():
    pixels = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    device = device_for(torch.device("cpu"))
    images, labels = device.receive(device.send(pixels, np.array([1, 2]), same))
    assert isinstance(device, CpuDevice)
    assert images.shape == (2, 3, 4, 4)
    assert images.data_ptr() == pixels.ctypes.data
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert labels.tolist() == [1, 2]


def test_memory_that_cannot_be_pinned_is_replaced_by_plain_memory():
    # Without a driver nothing can be pinned; with one, no machine can pin so much.
    shape = (1 << 20,) if not torch.cuda.is_available() else (1 << 38,)
    memory = pinned_memory(shape)
    assert memory.shape == shape
    assert memory.dtype == np.uint8


@pytest.mark.gpu
@needs_gpu
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
@needs_gpu
def test_pinned_memory_is_not_rendered_into_before_it_was_copied():
    device = CudaDevice(torch.device("cuda"))
    pixels = device.allocate((64, 224, 224, 3))
    kept = []
    for value in range(32):
        pixels = device.allocate((64, 224, 224, 3))
        pixels[:] = value
        kept.append(device.receive(device.send(pixels, np.zeros(64, np.int64), same))[0])
        del pixels
    assert [int(images.float().mean()) for images in kept] == list(range(32))


@pytest.mark.gpu
@needs_gpu
def test_batches_kept_on_the_gpu_are_not_overwritten(tmp_path):
    shards = numbered(tmp_path / "s", {"train": 200})
    with Loader(shards, batch_size=8, augment=Augment.train(64), device="cuda") as loader:
        kept = [images for images, _ in loader]
        copies = [images.clone() for images in kept]
        for _ in loader:
            pass
    assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))
