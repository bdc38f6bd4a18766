"""report.html: one file without scripts or links, so that it can be mailed and opened anywhere.

Charts are drawn as SVG, names are text in whatever script they are, thumbnails are data URIs.
"""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from fastload.errors import ImageError
from fastload.pixels.decode import decode_image
from fastload.store.index import read_index, read_manifest

WIDTH, HEIGHT = 460, 240
_MARGIN = {"left": 52, "right": 12, "top": 22, "bottom": 32}
_LEGEND = 110  # pixels between the names above a chart
# Okabe and Ito's colours, told apart by people with any colour vision.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
_THUMBNAIL = 112

_STYLE = """
body { font: 15px/1.5 system-ui, "Noto Sans", "Noto Sans CJK SC", sans-serif; color: #222;
       max-width: 980px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin-top: 2em }
table { border-collapse: collapse } td, th { padding: .2em .8em; text-align: left;
       border-bottom: 1px solid #ddd; vertical-align: top } td.n, th.n { text-align: right }
figure { display: inline-block; margin: .5em 1em .5em 0 }
figcaption { font-size: .9em; color: #555 }
svg text { font-size: 11px; fill: #555 } img { display: block; border-radius: 3px }
code { font-size: .9em }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """Two classes that are mistaken for each other.

    Attributes:
        truth: Readable name of the class that it is.
        answer: Readable name of the class that the model said.
        count: How many samples.
        of: Samples of the true class.
        mistaken: JPEG of such a sample, or None.
        typical: JPEG of a sample of the class that was said, or None.
    """

    truth: str
    answer: str
    count: int
    of: int
    mistaken: bytes | None
    typical: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the report shows.

    Attributes:
        title: Name of the run.
        facts: Name -> value, for the table at the top.
        log: Rows of log.csv.
        class_names: Readable names, by label.
        train_counts: Training images of each class.
        accuracies: Top-1 of each class on the validation split; NaN without samples.
        confusions: Most frequent first.
        options: The recipe of the run.
    """

    title: str
    facts: Mapping[str, str]
    log: Sequence[Mapping[str, str]]
    class_names: Sequence[str]
    train_counts: Sequence[int]
    accuracies: Sequence[float]
    confusions: Sequence[Confusion]
    options: str

    def html(self) -> str:
        """The whole document."""
        title = html.escape(self.title)
        facts = "".join(
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
            for name, value in self.facts.items()
        )
        return "\n".join(
            [
                '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
                f"<title>{title}</title><style>{_STYLE}</style></head><body>",
                f"<h1>{title}</h1><table>{facts}</table>",
                f"<h2>By epoch</h2>{_curves(self.log)}",
                f"<h2>By class</h2>{self._scatter()}{self._hardest()}",
                f"<h2>Most confused pairs</h2>{_confusions(self.confusions)}",
                f"<h2>Options</h2><pre><code>{html.escape(self.options)}</code></pre>",
                "</body></html>\n",
            ]
        )

    def _scatter(self) -> str:
        points = [
            (float(count), accuracy, name)
            for count, accuracy, name in zip(
                self.train_counts, self.accuracies, self.class_names, strict=True
            )
            if count > 0 and not math.isnan(accuracy)
        ]
        caption = "Each class: its accuracy against its number of training images"
        return _figure(scatter_chart(points), caption)

    def _hardest(self) -> str:
        known = [i for i, accuracy in enumerate(self.accuracies) if not math.isnan(accuracy)]
        hardest = sorted(known, key=lambda i: (self.accuracies[i], i))[:10]
        rows = "".join(
            f"<tr><td>{html.escape(self.class_names[i])}</td>"
            f'<td class="n">{self.train_counts[i]}</td>'
            f'<td class="n">{self.accuracies[i]:.0%}</td></tr>'
            for i in hardest
        )
        return (
            '<figure><table><tr><th>hardest classes</th><th class="n">training images</th>'
            f'<th class="n">top-1</th></tr>{rows}</table></figure>'
        )


def _curves(log: Sequence[Mapping[str, str]]) -> str:
    def line(split: str, column: str, factor: float = 1.0) -> list[tuple[float, float]]:
        return [
            (float(row["epoch"]), float(row[column]) * factor)
            for row in log
            if row["split"] == split and row.get(column)
        ]

    charts = [
        ("Loss", {"train": line("train", "loss"), "val": line("val", "loss")}),
        ("Top-1, %", {"train": line("train", "top1", 100), "val": line("val", "top1", 100)}),
        (
            "Macro-average top-1 on val, %",
            {
                "as trained": line("val", "macro_top1", 100),
                "prior corrected": line("val", "corrected_macro_top1", 100),
            },
        ),
        ("Images per second in training", {"train": line("train", "images_per_second")}),
        ("Time waiting for data, %", {"train": line("train", "waiting_share", 100)}),
        ("Learning rate", {"train": line("train", "learning_rate")}),
    ]
    return "".join(_figure(line_chart(series), caption) for caption, series in charts)


def _figure(body: str, caption: str) -> str:
    return f"<figure>{body}<figcaption>{html.escape(caption)}</figcaption></figure>"


def ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers within [low, high]."""
    span = high - low
    if not span > 0:
        return [low]
    step = 10.0 ** math.floor(math.log10(span / 3))
    step = next(step * m for m in (1, 2, 5, 10) if span / (step * m) <= 6)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def line_chart(series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """An SVG of lines over epochs.

    Args:
        series: Name -> (epoch, value), in order.
    """
    finite = {
        name: [(x, y) for x, y in points if math.isfinite(y)] for name, points in series.items()
    }
    every = [point for points in finite.values() for point in points]
    if not every:
        return _empty_chart()
    xs, ys = [x for x, _ in every], [y for _, y in every]
    axes = _Axes((min(xs), max(xs)), (min(0.0, *ys), max(ys) * 1.05 or 1.0))
    parts = [axes.grid("epoch")]
    for number, (name, points) in enumerate(finite.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{axes.x(x):.1f}" cy="{axes.y(y):.1f}" r="2.5" fill="{colour}"/>'
            for x, y in points
        ]
        place = _MARGIN["left"] + number * _LEGEND
        parts.append(f'<text x="{place}" y="12" style="fill:{colour}">{html.escape(name)}</text>')
    return _svg(parts)


def scatter_chart(points: Sequence[tuple[float, float, str]]) -> str:
    """An SVG of classes: (images, accuracy in [0, 1], name); the name shows on hover."""
    if not points:
        return _empty_chart()
    places = [math.log10(count) for count, _, _ in points]
    axes = _Axes((min(places) - 0.05, max(places) + 0.05), (0.0, 1.05), logarithmic=True)
    parts = [axes.grid("training images")]
    parts += [
        f'<circle cx="{axes.x(place):.1f}" cy="{axes.y(accuracy):.1f}" r="3" fill="{_COLOURS[0]}" '
        f'fill-opacity="0.5"><title>{html.escape(name)}: {accuracy:.0%}, {count:.0f} images</title>'
        "</circle>"
        for place, (count, accuracy, name) in zip(places, points, strict=True)
    ]
    return _svg(parts)


@dataclass(frozen=True, slots=True)
class _Axes:
    across: tuple[float, float]
    upwards: tuple[float, float]
    logarithmic: bool = False

    def x(self, value: float) -> float:
        span = (self.across[1] - self.across[0]) or 1.0
        room = WIDTH - _MARGIN["left"] - _MARGIN["right"]
        return _MARGIN["left"] + (value - self.across[0]) / span * room

    def y(self, value: float) -> float:
        span = (self.upwards[1] - self.upwards[0]) or 1.0
        room = HEIGHT - _MARGIN["top"] - _MARGIN["bottom"]
        return HEIGHT - _MARGIN["bottom"] - (value - self.upwards[0]) / span * room

    def grid(self, label: str) -> str:
        parts = []
        left, right, bottom = _MARGIN["left"], WIDTH - _MARGIN["right"], HEIGHT - _MARGIN["bottom"]
        for value in ticks(*self.upwards):
            y = self.y(value)
            parts.append(
                f'<line x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
                f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'
            )
        for value in self._marks():
            name = 10**value if self.logarithmic else value
            parts.append(
                f'<text x="{self.x(value):.1f}" y="{bottom + 15}" text-anchor="middle">'
                f"{name:.4g}</text>"
            )
        parts.append(f'<text x="{right}" y="{bottom + 28}" text-anchor="end">{label}</text>')
        return "".join(parts)

    def _marks(self) -> list[float]:
        low, high = self.across
        if not self.logarithmic:
            return [value for value in ticks(low, high) if value == round(value)] or [low]
        decades = range(math.floor(low), math.ceil(high) + 1)
        marks = [math.log10(m * 10**d) for d in decades for m in (1, 2, 5)]
        return [mark for mark in marks if low <= mark <= high]


def _svg(parts: Sequence[str]) -> str:
    body = "".join(parts)
    return f'<svg width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}">{body}</svg>'


def _empty_chart() -> str:
    return _svg(
        [f'<text x="{WIDTH // 2}" y="{HEIGHT // 2}" text-anchor="middle">nothing yet</text>']
    )


def _confusions(confusions: Sequence[Confusion]) -> str:
    if not confusions:
        return "<p>None: every validation image is right.</p>"
    rows = "".join(
        f"<tr><td>{_thumbnail(pair.mistaken)}{html.escape(pair.truth)}</td>"
        f"<td>{_thumbnail(pair.typical)}{html.escape(pair.answer)}</td>"
        f'<td class="n">{pair.count} of {pair.of}</td></tr>'
        for pair in confusions
    )
    return (
        '<table><tr><th>is</th><th>was taken for</th><th class="n">images</th></tr>'
        f"{rows}</table><p>Left a mistaken image, right one of the other class.</p>"
    )


def _thumbnail(jpeg: bytes | None) -> str:
    if jpeg is None:
        return ""
    text = base64.b64encode(jpeg).decode("ascii")
    return f'<img alt="" src="data:image/jpeg;base64,{text}">'


class Thumbnails:
    """Small JPEGs of the images of a split.

    Args:
        directory: Of the shards.
        split: Name of the split.
    """

    def __init__(self, directory: Path, split: str) -> None:
        self._directory = directory
        self._index = read_index(directory, split)
        self._shards = read_manifest(directory).splits[split].shards

    def __getitem__(self, row: int) -> bytes | None:
        """The image of one row of the index; None if it cannot be read."""
        sample = self._index[row]
        try:
            with (self._directory / self._shards[int(sample["shard"])].name).open("rb") as file:
                file.seek(int(sample["offset"]))
                pixels = decode_image(file.read(int(sample["size"])))
        except (OSError, ImageError):
            return None
        image = Image.fromarray(pixels)
        image.thumbnail((_THUMBNAIL, _THUMBNAIL))
        jpeg = io.BytesIO()
        image.save(jpeg, "JPEG", quality=80)
        return jpeg.getvalue()
