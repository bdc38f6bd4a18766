"""Who gives most images a second from the same photographs on the same cores?

    pytest benchmarks/bench_peers.py [--images DIR] [--peers] [--bench-rounds N]

Method: see compare.py, which does the same for longer and on one core too. Here every contender
that the `[dev]` extra installs is prepared and then measured in interleaved rounds on up to 2
cores; with `--peers` those of `scripts/bench --peers` too.

Answer: the README's table, from rows/comparison.jsonl.
"""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.compare import Comparison, measure
from benchmarks.conftest import CLOCK, require_result
from benchmarks.harness import Row, summarise
from benchmarks.peers import CONTENDERS, Contender


@pytest.fixture(scope="module")
def measured(comparison: Comparison) -> dict[str, list[Row]]:
    """Rows of all contenders, by name."""
    rows: dict[str, list[Row]] = {contender.name: [] for contender in comparison.contenders}
    for row in measure(comparison):
        rows[row["name"]].append(row)
    return rows


@pytest.mark.benchmark(group="loaders: 1,000 images", timer=CLOCK)
@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda contender: contender.name)
def test_loader(contender: Contender, measured: dict[str, list[Row]], benchmark: Any) -> None:
    """Every contender that is installed delivers batches of the asked shape."""
    if contender.name not in measured:
        pytest.skip(f"{contender.package} was not asked for; add --peers")
    rows = require_result(contender, measured[contender.name])
    rate = summarise(row["images_per_second"] for row in rows)
    benchmark.extra_info.update(
        images_per_second=str(rate),
        antialiased=contender.antialiased,
        cpu_seconds_per_1000=rows[-1]["cpu_seconds_per_1000"],
        peak_memory_mib=rows[-1]["peak_memory_mib"],
    )
    CLOCK.replay(benchmark, (1000 / row["images_per_second"] for row in rows))
    assert rate.median > 0
    assert str(rows[-1]["output"]).rpartition(" [")[2].count("224") == 2
