"""report.html: what a run has learned, as one page that can be mailed and opened anywhere.

Charts are inline SVG and thumbnails are data URIs. Only images that lie in place as files are
linked to, from where the page lies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastload.console.page import (
    Picture,
    bar,
    card,
    document,
    escaped,
    facts,
    figure,
    name,
    place,
    table,
)
from fastload.console.terminal import counted, printable
from fastload.installation import install_command
from train.audit import Finding
from train.calibration import Calibration
from train.charts import can_draw, line_chart, reliability_chart, scatter_chart
from train.class_sizes import ClassTable, group_by_size
from train.confusion import Confusion


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubts:
    """What a second look at the training images has found.

    Attributes:
        images: Training images that were looked at.
        total: Training images in all.
        doubtful: How many have a label that may be wrong.
        hard: How many others were answered wrong.
        first_doubtful: The first of the doubtful ones.
        first_hard: The first of the others.
    """

    images: int
    total: int
    doubtful: int
    hard: int
    first_doubtful: Sequence[Finding]
    first_hard: Sequence[Finding]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the report shows.

    Attributes:
        title: The name of the run.
        facts: Name -> value, for the table at the top.
        log: Rows of log.csv.
        classes: What is known of each class.
        calibration: What the probabilities on the validation split are worth, at the temperature
            and at temperature 1.
        temperature: What the logits are divided by.
        confusions: The confusions of the validation split, most frequent first.
        doubts: The training images to look at; None where nobody has looked.
        options: The options of the run, as TOML.
    """

    title: str
    facts: Mapping[str, str]
    log: Sequence[Mapping[str, str]]
    classes: ClassTable
    calibration: tuple[Calibration, Calibration]
    temperature: float
    confusions: Sequence[Confusion]
    doubts: Doubts | None
    options: str

    def html(self) -> str:
        """The whole document."""
        return document(
            self.title,
            [
                facts((escaped(key), escaped(value)) for key, value in self.facts.items()),
                f"<h2>By epoch</h2>{_curves(self.log)}",
                f"<h2>By class</h2>{_scatter(self.classes)}{_hardest(self.classes)}",
                f"<h2>By number of training images</h2>{_by_size(self.classes)}",
                f"<h2>What a probability is worth</h2>{self._calibration()}",
                f"<h2>Most confused pairs</h2>{_confusions(self.confusions)}",
                f"<h2>Training images to look at</h2>{_doubts(self.doubts)}",
                f"<h2>Options</h2>{_folded('All, as TOML', self.options)}",
            ],
        )

    def _calibration(self) -> str:
        fitted, raw = self.calibration
        if math.isnan(fitted.error):
            return "<p>Nobody knows: no image of val was read.</p>"
        errors = (
            f"On val the probabilities of the answers are {_points(fitted.error)} off at the "
            f"temperature {self.temperature:.3g}, which was fitted there, and {_points(raw.error)} "
            "off without it (expected calibration error)."
        )
        caption = "Share of right answers against their probability; on the diagonal they are equal"
        chart = ""
        if can_draw():
            series = {"fitted temperature": fitted.bins, "temperature 1": raw.bins}
            points = {
                label: [(part.confidence, part.accuracy, part.count) for part in bins if part.count]
                for label, bins in series.items()
            }
            chart = figure(reliability_chart(caption, points), escaped(caption))
        rows = [
            (
                f"{number / len(fitted.bins):.0%}–{(number + 1) / len(fitted.bins):.0%}",
                f"{part.count:,}",
                f"{part.confidence:.0%}",
                f"{part.accuracy:.0%}",
                bar(part.accuracy),
            )
            for number, part in enumerate(fitted.bins)
            if part.count
        ]
        heads = ("probability", "answers", "mean", "right", "")
        return f"<p>{errors}</p>{chart}<figure>{table(heads, rows, numbers=(0, 1, 2, 3))}</figure>"


def _folded(title: str, text: str) -> str:
    code = f"<pre><code>{escaped(text)}</code></pre>"
    return f"<details><summary>{title}</summary>{code}</details>"


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"


def _scatter(classes: ClassTable) -> str:
    if not can_draw():
        return ""
    points = [
        (float(count), accuracy, printable(label))
        for count, accuracy, label in zip(
            classes.train_counts, classes.accuracies, classes.names, strict=True
        )
        if count > 0 and not math.isnan(accuracy)
    ]
    caption = "Each class: its accuracy against its number of training images"
    return figure(scatter_chart(caption, points), escaped(caption))


def _hardest(classes: ClassTable) -> str:
    known = [i for i, accuracy in enumerate(classes.accuracies) if not math.isnan(accuracy)]
    # Of equal ones first those that had most to learn from: in a long tail many are at 0.
    hardest = sorted(known, key=lambda i: (classes.accuracies[i], -classes.train_counts[i], i))[:10]
    rows = [
        (name(classes.names[i]), f"{classes.train_counts[i]:,}", f"{classes.accuracies[i]:.0%}")
        for i in hardest
    ]
    heads = ("hardest classes", "training images", "top-1")
    return f"<figure>{table(heads, rows, numbers=(1, 2))}</figure>"


def _by_size(classes: ClassTable) -> str:
    rows = [
        (
            group.title,
            f"{group.classes:,}",
            f"{group.train_images:,}",
            f"{group.val_images:,}",
            "–" if math.isnan(group.accuracy) else f"{group.accuracy:.0%}",
            "" if math.isnan(group.accuracy) else bar(group.accuracy),
        )
        for group in group_by_size(classes)
    ]
    heads = ("images of a class", "classes", "training images", "images of val", "top-1", "")
    caption = "Top-1 is the mean over the classes of a row, each by its own images of val."
    return f"{table(heads, rows, numbers=(1, 2, 3, 4))}<p>{caption}</p>"


def _curves(log: Sequence[Mapping[str, str]]) -> str:
    if not can_draw():
        command = escaped(install_command("report"))
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
    return "".join(
        figure(line_chart(caption, series), escaped(caption)) for caption, series in charts
    )


def _confusions(confusions: Sequence[Confusion]) -> str:
    if not confusions:
        return "<p>None: no image of val got a wrong answer.</p>"
    pairs = "".join(
        f'<div class="pair"><div><b>{name(pair.truth)}</b>, {pair.count:,} of {pair.of:,}<br>'
        f"{_pictures(pair.mistaken)}</div><div>taken for <b>{name(pair.answer)}</b><br>"
        f"{_pictures(pair.typical)}</div></div>"
        for pair in confusions
    )
    return f"<p>First images that were mistaken, then images of the other class.</p>{pairs}"


def _pictures(pictures: Sequence[Picture]) -> str:
    return "".join(picture.html() for picture in pictures)


def _doubts(doubts: Doubts | None) -> str:
    if doubts is None:
        return (
            "<p>Nobody has looked: <code>--audit</code> was 0, or the run said why it could "
            "not look.</p>"
        )
    looked = f"{counted(doubts.images, 'training image')} of {doubts.total:,} were looked at again"
    if doubts.images == doubts.total:
        looked = f"All {counted(doubts.total, 'training image')} were looked at again"
    return (
        f"<p>{looked}, by the best epoch. It is confident of another class than the label for "
        f"{doubts.doubtful:,}, and answers {doubts.hard:,} others wrong. "
        '<a href="audit.csv">audit.csv</a> lists the first thousand of both, by their loss.</p>'
        f"<h3>Perhaps mislabelled</h3>{_cards(doubts.first_doubtful)}"
        f"<h3>Hardest of the others</h3>{_cards(doubts.first_hard)}"
    )


def _cards(findings: Sequence[Finding]) -> str:
    if not findings:
        return "<p>None.</p>"
    cards = "".join(
        card(
            found.picture,
            (
                f"labelled <b>{name(found.truth)}</b>",
                f"looks like <b>{name(found.answer)}</b>, {found.probability:.1%}",
                place(found.picture.place),
            ),
        )
        for found in findings
    )
    return f'<div class="cards">{cards}</div>'
