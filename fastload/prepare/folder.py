"""A whole folder at once: examined only, or stored as shards."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fastload.console.progress import Progress
from fastload.errors import OutputError, ShardError
from fastload.files import explain_os_error, lies_within
from fastload.pixels import native
from fastload.prepare.duplicates import without_duplicates
from fastload.prepare.examine import examine_files
from fastload.prepare.finish import finish_shards
from fastload.prepare.plan import Plan, refuse_missing_classes
from fastload.prepare.reasons import Rules
from fastload.prepare.remedies import remedy_line
from fastload.prepare.report import Row, report_rows
from fastload.prepare.source import File, Source
from fastload.prepare.spread import write_on_nodes
from fastload.prepare.target import Target
from fastload.prepare.verdict import Dropped, Verdict
from fastload.prepare.write import write_here, write_partial_shards
from fastload.store.manifest import MANIFEST_NAME, REBUILD, Manifest
from fastload.store.remote import address_lies_within


def clean_folder(source: Source, *, rules: Rules, workers: int) -> list[Row]:
    """Examine a whole folder without storing anything; returns the rows of the report."""
    examined: list[tuple[File, Verdict]] = []
    aside = 0
    results = examine_files(
        source.files, root=source.root, rules=rules, workers=workers, with_jpeg=False
    )
    with Progress(len(source.files), "images") as progress:
        for file, verdict, _ in results:
            examined.append((file, verdict))
            aside += isinstance(verdict, Dropped)
            progress.add(note=f"{aside:,} set aside")
    return report_rows(source, *without_duplicates(examined))


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardOutcome:
    """What a run did, for its closing lines."""

    manifest: Manifest
    rows: list[Row]
    images_per_second: float
    source_bytes: int
    remedy: str  # options that would keep what was set aside, or ""


def shard_folder(
    plan: Plan, state: Target, *, workers: int, on_nodes: bool = False
) -> ShardOutcome:
    """Write the shard directory of a plan.

    Args:
        plan: What `make_plan` made of the source.
        state: Where the shards go; it is made where there is none.
        workers: Number of processes; what is written does not depend on it.
        on_nodes: Take the nodes of the Ray cluster that this process has joined instead.

    Raises:
        LayoutError: If a class has no image in train.
        OutputError: If the place belongs to something else, no image could be stored, or a file
            cannot be written.
    """
    source = plan.source
    pictured = [file for file in source.files if file.label not in source.imageless]
    refuse_missing_classes(plan, pictured)
    core = "native" if native.is_available() else "pillow"
    try:
        state.out.mkdir(parents=True, exist_ok=True)
        with state.locked():
            state.claim(
                {"options": plan.options.recorded() | {"core": core}, "recipe": plan.digest}
            )
            write = write_on_nodes if on_nodes else partial(write_here, workers=workers)
            journals, rate = write_partial_shards(plan, state, write=write)
            manifest, rows = finish_shards(plan, state, journals)
            state.remove()
    except OSError as error:
        words = explain_os_error(error)
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            words += "; finished shards are kept, and the same command goes on from there"
        raise OutputError(words) from error
    total = sum(file.bytes for file in source.files)
    return ShardOutcome(
        manifest=manifest,
        rows=rows,
        images_per_second=rate,
        source_bytes=total,
        remedy=remedy_line(rows, plan.options.rules),
    )


def refuse_nested(source: Source, out: Path | str, option: str = "--out") -> None:
    """See that the shard directory lies outside the source: a later run would read it too.

    Args:
        source: The source.
        out: A folder, or the address of one in an object store.
        option: What gave it.

    Raises:
        OutputError: If `out` lies within a folder that is the source.
    """
    root = source.root
    if isinstance(root, Path):
        nested = isinstance(out, Path) and lies_within(out, root)
    else:
        nested = isinstance(out, str) and address_lies_within(out, str(root))
    if source.walked and nested:
        raise OutputError(f"{out} lies within {source.root}; choose {option} outside it")


def complete_manifest(plan: Plan, state: Target) -> Manifest | None:
    """The manifest where all shards of a plan are in their place; None where there is none.

    Raises:
        OutputError: If the place holds other shards, or has lost one.
    """
    place = state.place
    try:
        manifest = state.read_manifest()
    except ShardError as error:
        found = error.reason.removesuffix(f"; {REBUILD}")
        if found == error.reason:
            raise
        raise OutputError(  # to rebuild it is what the user tries
            f"{place}/{MANIFEST_NAME} cannot be used ({found}); remove {place} and run again"
        ) from error
    if manifest is None:
        return None
    if manifest.recipe != plan.digest:
        raise OutputError(
            f"{place} holds shards made from other files or with other options; "
            "choose another --out, or remove it"
        )
    for shard in (shard for split in manifest.splits.values() for shard in split.shards):
        if state.size(shard.name) != shard.bytes:
            raise OutputError(
                f"{place}/{shard.name} is missing or damaged; remove {place} and run again"
            )
    return manifest
