"""What the data hold, as one page to look at: counts, tail, sizes, samples, what was set aside.

The page is one file without scripts. The browser draws the names, so every script is shown.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastload.advise.aside import aside_parts, repeat_parts
from fastload.advise.by_class import ClassSamples, draw_by_class
from fastload.advise.contents import RARE, imbalance, size_columns, size_rows, split_rows
from fastload.advise.diagrams import histogram, long_tail
from fastload.console import page
from fastload.console.terminal import counted
from fastload.errors import ShardError
from fastload.files import lies_within
from fastload.load.augment import Augment
from fastload.prepare.report import REPORT_NAME, Row, repeat_lines, rows_in
from fastload.store.collection import Found, collection_of, find_data, read_beside
from fastload.store.manifest import Manifest
from fastload.store.mapped import Index
from fastload.store.places import FOLDER_NAME, PlacedData, Places, index_folder
from fastload.store.remote import name_of

MOST_CLASSES = 3000  # that are listed; pictures of all would be gigabytes of the browser's memory
_OPEN = 8  # classes whose samples are shown before anyone asks
_MOST_REPORT_BYTES = 64 << 20  # some 500,000 files
_LONGEST = 200  # letters of a name


def draw_page(
    data: str | os.PathLike[str],
    split: str,
    *,
    augment: Augment,
    seed: int = 0,
    source: Path | None = None,
) -> str:
    """The page of a shard directory or of data in place.

    Args:
        data: Directory or address of the shards, or data in place.
        split: The split whose classes and sizes are shown.
        augment: How the samples are varied.
        seed: Of the choice of samples and of their crops.
        source: The folder that the shards were made from, or that what was set aside was moved to;
            None: that of data in place, and unknown for shards and where the index that was named
            says that its data lie elsewhere.

    Returns:
        HTML that encodes as UTF-8.

    Raises:
        ShardError: If the data are missing or damaged.
    """
    found = find_data(data)
    in_place = isinstance(found, PlacedData)
    contents = found.places if isinstance(found, PlacedData) else found.manifest
    collection = collection_of([found], split)
    counts = np.array(contents.splits[split].class_counts)
    if source is None and isinstance(found, PlacedData) and found.bucket is None:
        source = _folder_named(data, found)
    samples = draw_by_class(data, split, collection, augment=augment, seed=seed)
    aside, repeats = _told(found, contents.cleaning, source)
    parts = [
        _facts(contents, in_place=in_place),
        *_leading_to(contents.cleaning, repeats),
        "<h2>The long tail</h2>",
        f"<p>Images of each class of {page.name(split)}; the dashed line is at {RARE}.</p>",
        long_tail(counts, RARE),
        *_tail(counts),
        f"<h2>Sizes</h2>{_sizes(collection.index)}",
        "<h2>Classes, as a model sees them</h2>",
        *_classes(contents.class_names, counts, samples),
        '<h2 id="aside">Set aside</h2>',
        *(aside or ["<p>Nothing.</p>"]),
        *repeats,
    ]
    return page.document(f"{name_of(data)}, {split}", parts)


def _folder_named(data: str | os.PathLike[str], found: PlacedData) -> Path | None:
    """The folder of data in place, if it is the one that was named, or lies in it.

    What an index says came with the data. It decides which images are read, each checked by its
    CRC-32; a file that the report names is not checked, so it must not lie anywhere on this disk.
    """
    beside, root = index_folder(data), Path(found.root)
    named = beside.parent if beside.name == FOLDER_NAME else beside.parents[1]
    return root if lies_within(root, named) else None


def read_report(found: Found) -> list[Row] | None:
    """The lines of the cleaning report; None where there is none.

    Raises:
        ShardError: If it is too large to be shown, or damaged.
    """
    report = read_beside(found, REPORT_NAME, _MOST_REPORT_BYTES)
    return None if report is None else rows_in(report, REPORT_NAME)


def _told(
    found: Found, cleaning: Mapping[str, int], source: Path | None
) -> tuple[list[str], list[str]]:
    """What the report says: of what was set aside, and of what stands there several times."""
    try:
        rows = read_report(found)
    except ShardError as error:
        return [f"<p>Not shown: {page.escaped(str(error))}.</p>"], []
    if rows is None:
        count = counted(sum(cleaning.values()), "file")
        missing = f"<p>{count}; there is no {REPORT_NAME} that names them.</p>"
        return [missing] * any(cleaning.values()), []
    aside, repeats = aside_parts(rows, source), repeat_parts(rows, source)
    for parts in (aside, repeats):
        if parts and source is None:
            words = "Without pictures: <code>--source DIR</code> names their folder."
            parts.insert(0, f"<p>{words}</p>")
    if repeats:
        said = "".join(f"{line}; each copy is seen in an epoch." for line in repeat_lines(rows))
        repeats = ['<h2 id="repeats">Repeats</h2>', f"<p>{said}</p>", *repeats]
    return aside, repeats


def _leading_to(cleaning: Mapping[str, int], repeats: Sequence[str]) -> list[str]:
    """Links to what stands below all classes."""
    links = []
    if count := sum(cleaning.values()):
        links.append(f'<a href="#aside">{counted(count, "file")} set aside</a>')
    if repeats:
        links.append('<a href="#repeats">Repeats within a class</a>')
    return [f"<p>{' · '.join(links)}</p>"] * bool(links)


def _tail(counts: NDArray[np.int64]) -> list[str]:
    """How long the tail is, as a table, and what follows from it."""
    lines = [line.partition(": ") for line in imbalance(counts)]
    known = [(page.escaped(head), page.escaped(said)) for head, _, said in lines if said]
    advice = [page.escaped(head[:1].upper() + head[1:]) for head, _, said in lines if not said]
    return [page.facts(known), *(f"<p>{line}.</p>" for line in advice)]


def _facts(contents: Manifest | Places, *, in_place: bool) -> str:
    heads, *rows = [[page.escaped(cell) for cell in row] for row in split_rows(contents)]
    kind = "read where they lie" if in_place else "stored as shards"
    total = sum(one.samples for one in contents.splits.values())
    classes = counted(len(contents.class_names), "class")
    said = f"<p>{counted(total, 'image')} of {classes}, {kind}.</p>"
    stored = "; ".join(f"{count:,} {name}" for name, count in contents.stored.items() if count)
    stored = f"<p>Stored: {page.escaped(stored)}.</p>" * bool(stored)
    return said + page.table(heads, rows, numbers=range(1, len(heads))) + stored


def _sizes(index: Index) -> str:
    heads, *rows = size_rows(index)
    plots = "".join(
        f"<div><b>{name}</b>{histogram(name, values)}</div>"
        for name, values in size_columns(index).items()
    )
    table = page.table(heads, rows, numbers=range(1, len(heads)))
    return f'{table}<div class="plots">{plots}</div>'


def _classes(names: tuple[str, ...], counts: NDArray[np.int64], samples: ClassSamples) -> list[str]:
    order = np.argsort(-counts, kind="stable").tolist()
    cut = len(order) - MOST_CLASSES
    shown = order if cut <= 0 else order[: MOST_CLASSES // 2] + order[-(MOST_CLASSES // 2) :]
    parts = [f"<p>{_about(counts, samples)}</p>"]
    for place, label in enumerate(shown):
        if cut > 0 and place == MOST_CLASSES // 2:
            parts.append(f"<p>… {cut:,} more; <code>--all</code> prints them.</p>")
        count = int(counts[label])
        drawn = "".join(
            page.image(jpeg, names[label][:_LONGEST]) for jpeg in samples.jpegs.get(label, ())
        )
        said = f"<b>{label}</b> {page.name(_shortened(names[label]))}: {counted(count, 'image')}"
        summary = f"<summary {page.filled(count / counts.max())}>{said}</summary>"
        is_open = " open" if place < _OPEN else ""
        parts.append(f"<details{is_open}>{summary}{drawn or 'no picture'}</details>")
    return parts


def _about(counts: NDArray[np.int64], samples: ClassSamples) -> str:
    present = int(np.count_nonzero(counts))
    said = (
        f"Up to {samples.each} of each class, cropped and varied as for training; the most "
        "frequent class first. A class opens and closes by a click, or by Enter."
    )
    if len(samples.jpegs) < present:
        said += f" {len(samples.jpegs):,} of {present:,} classes have pictures here."
    return said


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[:_LONGEST]}…"
