"""From nothing to the first batch, in docs/benchmarks.md: from the rows of `bench_start.py`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.harness import Row, read_rows

NEVER_SEEN = "fastload, a new folder"
AGAIN = "fastload, the second time"
TUTORIAL = "ImageFolder and DataLoader"


def tables(path: Path) -> str:
    """A section: medians with the lowest and the highest round, and ratios round by round.

    Args:
        path: The rows; without such a file there is no section.
    """
    rows = read_rows(path) if path.exists() else []
    starts = [row for row in rows if row["benchmark"] == "start-batch"]
    installed = [row for row in rows if row["benchmark"] == "start-install"]
    if not (starts and installed):
        return ""
    found = {name: [row for row in starts if row["name"] == name] for name in _names(starts)}
    lines = [
        "### From nothing to the first batch",
        "",
        "| from the start of `python` to a batch of 128 | s | imports, s | of ImageFolder's time |",
        "|---|--:|--:|--:|",
    ]
    for name, each in found.items():
        ratios = [
            row["seconds"] / other["seconds"]
            for row, other in zip(each, found[TUTORIAL], strict=True)
        ]
        cells = (
            name,
            _spread([row["seconds"] for row in each]),
            _spread([row["import_seconds"] for row in each]),
            "1" if name == TUTORIAL else _spread(ratios, 2),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_notes(path, starts, installed)])


def _names(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["name"] for row in rows))


def _notes(path: Path, starts: Sequence[Row], installed: Sequence[Row]) -> list[str]:
    row, wheel = starts[0], installed[0]
    rounds = len([each for each in starts if each["name"] == TUTORIAL])
    seconds = _spread([each["seconds"] for each in installed])
    megabytes = [f"{wheel[key] / 1e6:.2f} MB" for key in ("wheel_bytes", "installed_bytes")]
    return [
        f"""`pip install` of the wheel takes {seconds} s where the packages that it needs are there.
The wheel has {megabytes[0]}, what it installs {megabytes[1]}.

Median of {rounds} interleaved rounds (lowest–highest), each in a new process, page cache warm.
{row["images_from"]}, {row["images"]:,} photographs; float32, normalised, crops of 224 pixels; the
DataLoader has 2 workers. The first time fastload looks at every photograph, and makes its index.
Measured on {row["cpu"]}, {row["cores"]} cores; commit {row["commit"]};
rows in `benchmarks/rows/{path.name}`, made by
`python -m benchmarks.bench_start dist/*x86_64.whl`."""
    ]


def _spread(values: Sequence[float], digits: int = 1) -> str:
    low, high = min(values), max(values)
    return f"{median(values):.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"
