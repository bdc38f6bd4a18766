"""Where does the time of an image go?

    python -m benchmarks.bench_stages SHARDS [--output FILE]
    pytest benchmarks/bench_stages.py

Method: epochs of the loader with one thread and a caller who does nothing, the page cache warm;
`Loader.stats()` has the thread's seconds. Interleaved over back-ends.

    plan        which sample, which box, flipped or not
    read        pread into memory, and CRC-32
    decode      entropy decoding, IDCT
    resize      to the size of the batch, colour, flip
    loader      CPU time of the process beyond these: queues, batches, hand-over, the caller

Answer: rows/stages.jsonl. With the native core more than 9/10 of the time is decoding and
resizing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.conftest import CLOCK, Keep
from benchmarks.harness import ROWS, Row, append_rows, interleave, summarise
from fastload.console.command import run_command
from fastload.console.parser import CommandParser, whole_number
from fastload.load.loader import Loader

SECONDS = 3.0
STAGES = ("plan", "read", "decode", "resize", "loader")
BACKENDS = ("native", "libjpeg")


def stage_seconds(shards: Path, backend: str) -> dict[str, float]:
    """Seconds of each stage for each image."""
    with Loader(shards, batch_size=128, backend=backend, num_threads=1) as loader:
        for _ in loader:  # to warm up
            pass
        loader.reset_stats()
        began, began_cpu = time.perf_counter(), time.process_time()
        while time.perf_counter() - began < SECONDS:
            for _ in loader:
                pass
        cpu, stats = time.process_time() - began_cpu, loader.stats()
    spent = stats.stages.of_threads
    del spent["idle"]
    spent["loader"] = max(0.0, cpu - sum(spent.values()))
    return {stage: seconds / stats.images for stage, seconds in spent.items()}


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
    """Every stage takes time, and decoding and resizing take most of it."""
    rows = [row for row in measured if row["name"] == f"fastload {backend}"]
    CLOCK.replay(benchmark, (row[f"{stage}_ms_per_1000"] / 1000 for row in rows))
    shares = [
        (row["decode_ms_per_1000"] + row["resize_ms_per_1000"])
        / sum(row[f"{s}_ms_per_1000"] for s in STAGES)
        for row in rows
    ]
    assert max(shares) > 0.5


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print medians, append rows."""
    parser = CommandParser(description="CPU time by stage.")
    parser.add_argument("shards", type=Path)
    parser.add_argument("--rounds", type=whole_number(1), default=5)
    parser.add_argument("--output", type=Path, default=ROWS / "stages.jsonl")
    options = parser.read(argv)
    rows = measure(options.shards, options.rounds)
    append_rows(options.output, rows)
    for name in dict.fromkeys(row["name"] for row in rows):
        for stage in STAGES:
            key = f"{stage}_ms_per_1000"
            print(f"{name:18} {stage:7} {summarise(r[key] for r in rows if r['name'] == name)} ms")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_command("benchmarks.bench_stages", main))
