"""report.html: one file without scripts or links, which can be mailed and opened anywhere.

Charts are inline SVG, names are text in any script, thumbnails are data URIs.
"""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastload.console.terminal import printable
from fastload.installation import install_command
from train.charts import can_draw, line_chart, scatter_chart
from train.confusion import Confusion

_STYLE = """
body { font: 15px/1.5 system-ui, "Noto Sans", "Noto Sans CJK SC", sans-serif; color: #222;
       background: #fff; max-width: 980px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin-top: 2em }
table { border-collapse: collapse } td, th { padding: .2em .8em; text-align: left;
       border-bottom: 1px solid #ddd; vertical-align: top } td.n, th.n { text-align: right }
figure { display: inline-block; margin: .5em 1em .5em 0 }
figcaption { font-size: .9em; color: #555 }
svg text { font-family: inherit !important } img { display: block; border-radius: 3px }
code { font-size: .9em }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the report shows.

    Attributes:
        title: The name of the run.
        facts: Name -> value, for the table at the top.
        log: Rows of log.csv.
        class_names: Readable names, by label.
        train_counts: Training images of each class.
        accuracies: Top-1 of each class on the validation split; NaN for a class without samples.
        confusions: The confusions of the validation split, most frequent first.
        options: The options of the run, as TOML.
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
        title = _escaped(self.title)
        facts = "".join(
            f"<tr><th>{_escaped(name)}</th><td>{_escaped(value)}</td></tr>"
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
                f"<h2>Options</h2><pre><code>{_escaped(self.options)}</code></pre>",
                "</body></html>\n",
            ]
        )

    def _scatter(self) -> str:
        if not can_draw():
            return ""
        points = [
            (float(count), accuracy, printable(name))
            for count, accuracy, name in zip(
                self.train_counts, self.accuracies, self.class_names, strict=True
            )
            if count > 0 and not math.isnan(accuracy)
        ]
        caption = "Each class: its accuracy against its number of training images"
        return _figure(scatter_chart(caption, points), caption)

    def _hardest(self) -> str:
        known = [i for i, accuracy in enumerate(self.accuracies) if not math.isnan(accuracy)]
        hardest = sorted(known, key=lambda i: (self.accuracies[i], i))[:10]
        rows = "".join(
            f"<tr><td>{_escaped(self.class_names[i])}</td>"
            f'<td class="n">{self.train_counts[i]}</td>'
            f'<td class="n">{self.accuracies[i]:.0%}</td></tr>'
            for i in hardest
        )
        return (
            '<figure><table><tr><th>hardest classes</th><th class="n">training images</th>'
            f'<th class="n">top-1</th></tr>{rows}</table></figure>'
        )


def _curves(log: Sequence[Mapping[str, str]]) -> str:
    if not can_draw():
        command = _escaped(install_command("report"))
        return f"<p>Charts need matplotlib, which cannot be imported: <code>{command}</code></p>"

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
    return "".join(_figure(line_chart(caption, series), caption) for caption, series in charts)


def _figure(body: str, caption: str) -> str:
    return f"<figure>{body}<figcaption>{_escaped(caption)}</figcaption></figure>"


def _confusions(confusions: Sequence[Confusion]) -> str:
    if not confusions:
        return "<p>None: every validation image is right.</p>"
    rows = "".join(
        f"<tr><td>{_thumbnail(pair.mistaken)}{_escaped(pair.truth)}</td>"
        f"<td>{_thumbnail(pair.typical)}{_escaped(pair.answer)}</td>"
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


def _escaped(text: str) -> str:
    """A text for HTML: names come from folders, and may hold controls and broken UTF-8."""
    return "\n".join(html.escape(printable(line)) for line in text.split("\n"))
