"""The tables of docs/training.md, from the rows of `bench_recipe.py`."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import Row, read_rows

SCRIPT = "the script"


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
        "| seed | run | val at its end, % | s | as good as the script after, s | share | then, % |",
        "|---|---|---|---|---|---|---|",
    ]
    for index, script in enumerate(runs[SCRIPT]):
        goal = script["epochs"][-1]
        for name, rows in runs.items():
            epochs = rows[index]["epochs"]
            reached = seconds_to(epochs, goal["macro_top1"])
            cells = (
                str(rows[index]["seed"]),
                name,
                f"{100 * epochs[-1]['macro_top1']:.1f}",
                f"{epochs[-1]['seconds']:.0f}",
                "never" if reached is None else f"{reached:.0f}",
                "–" if reached is None else f"{reached / goal['seconds']:.2f}",
                f"{100 * macro_at(epochs, goal['seconds']):.1f}",
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
