"""Does the copy of the next batch overlap the step on this one, and what does the caller pay?

A ResNet-50 step in bfloat16 that never reads from the GPU, on batches of `Loader(device="cuda")`,
as large as makes the GPU the slower part, the host two steps ahead of it. The profiler's times of
kernels and copies say which part of the copies runs while kernels run. The
caller's share is the time in `next()` that is no waiting for a batch. Then the trainer's own loop
under torch's debug mode: how often does one step wait for the GPU?
"""

from __future__ import annotations

import time
import warnings
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness import Row
from benchmarks.proof.part import Place, fail, run_part
from fastload import Augment, Loader
from fastload.advise.models import build_model
from train.assembly import assemble
from train.clock import CudaClock
from train.command import parse
from train.console import Console
from train.interrupt import Interrupt
from train.meter import Meter
from train.position import Position
from train.run import train_epoch

BATCH_SIZE, WARM, STEPS = 192, 6, 10
CALLERS_MS = 1.0
OVERLAPPING = 0.5

Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Measured:
    """Of one back-end: share of the copies' time that kernels run in, and the caller's share."""

    overlapping: float
    copies: int
    callers_ms: float


def union(spans: list[Span]) -> list[Span]:
    """The spans without overlaps, in order."""
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def covered(span: Span, others: list[Span]) -> float:
    """How much of a span lies within the others, which do not overlap."""
    return sum(max(0.0, min(span[1], end) - max(span[0], start)) for start, end in others)


def measure(place: Place, backend: str) -> Measured:
    """Train some steps under the profiler, then some under the clock."""
    model = build_model("resnet50", 1000).to(place.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this form
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, fused=True)
    loss_of = nn.CrossEntropyLoss()

    clock = CudaClock(Meter())

    def step(images: Tensor, labels: Tensor) -> None:
        clock.begin()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = loss_of(model(images), labels)
        loss.backward()
        optimizer.step()
        clock.end()

    with Loader(
        place.shards,
        batch_size=BATCH_SIZE,
        augment=Augment.train(224),
        backend=backend,
        device=place.device,
        dtype=torch.bfloat16,
        epoch_size=BATCH_SIZE * (WARM + 2 * STEPS),
    ) as loader:
        batches = iter(loader)
        for _ in range(WARM):
            step(*next(batches))
        torch.cuda.synchronize()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            for _ in range(STEPS):
                step(*next(batches))
            torch.cuda.synchronize()
        loader.reset_stats()
        in_next = 0.0
        for _ in range(STEPS):
            asked = time.perf_counter()
            batch = next(batches)
            in_next += time.perf_counter() - asked
            step(*batch)
        torch.cuda.synchronize()
        callers = in_next - loader.stats().stages.wait
    events: list[Any] = [
        event
        for event in profile.events() or []
        if event.device_type == torch._C._autograd.DeviceType.CUDA
    ]
    spans = [(event.name, (event.time_range.start, event.time_range.end)) for event in events]
    kernels = union([span for name, span in spans if not name.startswith(("Memcpy", "Memset"))])
    copies = [span for name, span in spans if name.startswith("Memcpy HtoD")]
    large = [span for span in copies if span[1] - span[0] > 20]  # microseconds: not the labels
    total = sum(end - start for start, end in large)
    within = sum(covered(span, kernels) for span in large)
    return Measured(within / total if total else 1.0, len(large), callers / STEPS * 1e3)


def waits_of_a_step(place: Place) -> float:
    """How often a step of the trainer waits for the GPU."""
    command = parse(
        [
            *("--data", str(place.shards), "--runs", str(place.out / "runs"), "--name", "waits"),
            *("--model", "resnet18", "--init", "scratch", "--size", "64", "--batch-size", "32"),
            *("--loader", "native", "--device", "cuda", "--ema", "0.9", "--clip", "1"),
            *("--save-every", "0"),
        ]
    )
    with ExitStack() as stack:
        # Not the first step of a run, whose batch is looked at.
        run = replace(assemble(command.options, stack), position=Position(step=1))
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as found:
                warnings.simplefilter("always")
                train_epoch(run, place.out, Console(writes=False), Interrupt())
        finally:
            torch.cuda.set_sync_debug_mode("default")
        places: dict[str, int] = {}
        for each in found:
            if "synchroniz" in str(each.message):
                where = f"{each.filename.rpartition('/')[2]}:{each.lineno}"
                places[where] = places.get(where, 0) + 1
        print(places)
        return sum(places.values()) / len(run.loaders.train)


def body(place: Place) -> str:
    """Each back-end, then the trainer."""
    rows: list[Row] = []
    for backend in ("native", "dali"):
        found = measure(place, backend)
        rows.append(
            {
                "benchmark": "gpu-overlap",
                "name": backend,
                "batch_size": BATCH_SIZE,
                "overlapping_fraction": found.overlapping,
                "copies": found.copies,
                "callers_ms_per_batch": found.callers_ms,
            }
        )
        print(rows[-1], flush=True)
    waits = waits_of_a_step(place)
    rows.append({"benchmark": "gpu-waits", "name": "train_epoch", "waits_per_step": waits})
    place.keep(rows)
    figure = ", ".join(
        f"{row['name']} {row['overlapping_fraction']:.0%} and {row['callers_ms_per_batch']:.2f} ms"
        for row in rows[:-1]
    )
    figure = f"copies that overlap, caller's share of a batch: {figure}; {waits:.1f} waits a step"
    slow = any(
        row["overlapping_fraction"] < OVERLAPPING or row["callers_ms_per_batch"] > CALLERS_MS
        for row in rows[:-1]
    )
    if slow or waits > 1:
        fail(figure)
    return figure


if __name__ == "__main__":
    run_part(body)
