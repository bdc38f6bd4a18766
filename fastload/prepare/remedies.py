"""Which options would keep what was set aside: a set that is all grey is no accident.

rows of the report ─▶ --convert, --min-side N, or both ─▶ how many of them would be stored
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fastload.prepare.reasons import Reason, Rules
from fastload.prepare.report import Row
from fastload.prepare.source import Source, classes_without_training, training_needed

CONVERTED = frozenset(
    {Reason.MISLABELLED, Reason.GREY, Reason.DEEP, Reason.PALETTE, Reason.ALPHA, Reason.CMYK}
)
_SMALL = re.compile(r"has (\d+) x (\d+) pixels, --min-side is \d+(?:, and (.*))?")
_KEEP_ALL = ("--allow-missing-classes",)
_MANY = 10  # an option is worth a line if it would keep one in so many


@dataclass(frozen=True, slots=True)
class Remedy:
    """Options, and the paths of the files that are stored with them where they are sound."""

    options: tuple[str, ...]
    paths: frozenset[str]


def find_remedies(rows: Iterable[Row], rules: Rules) -> list[Remedy]:
    """What would keep files that were set aside, the option that keeps most first.

    Args:
        rows: Of the report.
        rules: By which the files were set aside.
    """
    kept: dict[bool, set[str]] = {True: set(), False: set()}
    small: dict[bool, dict[str, int]] = {True: {}, False: {}}  # --convert too? path -> side
    for row in rows:
        if row.action == "stored":
            continue
        found = _SMALL.fullmatch(row.detail) if row.reason == Reason.SMALL.slug else None
        if found is not None and (not found[3] or found[3] in _WORDS):
            small[bool(found[3])][row.path] = min(int(found[1]), int(found[2]))
        elif not rules.convert and row.reason in _SLUGS:
            kept[True].add(row.path)
    remedies = [Remedy(("--convert",), frozenset(kept[True]))]
    everything = small[False] | small[True]
    if everything:
        side = _side_for_most(everything.values())
        options: tuple[str, ...] = ("--min-side", str(side))
        paths = {path for path in everything if everything[path] >= side}
        if small[True]:  # small and grey: one of the options is not enough
            options, paths = ("--convert", *options), paths | kept[True]
        remedies.append(Remedy(options, frozenset(paths)))
        if kept[True] and not small[True]:
            remedies.append(Remedy(("--convert", *options), frozenset(paths | kept[True])))
    remedies = [one for one in remedies if one.paths]
    return sorted(remedies, key=lambda one: (-len(one.paths), len(one.options)))


_WORDS = frozenset(reason.words for reason in CONVERTED)
_SLUGS = frozenset(reason.slug for reason in CONVERTED)


def _side_for_most(sides: Iterable[int]) -> int:
    """The --min-side that keeps nine tenths of the images with these shorter sides."""
    ordered = sorted(sides, reverse=True)
    return max(1, ordered[(len(ordered) * 9 - 1) // 10])


def remedy_line(rows: Sequence[Row], rules: Rules) -> str:
    """One line about the options that would keep most; "" where they would keep few."""
    total = sum(row.action != "stored" for row in rows)
    for remedy in find_remedies(rows, rules):
        if len(remedy.paths) * _MANY >= total:
            many = f"{len(remedy.paths):,} of the {total:,} files set aside"
            return f"{many} would be stored with {' '.join(remedy.options)}, where they are sound"
    return ""


def refusal_advice(source: Source, rows: Sequence[Row], rules: Rules) -> str:
    """What a refusal for want of images to train on should name; "" where no option helps."""
    line = remedy_line(rows, rules)
    needed = options_to_shard(source, rows, rules)
    if line or not needed or needed == _KEEP_ALL:
        return line
    return f"each class would have one with {' '.join(needed)}"


def options_to_shard(source: Source, rows: Sequence[Row], rules: Rules) -> tuple[str, ...] | None:
    """The options that sharding needs besides those given, so that it finds images to train on.

    Returns:
        () where it needs none; None where no option helps.
    """
    training = training_needed(source.files)
    aside = {row.path for row in rows if row.action != "stored"}
    fewest = sorted(find_remedies(rows, rules), key=lambda one: len(one.options))
    for remedy in (Remedy((), frozenset()), *fewest):
        gone = aside - remedy.paths
        left = [file for file in source.files if file.path not in gone]
        if not classes_without_training(source.classes, left, training=training):
            return remedy.options
    counted = (file for file in source.files if file.split == "train" or not training)
    if any(file.path not in aside for file in counted):
        return _KEEP_ALL
    return None
