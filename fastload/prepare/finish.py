"""Phase 2 of sharding: duplicates go; shards get names, indexes and the manifest are written."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastload.errors import LayoutError, OutputError
from fastload.files import sha256_of, sync_directory, write_atomically
from fastload.prepare.examine import Dropped, find_duplicates
from fastload.prepare.foreign import dali_index, timm_info
from fastload.prepare.journal import Entry, Journal, State
from fastload.prepare.plan import PlannedShard
from fastload.prepare.reasons import Reason
from fastload.prepare.report import (
    REPORT_NAME,
    Row,
    count_reasons,
    report_rows,
    write_report,
)
from fastload.prepare.source import SPLITS, File, Source
from fastload.store.index import (
    SAMPLE,
    Manifest,
    Shard,
    Split,
    fingerprint,
    write_index,
    write_manifest,
)
from fastload.store.tar import TAR_BLOCK, TarWriter, key_of, label_bytes, next_offset

HOW = ("lossless", "near-lossless", "re-encoded", "original")


@dataclass(slots=True)
class Finished:
    """A shard under its final name.

    Attributes:
        shard: As in the manifest; None where all its files were set aside.
        samples: SAMPLE [N], `shard` not filled in.
        keys: [N]
        sources: [N], paths in the source.
    """

    shard: Shard | None
    samples: NDArray[np.void]
    keys: list[str]
    sources: list[str]


def finish_shard(
    state: State, planned: PlannedShard, journal: Journal, dropped: set[str], num_classes: int
) -> Finished:
    """Give a shard its final name, without the samples that turned out to be duplicates.

    Only a shard that loses one is written again, from itself.
    """
    indices = [index for index in journal.kept if planned.files[index].path not in dropped]
    samples = np.zeros(len(indices), SAMPLE)
    offset = TAR_BLOCK
    for row, index in enumerate(indices):
        entry = journal.kept[index]
        label = planned.files[index].label
        samples[row] = (0, offset, entry.size, label, entry.height, entry.width, entry.crc32)
        offset = next_offset(offset, entry.size)
    keys = [key_of(planned.first + index) for index in indices]
    sources = [planned.files[index].path for index in indices]
    final, partial = state.out / planned.name, state.partial_path(planned.name)
    if not indices:
        partial.unlink(missing_ok=True)
        return Finished(None, samples, keys, sources)
    sha256 = journal.sha256
    if len(indices) < len(journal.kept):
        labels = [label_bytes(planned.files[index].label, num_classes) for index in indices]
        entries = [journal.kept[index] for index in indices]
        sha256 = _rewrite(partial, final, list(zip(keys, entries, labels, strict=True)))
    elif partial.exists():
        partial.replace(final)
    size = final.stat().st_size
    shard = Shard(name=planned.name, bytes=size, sha256=sha256, samples=len(indices))
    return Finished(shard, samples, keys, sources)


def _rewrite(partial: Path, final: Path, samples: Sequence[tuple[str, Entry, bytes]]) -> str:
    """Copy the samples that stay, (key, entry, label) each; returns the SHA-256."""
    if not partial.exists():  # a run that was stopped later has done it
        return sha256_of(final)
    tar = TarWriter(final.with_name(f"{final.name}.rewritten.partial"))
    try:
        with partial.open("rb") as file:
            for key, entry, label in samples:
                file.seek(entry.offset)
                tar.add_sample(key, file.read(entry.size), label)
        sha256 = tar.finish()
        tar.sync()
    except BaseException:
        tar.discard()
        raise
    tar.path.replace(final)
    partial.unlink()
    return sha256


def write_sources(path: Path, finished: Sequence[Finished]) -> None:
    """Which file of the source each key was made from."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("key", "path"))
    for shard in finished:
        writer.writerows(zip(shard.keys, shard.sources, strict=True))
    write_atomically(path, text.getvalue().encode("utf-8", "surrogateescape"))


def refuse_missing(names: Sequence[str], why: str) -> None:
    """Raise `LayoutError` where a class has no image in train."""
    if names:
        shown = ", ".join(repr(name) for name in names[:5]) + (", …" if len(names) > 5 else "")
        raise LayoutError(
            f"{len(names)} of the classes have no image in train{why}: {shown}; add images, remove "
            "the folders, or keep the classes with --allow-missing-classes"
        )


def finish_shards(
    source: Source,
    state: State,
    shards: Sequence[PlannedShard],
    options: dict[str, Any],
    recipe: str,
    allow_missing_classes: bool,
) -> tuple[Manifest, list[Row]]:
    """Phase 2: from the journals to a complete shard directory; returns what was written."""
    reasons = {reason.slug: reason for reason in Reason}
    journals = [_read_finished(state, shard) for shard in shards]
    dropped: dict[str, Dropped] = {}
    changed: dict[str, str] = {}
    digests: list[tuple[File, bytes]] = []
    for shard, journal in zip(shards, journals, strict=True):
        for index, (slug, detail) in journal.dropped.items():
            dropped[shard.files[index].path] = Dropped(reasons[slug], detail)
        for index, entry in journal.kept.items():
            digests.append((shard.files[index], bytes.fromhex(entry.digest)))
            if entry.change:
                changed[shard.files[index].path] = entry.change
    dropped |= find_duplicates(digests)
    kept = [file for file, _ in digests if file.path not in dropped]
    _check_what_is_left(source, kept, allow_missing_classes)
    gone = set(dropped)
    num_classes = len(source.classes)
    finished = [
        finish_shard(state, shard, journal, gone, num_classes)
        for shard, journal in zip(shards, journals, strict=True)
    ]
    rows = report_rows(source, dropped, {p: c for p, c in changed.items() if p not in gone})
    splits = {}
    for split in SPLITS:
        mine = [f for f, shard in zip(finished, shards, strict=True) if shard.split == split]
        if mine:
            splits[split] = _write_split(state.out, split, mine, num_classes)
    write_report(state.out / REPORT_NAME, rows)
    write_atomically(state.out / "_info.json", timm_info(splits))
    stored = Counter(
        entry.how
        for shard, journal in zip(shards, journals, strict=True)
        for index, entry in journal.kept.items()
        if shard.files[index].path not in gone
    )
    manifest = Manifest(
        classes=source.classes,
        class_names=source.class_names,
        splits=splits,
        options=options,
        stored={how: stored[how] for how in HOW},
        cleaning=count_reasons(rows),
        fingerprint=fingerprint(source.classes, splits),
        recipe=recipe,
    )
    sync_directory(state.out)
    write_manifest(state.out, manifest)
    return manifest, rows


def _read_finished(state: State, shard: PlannedShard) -> Journal:
    journal = state.read_journal(shard.name)
    if journal is None:
        raise OutputError(
            f"{state.partial_path(shard.name)} has vanished; run the same command again"
        )
    return journal


def _check_what_is_left(source: Source, kept: Sequence[File], allow_missing_classes: bool) -> None:
    trained = {file.label for file in kept if file.split == "train"}
    if not trained:
        raise OutputError(
            f"none of the {len(source.files):,} files of {source.root} can be trained on; "
            "`python -m fastload.clean` says why"
        )
    if not allow_missing_classes:
        missing = [name for label, name in enumerate(source.classes) if label not in trained]
        refuse_missing(missing, " that can be trained on")


def _write_split(out: Path, split: str, finished: Sequence[Finished], num_classes: int) -> Split:
    shards: list[Shard] = []
    arrays = []
    for one in finished:
        if one.shard is None:
            continue
        one.samples["shard"] = len(shards)
        shards.append(one.shard)
        arrays.append(one.samples)
        path = out / Path(one.shard.name).with_suffix(".idx")
        write_atomically(path, dali_index(one.samples, one.keys, num_classes))
    samples = np.concatenate(arrays) if arrays else np.zeros(0, SAMPLE)
    write_index(out, split, samples)
    write_sources(out / f"{split}.sources.csv", finished)
    counts = np.bincount(samples["label"], minlength=num_classes)
    return Split(samples=len(samples), class_counts=tuple(counts.tolist()), shards=tuple(shards))
