"""Timing that can be compared: interleaved rounds, medians with intervals, one JSONL row each.

A machine drifts: its clock, its caches and its neighbours change within minutes. So contestants
are measured in rounds, each in every round, beginning with another one each time: a slow minute
then hits all of them, and ratios hold where absolute numbers move.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from benchmarks import environment

ROWS = Path(__file__).resolve().parent / "rows"

Row = dict[str, Any]
"""One measurement: JSON's types only, units in the keys."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Summary:
    """Several rounds of one measurement.

    Attributes:
        median: Median of all rounds.
        low: Lower end of an interval for the true median, see `summarise`.
        high: Upper end of the same interval.
        rounds: Number of rounds.
        confidence: Probability that the interval covers the true median, for independent rounds.
    """

    median: float
    low: float
    high: float
    rounds: int
    confidence: float

    def __str__(self) -> str:
        return f"{self.median:,.4g} [{self.low:,.4g}, {self.high:,.4g}] n={self.rounds}"


def summarise(values: Iterable[float]) -> Summary:
    """Median, and the narrowest pair of order statistics that covers it with 95 % or all there is.

    Distribution-free: of n independent rounds the k-th lowest and k-th highest enclose the median
    with probability 1 - 2 * P(Binomial(n, 1/2) < k). With fewer than 6 rounds even the lowest and
    the highest do not reach 95 %; they are given, and `confidence` says what they reach.
    """
    ordered = sorted(values)
    if not ordered:
        raise ValueError("values must hold at least one round, got none")
    count = len(ordered)
    chosen = 1
    while chosen < (count + 1) // 2 and _coverage(count, chosen + 1) >= 0.95:
        chosen += 1
    return Summary(
        median=statistics.median(ordered),
        low=ordered[chosen - 1],
        high=ordered[count - chosen],
        rounds=count,
        confidence=_coverage(count, chosen),
    )


def _coverage(count: int, chosen: int) -> float:
    below: float = sum(math.comb(count, k) for k in range(chosen)) / 2.0**count
    return max(0.0, 1 - 2 * below)


def interleave(
    contestants: Mapping[str, Callable[[], Result]], *, rounds: int
) -> dict[str, list[Result]]:
    """Call every contestant once in each round, beginning with another one each time.

    Args:
        contestants: What to call, by name; each returns its own measurement.
        rounds: At least 1. Add a round and drop its results to warm up.

    Returns:
        The results of each contestant, in the order of the rounds.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    names = list(contestants)
    results: dict[str, list[Result]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % max(1, len(names))
        for name in names[turn:] + names[:turn]:
            results[name].append(contestants[name]())
    return results


def seconds_of(
    body: Callable[[], object], *, synchronise: Callable[[], object] | None = None
) -> float:
    """Wall-clock seconds of one call.

    Args:
        body: What is timed.
        synchronise: Called before each reading of the clock, such as `torch.cuda.synchronize`.
    """
    if synchronise:
        synchronise()
    began = time.perf_counter()
    body()
    if synchronise:
        synchronise()
    return time.perf_counter() - began


def rows_of(benchmark: str, measured: Mapping[str, Sequence[float]], *, unit: str) -> list[Row]:
    """One row for each round of each contestant: `{benchmark, name, round, unit: value}`."""
    return [
        {"benchmark": benchmark, "name": name, "round": number, unit: value}
        for name, values in measured.items()
        for number, value in enumerate(values)
    ]


def append_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append measurements to a JSONL file, each with the machine and versions it was taken on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    machine = environment.describe()
    with path.open("a", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps({**row, **machine}, ensure_ascii=False) + "\n")


def read_rows(path: Path) -> list[Row]:
    """All measurements of a JSONL file.

    Raises:
        ValueError: If a line is none.
    """
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file if line.strip()]
    for row in rows:
        if not isinstance(row, dict) or not isinstance(row.get("benchmark"), str):
            raise ValueError(f"{path} has a line that names no benchmark")  # noqa: TRY004  of data
    return rows
