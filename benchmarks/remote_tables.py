"""The table of docs/scale.md, from the rows of `bench_remote.py`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.harness import Row, read_rows

_TITLES = (
    "from where",
    "images/s",
    "of its own local disk",
    "CPU ms an image",
    "server's CPU ms",
    "first batch, s",
    "requests an epoch",
    "MB an epoch",
    "memory, MiB",
)


def tables(path: Path) -> str:
    """A table for each number of cores: medians, and the lowest and highest round of images/s.

    Args:
        path: The rows; without such a file there are no tables.
    """
    rows = read_rows(path) if path.exists() else []
    cores = dict.fromkeys(row["used_cores"] for row in rows)
    return "\n\n".join(_table([row for row in rows if row["used_cores"] == n]) for n in cores)


def _table(rows: Sequence[Row]) -> str:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["name"], []).append(row)
    cores, apart = rows[0]["used_cores"], rows[0]["server_on_other_cores"]
    lines = [
        f"{cores} core{'s' * (cores > 1)}; the server has {'its own' if apart else 'the same'}:",
        "",
        f"| {' | '.join(_TITLES)} |",
        "|---" * len(_TITLES) + "|",
    ]
    for name, each in found.items():
        failed = next((row["failed"] for row in each if "failed" in row), "")
        local = found.get(f"{each[0]['loader']}, local disk", [])
        cells = [failed] + [""] * (len(_TITLES) - 2) if failed else _cells(each, local)
        lines.append(f"| {' | '.join((name, *cells))} |")
    return "\n".join(lines)


def _cells(rows: Sequence[Row], local: Sequence[Row]) -> list[str]:
    def middle(key: str, form: str, per: float = 1.0) -> str:
        values = [row[key] / per for row in rows if key in row]
        return format(median(values), form) if values else "–"

    rates = [row["images_per_second"] for row in rows]
    near = [row["images_per_second"] for row in local if "failed" not in row]
    return [
        f"{median(rates):,.0f} ({min(rates):,.0f}–{max(rates):,.0f})",
        f"{median(rates) / median(near):.2f}" if near else "–",
        middle("cpu_milliseconds_per_image", ".2f"),
        middle("server_cpu_milliseconds_per_image", ".2f"),
        middle("first_batch_seconds", ".2f"),
        middle("requests", ",.0f"),
        middle("bytes", ",.0f", per=1e6),
        middle("peak_memory_mib", ",.0f"),
    ]
