"""The tables of docs/scale.md, from the rows of `bench_scale.py` and `bench_remote.py`."""

from __future__ import annotations

import statistics
from pathlib import Path

from benchmarks import remote_tables
from benchmarks.harness import Row, read_rows


def tables(path: Path) -> str:
    """What a million and a billion samples cost, and what an object store does.

    Args:
        path: The rows of the first; those of the second are in remote.jsonl beside them.
    """
    parts = (_of_sizes(read_rows(path)), remote_tables.tables(path.with_name("remote.jsonl")))
    return "\n\n".join(part for part in parts if part)


def _of_sizes(rows: list[Row]) -> str:
    lines = [
        "| order | samples | first batch, s | resumed, s | memory, MiB | order, CPU µs an image |",
        "|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row["name"] for row in rows):
        for samples in sorted({row["samples"] for row in rows}):
            found = [row for row in rows if (row["name"], row["samples"]) == (name, samples)]
            cells = [
                _median([row for row in found if row["batch"] == "first"], "seconds", 2),
                _median([row for row in found if row["batch"] == "resumed"], "seconds", 2),
                _median(found, "mib", 0),
                _median(found, "cpu_us_per_row", 2),
            ]
            lines.append(f"| {name} | {samples:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _median(rows: list[Row], name: str, digits: int) -> str:
    values = [float(row[name]) for row in rows]
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"
