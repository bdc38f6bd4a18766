"""The tables of docs/training.md, from the rows of `bench_recipe.py`."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import Row, read_rows


def tables(path: Path) -> str:
    """Time to accuracy, what a change of the recipe brings, and ways to fine-tune.

    Args:
        path: The rows.
    """
    rows = read_rows(path)
    parts = [
        _time_table(_by_name(rows, "recipe-time")),
        _score_table("the recipe, and its changes", _by_name(rows, "recipe-changes")),
        _score_table("what is trained", _by_name(rows, "recipe-transfer")),
    ]
    return "\n\n".join(part for part in parts if part)


def seconds_to(epochs: Sequence[Mapping[str, Any]], goal: float) -> float | None:
    """After how many seconds the macro average first was at the goal; None if it never was."""
    return next((row["seconds"] for row in epochs if row["macro_top1"] >= goal), None)


def macro_at(epochs: Sequence[Mapping[str, Any]], seconds: float) -> float:
    """The macro average of the last epoch that ended within so many seconds; 0 before the first."""
    return next((row["macro_top1"] for row in reversed(epochs) if row["seconds"] <= seconds), 0.0)


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation, in per cent."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{100 * statistics.mean(values):.1f} ± {100 * deviation:.1f}"


def _by_name(rows: Sequence[Row], benchmark: str) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.get("seed", 0)):
        if row["benchmark"] == benchmark:
            found.setdefault(row["name"], []).append(row)
    return found


def _time_table(runs: Mapping[str, list[Row]]) -> str:
    if not runs:
        return ""
    lines = [
        "| seed | script, % | s | recipe as good after, s | share | then, % | at its end, % | s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for script, own in zip(runs["tutorial"], runs["recipe"], strict=True):
        last, end = script["epochs"][-1], own["epochs"][-1]
        reached = seconds_to(own["epochs"], last["macro_top1"])
        cells = (
            str(script["seed"]),
            f"{100 * last['macro_top1']:.1f}",
            f"{last['seconds']:.0f}",
            "never" if reached is None else f"{reached:.0f}",
            "–" if reached is None else f"{reached / last['seconds']:.2f}",
            f"{100 * macro_at(own['epochs'], last['seconds']):.1f}",
            f"{100 * end['macro_top1']:.1f}",
            f"{end['seconds']:.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _score_table(title: str, runs: Mapping[str, list[Row]]) -> str:
    if not runs:
        return ""
    lines = [
        f"| {title} | seeds | macro top-1 on val, last epoch, % | on test, best epoch, % | CPU s |",
        "|---|---|---|---|---|",
    ]
    for name, rows in runs.items():
        last = [row["epochs"][-1] for row in rows]
        cells = (
            name,
            str(len(rows)),
            spread([row["macro_top1"] for row in last]),
            spread([row["test_macro_top1"] for row in rows]),
            f"{statistics.median(row['cpu_seconds'] for row in last):.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
