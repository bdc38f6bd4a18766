"""Which is the bottleneck on this GPU: the training step, the copy, the decoder or the loader?

    pytest benchmarks/bench_gpu.py [--images DIR]     (skipped without CUDA)

Method: the training step of ResNet-50 with AMP on synthetic images, by batch size and memory
format; bandwidth of copies from pinned memory as uint8 and float32; the loader alone with decoding
on CPU and on GPU; training end to end with each loader against the same step on one batch again and
again, which is the floor no loader can beat; and the GPU memory that a loader takes. CUDA is
synchronised before every reading of the clock.

Answer: depends on the card; rows go to rows/latest-pytest.jsonl, and `python -m
benchmarks.report` sets the loaders against the step. On an H200 with 16 cores ResNet-50 trains
4,286 images/s in batches of 128 and channels-last, 2,314 without (rows/gpu.jsonl).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.compare import Comparison, measure, prepare
from benchmarks.conftest import CLOCK, Keep, require_result
from benchmarks.harness import Row, seconds_of
from benchmarks.peers import ON_GPU, Contender
from fastload import Augment, Loader
from fastload.advise.models import build_model
from fastload.advise.trials import StepTrial, measure_step

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

MODEL, CLASSES, SIZE = "resnet50", 1081, 224
BATCH_SIZES = (32, 64, 128, 256)
END_TO_END_BATCH, END_TO_END_SECONDS = 64, 4.0
COPIED_IMAGES = 256


def cuda() -> torch.device:
    """The first GPU."""
    return torch.device("cuda:0")


@pytest.mark.benchmark(group="training step: 1,000 images", timer=CLOCK)
@pytest.mark.parametrize("channels_last", [True, False], ids=["channels-last", "contiguous"])
@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_training_step(batch_size: int, channels_last: bool, keep: Keep, benchmark: Any) -> None:
    """The step runs, or the batch does not fit, which is a row too."""
    amp = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    trial = measure_step(
        lambda: build_model(MODEL, CLASSES),
        StepTrial(batch_size=batch_size, channels_last=channels_last, amp=amp),
        size=SIZE,
        device=cuda(),
        seconds=2.0,
    )
    row: Row = {
        "benchmark": "training-step",
        "name": f"{MODEL}, batch {batch_size}",
        "model": MODEL,
        "batch_size": batch_size,
        "memory_format": "channels-last" if channels_last else "contiguous",
        "amp": amp,
        "peak_gpu_mib": trial.gpu_bytes / 2**20,
    }
    if trial.failed:
        keep([{**row, "failed": trial.failed}])
        pytest.skip(f"batch {batch_size}: {trial.failed}")
    keep([{**row, "images_per_second": trial.images_per_second}])
    CLOCK.replay(benchmark, [1000 / trial.images_per_second])
    assert trial.images_per_second > 0


@pytest.mark.benchmark(group="copy to the GPU: 1,000 images", timer=CLOCK)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=["uint8", "float32"])
def test_copy(dtype: torch.dtype, keep: Keep, benchmark: Any) -> None:
    """Pinned memory reaches the GPU."""
    batch = torch.zeros((COPIED_IMAGES, 3, SIZE, SIZE), dtype=dtype).pin_memory()
    target = torch.empty_like(batch, device=cuda())
    copies = 20

    def copy() -> None:
        for _ in range(copies):
            target.copy_(batch, non_blocking=True)

    seconds_of(copy, synchronise=torch.cuda.synchronize)
    seconds = seconds_of(copy, synchronise=torch.cuda.synchronize)
    gigabytes = copies * batch.numel() * batch.element_size() / 1e9
    row = {"benchmark": "copy", "name": str(dtype), "gb_per_second": gigabytes / seconds}
    keep([row])
    CLOCK.replay(benchmark, [seconds * 1000 / (copies * COPIED_IMAGES)])
    assert row["gb_per_second"] > 0  # type: ignore[operator]  # a float


@pytest.mark.benchmark(group="decoding for the GPU: 1,000 images", timer=CLOCK)
@pytest.mark.parametrize("contender", ON_GPU, ids=lambda contender: contender.name)
def test_decoding(contender: Contender, comparison: Comparison, benchmark: Any) -> None:
    """Decoding on the CPU, on the GPU by fastload, and by DALI's own reader."""
    asked = replace(comparison, contenders=(contender,))
    prepare(replace(asked, output=None))
    rows = require_result(contender, measure(asked, part="gpu-loaders"))
    CLOCK.replay(benchmark, (1000 / row["images_per_second"] for row in rows))
    assert all(row["images_per_second"] > 0 for row in rows)


def train(batches: Iterator[tuple[Tensor, Tensor]]) -> float:
    """Images per second of training on batches that are on the GPU, uint8."""
    model = build_model(MODEL, CLASSES).to(cuda(), memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this form
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    images, began = 0, 0.0
    for number, (pixels, labels) in enumerate(batches):
        if number == 5:  # the first steps choose kernels
            torch.cuda.synchronize()
            images, began = 0, time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", dtype=torch.float16):
            loss = torch.nn.functional.cross_entropy(model(pixels.float().div(255)), labels)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        optimizer.step()
        images += len(pixels)
        if began and time.perf_counter() - began > END_TO_END_SECONDS:
            break
    torch.cuda.synchronize()
    return images / (time.perf_counter() - began)


def endless(loader: Loader) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch after the other."""
    while True:
        yield from loader


def synthetic() -> Iterator[tuple[Tensor, Tensor]]:
    """One batch again and again: what training reaches when loading costs nothing."""
    pixels = torch.randint(
        0, 256, (END_TO_END_BATCH, 3, SIZE, SIZE), dtype=torch.uint8, device=cuda()
    ).to(memory_format=torch.channels_last)
    labels = torch.zeros(END_TO_END_BATCH, dtype=torch.int64, device=cuda())
    while True:
        yield pixels, labels


@pytest.mark.benchmark(group="training end to end: 1,000 images", timer=CLOCK)
@pytest.mark.parametrize("source", ["synthetic floor", "native", "libjpeg", "dali"])
def test_end_to_end(source: str, shards: Path, keep: Keep, benchmark: Any) -> None:
    """Training reaches a share of the synthetic floor; the GPU memory that the loader takes."""
    row: Row = {"benchmark": "end-to-end", "name": source, "batch_size": END_TO_END_BATCH}
    if source == "synthetic floor":
        row["images_per_second"] = train(synthetic())
    else:
        torch.cuda.synchronize()
        before = torch.cuda.mem_get_info()[0]
        loader = Loader(
            shards,
            batch_size=END_TO_END_BATCH,
            augment=Augment.train(SIZE),
            backend=source,
            device="cuda:0",
        )
        with loader:
            next(iter(loader))
            torch.cuda.synchronize()
            row["loader_gpu_mib"] = (before - torch.cuda.mem_get_info()[0]) / 2**20
            row["backend"] = loader.backend
            row["images_per_second"] = train(endless(loader))
            row["stalled_fraction"] = loader.stats().waiting_fraction
    keep([row])
    CLOCK.replay(benchmark, [1000 / row["images_per_second"]])
    assert row["images_per_second"] > 0
