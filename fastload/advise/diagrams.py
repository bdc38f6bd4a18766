"""Diagrams of a page, as a few lines of SVG with their marks beside it: the tail, the sizes.

The drawing is stretched to the width of the page and the marks are text of the page, so that both
can be read on a telephone and on a wide screen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from fastload.console.page import escaped

_WIDE, _HIGH = 1000, 200  # units of the drawing, whatever its size on the screen
_BINS = 40
_MOST_STEPS = 500  # of a tail: more are narrower than a pixel
_LOGARITHMIC = 30  # ratio from which equal steps would hide the small values
_SIGNS = 9  # room of the marks below: some 40 pixels each on the narrowest page


def long_tail(counts: NDArray[np.int64], rare: int) -> str:
    """Images of each class, from the most to the least frequent.

    Args:
        counts: [C], images of each class.
        rare: A dashed line at so many images.
    """
    ordered = np.sort(counts)[::-1]
    places = np.unique(np.linspace(0, len(ordered) - 1, _MOST_STEPS).round().astype(np.int64))
    most = int(ordered[0])
    logarithmic = most >= _LOGARITHMIC * max(1, int(ordered[-1]))

    def height(value: float) -> float:
        share = math.log1p(value) / math.log1p(most) if logarithmic else value / most
        return _HIGH * share

    ends = np.append(places[1:], len(ordered)) / len(ordered) * _WIDE
    path = f"M0,{_HIGH}"
    for end, value in zip(ends.tolist(), ordered[places].tolist(), strict=True):
        path += f"V{_HIGH - height(value):.1f}H{end:.1f}"
    lines = f'<path class="bars" d="{path}V{_HIGH}Z"/>'
    marks = [
        (height(value) / _HIGH, f"{value:,}")
        for value in _values_to_mark(most, logarithmic=logarithmic)
    ]
    if rare < most:
        at = _HIGH - height(rare)
        for kind in ("halo", "guide"):  # seen above the bars, too
            lines += f'<path class="{kind}" d="M0,{at:.1f}H{_WIDE}"/>'
    count = len(ordered)
    below = [(0.0, "1"), (0.5, f"{count // 2:,}"), (1.0, f"{count:,} classes")]
    scale = ", logarithmic" if logarithmic else ""
    said = f"Images of each class{scale}: from {most:,} to {int(ordered[-1]):,}"
    return _plot(lines, said, marks, below if count > 2 else below[::2])


def histogram(name: str, values: NDArray[np.number]) -> str:
    """How many images have which size; steps are equal in ratio where sizes differ widely.

    Args:
        name: What the values are, and their unit.
        values: [N], above 0, at least one.
    """
    low, high = float(values.min()), float(values.max())
    logarithmic = low > 0 and high >= _LOGARITHMIC / 10 * low
    if high <= low:
        low, high = low * 0.9, high * 1.1 or 1.0
    edges = np.geomspace(low, high, _BINS + 1) if logarithmic else np.linspace(low, high, _BINS + 1)
    edges[0], edges[-1] = low, high  # as rounding must leave out none
    found, _ = np.histogram(values, edges)
    path = "".join(
        f"M{_WIDE * bin_ / _BINS + 1:.1f},{_HIGH}V{_HIGH - _HIGH * share:.1f}"
        f"H{_WIDE * (bin_ + 1) / _BINS - 1:.1f}V{_HIGH}Z"
        for bin_, share in enumerate((found / found.max()).tolist())
        if share
    )
    below = [(place, _short(float(edges[round(place * _BINS)]))) for place in (0.0, 0.5, 1.0)]
    said = f"{name}: from {_short(float(values.min()))} to {_short(float(values.max()))}"
    return _plot(f'<path class="bars" d="{path}"/>', said, [(1.0, f"{found.max():,}")], below)


def _values_to_mark(most: int, *, logarithmic: bool) -> list[int]:
    if not logarithmic:
        return sorted({most, most // 2} - {0})
    powers = [10**power for power in range(len(str(most)))]
    return [*powers, *([most] if most > 2 * powers[-1] else [])]


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _plot(
    shapes: str,
    said: str,
    beside: Iterable[tuple[float, str]],
    below: Sequence[tuple[float, str]],
) -> str:
    """A drawing with marks at shares of its height and of its width."""
    upwards = "".join(
        f'<span style="bottom:{100 * share:.1f}%">{escaped(text)}</span>' for share, text in beside
    )
    across = "".join(f"<span>{escaped(text)}</span>" for _, text in below)
    return (
        f'<div class="plot" role="img" aria-label="{escaped(said)}"><div class="beside">{upwards}'
        f'</div><svg viewBox="0 0 {_WIDE} {_HIGH}" preserveAspectRatio="none" aria-hidden="true">'
        f'{shapes}</svg><div class="below">{across}</div></div>'
    )
