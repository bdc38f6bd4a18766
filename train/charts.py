"""The charts of report.html as SVG, drawn by matplotlib where it is installed.

Text stays text, so the browser chooses the fonts; colours are those of the page, light or dark.
Equal data give equal bytes.
"""

from __future__ import annotations

import functools
import html
import importlib
import io
import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ParamSpec

from fastload.console.style import COLOURS, in_variables
from fastload.console.terminal import printable
from fastload.errors import first_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_Data = ParamSpec("_Data")
WIDTH, HEIGHT = 460, 240  # pixels
_SVG, _LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_COLOURS = tuple(COLOURS[name][0] for name in ("first", "second", "third", "fourth"))
_SOFT, _RULE = COLOURS["soft"][0], COLOURS["rule"][0]
_STYLE = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",  # for the measures; the page sets its own fonts
    "font.size": 11,
    "text.color": _SOFT,
    "axes.labelcolor": _SOFT,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "axes.edgecolor": _RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": _RULE,
}

_NOTHING = {"Date": None, "Creator": None}  # no metadata: equal data give equal bytes

ElementTree.register_namespace("", _SVG)
ElementTree.register_namespace("xlink", _LINK)


@functools.cache
def can_draw() -> bool:
    """Whether matplotlib is installed, and whole enough to be imported."""
    try:
        importlib.import_module("matplotlib.figure")
    except Exception:  # noqa: BLE001  a broken installation raises anything; the run goes on
        return False
    return True


def _drawn_or_said(chart: Callable[_Data, str]) -> Callable[_Data, str]:
    """The chart, or a sentence where matplotlib fails: a run does not end for a picture."""

    @functools.wraps(chart)
    def tried(*data: _Data.args, **more: _Data.kwargs) -> str:
        try:
            return chart(*data, **more)
        except Exception as error:  # noqa: BLE001  a library's, at the end of a run
            reason = html.escape(printable(f"{type(error).__name__}: {first_line(error)}"))
            return f"<p>This chart could not be drawn ({reason}).</p>"

    return tried


@_drawn_or_said
def line_chart(name: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """An SVG of lines over epochs.

    Args:
        name: What the chart shows; no two charts of a page have the same name.
        series: Name -> (epoch, value), in order. Values that are NaN or infinite are left out.
    """
    finite = {
        label: [(x, y) for x, y in points if math.isfinite(y)] for label, points in series.items()
    }
    epochs = [x for points in finite.values() for x, _ in points]
    values = [y for points in finite.values() for _, y in points]

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator, StrMethodFormatter

        for number, (label, points) in enumerate(finite.items()):
            colour = _COLOURS[number % len(_COLOURS)]
            across, upwards = [x for x, _ in points], [y for _, y in points]
            axes.plot(across, upwards, "o-", ms=4, color=colour, label=label, gid=f"line{number}")
        margin = 0.3 + 0.02 * (max(epochs) - min(epochs))
        axes.set_xlim(min(epochs) - margin, max(epochs) + margin)
        axes.set_ylim(min(0.0, *values), max(values) * 1.05 or 1.0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.set_xlabel("epoch", loc="right")
        if len(finite) > 1:
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(finite), frameon=False)

    return _text(_drawn(name, draw)) if values else _EMPTY


@_drawn_or_said
def scatter_chart(name: str, points: Sequence[tuple[float, float, str]]) -> str:
    """An SVG with a point for each class, whose name shows on hover.

    Args:
        name: What the chart shows; no two charts of a page have the same name.
        points: (images, accuracy in [0, 1], name of the class); images are above 0.
    """

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import LogLocator, NullLocator, PercentFormatter, StrMethodFormatter

        across, upwards = [count for count, _, _ in points], [share for _, share, _ in points]
        axes.plot(across, upwards, "o", ms=6, mew=0, alpha=0.5, color=_COLOURS[0], gid="classes")
        axes.set_xscale("log")
        axes.set_xlim(min(across) / 1.12, max(across) * 1.12)
        axes.set_ylim(0.0, 1.05)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.set_xlabel("training images", loc="right")

    if not points:
        return _EMPTY
    root = _drawn(name, draw)
    marks = root.iterfind(f".//{{{_SVG}}}g[@id='classes']//{{{_SVG}}}use")
    for mark, (count, accuracy, label) in zip(marks, points, strict=True):
        title = ElementTree.SubElement(mark, f"{{{_SVG}}}title")
        title.text = f"{label}: {accuracy:.0%}, {count:.0f} images"
    return _text(root)


@_drawn_or_said
def reliability_chart(name: str, series: Mapping[str, Sequence[tuple[float, float, int]]]) -> str:
    """An SVG of how often answers are right against how probable they are said to be.

    Args:
        name: What the chart shows; no two charts of a page have the same name.
        series: Name -> (mean probability, share of right answers, answers) of each group of
            answers; points of more answers are larger.
    """
    most = max((count for points in series.values() for *_, count in points), default=0)

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import PercentFormatter

        axes.plot([0, 1], [0, 1], "--", color=_SOFT, lw=1)
        for number, (label, points) in enumerate(series.items()):
            colour = _COLOURS[number % len(_COLOURS)]
            across, upwards = [x for x, _, _ in points], [y for _, y, _ in points]
            axes.plot(across, upwards, "-", lw=1, color=colour)
            sizes = [10 + 70 * count / most for *_, count in points]
            axes.scatter(across, upwards, sizes, color=colour, lw=0, alpha=0.7, label=label)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.05)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1))
        axes.set_xlabel("probability", loc="right")
        legend = axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)
        for mark in legend.legend_handles:
            mark.set_sizes([30])  # type: ignore[union-attr]  # a scatter's mark has sizes

    return _text(_drawn(name, draw)) if most else _EMPTY


def _drawn(name: str, draw: Callable[[Axes], None]) -> ElementTree.Element:
    from matplotlib import style
    from matplotlib.figure import Figure

    drawing = io.BytesIO()
    # The ids are hashes of content and name, so those of two charts on a page differ.
    with style.context(["default", {**_STYLE, "svg.hashsalt": name}]):
        figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72), layout="constrained")
        axes = figure.subplots()
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        draw(axes)
        figure.savefig(drawing, format="svg", transparent=True, metadata=_NOTHING)
    root = ElementTree.fromstring(in_variables(drawing.getvalue().decode("utf-8")))
    root.attrib.update({"width": str(WIDTH), "height": str(HEIGHT), "role": "img"})
    root.attrib.update({"aria-label": name, "style": "stroke-linejoin: round"})
    for parent, child in (("", "metadata"), (f"/{{{_SVG}}}defs", "style")):
        for place in root.findall(f".{parent}"):  # the style would be that of the whole page
            for unwanted in place.findall(f"{{{_SVG}}}{child}"):
                place.remove(unwanted)
    return root


def _text(root: ElementTree.Element) -> str:
    """The drawing as text, with those ids only that it refers to."""
    text = ElementTree.tostring(root, encoding="unicode")
    for element in root.iter():
        name = element.get("id")
        if name and not re.search(rf"#{re.escape(name)}\b", text):
            del element.attrib["id"]
    return ElementTree.tostring(root, encoding="unicode")


_EMPTY = (
    f'<svg xmlns="{_SVG}" width="{WIDTH}" height="{HEIGHT}">'
    f'<text x="{WIDTH // 2}" y="{HEIGHT // 2}" text-anchor="middle" fill="var(--soft)">'
    "nothing yet</text></svg>"
)
