"""Result files -> one HTML page, PNGs and the README's table: `python -m benchmarks.report`.

The page needs no script and nothing from elsewhere; its charts are inline SVG. `--readme` rewrites
the part of README.md between its two markers from the committed comparison, so that each number of
the README is the median of rows that are in the repository.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from benchmarks import plot
from benchmarks.environment import ROOT
from benchmarks.harness import RESULTS, Row, read_rows, summarise
from benchmarks.results import (
    Standing,
    failures,
    prepared,
    ratio_text,
    readme_table,
    replace_table,
    standings,
)

COMPARISON = RESULTS / "comparison.jsonl"
PAGE = RESULTS / "index.html"
TEMPLATE = Path(__file__).with_name("page.html")
NEEDED = plot.Guide(400, "ResNet-50 on an RTX 3060 (estimate): 400")
"""Between the estimates of 350 and 470 images/s, scaled from measurements on an RTX 3090."""


def page(rows: list[Row], sources: Iterable[str]) -> str:
    """The whole page.

    Args:
        rows: Of all result files.
        sources: Names of those files.
    """
    sections = [
        _throughput(rows),
        _costs(rows),
        _cold(rows),
        _consumer(rows),
        _scaling(rows),
        _stages(rows),
        _photographs(rows),
        _gpu(rows),
        _failed(rows),
        _method(rows, sources),
    ]
    body = "\n".join(section for section in sections if section)
    return TEMPLATE.read_text(encoding="utf-8").replace("<!-- body -->", body)


def _section(title: str, *parts: str) -> str:
    kept = [part for part in parts if part]
    if not kept:
        return ""
    name = title.lower().replace(" ", "-").replace(",", "")
    return f'<section id="{name}"><h2>{escape(title)}</h2>{"".join(kept)}</section>'


def _paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def _table(titles: Sequence[str], lines: Iterable[Sequence[str]], *, marked: Sequence[str]) -> str:
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    body = ""
    for line in lines:
        kind = ' class="ours"' if line[0] in marked else ""
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in line)
        body += f"<tr{kind}>{cells}</tr>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _bars(found: Iterable[Standing]) -> list[plot.Bar]:
    marks = {"yes": "", "no": " ¹", "area": " ²"}
    return [
        plot.Bar(
            name=standing.name,
            value=standing.rates.median,
            low=standing.rates.low,
            high=standing.rates.high,
            kind=str(standing.row["kind"]),
            mark=marks[standing.row["antialiased"]],
        )
        for standing in found
    ]


def _cores(rows: list[Row]) -> list[int]:
    return sorted(
        {row["used_cores"] for row in rows if row["benchmark"] == "loaders"}, reverse=True
    )


def _throughput(rows: list[Row]) -> str:
    parts = []
    for cores in _cores(rows):
        found = standings(rows, "loaders", used_cores=cores)
        if found:
            word = "core" if cores == 1 else "cores"
            parts.append(
                plot.bars(
                    f"Images per second, {cores} {word}, page cache warm",
                    "images/s",
                    _bars(found),
                    guides=[NEEDED],
                )
            )
            parts.append(
                _paragraph(f"fastload is {ratio_text(cores, found)}, the fastest antialiased peer.")
            )
    if not parts:
        return ""
    return _section(
        "Who is fastest",
        _paragraph(
            "RandomResizedCrop to 224 pixels and flip from the same photographs, batches as each "
            "loader natively gives them. Bars are medians of interleaved rounds, each in a process "
            "of its own; whiskers are the lowest and highest round. ¹ not antialiased, ² resized "
            "by area. Grey bars are decoders without a loader."
        ),
        *parts,
    )


def _costs(rows: list[Row]) -> str:
    settings = _cores(rows)
    if not settings:
        return ""
    found = standings(rows, "loaders", used_cores=settings[0])
    disk = prepared(rows)
    lines = []
    for standing in sorted(found, key=lambda each: each.others["cpu_seconds_per_1000"]):
        others, stored = standing.others, disk.get(standing.name, {})
        count = stored.get("prepared_images")
        busy = others["busy_cores"]
        lines.append(
            (
                standing.name,
                f"{others['cpu_seconds_per_1000']:.2f}",
                f"{standing.rates.median / busy:,.0f}" if busy else "–",
                f"{others['peak_memory_mib']:,.0f}",
                f"{others['first_batch_seconds']:.2f}",
                f"{others['import_seconds']:.1f}",
                f"{stored['bytes_per_image'] / 1000:.1f}" if count else "–",
                f"{1000 * stored['prepare_seconds'] / count:.2f}" if count else "–",
                str(standing.row["note"]),
            )
        )
    titles = (
        *("loader", "CPU s per 1,000", "images/s per busy core", "memory, MiB", "first batch, s"),
        *("import, s", "kB per image", "prepare 1,000, s", "note"),
    )
    return _section(
        f"What it costs, {settings[0]} cores",
        _table(titles, lines, marked=_ours(found)),
        _paragraph(
            "CPU seconds are of the process and its workers, user and system. Memory is anonymous "
            "and shared pages, the interpreter's included, mapped files not. First batch: from "
            "opening the loader; FFCV compiles its pipeline then. Prepare: from a folder of files "
            "to what the loader reads, with cleaning and lossless transcoding for fastload."
        ),
    )


def _ours(found: Iterable[Standing]) -> list[str]:
    return [standing.name for standing in found if standing.ours]


def _cold(rows: list[Row]) -> str:
    found = standings(rows, "cold")
    if not found:
        return ""
    return _section(
        "With a cold page cache",
        plot.bars(
            "Images per second in the first epoch, page cache dropped", "images/s", _bars(found)
        ),
        _paragraph(
            "The files' pages were dropped with posix_fadvise before each process started; one "
            "epoch from the first batch to its end, without a warm-up. What a virtual machine's "
            "host keeps in its own cache is out of reach."
        ),
    )


def _consumer(rows: list[Row]) -> str:
    rates = sorted({row["consumer"] for row in rows if row["benchmark"] == "consumer"})
    if not rates:
        return ""
    by_rate = {
        rate: {
            standing.name: standing
            for standing in standings(rows, "consumer", consumer=rate)
            if standing.row["kind"] != "floor"  # a decoder that decodes nothing ahead
        }
        for rate in rates
    }
    names = list(dict.fromkeys(name for found in by_rate.values() for name in found))
    lines = []
    for name in names:
        line = [name]
        for rate in rates:
            standing = by_rate[rate].get(name)
            line += (
                [
                    f"{100 * standing.others['stalled_fraction']:.1f} %",
                    f"{standing.others['cpu_seconds_per_1000']:.2f}",
                ]
                if standing
                else ["–", "–"]
            )
        lines.append(line)
    titles = ["loader"]
    for rate in rates:
        titles += [f"stalled at {rate:,.0f}/s", "CPU s per 1,000"]
    ours = [name for name in names if name.startswith("fastload")]
    return _section(
        "Does the training step wait",
        _paragraph(
            "A simulated training step takes batches at 400, 1,000 and 2,500 images a second and "
            "sleeps meanwhile, as a CPU does while a GPU works. Stalled: share of the time in "
            "which it could have begun and had no batch."
        ),
        _table(titles, lines, marked=ours),
    )


def _scaling(rows: list[Row]) -> str:
    parts = []
    settings = sorted(_cores(rows))
    if len(settings) > 1:
        by_cores = {
            cores: {s.name: s.rates.median for s in standings(rows, "loaders", used_cores=cores)}
            for cores in settings
        }
        first = by_cores[settings[-1]]
        chosen = [name for name in first if all(name in by_cores[c] for c in settings)][:8]
        drawn = [
            plot.Line(name=name, points=[(c, by_cores[c][name]) for c in settings])
            for name in chosen
        ]
        if drawn:
            parts.append(
                plot.lines("By cores: the eight fastest", "cores", "images/s", drawn, log_x=False)
            )
    parts.append(_by_size(rows, "images_per_second", "images/s", "Images per second"))
    parts.append(_by_size(rows, "first_batch_seconds", "seconds", "Seconds to the first batch"))
    parts.append(_by_size(rows, "resident_mib", "MiB", "Resident memory"))
    return _section("How it scales", *parts)


def _by_size(rows: list[Row], key: str, unit: str, title: str) -> str:
    sized = [row for row in rows if row["benchmark"] == "size" and key in row]
    sizes = sorted({row["samples"] for row in sized})
    if not sizes:
        return ""
    points = [
        (float(size), summarise(row[key] for row in sized if row["samples"] == size).median)
        for size in sizes
    ]
    drawn = [plot.Line(name="fastload native", points=points)]
    return plot.lines(f"{title} by size of the data set", "samples", unit, drawn, log_x=True)


def _stages(rows: list[Row]) -> str:
    return _section("Where the time goes", _loader_stages(rows), _core_stages(rows))


def _core_stages(rows: list[Row]) -> str:
    """The native core's stages, from the last decode row of each kind of images."""
    staged = {
        row["images_from"]: list(row["stage_milliseconds"].items())
        for row in rows
        if row["benchmark"] == "decode" and row.get("stage_milliseconds")
    }
    if not staged:
        return ""
    title = "One crop in the native core, by stage, one thread"
    return plot.stacked(title, "ms", list(staged.items()))


def _loader_stages(rows: list[Row]) -> str:
    staged = [row for row in rows if row["benchmark"] == "stages"]
    if not staged:
        return ""
    names = list(dict.fromkeys(row["name"] for row in staged))
    stages = [key for key in staged[0] if key.endswith("_ms_per_1000")]
    drawn = [
        (
            name,
            [
                (
                    key.removesuffix("_ms_per_1000").replace("_", " "),
                    summarise(row[key] for row in staged if row["name"] == name).median,
                )
                for key in stages
            ],
        )
        for name in names
    ]
    return plot.stacked("1,000 images in the loader, by stage, one thread", "ms", drawn)


def _photographs(rows: list[Row]) -> str:
    parts = []
    for source in sorted({row["images_from"] for row in rows if row["benchmark"] == "photographs"}):
        found = standings(rows, "photographs", images_from=source)
        if found:
            parts.append(
                plot.bars(f"{source}, {found[0].row['used_cores']} cores", "images/s", _bars(found))
            )
    return _section(
        "Small and large photographs",
        _paragraph(
            "Made from the sample photographs: enlarged to the size that is named, with grain that "
            "brings the files to a camera's bytes. What they show is not what a camera saw; what "
            "they cost is."
        )
        if parts
        else "",
        *parts,
    )


def _gpu(rows: list[Row]) -> str:
    steps = [row for row in rows if row["benchmark"] == "training-step"]
    if not steps:
        return _section(
            "The training step",
            _paragraph(
                "These rows were taken on a machine without a GPU, so the loader is set against "
                "simulated consumers above and against an estimate for the RTX 3060 in the first "
                "chart. On a machine with one, `pytest benchmarks/` measures the training step by "
                "batch size and memory format, copies, decoding on the GPU and end-to-end training."
            ),
        )
    lines = [
        (
            f"{row['model']}, {row['memory_format']}, {row['amp']}",
            str(row["batch_size"]),
            f"{row['images_per_second']:,.0f}" if "images_per_second" in row else row["failed"],
            f"{row.get('peak_gpu_mib', 0):,.0f}",
        )
        for row in steps
    ]
    cards = sorted({card for row in steps for card in row["gpu"]})
    return _section(
        "The training step",
        _paragraph(f"On {', '.join(cards)} (name, memory, driver)."),
        _table(("step", "batch", "images/s", "GPU memory, MiB"), lines, marked=()),
        _roofline(rows, steps),
    )


def _roofline(rows: list[Row], steps: list[Row]) -> str:
    settings = _cores(rows)
    rates = [row["images_per_second"] for row in steps if "images_per_second" in row]
    measured_with = {row["cpu"] for row in rows if row["benchmark"] == "loaders"}
    if not (settings and rates) or measured_with != {row["cpu"] for row in steps}:
        return ""  # loaders of one machine say nothing about the GPU of another
    guide = plot.Guide(max(rates), f"this GPU's step: {max(rates):,.0f}")
    found = standings(rows, "loaders", used_cores=settings[0])
    title = "The loader against the training step: what ends left of the line starves the GPU"
    return plot.bars(title, "images/s", _bars(found), guides=[guide])


def _failed(rows: list[Row]) -> str:
    missing = failures(rows)
    if not missing:
        return ""
    return _section("Without a result", _table(("loader", "why"), missing.items(), marked=()))


def _method(rows: list[Row], sources: Iterable[str]) -> str:
    machines = dict.fromkeys(
        f"{row['cpu']}, {row['cores']} cores, {row['memory_gib']} GiB, "
        f"GPU: {', '.join(row['gpu']) or 'none'}, {row['storage']}, Python {row['python']}, "
        f"{row['system']}"
        for row in rows
    )
    versions: dict[str, Any] = {}
    for row in rows:
        versions.update(row["versions"])
        if row.get("version"):
            versions[row["package"]] = row["version"]
    commands = dict.fromkeys(row["command"].strip() for row in rows if "command" in row)
    commits = dict.fromkeys(row["commit"] for row in rows)
    facts = [
        ("machine", "; ".join(machines)),
        ("commit", ", ".join(commits)),
        ("versions", ", ".join(f"{name} {number}" for name, number in sorted(versions.items()))),
        ("commands", "; ".join(commands)),
        ("rows", ", ".join(sources)),
    ]
    return _section("How it was measured", _table(("", ""), facts, marked=()))


def write_pngs(rows: list[Row], folder: Path) -> list[Path]:
    """The bar chart of each number of cores as PNG; nothing where matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        return []
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    colours = {"ours": "#2b6cb0", "peer": "#a0aec0", "floor": "#e2e8f0"}
    written = []
    for cores in _cores(rows):
        found = standings(rows, "loaders", used_cores=cores)[::-1]
        if not found:
            continue
        figure, axes = pyplot.subplots(figsize=(9, 0.34 * len(found) + 1))
        rates = [standing.rates for standing in found]
        axes.barh(
            [standing.name for standing in found],
            [rate.median for rate in rates],
            xerr=[
                [rate.median - rate.low for rate in rates],
                [rate.high - rate.median for rate in rates],
            ],
            color=[colours[str(standing.row["kind"])] for standing in found],
            ecolor="#4a5568",
        )
        axes.set_xlabel(f"images per second, {cores} core{'s' * (cores > 1)}")
        axes.spines[["top", "right"]].set_visible(False)
        figure.tight_layout()
        written.append(folder / f"loaders-{cores}-cores.png")
        figure.savefig(written[-1], dpi=110)
        pyplot.close(figure)
    return written


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the page; with `--readme` rewrite the README's table too."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report", description="Draw a page from result files."
    )
    parser.add_argument("files", nargs="*", type=Path, help="default: all of benchmarks/results/")
    parser.add_argument("--out", type=Path, default=PAGE)
    parser.add_argument("--readme", action="store_true", help="rewrite the table of README.md too")
    arguments = parser.parse_args(argv)
    files = arguments.files or sorted(
        path for path in RESULTS.glob("*.jsonl") if not path.name.startswith("latest")
    )
    if not files:
        parser.error("there is no result file; run python -m benchmarks.compare first")
    rows = [row for path in files for row in read_rows(path)]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(page(rows, [path.name for path in files]), encoding="utf-8")
    print(f"wrote {arguments.out}")
    for written in write_pngs(rows, arguments.out.parent):
        print(f"wrote {written}")
    if arguments.readme:
        readme = ROOT / "README.md"
        text = replace_table(readme.read_text(encoding="utf-8"), readme_table(COMPARISON))
        readme.write_text(text, encoding="utf-8")
        print(f"wrote the table of {readme.name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
