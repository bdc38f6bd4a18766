"""Where does the time of an image go?

    python -m benchmarks.bench_stages SHARDS [--output FILE]
    pytest benchmarks/bench_stages.py

Method: one thread, no queue: the stages of one epoch run one after the other, each for all chunks
of 16 images, in CPU seconds (others on the machine then matter less), interleaved over back-ends:

    plan        which sample, which box, flipped or not; of the whole epoch
    read        pread from the page cache into memory, and CRC-32
    render      entropy decoding, IDCT, resize, colour, flip
    loader      what the loader's own epoch takes on one worker beyond these three: queues, batches

Answer: results/stages.jsonl. With the native core 9/10 of the time is decoding.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.conftest import CLOCK, Keep
from benchmarks.harness import RESULTS, Row, append_rows, interleave, summarise
from fastload.augment import Augment
from fastload.batch import CHUNK, EpochPlan
from fastload.decode import cpu_renderer
from fastload.loader import Loader
from fastload.reader import Reader, Scratch, open_collection
from fastload.sampler import Order, batch_bounds
from fastload.world import World

STAGES = ("plan", "read", "render", "loader")
BACKENDS = ("native", "libjpeg")


def epoch_plan(shards: Path) -> tuple[EpochPlan, Reader]:
    """A shuffled epoch in chunks, and a reader for it."""
    collection = open_collection([shards], "train")
    index = collection.index
    order = Order(
        kind="shuffled",
        rows=np.arange(len(index)),
        groups=index["label"].astype(np.int64),
        expected=None,
        shards=index["shard"],
    )
    plan = EpochPlan(
        number=0,
        order=order.epoch(0),
        bounds=batch_bounds(len(index), start=0, global_batch=CHUNK, world_size=1, drop_last=True),
        world=World(),
        augment=Augment.train(224),
        seed=0,
        index=index,
    )
    return plan, Reader(collection)


def stage_seconds(shards: Path, backend: str) -> dict[str, float]:
    """CPU seconds of each stage for each image."""
    plan, reader = epoch_plan(shards)
    renderer, scratch = cpu_renderer(backend), Scratch()
    out = np.empty((CHUNK, 224, 224, 3), np.uint8)
    times = [time.process_time()]
    parts = [plan.batch(step) for step in range(plan.steps)]
    times.append(time.process_time())
    for part in parts:
        reader.read(part.rows, scratch)
    times.append(time.process_time())
    chunks = [reader.read(part.rows, Scratch())[0] for part in parts]
    times.append(time.process_time())
    for part, encoded in zip(parts, chunks, strict=True):
        failed = renderer.render(encoded, part.choices.boxes, part.choices.flips, out)
        assert not failed, failed
    times.append(time.process_time())
    reader.close()
    plan_seconds, read_seconds, _, render_seconds = np.diff(times) / (len(parts) * CHUNK)
    whole = _loader_seconds(shards, backend)
    rest = whole - plan_seconds - read_seconds - render_seconds
    return {
        "plan": float(plan_seconds),
        "read": float(read_seconds),
        "render": float(render_seconds),
        "loader": max(0.0, float(rest)),
    }


def _loader_seconds(shards: Path, backend: str) -> float:
    with Loader(shards, batch_size=128, backend=backend, num_threads=1) as loader:
        began = time.process_time()
        images = sum(len(batch) for batch, _ in loader)
        return (time.process_time() - began) / images


def measure(shards: Path, rounds: int) -> list[Row]:
    """Rows of all back-ends; one round more is run and dropped, to warm up."""
    calls: dict[str, Callable[[], dict[str, float]]] = {
        backend: lambda backend=backend: stage_seconds(shards, backend)  # type: ignore[misc]  # bound at once
        for backend in BACKENDS
    }
    return [
        {
            "benchmark": "stages",
            "name": f"fastload {backend}",
            "round": number,
            "images_from": shards.name,
            **{f"{stage}_ms_per_1000": 1e6 * seconds[stage] for stage in STAGES},
        }
        for backend, kept in interleave(calls, rounds=rounds + 1).items()
        for number, seconds in enumerate(kept[1:])
    ]


@pytest.fixture(scope="module")
def measured(shards: Path, keep: Keep) -> list[Row]:
    """Two rounds of all back-ends."""
    rows = measure(shards, 2)
    keep(rows)
    return rows


@pytest.mark.benchmark(group="stages: CPU seconds for 1,000 images", timer=CLOCK)
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_stage(backend: str, stage: str, measured: list[Row], benchmark: Any) -> None:
    """Every stage takes time, and rendering takes most of it."""
    rows = [row for row in measured if row["name"] == f"fastload {backend}"]
    CLOCK.replay(benchmark, (row[f"{stage}_ms_per_1000"] / 1000 for row in rows))
    shares = [
        row["render_ms_per_1000"] / sum(row[f"{s}_ms_per_1000"] for s in STAGES) for row in rows
    ]
    assert max(shares) > 0.5


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print medians, append rows."""
    parser = argparse.ArgumentParser(description="CPU time by stage.")
    parser.add_argument("shards", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULTS / "stages.jsonl")
    options = parser.parse_args(argv)
    rows = measure(options.shards, options.rounds)
    append_rows(options.output, rows)
    for name in dict.fromkeys(row["name"] for row in rows):
        for stage in STAGES:
            key = f"{stage}_ms_per_1000"
            print(f"{name:18} {stage:7} {summarise(r[key] for r in rows if r['name'] == name)} ms")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
