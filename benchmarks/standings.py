"""Rows of measurements -> medians of each contender in one setting; the two tables."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from pandas import DataFrame

from benchmarks.harness import Row, read_rows, summarise

START = "<!-- benchmark table -->"
END = "<!-- /benchmark table -->"
MARKS = {"yes": "", "no": " ¹", "area": " ²"}
"""What stands behind a contender's name or rate: how its resize is antialiased."""

MEDIANS = [
    *("images_per_second", "cpu_seconds_per_1000", "busy_cores", "peak_memory_mib"),
    *("first_batch_seconds", "import_seconds", "stalled_fraction"),
]


def table_of(rows: list[Row]) -> DataFrame:
    """Rows as a table; a value keeps its type, and a value that a row lacks is NaN."""
    return DataFrame(rows, dtype=object)


def standings(rows: DataFrame, benchmark: str, **setting: Any) -> DataFrame:
    """Contenders of one benchmark and setting, the fastest first; failed rows are left out.

    Args:
        rows: From `table_of`.
        benchmark: As in the rows.
        setting: What else must be equal in a row, such as `used_cores=2`.

    Returns:
        One row for each name: medians over all rounds in the columns `MEDIANS`; the interval of
        images per second in `low` and `high`, the number of rounds in `rounds`; the last round's
        values in all other columns.
    """
    chosen = rows[rows["benchmark"] == benchmark].dropna(subset="images_per_second")
    for key, value in setting.items():
        chosen = chosen[chosen[key] == value]
    chosen = chosen.dropna(axis="columns", how="all")
    chosen = chosen.reindex(columns=chosen.columns.union(MEDIANS))
    chosen = chosen.astype(dict.fromkeys(MEDIANS, float))
    by_name = chosen.groupby("name", sort=False)
    found = by_name.tail(1).set_index("name")
    found[MEDIANS] = by_name[MEDIANS].median()
    for name, rates in by_name["images_per_second"]:
        rate = summarise(rates)
        found.loc[name, ["low", "high", "rounds"]] = rate.low, rate.high, rate.rounds
    return found.sort_values("images_per_second", ascending=False, kind="stable")


def failures(rows: DataFrame) -> dict[str, str]:
    """Contenders that gave no result at all, and why."""
    if "failed" not in rows:
        return {}
    good = rows.dropna(subset="images_per_second")["name"]
    failed = rows.dropna(subset="failed")
    bad = failed[~failed["name"].isin(good)]
    return dict(zip(bad["name"], bad["failed"], strict=True))


def prepared(rows: DataFrame) -> dict[Hashable, Row]:
    """The `prepare` row of each contender that was prepared, the last one of several."""
    found = rows[rows["benchmark"] == "prepare"].drop_duplicates("name", keep="last")
    if "prepared_images" not in found:
        return {}
    return dict(found.dropna(subset="prepared_images").set_index("name").to_dict("index"))


def core_counts(rows: DataFrame) -> list[int]:
    """Numbers of cores that loaders were measured on, the largest first."""
    loaders = rows[rows["benchmark"] == "loaders"]
    return sorted(loaders["used_cores"].unique(), reverse=True) if len(loaders) else []


def command_of(row: Row) -> str:
    """The command that made a row; where its output went says nothing to those who repeat it."""
    return re.sub(r" --output \S+", "", row["command"]).strip()


SHORT_COLUMNS = 5  # of the README's table: the first ones of the long table
SHORT_PEERS = 4


def long_table(path: Path) -> str:
    """The table of docs/benchmarks.md in Markdown: every loader, machine and command."""
    rows, by_cores, lines = _table(path)
    return "\n".join([*lines, "", *_notes(path, rows, by_cores)])


def short_table(path: Path) -> str:
    """The README's table in Markdown: fastload's fastest back-end and the fastest peers.

    The peers are antialiased, as fastload is. A note names the fastest peer that is not.
    """
    _, by_cores, (titles, rule, *lines) = _table(path)
    cores, most = next(iter(by_cores.items()))
    ours = most[most["kind"] == "ours"].index[:1]
    peers = most[most["kind"] == "peer"]
    alike = peers[peers["antialiased"] == "yes"].index[:SHORT_PEERS]
    others = peers[peers["antialiased"] != "yes"]
    shown = most[most["kind"] != "floor"].index
    kept = [line for name, line in zip(shown, lines, strict=True) if name in {*ours, *alike}]
    notes = [
        f"Median of interleaved rounds (lowest–highest) on {cores} cores; every loader has",
        "the same photographs, crop and antialiased resize.",
    ]
    if len(others):
        name, rate = str(others.index[0]).split(",")[0], others["images_per_second"].iloc[0]
        notes.append(f"The fastest peer that does not antialias gives {rate:,.0f}: {name}.")
    notes.append("[All loaders, machine and command](docs/benchmarks.md#results).")
    cut = ["|".join(line.split("|")[: SHORT_COLUMNS + 1]) + "|" for line in (titles, rule, *kept)]
    return "\n".join([*cut, "", "\n".join(notes)])


def _table(path: Path) -> tuple[DataFrame, dict[int, DataFrame], list[str]]:
    """Rows, standings by number of cores, and the lines of the long table."""
    rows = table_of(read_rows(path))
    settings = core_counts(rows)
    by_cores = {cores: standings(rows, "loaders", used_cores=cores) for cores in settings}
    most = by_cores[settings[0]]
    shown = most[most["kind"] != "floor"]
    single: dict[Hashable, float] = (
        by_cores[1]["images_per_second"].to_dict() if 1 in by_cores else {}
    )
    disk = prepared(rows)
    titles = (
        *("loader", f"images/s, {settings[0]} cores", "images/s, 1 core", "CPU s per 1,000"),
        *("memory, MiB", "first batch, s", "kB per image", "prepare 1,000, s"),
    )
    lines = [
        f"| {' | '.join(titles)} |",
        "|---" + "|--:" * (len(titles) - 1) + "|",
        *(_line(name, row, single, disk.get(name)) for name, row in shown.iterrows()),
    ]
    return rows, by_cores, lines


def _line(name: Hashable, row: Any, single: dict[Hashable, float], stored: Row | None) -> str:
    bold = "**" if row["kind"] == "ours" else ""
    cells = (
        f"{bold}{name}{bold}{MARKS[row['antialiased']]}",
        f"{bold}{row['images_per_second']:,.0f}{bold} ({row['low']:,.0f}–{row['high']:,.0f})",
        f"{single[name]:,.0f}" if name in single else "–",
        f"{row['cpu_seconds_per_1000']:.2f}",
        f"{row['peak_memory_mib']:,.0f}",
        f"{row['first_batch_seconds']:.2f}",
        *stored_cells(stored),
    )
    return f"| {' | '.join(cells)} |"


def stored_cells(row: Row | None) -> tuple[str, str]:
    """Kilobytes per image, and seconds to prepare 1,000 images."""
    if row is None:
        return "–", "–"
    seconds = 1000 * row["prepare_seconds"] / row["prepared_images"]
    return f"{row['bytes_per_image'] / 1000:.1f}", f"{seconds:.2f}"


def _notes(path: Path, rows: DataFrame, by_cores: dict[int, DataFrame]) -> list[str]:
    row = rows[rows["benchmark"] == "loaders"].iloc[0]
    rounds = max(group["rounds"].max() for group in by_cores.values())
    notes = [
        f"""¹ Not antialiased. ² Resized by area. Median of {rounds:.0f} interleaved rounds
(lowest–highest), each in a new process. First batch: from opening the loader, imports not counted.
Memory: anonymous and shared pages of the process and its workers.""",
        f"""Measured on {row["cpu"]}, {row["cores"]} cores, {row["memory_gib"]:.0f} GiB, page cache
warm; {row["images_from"]}; RandomResizedCrop to {row["size"]} pixels and flip, batches of
{row["batch_size"]}; commit {row["commit"]}; rows in `benchmarks/rows/{path.name}`, made by
`{command_of(row)}`.""",
    ]
    said = ", ".join(ratio_text(cores, group) for cores, group in by_cores.items())
    notes.append(f"fastload's fastest back-end against the fastest antialiased peer: {said}.")
    missing = failures(rows)
    if missing:
        reasons = "; ".join(f"{name} ({why})" for name, why in missing.items())
        notes.append(f"No result: {reasons}.")
    return ["\n\n".join(notes)]


def ratio_text(cores: int, group: DataFrame) -> str:
    """How many times the fastest antialiased peer fastload is, and which peer that is."""
    ours = group[group["kind"] == "ours"]
    peers = group[(group["kind"] == "peer") & (group["antialiased"] == "yes")]
    where = f"on {cores} core{'s' * (cores > 1)}"
    if not (len(ours) and len(peers)):
        return f"not measured {where}"
    ratio = ours["images_per_second"].iloc[0] / peers["images_per_second"].iloc[0]
    return f"{ratio:.2f} times {peers.index[0]} {where}"


def replace_table(document: str, table: str) -> str:
    """A document with the part between its two markers replaced.

    Raises:
        ValueError: If the markers are not there, once each and in order.
    """
    before, start, rest = document.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end) or START in after or END in after:
        raise ValueError(f"the document must hold {START} and then {END}, once each")
    return f"{before}{START}\n{table}\n{END}{after}"
