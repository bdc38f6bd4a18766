"""Charts as inline SVG: bars with intervals, lines, stacked bars. Text and numbers in, text out.

Colours are the page's CSS classes, so that one drawing serves light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 920
LABELS = 250  # room for names, left of the bars
RIGHT = 120  # room for values, right of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar.

    Attributes:
        name: To its left.
        value: Its length.
        low: Lower end of the interval.
        high: Upper end.
        kind: CSS class: "ours", "peer" or "floor".
        mark: Behind the value, such as a foot-note.
    """

    name: str
    value: float
    low: float
    high: float
    kind: str = "peer"
    mark: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of points (x, y); `kind` is a CSS class."""

    name: str
    points: Sequence[tuple[float, float]]
    kind: str = "peer"


@dataclass(frozen=True, slots=True)
class Guide:
    """A vertical line over bars: what a consumer needs."""

    value: float
    name: str


def nice_ticks(highest: float, *, count: int = 5) -> list[float]:
    """0 and round numbers up to at least `highest`: steps of 1, 2 or 5 times a power of ten.

    Raises:
        ValueError: If `highest` is not above 0.
    """
    if not highest > 0:
        raise ValueError(f"highest must be above 0, got {highest}")
    power = 10.0 ** math.floor(math.log10(highest / count))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power * count >= highest)
    return [step * number for number in range(math.ceil(highest / step - 1e-9) + 1)]


def bars(title: str, unit: str, drawn: Sequence[Bar], *, guides: Sequence[Guide] = ()) -> str:
    """Horizontal bars with intervals, in the order given."""
    highest = max([*(bar.high for bar in drawn), *(guide.value for guide in guides)])
    ticks = nice_ticks(highest)
    scale = (WIDTH - LABELS - RIGHT) / ticks[-1]
    row, top = 24, 34 + (16 if guides else 0)
    height = top + row * len(drawn) + 30
    parts = [_axis(ticks, scale, top, height - 26), _unit(unit, height)]
    for number, bar in enumerate(drawn):
        y = top + row * number
        middle = y + row / 2
        end, low, high = (LABELS + value * scale for value in (bar.value, bar.low, bar.high))
        above = middle - 4
        tip = f"{bar.name}: {bar.value:,.4g} {unit} [{bar.low:,.4g}, {bar.high:,.4g}]"
        parts.append(
            f'<g><title>{escape(tip)}</title><text class="name {bar.kind}" x="{LABELS - 8}" '
            f'y="{middle + 4:.1f}">{escape(bar.name)}</text>'
            f'<rect class="{bar.kind}" x="{LABELS}" y="{y + 4}" rx="2" '
            f'width="{max(1.0, end - LABELS):.1f}" height="{row - 8}"/>'
            f'<path class="interval" d="M{low:.1f} {middle:.1f}H{high:.1f}M{low:.1f} {above:.1f}v8'
            f'M{high:.1f} {above:.1f}v8"/>'
            f'<text class="value" x="{max(end, high) + 7:.1f}" y="{middle + 4:.1f}">'
            f"{number_text(bar.value)}{escape(bar.mark)}</text></g>"
        )
    for guide in guides:
        x = LABELS + guide.value * scale
        parts.append(
            f'<path class="guide" d="M{x:.1f} {top - 6}V{height - 26}"/>'
            f'<text class="guide" x="{x:.1f}" y="{top - 10}">{escape(guide.name)}</text>'
        )
    return _figure(title, height, parts)


def stacked(title: str, unit: str, rows: Sequence[tuple[str, Sequence[tuple[str, float]]]]) -> str:
    """One bar for each row, made of named parts; the same name has the same colour everywhere."""
    names = list(dict.fromkeys(name for _, parts in rows for name, _ in parts))
    ticks = nice_ticks(max(sum(value for _, value in parts) for _, parts in rows))
    scale = (WIDTH - LABELS - RIGHT) / ticks[-1]
    row, top = 34, 56
    height = top + row * len(rows) + 30
    drawn = [_axis(ticks, scale, top, height - 26), _unit(unit, height), _legend(names)]
    for number, (name, parts) in enumerate(rows):
        y, x = top + row * number, float(LABELS)
        drawn.append(
            f'<text class="name" x="{LABELS - 8}" y="{y + row / 2 + 4:.1f}">{escape(name)}</text>'
        )
        for part, value in parts:
            width = value * scale
            drawn.append(
                f'<rect class="part{names.index(part) % 8}" x="{x:.1f}" y="{y + 5}" '
                f'width="{width:.1f}" height="{row - 10}"><title>'
                f"{escape(f'{name}, {part}: {value:.4g} {unit}')}</title></rect>"
            )
            x += width
        total = sum(value for _, value in parts)
        drawn.append(
            f'<text class="value" x="{x + 7:.1f}" y="{y + row / 2 + 4:.1f}">'
            f"{number_text(total)}</text>"
        )
    return _figure(title, height, drawn)


def lines(title: str, x_unit: str, y_unit: str, drawn: Sequence[Line], *, log_x: bool) -> str:
    """Lines with points; y begins at 0, x is linear or logarithmic."""
    height, left, right, top, bottom = 320, 70, 230, 34, 274
    across = [x for line in drawn for x, _ in line.points]
    ticks = nice_ticks(max(y for line in drawn for _, y in line.points))
    first, last = (math.log10(edge) if log_x else edge for edge in (min(across), max(across)))
    width = WIDTH - left - right

    def place(x: float, y: float) -> tuple[float, float]:
        at = math.log10(x) if log_x else x
        share = (at - first) / (last - first) if last > first else 0.5
        return left + share * width, bottom - y / ticks[-1] * (bottom - top)

    parts = []
    for tick in ticks:
        y = place(across[0], tick)[1]
        parts.append(
            f'<path class="grid" d="M{left} {y:.1f}h{width}"/>'
            f'<text class="tick end" x="{left - 8}" y="{y + 4:.1f}">{number_text(tick)}</text>'
        )
    parts += [
        f'<text class="tick" x="{place(x, 0)[0]:.1f}" y="{bottom + 18}">{number_text(x)}</text>'
        for x in sorted(set(across))
    ]
    for number, line in enumerate(drawn):
        points = [place(x, y) for x, y in line.points]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        kind = f"line{number % 8}"
        dots = "".join(
            f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in points
        )
        label = top + 8 + 20 * number
        parts.append(
            f'<path class="line {kind}" d="{path}"/>{dots}'
            f'<path class="line {kind}" d="M{left + width + 16} {label}h22"/>'
            f'<text class="tick start" x="{left + width + 44}" y="{label + 4}">{escape(line.name)}'
            "</text>"
        )
    parts.append(
        f'<text class="tick" x="{left + width / 2}" y="{height - 8}">{escape(x_unit)}</text>'
        f'<text class="tick start" x="{left - 50}" y="18">{escape(y_unit)}</text>'
    )
    return _figure(title, height, parts)


def number_text(value: float) -> str:
    """A number as it is read: 12,300, 4.56, 0.079."""
    if value == 0:
        return "0"
    if abs(value) >= 100 or (abs(value) >= 1 and value == round(value)):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _axis(ticks: Sequence[float], scale: float, top: int, bottom: int) -> str:
    return "".join(
        f'<path class="grid" d="M{LABELS + tick * scale:.1f} {top}V{bottom}"/>'
        f'<text class="tick" x="{LABELS + tick * scale:.1f}" y="{bottom + 16}">'
        f"{number_text(tick)}</text>"
        for tick in ticks
    )


def _unit(unit: str, height: int) -> str:
    return f'<text class="tick end" x="{WIDTH - 8}" y="{height - 10}">{escape(unit)}</text>'


def _legend(names: Sequence[str]) -> str:
    parts, x = [], float(LABELS)
    for number, name in enumerate(names):
        parts.append(
            f'<rect class="part{number % 8}" x="{x:.0f}" y="26" width="12" height="12" rx="2"/>'
            f'<text class="tick start" x="{x + 17:.0f}" y="36">{escape(name)}</text>'
        )
        x += 34 + 6.6 * len(name)
    return "".join(parts)


def _figure(title: str, height: float, parts: Sequence[str]) -> str:
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><svg viewBox="0 0 {WIDTH} {height:.0f}" '
        f'role="img" aria-label="{escape(title, quote=True)}">{"".join(parts)}</svg></figure>'
    )
