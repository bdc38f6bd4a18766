"""Where does the time of an image go?

    python -m benchmarks.bench_stages SHARDS [--output FILE]
    pytest benchmarks/bench_stages.py

Method: one thread, no queue: `fastload.tune.measure_stages` takes the stages of an epoch one after
the other, the page cache warm; the loader's own epoch with one worker gives the rest. Interleaved
over back-ends.

    plan        which sample, which box, flipped or not
    read        pread into memory, and CRC-32
    render      entropy decoding, IDCT, resize, colour, flip
    loader      CPU time of the loader's epoch beyond these three: queues, batches, hand-over

Answer: results/stages.jsonl. With the native core 9/10 of the time is decoding.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.conftest import CLOCK, Keep
from benchmarks.harness import RESULTS, Row, append_rows, interleave, summarise
from fastload.loader import Loader
from fastload.tune import measure_stages

SECONDS = 3.0
STAGES = ("plan", "read", "render", "loader")
BACKENDS = ("native", "libjpeg")


def stage_seconds(shards: Path, backend: str) -> dict[str, float]:
    """Seconds of each stage for each image."""
    stages = measure_stages(shards, backend, size=224, seconds=SECONDS)
    whole = _loader_seconds(shards, backend)
    rest = whole - stages.plan - stages.read - stages.render
    return {
        "plan": stages.plan,
        "read": stages.read,
        "render": stages.render,
        "loader": max(0.0, rest),
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
