"""Rows of measurements -> one summary for each contender and setting; the README's table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import Row, Summary, read_rows, summarise

START = "<!-- benchmark table -->"
END = "<!-- /benchmark table -->"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One contender in one setting, over all rounds.

    Attributes:
        row: The last row, for everything that does not vary: version, note, machine.
        rates: Images per second.
        others: Medians of the other measured quantities, by their name in the rows.
    """

    row: Row
    rates: Summary
    others: dict[str, float]

    @property
    def name(self) -> str:
        """The contender."""
        return str(self.row["name"])

    @property
    def ours(self) -> bool:
        """Whether it is a back-end of fastload."""
        return str(self.row["kind"]) == "ours"

    @property
    def is_antialiased_peer(self) -> bool:
        """Whether it is another project's loader that does the same work."""
        return (self.row["kind"], self.row["antialiased"]) == ("peer", "yes")


MEDIANS = (
    *("cpu_seconds_per_1000", "busy_cores", "peak_memory_mib", "first_batch_seconds"),
    *("import_seconds", "stalled_fraction", "prepare_seconds", "bytes_per_image"),
)


def standings(rows: Iterable[Row], benchmark: str, **setting: Any) -> list[Standing]:
    """Contenders of one benchmark and setting, the fastest first; failed rows are left out.

    Args:
        rows: Of a result file.
        benchmark: As in the rows.
        setting: What else must be equal in a row, such as `used_cores=2`.
    """
    grouped: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        fits = all(row.get(key) == value for key, value in setting.items())
        if row["benchmark"] == benchmark and fits and "images_per_second" in row:
            grouped[row["name"]].append(row)
    found = [_standing(group) for group in grouped.values()]
    return sorted(found, key=lambda standing: -standing.rates.median)


def _standing(rows: Sequence[Row]) -> Standing:
    return Standing(
        row=rows[-1],
        rates=summarise(row["images_per_second"] for row in rows),
        others={
            key: summarise(row[key] for row in rows if key in row).median
            for key in MEDIANS
            if any(key in row for row in rows)
        },
    )


def failures(rows: Iterable[Row]) -> dict[str, str]:
    """Contenders that gave no result at all, and why."""
    rows = list(rows)
    good = {row.get("name") for row in rows if "images_per_second" in row}
    return {
        row["name"]: row["failed"] for row in rows if "failed" in row and row["name"] not in good
    }


def prepared(rows: Iterable[Row]) -> dict[str, Row]:
    """The `prepare` row of each contender, the last one where there are several."""
    return {row["name"]: row for row in rows if row["benchmark"] == "prepare"}


def best(standings: Iterable[Standing], *, ours: bool) -> Standing | None:
    """The fastest of fastload, or the fastest antialiased peer."""
    fitting = [
        standing
        for standing in standings
        if (standing.ours if ours else standing.is_antialiased_peer)
    ]
    return max(fitting, key=lambda standing: standing.rates.median, default=None)


def readme_table(path: Path) -> str:
    """The README's table in Markdown, from one result file, with machine and command."""
    rows = read_rows(path)
    settings = sorted(
        {row["used_cores"] for row in rows if row["benchmark"] == "loaders"}, reverse=True
    )
    by_cores = {cores: standings(rows, "loaders", used_cores=cores) for cores in settings}
    most = by_cores[settings[0]]
    shown = [standing for standing in most if standing.row["kind"] != "floor"]
    single = {standing.name: standing for standing in by_cores.get(1, [])}
    disk = prepared(rows)
    titles = (
        *("loader", f"images/s, {settings[0]} cores", "images/s, 1 core", "CPU s per 1,000"),
        *("memory, MiB", "first batch, s", "kB per image", "prepare 1,000, s"),
    )
    lines = [
        f"| {' | '.join(titles)} |",
        "|---" + "|--:" * (len(titles) - 1) + "|",
        *(_readme_line(standing, single, disk) for standing in shown),
    ]
    return "\n".join([*lines, "", *_readme_notes(path, rows, by_cores)])


def _readme_line(standing: Standing, single: dict[str, Standing], disk: dict[str, Row]) -> str:
    others, rates, bold = standing.others, standing.rates, "**" if standing.ours else ""
    mark = {"yes": "", "no": " ¹", "area": " ²"}[standing.row["antialiased"]]
    cells = (
        f"{bold}{standing.name}{bold}{mark}",
        f"{bold}{rates.median:,.0f}{bold} ({rates.low:,.0f}–{rates.high:,.0f})",
        f"{single[standing.name].rates.median:,.0f}" if standing.name in single else "–",
        f"{others['cpu_seconds_per_1000']:.2f}",
        f"{others['peak_memory_mib']:,.0f}",
        f"{others['first_batch_seconds']:.2f}",
        *_stored(disk.get(standing.name, {})),
    )
    return f"| {' | '.join(cells)} |"


def _stored(row: Row) -> tuple[str, str]:
    """Kilobytes per image, and seconds to prepare 1,000 images."""
    if "prepared_images" not in row:
        return "–", "–"
    seconds = 1000 * row["prepare_seconds"] / row["prepared_images"]
    return f"{row['bytes_per_image'] / 1000:.1f}", f"{seconds:.2f}"


def _readme_notes(path: Path, rows: list[Row], by_cores: dict[int, list[Standing]]) -> list[str]:
    row = next(row for row in rows if row["benchmark"] == "loaders")
    rounds = max(standing.rates.rounds for group in by_cores.values() for standing in group)
    notes = [
        f"""¹ Not antialiased. ² Resized by area. Median of {rounds} interleaved rounds
(lowest–highest), each in a new process. First batch: from opening the loader, imports not counted.
Memory: anonymous and shared pages of the process and its workers.""",
        f"""Measured on {row["cpu"]}, {row["cores"]} cores, {row["memory_gib"]:.0f} GiB, page cache
warm; {row["images_from"]}; RandomResizedCrop to {row["size"]} pixels and flip, batches of
{row["batch_size"]}; commit {row["commit"]}; rows in `benchmarks/results/{path.name}`, made by
`{row["command"].strip()}`.""",
    ]
    said = ", ".join(ratio_text(cores, group) for cores, group in by_cores.items())
    notes.append(f"fastload's fastest back-end against the fastest antialiased peer: {said}.")
    missing = failures(rows)
    if missing:
        reasons = "; ".join(f"{name} ({why})" for name, why in missing.items())
        notes.append(f"No result: {reasons}.")
    return ["\n\n".join(notes)]


def ratio_text(cores: int, group: list[Standing]) -> str:
    """How many times the fastest antialiased peer fastload is, and which peer that is."""
    ours, peer = best(group, ours=True), best(group, ours=False)
    where = f"on {cores} core{'s' * (cores > 1)}"
    if not (ours and peer):
        return f"not measured {where}"
    return f"{ours.rates.median / peer.rates.median:.2f} times {peer.name} {where}"


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
