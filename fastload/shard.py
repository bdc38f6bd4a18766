"""Images -> tars of even size with an index: `python -m fastload.shard data/ --out shards/`.

    read_source ─▶ plan: permute, cut into shards                       (a function of the options)
    examine ─▶ write NAME.tar.partial, then its journal                 phase 1, once for each shard
    journals ─▶ find_duplicates ─▶ NAME.tar ─▶ indexes ─▶ manifest      phase 2, once

A shard with a journal is finished: a run that was killed goes on behind it. What is written does
not depend on the number of workers nor on where a run was stopped. Nothing gets its final name
before it is complete, and the manifest comes last. The state lies in `OUT/.fastload` until then.
"""

from __future__ import annotations

import argparse
import csv
import errno
import io
import json
import math
import shlex
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastload import draw, native
from fastload.clean import (
    REPORT_NAME,
    Dropped,
    Kept,
    Row,
    add_cleaning_options,
    count_reasons,
    examine,
    find_duplicates,
    parse_rules,
    printable_lines,
    quarantine,
    reason_table,
    report_rows,
    write_report,
)
from fastload.errors import LayoutError, OutputError, explain_os_error, run_command
from fastload.index import (
    MANIFEST_NAME,
    SAMPLE,
    TAR_BLOCK,
    Manifest,
    Shard,
    Split,
    digest_of,
    fingerprint,
    read_manifest,
    shard_name,
    sync_directory,
    write_atomically,
    write_index,
    write_manifest,
)
from fastload.journal import STATE_NAME, Entry, Journal, State
from fastload.progress import Progress
from fastload.source import SPLITS, File, Source, classes_without_training, read_source
from fastload.tar import TarWriter, key_of, label_bytes, label_offset, next_offset, sha256_of
from fastload.transcode import NEW_QUALITY, Reason, Rules

SMALLEST_SHARD = 10_000  # one small photograph
DEFAULT_SHARD_BYTES = 256 << 20  # some 2,500 photographs: 120 shards for 300,000
HOW = ("lossless", "near-lossless", "re-encoded", "original")


# Planning: pure functions of the source and the options.


@dataclass(frozen=True, slots=True)
class PlannedShard:
    """One tar to write: `files[i]` gets the key `first + i`."""

    split: str
    name: str
    first: int
    files: tuple[File, ...]


def plan_shards(source: Source, *, seed: int, shard_bytes: int) -> list[PlannedShard]:
    """Permute each split, then cut it into shards of even count.

    The number of shards follows from the bytes of the source files, so a shard is near
    `shard_bytes` however many of its files are set aside.
    """
    shards = []
    for number, split in enumerate(SPLITS):
        files = [file for file in source.files if file.split == split]
        if not files:
            continue
        order = np.argsort(draw.hashes(seed, number, np.arange(len(files))), kind="stable")
        count = max(1, math.ceil(sum(file.bytes for file in files) / shard_bytes))
        first = 0
        for index, part in enumerate(np.array_split(order, min(count, len(files)))):
            chosen = tuple(files[position] for position in part.tolist())
            shards.append(PlannedShard(split, shard_name(split, index), first, chosen))
            first += len(chosen)
    return shards


def recipe_of(source: Source, options: dict[str, Any]) -> str:
    """128 bits that change when a file of the source or an option does."""
    files = [[file.path, file.split, file.bytes, file.modified_ns] for file in source.files]
    return digest_of([options, list(source.classes), list(source.class_names), files])


# Phase 1: every file is read once; finished shards have a journal.


class _ShardWriter:
    """Writes the planned shards one after another, from results that arrive in order.

    A finished shard is synced and journalled by one thread beside, at most two of them at once.
    """

    def __init__(self, state: State, shards: Sequence[PlannedShard], num_classes: int) -> None:
        self.state = state
        self.todo = iter(shards)
        self.num_classes = num_classes
        self.tar: TarWriter | None = None
        self.shard: PlannedShard | None = None
        self.journal = Journal()
        self.index = 0
        self.closer = ThreadPoolExecutor(1)
        self.closing: list[Future[None]] = []

    def add(self, result: Kept | Dropped) -> None:
        """Take the result of the next file."""
        if self.shard is None or self.tar is None:
            self.shard = next(self.todo)
            self.tar = TarWriter(self.state.partial_path(self.shard.name))
            self.journal, self.index = Journal(), 0
        offset = 0
        if isinstance(result, Kept):
            label = label_bytes(self.shard.files[self.index].label, self.num_classes)
            offset = self.tar.add_sample(key_of(self.shard.first + self.index), result.jpeg, label)
        self.journal.add(self.index, result, offset)
        self.index += 1
        if self.index == len(self.shard.files):
            self._finish(self.shard, self.tar)
            self.shard = self.tar = None

    def _finish(self, shard: PlannedShard, tar: TarWriter) -> None:
        self.journal.sha256 = tar.finish()
        self.journal.tar_bytes = tar.bytes
        path, journal = self.state.journal_path(shard.name), self.journal
        if len(self.closing) == 2:
            self.closing.pop(0).result()
        self.closing.append(self.closer.submit(_make_durable, tar, path, journal))

    def __enter__(self) -> _ShardWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.closer.shutdown(wait=True)
        if self.tar is not None:
            self.tar.discard()
        if error is None:
            for future in self.closing:
                future.result()


def _make_durable(tar: TarWriter, journal_path: Path, journal: Journal) -> None:
    tar.sync()
    write_atomically(journal_path, journal.to_json())


def write_partial_shards(
    source: Source, state: State, shards: Sequence[PlannedShard], *, rules: Rules, workers: int
) -> float:
    """Phase 1: write the shards that are not there yet; returns images a second.

    Raises:
        OSError: If there is no room or no permission; finished shards stay.
    """
    missing = [shard for shard in shards if state.read_journal(shard.name) is None]
    total = sum(len(shard.files) for shard in shards)
    todo = sum(len(shard.files) for shard in missing)
    begin, aside = time.monotonic(), 0
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(total, "images", done=total - todo))
        writer = stack.enter_context(_ShardWriter(state, missing, len(source.classes)))
        files = (file for shard in missing for file in shard.files)
        results = examine(files, root=source.root, rules=rules, workers=workers, with_jpeg=True)
        stack.callback(results.close)  # type: ignore[attr-defined]  # examine is a generator
        for _, result in results:
            writer.add(result)
            aside += isinstance(result, Dropped)
            progress.add(note=f"{aside:,} set aside")
    return todo / max(time.monotonic() - begin, 1e-9)


# Phase 2: duplicates go, shards get their names, indexes and the manifest are written.


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


def dali_index(finished: Finished, num_classes: int) -> bytes:
    """DALI's index of a tar, version 1.2: where each component of each sample lies."""
    digits = len(label_bytes(0, num_classes))
    lines = [f"v1.2 {len(finished.keys)}"]
    for sample, key in zip(finished.samples, finished.keys, strict=True):
        offset, size = int(sample["offset"]), int(sample["size"])
        behind = label_offset(offset, size)
        lines.append(f"jpg {offset} {size} {key}.jpg cls {behind} {digits} {key}.cls")
    return ("\n".join(lines) + "\n").encode()


def timm_info(splits: dict[str, Split]) -> bytes:
    """What timm's webdataset reader wants to know (`_info.json`)."""
    return json.dumps(
        {
            "splits": {
                name: {
                    "name": name,
                    "num_samples": split.samples,
                    "filenames": [shard.name for shard in split.shards],
                    "shard_lengths": [shard.samples for shard in split.shards],
                }
                for name, split in splits.items()
            }
        },
        indent=1,
    ).encode()


def write_sources(path: Path, finished: Sequence[Finished]) -> None:
    """Which file of the source each key was made from."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("key", "path"))
    for shard in finished:
        writer.writerows(zip(shard.keys, shard.sources, strict=True))
    write_atomically(path, text.getvalue().encode("utf-8", "surrogateescape"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run did, for its closing lines."""

    manifest: Manifest
    rows: list[Row]
    images_per_second: float
    source_bytes: int


def shard_folder(
    source: Source,
    out: Path,
    *,
    rules: Rules,
    options: dict[str, Any],
    workers: int,
    allow_missing_classes: bool = False,
) -> Outcome:
    """Write the shard directory of a source.

    Args:
        source: What `read_source` found.
        out: The shard directory; made where it is not there.
        rules: What is taken and how it is stored.
        options: All that decides what is written, and goes into the manifest; "seed" and
            "shard_bytes" are read from it.
        workers: Processes; they do not decide what is written.
        allow_missing_classes: Keep a class that has no image in train.

    Raises:
        LayoutError: If a class has no image in train.
        OutputError: If `out` belongs to something else, or no image could be stored.
        OSError: If it cannot be written.
    """
    if not allow_missing_classes:
        _refuse_missing(classes_without_training(source), "")
    state = State(out)
    core = "native" if native.is_available() else "pillow"
    recipe = recipe_of(source, options)
    out.mkdir(parents=True, exist_ok=True)
    with state.locked():
        state.claim({"options": options | {"core": core}, "recipe": recipe})
        shards = plan_shards(source, seed=options["seed"], shard_bytes=options["shard_bytes"])
        rate = write_partial_shards(source, state, shards, rules=rules, workers=workers)
        manifest, rows = _finish(source, state, shards, options, recipe, allow_missing_classes)
        state.remove()
    total = sum(file.bytes for file in source.files)
    return Outcome(manifest=manifest, rows=rows, images_per_second=rate, source_bytes=total)


def _refuse_missing(names: Sequence[str], why: str) -> None:
    if names:
        shown = ", ".join(repr(name) for name in names[:5]) + (", …" if len(names) > 5 else "")
        raise LayoutError(
            f"{len(names)} of the classes have no image in train{why}: {shown}; add images, remove "
            "the folders, or keep the classes with --allow-missing-classes"
        )


def _finish(
    source: Source,
    state: State,
    shards: Sequence[PlannedShard],
    options: dict[str, Any],
    recipe: str,
    allow_missing_classes: bool,
) -> tuple[Manifest, list[Row]]:
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
        _refuse_missing(missing, " that can be trained on")


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
        write_atomically(path, dali_index(one, num_classes))
    samples = np.concatenate(arrays) if arrays else np.zeros(0, SAMPLE)
    write_index(out, split, samples)
    write_sources(out / f"{split}.sources.csv", finished)
    counts = np.bincount(samples["label"], minlength=num_classes)
    return Split(samples=len(samples), class_counts=tuple(counts.tolist()), shards=tuple(shards))


# The command.


def parse_bytes(text: str) -> int:
    """A size such as "256MB", "1GiB" or "300000000", in bytes.

    Raises:
        argparse.ArgumentTypeError: If it is none.
    """
    units = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
    number = text.strip().lower().removesuffix("b")
    unit = number.lstrip("0123456789.")
    try:
        size = int(float(number.removesuffix(unit)) * units[unit.strip()])
    except (KeyError, ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 256MB") from None
    if size < SMALLEST_SHARD:
        raise argparse.ArgumentTypeError(
            f"a shard needs at least {SMALLEST_SHARD} bytes, not {text}"
        )
    return size


def human_bytes(size: float) -> str:
    """A size for people: 1.2 GB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def closing_lines(outcome: Outcome, out: Path) -> list[str]:
    """What a run did and what to type next."""
    manifest = outcome.manifest
    stored = sum(manifest.stored.values())
    how = ", ".join(f"{count:,} {name}" for name, count in manifest.stored.items() if count)
    size = sum(shard.bytes for split in manifest.splits.values() for shard in split.shards)
    count = sum(len(split.shards) for split in manifest.splits.values())
    splits = ", ".join(f"{name} {split.samples:,}" for name, split in manifest.splits.items())
    aside = sum(manifest.cleaning.values())
    return [
        f"stored      {stored:,} images of {len(manifest.classes):,} classes ({how})",
        f"splits      {splits}",
        f"size        {human_bytes(outcome.source_bytes)} -> {human_bytes(size)}, {count:,} shards",
        f"speed       {outcome.images_per_second:,.0f} images/s",
        f"set aside   {aside:,} files",
        *reason_table(manifest.cleaning),
        f"report      {out / REPORT_NAME}",
        f"next        python train/run.py --loader dali --data {shlex.quote(str(out))}",
    ]


def _check_complete(out: Path, recipe: str) -> None:
    """See that a directory with a manifest holds these shards.

    Raises:
        OutputError: If it holds others, or has lost one.
    """
    manifest = read_manifest(out)
    if manifest.recipe != recipe:
        raise OutputError(
            f"{out} holds shards made from other files or with other options; "
            "choose another --out, or remove it"
        )
    for shard in (shard for split in manifest.splits.values() for shard in split.shards):
        path = out / shard.name
        if not path.exists() or path.stat().st_size != shard.bytes:
            raise OutputError(f"{path} is missing or damaged; remove {out} and run again")


def _run(arguments: argparse.Namespace, rules: Rules) -> int:
    out: Path = arguments.out
    source = read_source(arguments.folder, seed=arguments.seed)
    _refuse_nested(source.root, out)
    options = asdict(rules) | {"seed": arguments.seed, "shard_bytes": arguments.shard_size}
    if (out / MANIFEST_NAME).exists():
        _check_complete(out, recipe_of(source, options))
        shutil.rmtree(out / STATE_NAME, ignore_errors=True)
        print(f"{out} already holds these shards, complete")  # noqa: T201  a command's own words
        return 0
    say(f"{len(source.files):,} files of {len(source.classes):,} classes, {source.layout}")
    if not native.is_available():
        say(f"without the native core ({native.why_unavailable()}): slower, near-lossless")
    try:
        outcome = shard_folder(
            source,
            out,
            rules=rules,
            options=options,
            workers=arguments.workers,
            allow_missing_classes=arguments.allow_missing_classes,
        )
    except OSError as error:
        words = explain_os_error(error)
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            words += "; finished shards are kept, and the same command goes on from there"
        raise OutputError(words) from error
    except KeyboardInterrupt:
        say("finished shards are kept: the same command goes on from there")
        raise
    if arguments.quarantine:
        rows = quarantine(source.root, arguments.quarantine, outcome.rows)
        write_report(out / REPORT_NAME, rows)
    print(printable_lines(closing_lines(outcome, out)))  # noqa: T201  a command's own words
    return 0


def say(line: str) -> None:
    """Tell the user on standard error, where progress is shown too."""
    print(printable_lines([line]), file=sys.stderr)  # noqa: T201  a command's own words


def _refuse_nested(root: Path, out: Path) -> None:
    """Shards among the images would be taken for a class by the next run."""
    inside = out.resolve()
    if inside == root.resolve() or root.resolve() in inside.parents:
        raise OutputError(f"{out} lies within {root}; choose --out outside it")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m fastload.shard",
        description="Clean a folder of images and store it as shards to train from.",
    )
    parser.add_argument("folder", type=Path, help="folder of class folders, such as data/")
    parser.add_argument(
        "--out", type=Path, default=Path("shards"), metavar="DIR", help="default shards/"
    )
    parser.add_argument(
        "--store",
        choices=("seekable", "original"),
        default="seekable",
        help="seekable: the same picture, faster to read (default); original: the same bytes",
    )
    parser.add_argument("--max-side", type=int, metavar="N", help="shrink images longer than this")
    parser.add_argument(
        "--quality",
        type=int,
        default=NEW_QUALITY,
        metavar="Q",
        help=f"of images that must be encoded anew (default {NEW_QUALITY})",
    )
    add_cleaning_options(parser)
    parser.add_argument(
        "--shard-size",
        type=parse_bytes,
        default=DEFAULT_SHARD_BYTES,
        metavar="SIZE",
        help="bytes of images in a shard, such as 256MB (default 256MiB)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the order within the shards")
    parser.add_argument(
        "--allow-missing-classes",
        action="store_true",
        help="keep classes that have no image in train",
    )
    options = parser.parse_args(argv)
    rules = parse_rules(parser, options)
    return run_command("fastload.shard", lambda: _run(options, rules))


if __name__ == "__main__":
    sys.exit(main())
