"""A whole folder at once: examined only, or stored as shards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastload.console.progress import Progress
from fastload.errors import OutputError
from fastload.pixels import native
from fastload.prepare.examine import Dropped, examine, find_duplicates
from fastload.prepare.finish import finish_shards, refuse_missing
from fastload.prepare.journal import State
from fastload.prepare.plan import plan_shards, recipe_of
from fastload.prepare.reasons import Rules
from fastload.prepare.report import (
    Row,
    report_rows,
)
from fastload.prepare.source import File, Source, classes_without_training
from fastload.prepare.write import write_partial_shards
from fastload.store.index import (
    Manifest,
    read_manifest,
)


def clean_folder(source: Source, *, rules: Rules, workers: int) -> list[Row]:
    """Examine a whole folder without storing anything; returns the rows of the report."""
    dropped: dict[str, Dropped] = {}
    changed: dict[str, str] = {}
    digests: list[tuple[File, bytes]] = []
    with Progress(len(source.files), "images") as progress:
        for file, result in examine(
            source.files, root=source.root, rules=rules, workers=workers, with_jpeg=False
        ):
            if isinstance(result, Dropped):
                dropped[file.path] = result
            else:
                digests.append((file, result.digest))
                if result.change:
                    changed[file.path] = result.change
            progress.add(note=f"{len(dropped):,} set aside")
    duplicates = find_duplicates(digests)
    changed = {path: change for path, change in changed.items() if path not in duplicates}
    return report_rows(source, dropped | duplicates, changed)


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
        refuse_missing(classes_without_training(source), "")
    state = State(out)
    core = "native" if native.is_available() else "pillow"
    recipe = recipe_of(source, options)
    out.mkdir(parents=True, exist_ok=True)
    with state.locked():
        state.claim({"options": options | {"core": core}, "recipe": recipe})
        shards = plan_shards(source, seed=options["seed"], shard_bytes=options["shard_bytes"])
        rate = write_partial_shards(source, state, shards, rules=rules, workers=workers)
        manifest, rows = finish_shards(
            source, state, shards, options, recipe, allow_missing_classes
        )
        state.remove()
    total = sum(file.bytes for file in source.files)
    return Outcome(manifest=manifest, rows=rows, images_per_second=rate, source_bytes=total)


def check_complete(out: Path, recipe: str) -> None:
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
