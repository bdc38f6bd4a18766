"""The loader's own questions (bench_loader.py), asked briefly: overhead, threads, orders, memory.

    pytest benchmarks/bench_parts.py

Method and answers: see bench_loader.py, which asks them for longer.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import bench_loader
from benchmarks.conftest import Keep


@pytest.mark.parametrize("part", ["overhead", "threads", "orders", "memory"])
def test_part_of_the_loader(part: str, shards: Path, keep: Keep) -> None:
    """Every part gives rows whose numbers are above zero."""
    rows = bench_loader.PARTS[part](shards, 1)
    keep(rows)
    assert rows
    for row in rows:
        numbers = [value for value in row.values() if isinstance(value, float)]
        assert all(number >= 0 for number in numbers)
        assert any(number > 0 for number in numbers)
