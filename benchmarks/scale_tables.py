"""The table of docs/scale.md, from the rows of `bench_scale.py`."""

from __future__ import annotations

import statistics
from pathlib import Path

from benchmarks.harness import Row, read_rows


def tables(path: Path) -> str:
    """What a million and a billion samples cost.

    Args:
        path: The rows.
    """
    rows = [row for row in read_rows(path) if row["benchmark"] == "scale"]
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
