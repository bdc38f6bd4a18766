"""Charts by matplotlib: tables in; SVG whose text stays text, or a PNG, out.

The colours become variables of the page's style sheet, so that one drawing serves light and dark.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from pandas import DataFrame

from fastload.console.page import chart, escaped
from fastload.console.style import COLOURS, in_variables

_VARIABLES = ("ink", "soft", "rule", "accent", "peer", "floor", "guide")
INK, SOFT, RULE, OURS, PEER, FLOOR, GUIDE = (COLOURS[name][0] for name in _VARIABLES)
KINDS = {"ours": OURS, "peer": PEER, "floor": FLOOR}
LINES = [OURS, GUIDE, "#3f9142", "#8b5fbf", "#b7791f", "#d64583", "#2a9d9d", "#808a96"]
PARTS = [OURS, "#7fb3de", GUIDE, "#eda06d", "#3f9142", "#96c598", "#8b5fbf", "#c4abe0"]
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "fastload",  # the same drawing, the same text
    "font.sans-serif": ["DejaVu Sans"],  # measures the text; the page's style sheet draws it
    "axes.axisbelow": True,
    "axes.edgecolor": RULE,
    "axes.grid": True,
    "axes.labelcolor": SOFT,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.color": RULE,
    "legend.frameon": False,
    "text.color": SOFT,
    "text.parse_math": False,  # a dollar sign in a name begins no formula
    "xtick.color": SOFT,
    "ytick.color": SOFT,
}
NOTHING = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # no metadata in the SVG


@dataclass(frozen=True, slots=True)
class Guide:
    """A vertical line over bars: what a consumer needs."""

    value: float
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A drawing, its title, and what the page shows when the pointer rests on a bar."""

    title: str
    figure: Figure
    tips: tuple[str, ...] = ()

    def write_png(self, path: Path) -> None:
        """Save the drawing as a PNG."""
        with mpl.rc_context(STYLE):
            self.figure.savefig(path, dpi=110)

    def svg(self) -> str:
        """The drawing as an HTML figure with its title."""
        file = io.StringIO()
        with mpl.rc_context(STYLE):
            self.figure.savefig(file, format="svg", transparent=True, metadata=NOTHING)
        text = file.getvalue()
        text = text[text.index("<svg") :]
        for number, tip in enumerate(self.tips):
            group = f'<g id="bar-{number}">'
            text = text.replace(group, f"{group}<title>{escaped(tip)}</title>")
        # Several drawings stand on one page, and each must have names of its own.
        name = re.sub(r"\W+", "-", self.title.lower()).strip("-")
        text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
        return chart(in_variables(text), escaped(self.title))


@contextmanager
def _drawing(height: float) -> Iterator[tuple[Figure, Any]]:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.2, height), layout="constrained")
        yield figure, figure.subplots()


def bars(title: str, unit: str, found: DataFrame, *, guides: Iterable[Guide] = ()) -> Chart:
    """Horizontal bars with intervals, in the order of the table.

    Args:
        title: What the chart is called.
        unit: What the values count, such as "images/s".
        found: As `standings.standings` returns it, with a column `mark` of what stands behind the
            values.
        guides: Lines to draw across.
    """
    rates, low, high = found[["images_per_second", "low", "high"]].to_numpy(float).T
    with _drawing(0.7 + 0.26 * len(found)) as (figure, axes):
        drawn = axes.barh(
            range(len(found)),
            rates,
            xerr=[rates - low, high - rates],
            color=found["kind"].map(KINDS),
            error_kw={"ecolor": INK, "alpha": 0.55, "capsize": 2.5, "linewidth": 1},
        )
        values = [
            f"{number_text(rate)}{mark}" for rate, mark in zip(rates, found["mark"], strict=True)
        ]
        axes.bar_label(drawn, values, padding=5, color=INK)
        for number, patch in enumerate(drawn):
            patch.set_gid(f"bar-{number}")
        axes.xaxis.set_major_formatter(_readable)
        axes.set(xlabel=unit, yticks=range(len(found)), yticklabels=found.index)
        axes.grid(visible=False, axis="y")
        axes.invert_yaxis()
        axes.margins(x=0.1, y=0.02)
        for label, kind in zip(axes.get_yticklabels(), found["kind"], strict=True):
            if kind == "ours":
                label.set(color=OURS, fontweight="bold")
        for guide in guides:
            axes.axvline(guide.value, color=GUIDE, linestyle="--", linewidth=1)
            place = {"xy": (guide.value, 1), "xycoords": axes.get_xaxis_transform()}
            offset = {"xytext": (0, 3), "textcoords": "offset points", "ha": "center"}
            axes.annotate(guide.name, color=GUIDE, **place, **offset)
    tips = tuple(
        f"{name}: {row['images_per_second']:,.4g} {unit} [{row['low']:,.4g}, {row['high']:,.4g}]"
        for name, row in found.iterrows()
    )
    return Chart(title=title, figure=figure, tips=tips)


def stacked(title: str, unit: str, parts: DataFrame) -> Chart:
    """One bar for each row of the table, made of its columns in their order."""
    with _drawing(1.0 + 0.36 * len(parts)) as (figure, axes):
        parts.plot.barh(ax=axes, stacked=True, color=PARTS, xlabel=unit, ylabel="", width=0.7)
        totals = [number_text(total) for total in parts.sum(axis="columns")]
        axes.bar_label(axes.containers[-1], totals, padding=5, color=INK)
        for number, patch in enumerate(axes.patches):
            patch.set_gid(f"bar-{number}")
        axes.xaxis.set_major_formatter(_readable)
        axes.grid(visible=False, axis="y")
        axes.invert_yaxis()
        axes.margins(x=0.1)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4)
    tips = tuple(
        f"{name}, {part}: {value:.4g} {unit}"
        for part, values in parts.items()
        for name, value in values.items()
    )
    return Chart(title=title, figure=figure, tips=tips)


def lines(title: str, unit: str, points: DataFrame, *, log_x: bool) -> Chart:
    """One line with points for each column over the index, linear or logarithmic; y from 0."""
    with _drawing(3.2) as (figure, axes):
        points.plot(ax=axes, marker="o", color=LINES, ylabel=unit, logx=log_x)
        axes.yaxis.set_major_formatter(_readable)
        axes.set_ylim(0, 1.07 * float(points.max(axis=None)))  # whole marks at the top
        axes.set_xticks(points.index, [number_text(x) for x in points.index])
        axes.minorticks_off()
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return Chart(title=title, figure=figure)


def number_text(value: float) -> str:
    """A number as it is read: 12,300, 4.56, 0.079."""
    if value == 0:
        return "0"
    if abs(value) >= 100 or (abs(value) >= 1 and value == round(value)):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _readable(value: float, _position: int) -> str:
    return number_text(value)
