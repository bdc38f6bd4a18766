"""A source to an index in place: examine what is new, leave out duplicates, write the index.

    files ─▶ known already? ─▶ examine the others, in processes ─▶ `examined`, block by block
    all that is known ─▶ duplicates go ─▶ PLACE of each split, lists of files and folders
                                        ─▶ cleaning.csv ─▶ index.json, last

Nothing of the source is copied or changed. What is written depends neither on the number of workers
nor on where a run was stopped.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastload.console.progress import Progress
from fastload.console.shell import program
from fastload.console.terminal import printable, say
from fastload.errors import OutputError, ShardError
from fastload.files import explain_os_error, locked
from fastload.prepare.duplicates import find_copies
from fastload.prepare.examine import examine_files
from fastload.prepare.examined import Examined, Known
from fastload.prepare.finish import check_what_is_left
from fastload.prepare.folder import refuse_nested
from fastload.prepare.naming import SPLITS
from fastload.prepare.plan import (
    Plan,
    ShardOptions,
    order_of_split,
    refuse_missing_classes,
)
from fastload.prepare.reasons import Rules
from fastload.prepare.remedies import remedy_line
from fastload.prepare.report import (
    REPORT_NAME,
    Row,
    count_reasons,
    repeat_lines,
    report_rows,
    write_report,
)
from fastload.prepare.source import File, Source
from fastload.prepare.spread import examine_on_nodes
from fastload.prepare.verdict import Dropped, Verdict
from fastload.store.freshness import find_change, look_at_folders, look_at_listed
from fastload.store.holders import FILE
from fastload.store.manifest import digest_of
from fastload.store.object_paths import AnyPath
from fastload.store.places import (
    FOLDER,
    INDEX_NAME,
    KINDS,
    PLACE,
    PlacedData,
    PlacedSplit,
    Places,
    Tables,
    cache_folder,
    fingerprint_of,
    folders_of,
    index_folder,
    names_of,
    places_of,
    read_places,
    write_places,
)
from fastload.store.remote import is_remote

_OWN = re.compile(r"\.|(index\.json|lock|cleaning\.csv)$|(examined|points|index|of)-")
_READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexOptions:
    """What decides the index of a source.

    Attributes:
        rules: What is taken.
        seed: Seed of the order of the samples, as of that within shards.
        allow_missing_classes: Keep a class that has no image in train.
        words: The options of the command line that decide what is taken, to say them again.
    """

    rules: Rules
    seed: int = 0
    allow_missing_classes: bool = False
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexOutcome:
    """What a run did, for its closing lines.

    Attributes:
        data: The index.
        examined: Files that were read in this run.
        images_per_second: How fast they were read.
        remedy: Options that would keep what was left out, or "".
        repeats: A line about images that their class and split have several times, or none.
        fresh: Whether the index was there already, and held.
    """

    data: PlacedData
    examined: int
    images_per_second: float
    remedy: str
    repeats: Sequence[str]
    fresh: bool = False


def folder_for(source: Sequence[Path | str]) -> Path:
    """Where the index of a source is written: beside the data, or else in the user's cache.

    That of an address is written in the user's cache, and then `publish_index` puts it beside the
    data.

    Raises:
        OutputError: If neither can be written.
    """
    if any(map(is_remote, source)):
        cache = cache_folder(*source)
        try:
            _make(cache)
        except OSError as error:
            raise OutputError(f"{explain_os_error(error)}; or choose --out DIR") from error
        return cache
    beside = index_folder(*source)
    try:
        _make(beside)
    except OSError as error:
        if error.errno not in _READ_ONLY:
            raise OutputError(explain_os_error(error)) from error
        cache = cache_folder(*source)
        try:
            _make(cache)
        except OSError as behind:
            raise OutputError(
                f"{beside} cannot be written ({error.strerror}), nor {cache} ({behind.strerror});"
                " choose --out DIR"
            ) from behind
        say(f"{beside} cannot be written: the index goes to {cache}", error=True)
        return cache
    return beside


def refuse_foreign(source: Source, out: Path) -> None:
    """See that an index may be written to a folder that the user chose.

    Raises:
        OutputError: If a later run would read the folder as a part of the source, or if it holds
            anything else, such as shards or other data, which would be read in its place.
    """
    if isinstance(source.root, Path):
        parts = Path(os.path.relpath(out.resolve(), source.root.resolve())).parts
        if not any(part.startswith(".") and part != ".." for part in parts):
            refuse_nested(source, out)  # what is hidden is no part of a source
    with suppress(FileNotFoundError, NotADirectoryError):
        others = [name for name in sorted(os.listdir(out)) if not _OWN.match(name)]  # noqa: PTH208
        if others:
            raise OutputError(
                f"{out} holds other things, such as {printable(others[0])}; choose a new or an"
                " empty folder"
            )


def _make(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()


@contextmanager
def held(folder: Path) -> Iterator[bool]:
    """Hold the folder of an index against a second run, which is waited for.

    Yields:
        Whether another run was waited for.
    """
    waited = []

    def wait() -> None:
        waited.append(folder)
        say(f"another fastload.index is at {folder}; this one waits for it", error=True)

    def warn(error: OSError) -> None:
        say(
            f"{folder} cannot be locked ({error.strerror}): see that no second fastload.index"
            " writes to it",
            error=True,
        )

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / "lock", held=wait, unlockable=warn):
            yield bool(waited)
    except OSError as error:
        words = explain_os_error(error)
        if error.errno in _FULL:
            words += "; what was read is kept, and the same command goes on from there"
        raise OutputError(words) from error


def write_index_of(
    source: Source,
    named: Sequence[Path | str],
    options: IndexOptions,
    folder: Path,
    *,
    workers: int,
    on_nodes: bool = False,
) -> IndexOutcome:
    """Make or renew the index of a source, in a folder that is `held`.

    Args:
        source: The files.
        named: What the user called the source.
        options: What is taken.
        folder: Where the index goes.
        workers: Number of processes.
        on_nodes: Take the nodes of the Ray cluster that this process has joined instead.

    Raises:
        LayoutError: If a class has no image in train.
        OutputError: If no image can be trained on.
        OSError: If a file cannot be written.
    """
    shard_options = ShardOptions(
        rules=options.rules,
        seed=options.seed,
        allow_missing_classes=options.allow_missing_classes,
    )
    plan = Plan(source=source, options=shard_options, shards=(), digest="")
    packed = sum(file.offset < 0 for file in source.files)
    if packed:
        raise OutputError(
            f"{source.root} holds {packed:,} of {len(source.files):,} images compressed, which "
            f"cannot be read where they lie; `{program('fastload.shard')}` stores them all"
        )
    refuse_missing_classes(
        plan, [file for file in source.files if file.label not in source.imageless]
    )
    former = _former(folder, source)
    number = former.places.points if former else 0
    here = partial(examine_files, workers=workers, with_jpeg=False)
    with Examined(folder, number, options.rules) as examined:
        keys = examined.keys_of(source.files)
        examine = examine_on_nodes if on_nodes else here
        count, seconds = _examine(source, options, examined, keys, examine)
        known, _ = examined.find(keys)
        recipe = _recipe(source, options, keys)
        if former and not count and former.places.recipe == recipe and not find_change(former):
            return IndexOutcome(
                data=former,
                examined=0,
                images_per_second=0.0,
                remedy="",
                repeats=(),
                fresh=True,
            )
        known = Known(examined.shrink(known.rows), known.texts)
        outcome = _write(plan, known, named, options, folder, recipe, examined)
        examined.remove_others()
    return IndexOutcome(
        data=outcome[0],
        examined=count,
        images_per_second=count / max(seconds, 1e-9),
        remedy=remedy_line(outcome[1], options.rules),
        repeats=repeat_lines(outcome[1]),
    )


def _former(folder: Path, source: Source) -> PlacedData | None:
    """The index that is there, if it is whole, and not one of an object store that was copied."""
    if not (folder / INDEX_NAME).exists():
        return None
    try:
        data = read_places(folder)
        if (data.root if data.bucket else None) != _address_of(source):
            return None
        for split in data.places.splits:
            places_of(data, split)
        folders_of(data)
    except ShardError as error:
        say(f"{error.where}: the index was damaged, and is made anew", error=True)
        return None
    return data


def _address_of(source: Source) -> str | None:
    return None if isinstance(source.root, Path) else str(source.root)


def _examine(
    source: Source,
    options: IndexOptions,
    examined: Examined,
    keys: NDArray[np.uint64],
    examine: Callable[..., Iterator[tuple[File, Verdict, bytes]]],
) -> tuple[int, float]:
    """Examine the files that are not known; returns how many, and in how many seconds."""
    known, found = examined.find(keys)
    missing = np.flatnonzero(~found | known.doubtful()).tolist()
    todo = [source.files[place] for place in missing]
    if not todo:
        return 0, 0.0
    begin, aside = time.monotonic(), 0
    results = examine(todo, root=source.root, rules=options.rules)
    total = len(source.files)
    with Progress(total, "images", done=total - len(todo)) as progress:
        for file, verdict, table in results:
            examined.add(file, verdict, table)
            aside += isinstance(verdict, Dropped)
            progress.add(note=f"{aside:,} set aside")
    examined.sync()
    return len(todo), time.monotonic() - begin


def _write(
    plan: Plan,
    known: Known,
    named: Sequence[Path | str],
    options: IndexOptions,
    folder: Path,
    recipe: str,
    examined: Examined,
) -> tuple[PlacedData, list[Row]]:
    source, files = plan.source, plan.source.files
    dropped, repeats = _copies(files, known)
    stays = known.kept()
    stays[list(dropped)] = False
    told = np.flatnonzero(~stays | (known.rows["text_size"] > 0)).tolist()
    rows = report_rows(
        source,
        [(files[place], dropped.get(place) or known.verdict(place)) for place in told],
        repeats,
    )
    kept = np.flatnonzero(stays)
    check_what_is_left(plan, [files[place] for place in kept.tolist()], rows)
    numbers, table, names = _holders(source)
    samples = _samples(plan, known, stays, numbers)
    folder_names, folders = _folders(source)
    write_report(folder / REPORT_NAME, rows)
    num_classes = len(source.classes)
    kinds = np.bincount(known.rows["kind"][kept], minlength=len(KINDS)).tolist()
    places = Places(
        source=tuple(_within(word, source.root) for word in named),
        root=_root_from(folder, source.root),
        classes=source.classes,
        class_names=source.class_names,
        splits={
            split: PlacedSplit(
                samples=len(placed),
                class_counts=tuple(np.bincount(placed["label"], minlength=num_classes).tolist()),
            )
            for split, placed in samples.items()
        },
        options=options.words,
        bytes=sum(int(placed["size"].sum()) for placed in samples.values()),
        stored=dict(zip(KINDS, kinds, strict=True)),
        cleaning=count_reasons(rows),
        fingerprint=fingerprint_of(source.classes, samples),
        recipe=recipe,
        points=examined.number,
        points_bytes=examined.points_bytes,
    )
    tables = Tables(
        samples=samples,
        files=table,
        file_names=names,
        folders=folders,
        folder_names=folder_names,
    )
    write_places(folder, places, tables)
    return read_places(folder), rows


def _copies(files: Sequence[File], known: Known) -> tuple[dict[int, Dropped], dict[str, str]]:
    """Place among the files -> why a copy goes; and which copies stay, as in `Copies`."""
    kept = np.flatnonzero(known.kept())
    digests = known.rows[["digest", "twin"]][kept]
    order = np.lexsort((digests["twin"], digests["digest"]))
    ordered = digests[order]
    same = ordered[1:] == ordered[:-1]
    repeated = np.concatenate([[False], same]) | np.concatenate([same, [False]])
    places = kept[order[repeated[: len(order)]]].tolist()
    images = ((files[place], known.rows[place]) for place in places)
    dropped, repeats = find_copies(
        (file, f"{int(row['digest']):016x}{int(row['twin']):016x}") for file, row in images
    )
    goes = {place: dropped[files[place].path] for place in places if files[place].path in dropped}
    return goes, repeats


def _holders(source: Source) -> tuple[NDArray[np.uint32], NDArray[np.void], bytes]:
    """Number of the file that holds each image; FILE of all files there are, and their names.

    What is no image is among them, so that it is not taken for new when a folder is looked at; and
    tables, so that it is noticed when one changes.
    """
    numbers = np.empty(len(source.files), np.uint32)
    first: dict[str, int] = {}
    facts: list[tuple[str, int, int, int]] = []
    for place, file in enumerate(source.files):
        if not file.container:
            numbers[place] = len(facts)
            facts.append((file.path, file.bytes, file.modified_ns, 1))
            continue
        if file.container not in first:
            first[file.container] = len(facts)
            size = (source.root / file.container).stat().st_size
            facts.append((file.container, size, file.modified_ns, 0))
        numbers[place] = first[file.container]
    facts += [(odd.path, 0, 0, 1) for odd in source.oddities]
    facts += [(*one, 0) for one in source.lists]
    names, ends = names_of(path for path, *_ in facts)
    table = np.zeros(len(facts), FILE)
    table["name_end"] = ends
    for column, name in enumerate(("bytes", "modified_ns", "alone"), 1):
        table[name] = [fact[column] for fact in facts]
    return numbers, table, names


def _samples(
    plan: Plan, known: Known, stays: NDArray[np.bool_], numbers: NDArray[np.uint32]
) -> dict[str, NDArray[np.void]]:
    """PLACE of each split, in the order that its samples would have in shards."""
    files = plan.source.files
    rows = np.zeros(len(files), PLACE)
    rows["file"] = numbers
    rows["offset"] = [max(file.offset, 0) for file in files]  # below 0: compressed, and left out
    rows["label"] = [file.label for file in files]
    for name in ("size", "height", "width", "crc32", "orientation", "kind", "seek", "seek_size"):
        rows[name] = known.rows[name]
    splits = np.array([SPLITS.index(file.split) for file in files])
    samples = {}
    for number, split in enumerate(SPLITS):
        of_split = np.flatnonzero(splits == number)
        if len(of_split):
            ordered = of_split[order_of_split(split, len(of_split), seed=plan.options.seed)]
            samples[split] = rows[ordered[stays[ordered]]]
    return samples


def _folders(source: Source) -> tuple[bytes, NDArray[np.void]]:
    # What lies beside files that were named one by one is no news.
    paths = [file.container or file.path for file in source.files]
    found = _look_at(source.root, paths) if source.walked else []
    names, ends = names_of(path for path, _, _ in found)
    table = np.zeros(len(found), FOLDER)
    table["name_end"] = ends
    table["modified_ns"] = [modified_ns for _, modified_ns, _ in found]
    table["folders"] = [folders for _, _, folders in found]
    return names, table


def _look_at(root: AnyPath, paths: Sequence[str]) -> list[tuple[str, int, int]]:
    return look_at_folders(root, paths) if isinstance(root, Path) else look_at_listed(root, paths)


def _within(word: Path | str, root: AnyPath) -> str:
    """A part of the source, relative to the root."""
    if isinstance(root, Path):
        return os.path.relpath(word, root)
    return str(word).removeprefix(str(root)).strip("/") or "."


def _root_from(folder: Path, root: AnyPath) -> str:
    """The root as the index names it: relative where the index lies in it, as both may move."""
    if not isinstance(root, Path):
        return str(root)
    real, inner = Path(os.path.realpath(root)), Path(os.path.realpath(folder))
    return os.path.relpath(real, inner) if inner.is_relative_to(real) else str(real)


def _recipe(source: Source, options: IndexOptions, keys: NDArray[np.uint64]) -> str:
    facts = [list(source.classes), list(source.class_names), list(options.words)]
    digest = hashlib.blake2b(digest_of(facts).encode(), digest_size=16)
    digest.update(keys.tobytes())
    digest.update(np.array([file.label for file in source.files], "<i4").tobytes())
    digest.update(bytes(SPLITS.index(file.split) for file in source.files))
    for odd in source.oddities:
        digest.update(os.fsencode(f"{odd.path}\0{odd.reason.slug}\0"))
    return digest.hexdigest()
