"""The answers of a model, as files: CSV for a spreadsheet, JSON lines for a program, HTML to look.

Each has one row for each photograph, in their order; a photograph that was not read has a reason.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastload.console import page
from fastload.console.terminal import counted
from fastload.files import spreadsheet_cell, write_atomically

_MAIN = {
    "macro_top1": "macro-average top-1",
    "top1": "top-1",
    "macro_top5": "macro-average top-5",
    "top5": "top-5",
}  # figures that are shown first -> their names
PICTURES_SHOWN = 500  # on a page: some 5 MB of thumbnails


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the model sees in one photograph.

    Attributes:
        name: The photograph.
        split: Its split; "" where there are none.
        truth: The label of its class; None where that is not known.
        labels: The labels of the best answers, the best one first.
        probabilities: Of the best answers, in [0, 1].
        within: The labels of the set, the most probable first; None where no set was asked for.
        reason: Why it was not read; "" where it was.
        thumbnail: A small JPEG of it, or None.
    """

    name: str
    split: str = ""
    truth: int | None = None
    labels: Sequence[int] = ()
    probabilities: Sequence[float] = ()
    within: Sequence[int] | None = None
    reason: str = ""
    thumbnail: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """The answers of a model to all photographs.

    Attributes:
        model: Which model answered.
        classes: Names of the class folders, by label.
        class_names: Readable names, by label.
        top: How many answers a photograph has.
        rows: One for each photograph.
        figures: Split -> the figures of the photographs whose class is known.
    """

    model: str
    classes: Sequence[str]
    class_names: Sequence[str]
    top: int
    rows: list[Answer] = field(default_factory=list)
    figures: dict[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def not_read(self) -> list[Answer]:
        """The photographs that were not read."""
        return [row for row in self.rows if row.reason]

    def write(self, path: Path) -> None:
        """Write a file whole or not at all; the extension says what.

        Raises:
            OSError: If it cannot be written.
        """
        write_atomically(path, WRITERS[path.suffix.lower()](self).encode("utf-8"))


def as_csv(answers: Answers) -> str:
    """The table for a spreadsheet, which knows UTF-8 by the mark at its beginning."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    rows = answers.rows
    named = list(answers.classes) != list(answers.class_names)
    split = any(row.split for row in rows)
    known = any(row.truth is not None for row in rows)
    within = any(row.within is not None for row in rows)
    failed = any(row.reason for row in rows)
    heads = ["file", *["split"] * split, *["label"] * known]
    for place in range(1, answers.top + 1):
        heads += [f"answer_{place}", *[f"class_{place}"] * named, f"probability_{place}"]
    writer.writerow([*heads, *["set"] * within, *["not_read"] * failed])
    names = [_cell(name) for name in answers.class_names]
    classes = [_cell(name) for name in answers.classes]
    for row in rows:
        cells = [_cell(row.name), *[_cell(row.split)] * split]
        cells += ["" if row.truth is None else names[row.truth]] * known
        for place in range(answers.top):
            if row.reason:
                cells += [""] * (2 + named)
                continue
            label = row.labels[place]
            cells += [names[label], *[classes[label]] * named, f"{row.probabilities[place]:.6g}"]
        cells += ["; ".join(names[label] for label in row.within or ())] * within
        writer.writerow([*cells, *[_cell(row.reason)] * failed])
    return "\ufeff" + text.getvalue()


def as_json_lines(answers: Answers) -> str:
    """One JSON object in each line."""
    return "".join(
        json.dumps(_json_row(row, answers), ensure_ascii=False) + "\n" for row in answers.rows
    )


def _json_row(row: Answer, answers: Answers) -> dict[str, Any]:
    def shown(label: int) -> dict[str, str]:
        return {"class": _text(answers.classes[label]), "name": _text(answers.class_names[label])}

    found: dict[str, Any] = {"file": _text(row.name)}
    if row.split:
        found["split"] = row.split
    if row.truth is not None:
        found["label"] = shown(row.truth)
    if row.reason:
        return {**found, "not_read": _text(row.reason)}
    found["answers"] = [
        {**shown(label), "probability": float(f"{probability:.6g}")}
        for label, probability in zip(row.labels, row.probabilities, strict=True)
    ]
    if row.within is not None:
        found["set"] = [_text(answers.classes[label]) for label in row.within]
    return found


def as_html(answers: Answers) -> str:
    """One page with pictures and answers, without links or scripts."""
    read = [row for row in answers.rows if not row.reason]
    shown, failed = read[:PICTURES_SHOWN], answers.not_read
    parts = [f"<p>{counted(len(read), 'photograph')}, answers of {page.name(answers.model)}.</p>"]
    if len(shown) < len(read):
        parts.append(
            f"<p>The first {len(shown):,} of them are shown; CSV and JSON lines have them all.</p>"
        )
    if answers.figures:
        parts.append(_figures(answers.figures))
    cards = [page.card(_picture(row), _lines(row, answers.class_names)) for row in shown]
    parts.append(f'<div class="cards">{"".join(cards)}</div>')
    if failed:
        rows = [(page.escaped(row.name), page.escaped(row.reason)) for row in failed]
        parts.append(f"<h2>Not read: {counted(len(failed), 'file')}</h2>")
        parts.append(page.table(("file", "reason"), rows[: 10 * PICTURES_SHOWN], numbers=()))
    return page.document("Answers", map(_text, parts))


def _picture(row: Answer) -> page.Picture:
    return page.Picture(jpeg=row.thumbnail, place=_text(row.name))


def _lines(row: Answer, names: Sequence[str]) -> Iterator[str]:
    yield page.name(os.path.basename(row.name))  # noqa: PTH119  a name within a tar is no path
    if row.truth is not None:
        label = page.name(names[row.truth])
        yield "as labelled" if row.truth == row.labels[0] else f"<b>not as labelled:</b> {label}"
    yield "".join(
        f"<div {page.filled(probability)}>{probability:.1%} {page.name(names[label])}</div>"
        for label, probability in zip(row.labels, row.probabilities, strict=True)
    )


def _figures(figures: Mapping[str, Mapping[str, float]]) -> str:
    """The figures of each split: the main ones in percent, and below them all."""
    heads = ["split", *_MAIN.values()]
    main = [
        [page.escaped(split or "all"), *(_percent(found.get(name)) for name in _MAIN)]
        for split, found in figures.items()
    ]
    table = page.table(heads, main, numbers=range(1, len(heads)))
    return f"{table}<details><summary>All figures</summary>{_all_figures(figures)}</details>"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _all_figures(figures: Mapping[str, Mapping[str, float]]) -> str:
    heads = ["figure", *(page.escaped(split or "all") for split in figures)]
    names = dict.fromkeys(name for found in figures.values() for name in found)
    rows = [
        [name, *(f"{found.get(name, math.nan):.4g}" for found in figures.values())]
        for name in names
    ]
    return page.table(heads, rows, numbers=range(1, len(heads)))


def _text(text: str) -> str:
    r"""The text in UTF-8; a byte of a file name that is not becomes \xff."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _cell(text: str) -> str:
    return spreadsheet_cell(_text(text))


WRITERS: dict[str, Callable[[Answers], str]] = {
    ".csv": as_csv,
    ".jsonl": as_json_lines,
    ".html": as_html,
}
