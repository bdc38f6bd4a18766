"""What a shard directory holds, as text: splits, classes, sizes, what was set aside.

`page` says the same in a browser, by the same sums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from wcwidth import ljust
from wcwidth import width as cells

from fastload.console.terminal import bar, byte_size, counted, elide, for_encoding, printable, table
from fastload.store.manifest import Manifest, Split
from fastload.store.mapped import Index
from fastload.store.places import Places

RARE = 20  # images; a class with fewer is hardly learned, and its accuracy is hardly known
REWEIGHT_RATIO = 10  # of the most to the least frequent class; a usual start of "long-tailed"
SHOWN = 12  # classes at each end of a long list

WIDEST = 120  # columns; longer lines are hard to follow
NAME_CELLS = 36


def report(
    contents: Manifest | Places,
    split: str,
    index: Index,
    *,
    width: int = 80,
    whole: bool = False,
    encoding: str = "utf-8",
    repeats: Sequence[str] = (),
) -> list[str]:
    """What is printed about a shard directory, as lines of text.

    Args:
        contents: The manifest of the directory, or the facts of its index in place.
        split: The split whose classes and sizes are shown.
        index: The index of that split, PLACE [N].
        width: Width of the terminal, in columns.
        whole: List every class, however many there are.
        encoding: Encoding of the terminal; what it cannot show becomes ASCII.
        repeats: What is said of images that a class has several times.
    """
    blocks = [
        table(split_rows(contents)),
        _classes(
            [for_encoding(printable(name), encoding) for name in contents.class_names],
            np.array(contents.splits[split].class_counts),
            title=f"classes of {printable(split)}, with their labels and numbers of images",
            width=min(width, WIDEST),
            whole=whole,
        ),
        imbalance(np.array(contents.splits[split].class_counts)),
        table(size_rows(index)) if len(index) else [],
        [*_preparation(contents), *(f"repeats: {line}" for line in repeats)],
    ]
    lines = [line for block in blocks if block for line in ("", *block)]
    return [for_encoding(line, encoding) for line in lines[1:]]


def split_rows(contents: Manifest | Places) -> list[tuple[str, ...]]:
    """A table of the splits, the line of heads included."""
    rows: list[tuple[str, ...]] = [("split", "images", "classes")]
    if isinstance(contents, Manifest):
        rows = [(*rows[0], "shards", "size")]
    for name, split in contents.splits.items():
        present = sum(count > 0 for count in split.class_counts)
        row: tuple[str, ...] = (printable(name), f"{split.samples:,}", f"{present:,}")
        if isinstance(split, Split):
            size = sum(shard.bytes for shard in split.shards)
            row = (*row, f"{len(split.shards):,}", byte_size(size))
        rows.append(row)
    return rows


def _classes(
    class_names: Sequence[str], counts: NDArray[np.int64], *, title: str, width: int, whole: bool
) -> list[str]:
    if not counts.any():
        return []
    order = np.argsort(-counts, kind="stable").tolist()
    cut = len(order) - 2 * SHOWN
    names = [elide(name, NAME_CELLS) for name in class_names]
    shown = order if whole or cut <= 1 else order[:SHOWN] + order[-SHOWN:]
    margin = len(str(len(counts) - 1)) + 2
    name_cells = max(cells(names[label]) for label in shown)
    digits = len(f"{counts.max():,}")
    room = max(8, width - margin - name_cells - digits - 4)
    lines = [
        f"{label:>{margin}}  {ljust(names[label], name_cells)} {counts[label]:>{digits},}"
        f" {bar(counts[label] / counts.max() * room)}".rstrip()
        for label in shown
    ]
    if len(shown) < len(order):
        lines.insert(SHOWN, f"{'…':>{margin}}  {cut:,} more; --all lists them")
    return [title, *lines]


def imbalance(counts: NDArray[np.int64]) -> list[str]:
    """How long the tail is, a sentence each.

    Args:
        counts: [C], images of each class.
    """
    if not counts.any():
        return ["imbalance: there are no images"]
    present = counts[counts > 0]
    most, fewest = present.max(), present.min()
    images = counted(most, "image")
    rare = present[present < RARE]
    share = rare.sum() / counts.sum()
    ascending = np.sort(counts)
    tail = ascending[: round(0.8 * len(ascending))].sum() / counts.sum()
    lines = [
        f"imbalance: {most / fewest:,.1f} : 1, from {images} of a class to {fewest:,}",
        f"rare: {_have(len(rare))} fewer than {RARE} images, {share:.1%} of all images",
        f"long tail: the rarest 80% of the classes hold {tail:.1%} of the images",
    ]
    if len(present) < len(counts):
        lines.append(f"empty: {_have(len(counts) - len(present))} no image")
    if most >= REWEIGHT_RATIO * fewest:
        lines.append('consider Loader(..., reweight="sqrt"), and the average over classes')
    return lines


def _have(classes: int) -> str:
    return f"{counted(classes, 'class')} {'has' if classes == 1 else 'have'}"


def size_rows(index: Index) -> list[tuple[str, ...]]:
    """A table of the sizes of images, the line of heads included; the index has one at least."""
    rows: list[tuple[str, ...]] = [("images", "smallest", "5%", "median", "95%", "largest")]
    for name, values in size_columns(index).items():
        marks = np.percentile(values, [0, 5, 50, 95, 100])
        rows.append((name, *(f"{mark:,.0f}" for mark in marks)))
    return rows


def size_columns(index: Index) -> dict[str, NDArray[np.number]]:
    """What is measured of each image, and in which unit -> [N]."""
    return {
        "width, pixels": index["width"],
        "height, pixels": index["height"],
        "file, kB": index["size"] / 1000,
    }


def _preparation(contents: Manifest | Places) -> list[str]:
    lines = []
    for title, facts in (("stored", contents.stored), ("set aside", contents.cleaning)):
        if any(facts.values()):
            lines += [f"{title}: {_counted(facts)}"]
    return lines


def _counted(facts: Mapping[str, int]) -> str:
    """The facts in words, the largest number first."""
    ordered = sorted(facts.items(), key=lambda fact: -fact[1])
    return "; ".join(f"{count:,} {printable(name)}" for name, count in ordered if count)
