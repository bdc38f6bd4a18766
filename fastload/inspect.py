"""Look at a shard directory: `python -m fastload.inspect shards/`.

Prints what is in it: splits, the classes of one split from the most to the least frequent, sizes of
the images, how they were stored and what was set aside. Draws a contact sheet of what a model would
see: samples in the order of an epoch, augmented, with their labels.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastload.augment import Augment
from fastload.errors import ShardError, run_command
from fastload.index import Manifest, read_index, read_manifest, write_atomically
from fastload.lettering import Lettering, package_for
from fastload.loader import Loader
from fastload.sampler import class_weights
from fastload.sheet import contact_sheet
from fastload.terminal import bar, byte_size, cells, elide, for_encoding, printable, table
from fastload.world import World

RARE = 20  # images; below it a class is hardly learned, and its accuracy hardly known
REWEIGHT_RATIO = 10  # between most and least frequent class; a usual start of "long-tailed"
SHOWN = 12  # classes at either end of a long list
CAPTION_PIXELS = 13
WIDEST = 120  # columns; longer lines are hard to follow
NAME_CELLS = 36
AUGMENTS: dict[str, Callable[[int], Augment]] = {
    "train": Augment.train,
    "plantnet": lambda size: Augment.plantnet().resized(size),
    "eval": Augment.eval,
}


def report(
    manifest: Manifest,
    split: str,
    index: NDArray[np.void],
    *,
    width: int = 80,
    whole: bool = False,
    encoding: str = "utf-8",
) -> str:
    """All that is printed about a shard directory.

    Args:
        manifest: Of the directory.
        split: Whose classes and sizes are shown.
        index: SAMPLE [N] of that split.
        width: Of the terminal, in columns.
        whole: List every class, however many there are.
        encoding: Of the terminal; what it cannot show becomes ASCII.
    """
    blocks = [
        _splits(manifest),
        _classes(
            [for_encoding(printable(name), encoding) for name in manifest.class_names],
            np.array(manifest.splits[split].class_counts),
            title=f"classes of {printable(split)}, with their labels and numbers of images",
            width=min(width, WIDEST),
            whole=whole,
        ),
        _imbalance(np.array(manifest.splits[split].class_counts)),
        _sizes(index),
        _preparation(manifest),
    ]
    text = "\n\n".join("\n".join(block) for block in blocks if block)
    return for_encoding(text, encoding)


def _splits(manifest: Manifest) -> list[str]:
    rows: list[tuple[str, ...]] = [("split", "images", "classes", "shards", "size")]
    for name, split in manifest.splits.items():
        present = sum(count > 0 for count in split.class_counts)
        size = sum(shard.bytes for shard in split.shards)
        counts = (f"{split.samples:,}", f"{present:,}", f"{len(split.shards):,}")
        rows.append((printable(name), *counts, byte_size(size)))
    return table(rows)


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
    lines = [title]
    for place, label in enumerate(order):
        if len(shown) < len(order) and SHOWN <= place < len(order) - SHOWN:
            if place == SHOWN:
                lines.append(f"{'…':>{margin}}  {cut:,} more; --all lists them")
            continue
        name = names[label] + " " * (name_cells - cells(names[label]))
        length = counts[label] / counts.max() * room
        lines.append(f"{label:>{margin}}  {name} {counts[label]:>{digits},} {bar(length)}".rstrip())
    return lines


def _imbalance(counts: NDArray[np.int64]) -> list[str]:
    if not counts.any():
        return ["imbalance: there are no images"]
    present = counts[counts > 0]
    most, fewest = present.max(), present.min()
    rare = present[present < RARE]
    share = rare.sum() / counts.sum()
    ascending = np.sort(counts)
    tail = ascending[: round(0.8 * len(ascending))].sum() / counts.sum()
    lines = [
        f"imbalance: {most / fewest:,.1f} : 1, from {most:,} images of a class to {fewest:,}",
        f"rare: {len(rare):,} classes have fewer than {RARE} images, {share:.1%} of all images",
        f"long tail: the rarest 80 % of the classes hold {tail:.1%} of the images",
    ]
    if len(present) < len(counts):
        lines.append(f"empty: {len(counts) - len(present):,} classes have no image")
    if most >= REWEIGHT_RATIO * fewest:
        lines.append('consider Loader(..., reweight="sqrt"), and the average over classes')
    return lines


def _sizes(index: NDArray[np.void]) -> list[str]:
    if not len(index):
        return []
    columns = {
        "width, pixels": index["width"],
        "height, pixels": index["height"],
        "file, kB": index["size"] / 1000,
    }
    rows: list[tuple[str, ...]] = [("images", "smallest", "5 %", "median", "95 %", "largest")]
    for name, values in columns.items():
        marks = np.percentile(values, [0, 5, 50, 95, 100])
        rows.append((name, *(f"{mark:,.0f}" for mark in marks)))
    return table(rows)


def _preparation(manifest: Manifest) -> list[str]:
    lines = []
    for title, facts in (("stored", manifest.stored), ("set aside", manifest.cleaning)):
        if any(facts.values()):
            lines += [f"{title}: {_counted(facts)}"]
    return lines


def _counted(facts: Mapping[str, int]) -> str:
    """Largest first."""
    ordered = sorted(facts.items(), key=lambda fact: -fact[1])
    return "; ".join(f"{count:,} {printable(name)}" for name, count in ordered if count)


def draw_sheet(
    directory: Path,
    split: str,
    *,
    augment: Augment,
    count: int = 48,
    seed: int = 0,
    reweight: str | None = None,
    lettering: Lettering,
) -> bytes:
    """The contact sheet of the first samples of an epoch, as a PNG.

    Raises:
        ShardError: If the shards are missing or damaged.
    """
    loader = Loader(
        directory,
        split=split,
        batch_size=count,
        augment=augment,
        reweight=reweight,
        order="shuffled",
        drop_last=False,
        max_corrupt_fraction=1.0,  # this is where one looks for what is wrong
        seed=seed,
        world=World(),
    )
    with loader:
        images, labels = next(iter(loader))
        names = [f"{label} {loader.class_names[label]}" for label in labels.tolist()]
    title = f"{directory.resolve().name}, {split}: {len(names)} samples of epoch 0, seed {seed}"
    pictures = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
    sheet = contact_sheet(pictures, names, lettering, title=title)
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = _parser().parse_args(argv)
    return run_command("fastload.inspect", lambda: _inspect(options))


def _inspect(options: argparse.Namespace) -> int:
    directory: Path = options.shards
    manifest = read_manifest(directory)
    split = options.split or next((name for name in manifest.splits), "train")
    index = read_index(directory, split)
    width = shutil.get_terminal_size().columns
    encoding = sys.stdout.encoding or "ascii"
    _say(report(manifest, split, index, width=width, whole=options.all, encoding=encoding))
    if not len(index):
        raise ShardError(f"split {split!r} has no images to draw", shard=str(directory))
    lettering = Lettering(CAPTION_PIXELS)
    sheet = options.sheet or Path(f"{directory.resolve().name}-sheet.png")
    image = draw_sheet(
        directory,
        split,
        augment=AUGMENTS[options.augment](options.size),
        count=options.count,
        seed=options.seed,
        reweight=options.reweight,
        lettering=lettering,
    )
    write_atomically(sheet, image)
    _say(f"\n{sheet}: a contact sheet of {min(options.count, len(index)):,} samples")
    if lettering.missing:
        _say(
            "labels in it have escapes for characters that no installed font has; install one that"
            f" has them, such as Debian's {package_for(lettering.missing)}, and draw it again",
            error=True,
        )
    return 0


def _say(text: str, *, error: bool = False) -> None:
    stream = sys.stderr if error else sys.stdout
    print(for_encoding(text, stream.encoding or "ascii"), file=stream, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fastload.inspect",
        description="Print what is in a shard directory, and draw augmented samples of it.",
    )
    parser.add_argument("shards", type=Path, help="the shard directory")
    parser.add_argument("--split", help="whose classes are listed and drawn; the first by default")
    parser.add_argument("--all", action="store_true", help="list every class")
    parser.add_argument(
        "--sheet", type=_png, help="the PNG to write; SHARDS-sheet.png here by default"
    )
    parser.add_argument("--augment", choices=AUGMENTS, default="train", help="what to draw")
    parser.add_argument("--size", type=_within(16, 1024), default=160, help="of each image, pixels")
    parser.add_argument("--count", type=_within(1, 1000), default=48, help="of images")
    parser.add_argument("--seed", type=_within(0, 2**63 - 1), default=0, help="of order and crops")
    parser.add_argument(
        "--reweight", type=_rule, help='draw as Loader(reweight=...) would: "sqrt", "inverse", …'
    )
    return parser


def _within(low: int, high: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be in [{low}, {high}], got {value}")
        return value

    return number


def _rule(text: str) -> str:
    try:
        class_weights(np.zeros(1, np.int64), text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _png(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() != ".png":
        raise argparse.ArgumentTypeError(f"must end in .png, got {text}")
    return path


if __name__ == "__main__":
    raise SystemExit(main())
