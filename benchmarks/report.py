"""Rows -> one HTML page, PNGs, and the tables of README and docs: `python -m benchmarks.report`.

The page needs no script and nothing from elsewhere; its charts are inline SVG. `--tables` rewrites
the parts of README.md and of pages of docs/ between their two markers from the
committed rows, so that each of their numbers comes from rows that are in the repository.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from pandas import DataFrame

from benchmarks import plot, recipe_tables, scale_tables, start_tables
from benchmarks.environment import ROOT
from benchmarks.harness import ROWS, Row, read_rows
from benchmarks.standings import (
    MARKS,
    command_of,
    core_counts,
    failures,
    long_table,
    prepared,
    ratio_text,
    replace_table,
    short_table,
    standings,
    stored_cells,
    table_of,
)
from fastload.console.command import run_command
from fastload.console.page import document, escaped, facts
from fastload.console.page import table as table_of_cells
from fastload.console.parser import CommandParser
from fastload.files import write_atomically

COMPARISON = ROWS / "comparison.jsonl"


def _results(path: Path) -> str:
    parts = (long_table(path), start_tables.tables(path.with_name("start.jsonl")))
    return "\n\n".join(part for part in parts if part)


TABLES = {
    "README.md": (short_table, COMPARISON),
    "docs/benchmarks.md": (_results, COMPARISON),
    "docs/scale.md": (scale_tables.tables, ROWS / "scale.jsonl"),
    "docs/training.md": (recipe_tables.tables, ROWS / "recipe.jsonl"),
}
"""What writes the table of a document, and from which rows."""
PAGE = ROWS.parent / "page" / "index.html"
NEEDED = plot.Guide(400, "ResNet-50 on an RTX 3060 (estimate): 400")
"""Between the estimates of 350 and 470 images/s, scaled from measurements on an RTX 3090."""


def page(rows: list[Row], sources: Iterable[str]) -> str:
    """The whole page.

    Args:
        rows: The measurements of all files of rows.
        sources: Names of these files.
    """
    table = table_of(rows)
    sections = [
        _throughput(table),
        _costs(table),
        _cold(table),
        _consumer(table),
        _scaling(table),
        _stages(table),
        _photographs(table),
        _gpu(table),
        _failed(table),
        _method(rows, sources),
    ]
    about = "Losses stand beside wins. Every number is the median of rows in benchmarks/rows/."
    return document("fastload: measurements", [_paragraph(about), *filter(None, sections)])


def _of(rows: DataFrame, benchmark: str) -> DataFrame:
    return rows[rows["benchmark"] == benchmark].dropna(axis="columns", how="all")


def _section(title: str, *parts: str) -> str:
    kept = [part for part in parts if part]
    if not kept:
        return ""
    name = title.lower().replace(" ", "-").replace(",", "")
    return f'<section id="{name}"><h2>{escaped(title)}</h2>{"".join(kept)}</section>'


def _paragraph(text: str) -> str:
    return f"<p>{escaped(text)}</p>"


def _table(
    titles: Sequence[str],
    lines: Iterable[Sequence[str]],
    *,
    marked: Collection[Any] = (),
    words: int = 0,
) -> str:
    """A table of a name, of numbers, and of so many columns of words."""
    return table_of_cells(
        [escaped(title) for title in titles],
        [[escaped(cell) for cell in line] for line in lines],
        numbers=range(1, len(titles) - words),
        marked=[escaped(name) for name in marked],
    )


def _bars(title: str, found: DataFrame, guides: Iterable[plot.Guide] = ()) -> str:
    marked = found.assign(mark=found["antialiased"].map(MARKS))
    return plot.bars(title, "images/s", marked, guides=guides).svg()


def _throughput(rows: DataFrame) -> str:
    parts = []
    for cores in core_counts(rows):
        found = standings(rows, "loaders", used_cores=cores)
        if len(found):
            word = "core" if cores == 1 else "cores"
            title = f"Images per second, {cores} {word}, page cache warm"
            parts.append(_bars(title, found, [NEEDED]))
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


def _costs(rows: DataFrame) -> str:
    settings = core_counts(rows)
    if not settings:
        return ""
    found = standings(rows, "loaders", used_cores=settings[0]).sort_values("cpu_seconds_per_1000")
    disk = prepared(rows)
    lines = [
        (
            str(name),
            f"{row['cpu_seconds_per_1000']:.2f}",
            f"{row['images_per_second'] / row['busy_cores']:,.0f}" if row["busy_cores"] else "–",
            f"{row['peak_memory_mib']:,.0f}",
            f"{row['first_batch_seconds']:.2f}",
            f"{row['import_seconds']:.1f}",
            *stored_cells(disk.get(name)),
            str(row["note"]),
        )
        for name, row in found.iterrows()
    ]
    titles = (
        *("loader", "CPU s per 1,000", "images/s per busy core", "memory, MiB", "first batch, s"),
        *("import, s", "kB per image", "prepare 1,000, s", "note"),
    )
    return _section(
        f"What it costs, {settings[0]} cores",
        _table(titles, lines, marked=found.index[found["kind"] == "ours"], words=1),
        _paragraph(
            "CPU seconds are of the process and its workers, user and system. Memory is anonymous "
            "and shared pages, the interpreter's included, mapped files not. First batch: from "
            "opening the loader; FFCV compiles its pipeline then. Prepare: from a folder of files "
            "to what the loader reads, with cleaning and lossless transcoding for fastload."
        ),
    )


def _cold(rows: DataFrame) -> str:
    found = standings(rows, "cold")
    if not len(found):
        return ""
    return _section(
        "With a cold page cache",
        _bars("Images per second in the first epoch, page cache dropped", found),
        _paragraph(
            "The files' pages were dropped with posix_fadvise before each process started; one "
            "epoch from the first batch to its end, without a warm-up. What a virtual machine's "
            "host keeps in its own cache is out of reach."
        ),
    )


def _consumer(rows: DataFrame) -> str:
    asked = _of(rows, "consumer")
    if not len(asked):
        return ""
    asked = asked[asked["kind"] != "floor"]  # a decoder that decodes nothing ahead
    rates = sorted(asked["consumer"].unique())
    by_rate = [standings(asked, "consumer", consumer=rate) for rate in rates]
    names = list(dict.fromkeys(name for found in by_rate for name in found.index))
    lines = []
    titles = ["loader"]
    for rate in rates:
        titles += [f"stalled at {rate:,.0f}/s", "CPU s per 1,000"]
    for name in names:
        line = [name]
        for found in by_rate:
            if name in found.index:
                row = found.loc[name]
                line += [
                    f"{100 * row['stalled_fraction']:.1f} %",
                    f"{row['cpu_seconds_per_1000']:.2f}",
                ]
            else:
                line += ["–", "–"]
        lines.append(line)
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


def _scaling(rows: DataFrame) -> str:
    parts = []
    settings = sorted(core_counts(rows))
    if len(settings) > 1:
        rates = DataFrame(
            {
                cores: standings(rows, "loaders", used_cores=cores)["images_per_second"]
                for cores in settings
            }
        )
        fastest = rates.dropna().sort_values(settings[-1], ascending=False).head(8)
        chart = plot.lines(
            "By cores: the eight fastest", "images/s", fastest.T.rename_axis("cores"), log_x=False
        )
        parts.append(chart.svg())
    parts.append(_by_size(rows, "images_per_second", "images/s", "Images per second"))
    parts.append(_by_size(rows, "first_batch_seconds", "seconds", "Seconds to the first batch"))
    parts.append(_by_size(rows, "resident_mib", "MiB", "Resident memory"))
    return _section("How it scales", *parts)


def _by_size(rows: DataFrame, key: str, unit: str, title: str) -> str:
    sized = _of(rows, "size")
    if key not in sized:
        return ""
    points = sized.dropna(subset=key).groupby("samples")[[key]].median()
    named = points.astype(float).rename(columns={key: "fastload native"})
    return plot.lines(f"{title} by size of the data set", unit, named, log_x=True).svg()


def _stages(rows: DataFrame) -> str:
    return _section("Where the time goes", _loader_stages(rows), _core_stages(rows))


def _core_stages(rows: DataFrame) -> str:
    """The native core's stages, from the last decode row of each kind of images."""
    decoded = _of(rows, "decode")
    if "stage_milliseconds" not in decoded:
        return ""
    staged = decoded[
        decoded["stage_milliseconds"].map(bool) & decoded["stage_milliseconds"].notna()
    ]
    last = staged.drop_duplicates("images_from", keep="last").set_index("images_from")
    parts = DataFrame.from_dict(last["stage_milliseconds"].to_dict(), orient="index")
    return plot.stacked("One crop in the native core, by stage, one thread", "ms", parts).svg()


def _loader_stages(rows: DataFrame) -> str:
    staged = _of(rows, "stages")
    if not len(staged):
        return ""
    suffix = "_ms_per_1000"
    stages = [key for key in staged if key.endswith(suffix)]
    parts = staged.astype(dict.fromkeys(stages, float)).groupby("name", sort=False)[stages].median()
    parts = parts.rename(columns=lambda key: key.removesuffix(suffix).replace("_", " "))
    title = "1,000 images in the loader, by stage, one thread"
    return plot.stacked(title, "ms", parts).svg()


def _photographs(rows: DataFrame) -> str:
    parts = []
    for source, _ in _of(rows, "photographs").groupby("images_from"):
        found = standings(rows, "photographs", images_from=source)
        if len(found):
            parts.append(_bars(f"{source}, {found['used_cores'].iloc[0]} cores", found))
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


def _gpu(rows: DataFrame) -> str:
    steps = _of(rows, "training-step")
    if not len(steps):
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
        for row in (each.dropna() for _, each in steps.iterrows())
    ]
    cards = sorted({card for found in steps["gpu"] for card in found})
    return _section(
        "The training step",
        _paragraph(f"On {', '.join(cards)} (name, memory, driver)."),
        _table(("step", "batch", "images/s", "GPU memory, MiB"), lines),
        _roofline(rows, steps),
    )


def _roofline(rows: DataFrame, steps: DataFrame) -> str:
    settings = core_counts(rows)
    if not settings or "images_per_second" not in steps:
        return ""
    if set(_of(rows, "loaders")["cpu"]) != set(steps["cpu"]):
        return ""  # loaders of one machine say nothing about the GPU of another
    fastest = steps["images_per_second"].max()
    guide = plot.Guide(fastest, f"this GPU's step: {fastest:,.0f}")
    title = "The loader against the training step: what ends left of the line starves the GPU"
    return _bars(title, standings(rows, "loaders", used_cores=settings[0]), [guide])


def _failed(rows: DataFrame) -> str:
    missing = failures(rows)
    if not missing:
        return ""
    return _section("Without a result", _table(("loader", "why"), missing.items(), words=1))


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
    commands = dict.fromkeys(command_of(row) for row in rows if "command" in row)
    commits = dict.fromkeys(row["commit"] for row in rows)
    lines = [
        ("machine", "; ".join(machines)),
        ("commit", ", ".join(commits)),
        ("versions", ", ".join(f"{name} {number}" for name, number in sorted(versions.items()))),
        ("commands", "; ".join(commands)),
        ("rows", ", ".join(sources)),
    ]
    return _section("How it was measured", facts((head, escaped(value)) for head, value in lines))


def write_pngs(rows: DataFrame, folder: Path) -> list[Path]:
    """The bar chart of each number of cores as PNG."""
    written = []
    for cores in core_counts(rows):
        found = standings(rows, "loaders", used_cores=cores)
        unit = f"images per second, {cores} core{'s' * (cores > 1)}"
        chart = plot.bars("", unit, found.assign(mark=""))
        written.append(folder / f"loaders-{cores}-cores.png")
        chart.write_png(written[-1])
    return written


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the page; with `--tables` rewrite the tables of README and docs too."""
    parser = CommandParser(prog="python -m benchmarks.report", description="Draw a page from rows.")
    parser.add_argument("files", nargs="*", type=Path, help="default: all of benchmarks/rows/")
    parser.add_argument("--out", type=Path, default=PAGE)
    parser.add_argument(
        "--tables", action="store_true", help=f"rewrite the tables of {', '.join(TABLES)} too"
    )
    arguments = parser.read(argv)
    files = arguments.files or sorted(
        path for path in ROWS.glob("*.jsonl") if not path.name.startswith("latest")
    )
    if not files:
        parser.error("there is no file of rows; run python -m benchmarks.compare first")
    try:
        rows = [row for path in files for row in read_rows(path)]
    except ValueError as error:
        parser.error(f"a file holds no rows of JSON ({error}); name files of benchmarks/rows/")
    if not rows:
        parser.error("the files hold no rows; run python -m benchmarks.compare first")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(arguments.out, page(rows, [path.name for path in files]).encode("utf-8"))
    print(f"wrote {arguments.out}")
    for written in write_pngs(table_of(rows), arguments.out.parent):
        print(f"wrote {written}")
    if arguments.tables:
        for name, (table, source) in TABLES.items():
            document = ROOT / name
            text = replace_table(document.read_text(encoding="utf-8"), table(source))
            document.write_text(text, encoding="utf-8")
            print(f"wrote the table of {name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_command("benchmarks.report", main))
