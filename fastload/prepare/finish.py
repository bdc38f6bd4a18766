"""Phase 2 of sharding: duplicates go; shards get names, indexes and the manifest are written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastload.console.progress import Progress
from fastload.console.shell import program
from fastload.errors import LayoutError, OutputError
from fastload.files import write_atomically, write_csv
from fastload.prepare.duplicates import without_duplicates
from fastload.prepare.foreign_index import dali_index, timm_info
from fastload.prepare.journal import Journal
from fastload.prepare.plan import Plan, PlannedShard, refuse_missing_classes
from fastload.prepare.remedies import refusal_advice
from fastload.prepare.report import REPORT_NAME, Row, count_reasons, report_rows, write_report
from fastload.prepare.source import File, training_needed
from fastload.prepare.target import Target
from fastload.prepare.transcode import HOW
from fastload.prepare.verdict import Kept, kept_among
from fastload.store.index import SAMPLE, write_index
from fastload.store.manifest import Manifest, Shard, Split, fingerprint, write_manifest
from fastload.store.tar import TarWriter, key_of, label_bytes, offsets_of


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedShard:
    """A shard under its final name.

    Attributes:
        shard: The shard as the manifest lists it; None where all its files were set aside.
        samples: SAMPLE [N]; the field `shard` is not filled in.
        keys: [N], keys of the samples.
        sources: [N], paths of the samples in the source.
    """

    shard: Shard | None
    samples: NDArray[np.void]
    keys: list[str]
    sources: list[str]


def finish_shards(
    plan: Plan, state: Target, journals: Sequence[Journal]
) -> tuple[Manifest, list[Row]]:
    """Phase 2: from partial shards and their journals to a complete shard directory.

    Args:
        plan: What is written.
        state: Where the shards go.
        journals: One for each shard of the plan, in its order.

    Returns:
        The manifest and the rows of the report, which are written too.

    Raises:
        OutputError: If no image can be trained on, or a partial shard has vanished.
        LayoutError: If a class has no image in train that can be trained on.
    """
    files = [file for shard in plan.shards for file in shard.files]
    verdicts = [verdict for journal in journals for verdict in journal.verdicts]
    examined, repeats = without_duplicates(list(zip(files, verdicts, strict=True)))
    rows = report_rows(plan.source, examined, repeats)
    check_what_is_left(plan, [file for file, one in examined if isinstance(one, Kept)], rows)
    remaining = (verdict for _, verdict in examined)
    finished: dict[str, list[FinishedShard]] = {}
    kept = [kept_among(islice(remaining, len(shard.files))) for shard in plan.shards]
    for shard, one in zip(plan.shards, _finish_each(plan, state, journals, kept), strict=True):
        finished.setdefault(shard.split, []).append(one)
    num_classes = len(plan.source.classes)
    splits = {
        split: _write_split(state.out, split, shards, num_classes)
        for split, shards in finished.items()
    }
    write_report(state.out / REPORT_NAME, rows)
    write_atomically(state.out / "_info.json", timm_info(splits))
    stored = Counter(one.how for _, one in examined if isinstance(one, Kept))
    manifest = Manifest(
        classes=plan.source.classes,
        class_names=plan.source.class_names,
        splits=splits,
        options=plan.options.recorded(),
        stored={how: stored[how] for how in HOW},
        cleaning=count_reasons(rows),
        fingerprint=fingerprint(plan.source.classes, splits),
        recipe=plan.digest,
    )
    state.publish()
    write_manifest(state.out, manifest)
    state.publish()
    return manifest, rows


def check_what_is_left(plan: Plan, kept: Sequence[File], rows: Sequence[Row]) -> None:
    """See that there is something to train on; what is said names the option that would help.

    Args:
        plan: Whose source and options count.
        kept: The files that are left.
        rows: Of the report.

    Raises:
        OutputError: If no image is left to train on.
        LayoutError: If a class has none.
    """
    source = plan.source
    remedy = refusal_advice(source, rows, plan.options.rules)
    training = training_needed(source.files)
    if not any(file.split == "train" or not training for file in kept):
        advice = remedy or f"`{program('fastload.clean')}` says why"
        raise OutputError(
            f"none of the {len(source.files):,} files of {source.root} can be "
            f"{'trained on' if training else 'kept'}; {advice}"
        )
    try:
        refuse_missing_classes(plan, kept, " that can be trained on")
    except LayoutError as error:
        if not remedy:
            raise
        raise LayoutError(f"{error}; {remedy}") from error


def _finish_each(
    plan: Plan, state: Target, journals: Sequence[Journal], kept: Sequence[Mapping[int, Kept]]
) -> Iterator[FinishedShard]:
    """Give the shards of a plan their final names, as many at once as the target takes."""

    def finish(shard: PlannedShard, journal: Journal, staying: Mapping[int, Kept]) -> FinishedShard:
        return _finish_shard(plan, state, shard, journal, staying)

    if state.at_once == 1:
        yield from map(finish, plan.shards, journals, kept)
        return
    pool = ThreadPoolExecutor(state.at_once)
    try:
        with Progress(len(plan.shards), "shards", what="naming the shards") as progress:
            for one in pool.map(finish, plan.shards, journals, kept):
                progress.add()
                yield one
    finally:
        pool.shutdown(cancel_futures=True)


def _finish_shard(
    plan: Plan,
    state: Target,
    planned: PlannedShard,
    journal: Journal,
    kept: Mapping[int, Kept],
) -> FinishedShard:
    """Give a shard its final name, without the samples that turned out to be duplicates.

    Only a shard that loses a sample is written again, from itself.

    Args:
        plan: The plan of the shard.
        state: Where the shard goes.
        planned: The shard.
        journal: The journal of the partial shard.
        kept: Position in the shard's files -> facts, of the samples that stay.
    """
    sha256 = journal.sha256
    if not kept:
        state.drop_partial(planned.name)
    elif len(kept) < len(kept_among(journal.verdicts)):
        sha256 = _rewrite(plan, state, planned, journal, kept)
    else:
        state.name_partial(planned.name)
    shard = None
    if kept:
        size = state.size(planned.name)
        if size is None:
            raise OutputError(f"{planned.name} has vanished; run the same command again")
        shard = Shard(name=planned.name, bytes=size, sha256=sha256, samples=len(kept))
    return FinishedShard(
        shard=shard,
        samples=_sample_rows(planned, kept),
        keys=[key_of(planned.first + index) for index in kept],
        sources=[planned.files[index].path for index in kept],
    )


def _rewrite(
    plan: Plan,
    state: Target,
    planned: PlannedShard,
    journal: Journal,
    kept: Mapping[int, Kept],
) -> str:
    """Copy the samples that stay from the partial shard to the final one; returns its SHA-256."""
    partial = state.bring_partial(planned.name)
    if partial is None:  # an earlier run wrote the final shard, then was stopped
        return state.sha256_of(planned.name)
    stored = kept_among(journal.verdicts)
    offsets = dict(zip(stored, offsets_of(one.size for one in stored.values()), strict=True))
    tar = TarWriter(state.out / f"{planned.name}.rewritten.partial")
    try:
        with partial.open("rb") as file:
            for index, one in kept.items():
                file.seek(offsets[index])
                label = label_bytes(planned.files[index].label, len(plan.source.classes))
                tar.add_sample(key_of(planned.first + index), file.read(one.size), label)
        sha256 = tar.finish()
        tar.sync()
    except BaseException:
        tar.discard()
        raise
    state.name_rewritten(planned.name, tar.path)
    return sha256


def _sample_rows(planned: PlannedShard, kept: Mapping[int, Kept]) -> NDArray[np.void]:
    """SAMPLE [N] of the samples that stay; the field `shard` is not filled in."""
    samples = np.zeros(len(kept), SAMPLE)
    offsets = offsets_of(one.size for one in kept.values())
    for row, (index, one) in enumerate(kept.items()):
        label = planned.files[index].label
        samples[row] = (0, offsets[row], one.size, label, one.height, one.width, one.crc32)
    return samples


def _write_split(
    out: Path, split: str, finished: Sequence[FinishedShard], num_classes: int
) -> Split:
    """Write the indexes and the list of sources of a split; returns the split for the manifest."""
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
    sources = (pair for one in finished for pair in zip(one.keys, one.sources, strict=True))
    write_csv(out / f"{split}.sources.csv", ("key", "path"), sources)
    counts = np.bincount(samples["label"], minlength=num_classes)
    return Split(samples=len(samples), class_counts=tuple(counts.tolist()), shards=tuple(shards))
