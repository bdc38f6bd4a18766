"""Does the training step wait for its batches, and what does feeding it cost?

    pytest benchmarks/bench_consumer.py

Method: a simulated step takes a batch, sleeps for batch_size / rate seconds as a CPU does while a
GPU works, and asks for the next one; rates of 400 (ResNet-50 on an RTX 3060), 1,000 and 2,500
images/s. Stalled: share of the time in which the step had no batch. `python -m benchmarks.compare
--parts consumer` does it for every contender.

Answer: rows/comparison.jsonl, rows "consumer". At 400 images/s every loader keeps up on two
cores; what differs is how much of the cores is left.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.compare import CONSUMERS, Comparison, measure
from benchmarks.conftest import CLOCK, require_result
from benchmarks.peers import named

ASKED = ("fastload native", "torchvision ImageFolder, v2 tensors", "DALI webdataset reader, CPU")


@pytest.mark.benchmark(group="consumer: CPU seconds for 1,000 images", timer=CLOCK)
@pytest.mark.parametrize("rate", CONSUMERS)
@pytest.mark.parametrize("name", ASKED)
def test_consumer(name: str, rate: float, comparison: Comparison, benchmark: Any) -> None:
    """The stalls are a share of the time, and ours are none at the rate of an RTX 3060."""
    contender = named(name)
    work = replace(comparison.work, consumer=rate, seconds=2.0, batch_size=64)
    asked = replace(comparison, contenders=(contender,), work=work, rounds=1)
    (row,) = require_result(contender, measure(asked, part="consumer"))
    benchmark.extra_info.update(stalled_fraction=row["stalled_fraction"])
    CLOCK.replay(benchmark, [row["cpu_seconds_per_1000"]])
    assert 0 <= row["stalled_fraction"] < 1
    if contender.kind == "ours" and rate == CONSUMERS[0]:
        assert row["stalled_fraction"] < 0.1
