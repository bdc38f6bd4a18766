"""What data hold, in a few lines of HTML: how a notebook shows a manifest or an index in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fastload.console.page import escaped, name, table
from fastload.console.terminal import counted

SHOWN = 8  # classes at each end of a long list


def split_table(splits: Mapping[str, tuple[int, Sequence[int]]]) -> str:
    """A table of splits.

    Args:
        splits: Name -> images, and images of each class.
    """
    rows = [
        (name(split), f"{images:,}", f"{sum(count > 0 for count in counts):,}")
        for split, (images, counts) in splits.items()
    ]
    return table(("split", "images", "classes"), rows, numbers=(1, 2))


def class_table(class_names: Sequence[str], counts: Sequence[int]) -> str:
    """A table of the classes, from the most to the least frequent; both ends of a long list."""
    order = sorted(range(len(counts)), key=lambda label: (-counts[label], label))
    rows = [(str(label), name(class_names[label]), f"{counts[label]:,}") for label in order]
    if len(rows) > 2 * SHOWN:
        more = ("…", f"{len(rows) - 2 * SHOWN:,} more", "")
        rows = [*rows[:SHOWN], more, *rows[-SHOWN:]]
    return table(("label", "class", "images"), rows, numbers=(0, 2))


def contents_html(
    splits: Mapping[str, tuple[int, Sequence[int]]],
    class_names: Sequence[str],
    *,
    stored: Mapping[str, int],
    cleaning: Mapping[str, int],
) -> str:
    """What data hold: splits, how images are stored, what was set aside.

    Args:
        splits: See `split_table`.
        class_names: By label.
        stored: How -> number of images.
        cleaning: Reason -> number of files that were set aside.
    """
    images = counted(sum(count for count, _ in splits.values()), "image")
    lines = [f"<p>{images} of {counted(len(class_names), 'class')}</p>", split_table(splits)]
    for title, facts in (("stored", stored), ("set aside", cleaning)):
        said = "; ".join(f"{count:,} {escaped(what)}" for what, count in facts.items() if count)
        lines += [f"<p>{title}: {said}</p>"] * bool(said)
    return "".join(lines)
