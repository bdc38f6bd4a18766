"""What images there are: (path, split, label) of every one, and the names of the classes.

folders ─▶ images with labels ─▶ numbers for classes, splits where there are none ─▶ Source
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np

from fastload import randomness
from fastload.console.shell import exclude_option, module_command
from fastload.console.terminal import counted
from fastload.errors import LayoutError
from fastload.files import explain_os_error
from fastload.prepare.catalogues import find_in_catalogues, is_catalogue
from fastload.prepare.folders import find_in_folders
from fastload.prepare.found import Found, Oddity
from fastload.prepare.given import ARCHIVES, Kind, common_folder, kind_of, places_of
from fastload.prepare.layout import LayoutOptions, named, split_alone, splits_beside
from fastload.prepare.naming import SPLITS, read_name
from fastload.prepare.parquet import find_in_parquet
from fastload.prepare.spelling import visible
from fastload.prepare.tables import find_in_tables, read_json
from fastload.prepare.tars import find_in_tars
from fastload.prepare.tree import Exclusions, Folder, scan_tree
from fastload.store.object_paths import AnyPath, ObjectPath, path_from

Where: TypeAlias = str | os.PathLike[str]

_WITHIN = {".tar": Kind.TAR, ".parquet": Kind.PARQUET}  # files in which images lie
_FIELDS = ("image_field", "label_field", "split_field")
_TABLES = frozenset((".csv", ".tsv", ".jsonl", ".ndjson"))
_HELD_OUT = 0.1  # of each class in val, and as much in test, where the folders give no split


@dataclass(frozen=True, slots=True)
class File:
    """One image.

    Attributes:
        path: Path relative to the source, with "/" between its parts; bytes that are not UTF-8 are
            surrogates (`os.fsdecode`).
        split: "train", "val" or "test".
        label: Position of the file's class in `Source.classes`.
        bytes: Size of the image.
        modified_ns: Time of the last change of the file that holds it, nanoseconds.
        container: Path of the file that holds the image, relative to the source; "" where that is
            `path` itself.
        offset: Of the image's first byte in that file; below 0 where the image is compressed there
            and is no range of the file, so that only `read_bytes` can read it.
    """

    path: str
    split: str
    label: int
    bytes: int
    modified_ns: int
    container: str = ""
    offset: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What images there are.

    Attributes:
        root: The folder that the paths are relative to, on a disk or in an object store.
        layout: How the source was understood, in words.
        classes: Names of the classes. Class folders are sorted by code point, as ImageFolder
            sorts them.
        class_names: Readable names of the classes, in the same order.
        files: The files, sorted by split, label and path.
        oddities: What was found beside the images.
        folders: Split -> where it was read from, in words.
        notes: What was passed over and what is doubtful, a sentence each.
        imageless: Labels of the classes that have no image in train, as far as names and first
            bytes tell.
        walked: Whether all that lies in `root` belongs to the source, so that nothing may be
            written there.
        lists: Path, bytes and time of each file that tells labels and holds no image: a table.
    """

    root: AnyPath
    layout: str
    classes: tuple[str, ...]
    class_names: tuple[str, ...]
    files: tuple[File, ...]
    oddities: tuple[Oddity, ...]
    folders: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    imageless: frozenset[int] = frozenset()
    walked: bool = True
    lists: tuple[tuple[str, int, int], ...] = ()

    @property
    def folder(self) -> Path:
        """The root of a source that lies on a disk.

        Raises:
            LayoutError: If it lies in an object store.
        """
        if isinstance(self.root, ObjectPath):
            raise LayoutError(
                f"{self.root} lies in an object store, where this is not done; {_copy(self.root)}"
            )
        return self.root

    def described(self) -> list[str]:
        """What was taken for what, a line each, before any image is read."""
        found = f"{counted(len(self.files), 'file')} of {counted(len(self.classes), 'class')}"
        lines = [f"{found}, {self.layout}"]
        for split, folder in self.folders.items():
            files = [file.label for file in self.files if file.split == split]
            classes = len(set(files))
            found = f"{counted(classes, 'class')}, {counted(len(files), 'file')}"
            lines.append(f"  {split:<6}from {folder}: {found}")
        lines.append(f"  classes: {named(self.classes)}")
        return lines + [f"  {note}" for note in self.notes]


def _copy(root: ObjectPath) -> str:
    return f"copy it first: {module_command('fastload.fetch', str(root), Path('photographs'))}"


def read_source(
    where: Where | Sequence[Where], *, seed: int = 0, options: LayoutOptions | None = None
) -> Source:
    """Find out what a source holds.

    Args:
        where: A folder, a tar, a table, a parquet file, or a pattern of such files; or several
            files of one kind. All but parquet also by their addresses in an object store.
        seed: Seed of the split, where the source gives none.
        options: How to understand the source; None decides by names and places alone.

    Raises:
        LayoutError: If there are no labelled images, or the source can be read in two ways.
        ShardError: If objects cannot be listed or read.
        StalledError: If the object store does not answer.
    """
    options = options or LayoutOptions()
    words = [where] if isinstance(where, str | os.PathLike) else where
    if not words:
        raise ValueError("where must name a source, got nothing")
    try:
        found = _find([os.fspath(word) for word in words], options)
        return _source_of(found, seed, options)
    except OSError as error:
        raise LayoutError(explain_os_error(error)) from error


def _find(words: Sequence[str], options: LayoutOptions) -> Found:
    """What lies at the places given, by what they are."""
    places = places_of(words)
    kind = _kind_of_all(places)
    if kind is Kind.FOLDER:
        if len(places) > 1:
            raise LayoutError(
                f"{named(map(str, places))} are {len(places):,} folders; name the one folder that "
                "holds them, or files of one kind"
            )
        return _find_in_folder(places[0], options)
    root = common_folder(places)
    paths = [path_from(root, place) for place in places]
    return _find_in_files(kind, paths, root, options, Exclusions(options.exclude, root))


def _kind_of_all(places: Sequence[AnyPath]) -> Kind:
    """What all places are."""
    kinds: dict[Kind, AnyPath] = {}
    for place in places:
        kind = kind_of(place)
        if kind is None:
            what = "a file" if place.exists() else "not there"
            if len(places) > 1 and not place.exists():
                raise LayoutError(f"{place} is not there; quote a name that has spaces in it")
            raise LayoutError(
                f"{place} is {what}; expected a folder of class folders with images, a tar, a "
                "table (.csv, .tsv, .jsonl, .json), or a parquet file"
            )
        kinds.setdefault(kind, place)
    if len(kinds) > 1:
        said = " and ".join(f"{place} is {kind.value}" for kind, place in kinds.items())
        raise LayoutError(f"{said}; name one folder, or files of one kind")
    return next(iter(kinds))


def _find_in_files(
    kind: Kind,
    paths: Sequence[str],
    root: AnyPath,
    options: LayoutOptions,
    exclusions: Exclusions,
) -> Found:
    """What lies in files of one kind."""
    if kind is Kind.JSON:
        held = {path: read_json(root / path) for path in paths}
        if all(map(is_catalogue, held.values())):
            _refuse_options(options, "a catalogue", *_FIELDS, "layout")
            return find_in_catalogues(held, root=root, exclusions=exclusions)
        kind = Kind.TABLE
    if kind is Kind.PARQUET:
        _refuse_options(options, kind.value, "layout", "split_field")
        if isinstance(root, ObjectPath):
            raise LayoutError(
                f"{root / paths[0]}: parquet files are not read in an object store; {_copy(root)}"
            )
        return find_in_parquet(paths, root=root, options=options, exclusions=exclusions)
    _refuse_options(options, kind.value, "layout" if kind is Kind.TABLE else "split_field")
    find = find_in_tables if kind is Kind.TABLE else find_in_tars
    return find(paths, root=root, options=options, exclusions=exclusions)


def _refuse_options(options: LayoutOptions, source: str, *names: str) -> None:
    """See that no option was given that says nothing of such a source."""
    for name in names:
        if getattr(options, name) not in {"", "auto"}:
            raise LayoutError(f"--{name.replace('_', '-')} says nothing of {source}; leave it out")


def _find_in_folder(root: AnyPath, options: LayoutOptions) -> Found:
    """What lies in a folder: class folders, or, where no image lies there, tars or parquet."""
    exclusions = Exclusions(options.exclude, root)
    top = scan_tree(root, exclusions)
    within = [
        (folder.path_of(name), _WITHIN[ending])
        for folder in ([] if top.holds_images else top.walk())
        for name in folder.files
        if (ending := Path(name).suffix.lower()) in _WITHIN
    ]
    tars = {path[: -len(".tar")] for path, kind in within if kind is Kind.TAR}
    within = [  # img2dataset writes a parquet file of what it did beside each tar
        (path, kind)
        for path, kind in within
        if kind is Kind.TAR or path[: -len(".parquet")] not in tars
    ]
    kinds = {kind for _, kind in within}
    if len(kinds) > 1:
        raise LayoutError(
            f"{root} can be read in two ways: it holds tars and parquet files; name the files"
        )
    if within:
        found = _find_in_files(kinds.pop(), [path for path, _ in within], root, options, exclusions)
        found.walked = True
        packed = [name for name in top.files if Path(name).suffix.lower() in ARCHIVES]
        if packed:
            found.notes.append(f"passed over, compressed: {named(packed)}")
        return found
    exclusions.refuse_unused()
    _refuse_options(options, "class folders", *_FIELDS)
    try:
        found = find_in_folders(top, root=root, options=options)
    except LayoutError as error:
        if listed := _find_in_own_catalogues(top, root, exclusions):
            return listed
        tables = [root / name for name in top.files if Path(name).suffix.lower() in _TABLES]
        if tables and sum(folder.pictures > 0 for folder in top.walk()) <= len(SPLITS):
            raise LayoutError(f"{error}; {tables[0]} may be its table: give that") from error
        raise
    deep = not any(image.path.split("/")[-2:-1] == [image.label] for image in found.images)
    return (_find_in_own_catalogues(top, root, exclusions) if deep else None) or found


def _find_in_own_catalogues(top: Folder, root: AnyPath, exclusions: Exclusions) -> Found | None:
    """What catalogues in a folder name; None where there are none.

    iNaturalist's folders of 2017 and 2018 are of kingdoms, with those of species within them.
    """
    names = [name for name in top.files if name.lower().endswith(".json")]
    splits = {name: read_name(Path(name).stem).split for name in names}
    chosen = [name for name in names if splits[name]]
    if "train" not in splits.values():
        return None
    held = {name: read_json(root / name) for name in chosen}
    if not all(map(is_catalogue, held.values())):
        return None
    return find_in_catalogues(held, root=root, exclusions=exclusions)


def _source_of(found: Found, seed: int, options: LayoutOptions) -> Source:
    """Number the images' labels, split what has no splits, and sort."""
    classes, numbers = found.classes.classes, found.classes.numbers
    files = [
        File(
            *(one.path, one.split, numbers[one.label], one.bytes, one.modified_ns),
            *(one.container, one.offset),
        )
        for one in found.images
    ]
    found.images.clear()  # a million take 200 MB
    files.sort(key=lambda file: (file.label, file.path))
    files, places = _split_where_needed(files, found.places, seed, options)
    files.sort(key=lambda file: (SPLITS.index(file.split), file.label, file.path))
    imageless = frozenset(range(len(classes))) - {numbers[name] for name in found.pictured}
    notes = [*found.notes, *found.classes.notes]
    if not training_needed(files):
        notes.append(
            "no train: for evaluation only, with labels numbered by these classes; a model must "
            "have been trained on the same ones"
        )
    if imageless:
        lacking = named(visible(classes[label]) for label in sorted(imageless))
        where = "in train" if training_needed(files) else "here"
        notes.append(f"classes without an image {where}: {lacking}")
    root = found.root
    given = root.absolute()  # of "." too
    others = splits_beside(given) if found.walked else {}
    if others and not found.places.keys().isdisjoint({"", split_alone(given.name)}):
        beside = named(sorted(others.values()))
        notes.append(
            f"{root} is read alone, without {beside} beside it; did you mean {root.parent}?"
        )
    if len(classes) == 1:
        notes.append("a classifier needs more than one class")
    return Source(
        root=root,
        layout=found.layout,
        classes=classes,
        class_names=found.classes.class_names,
        files=tuple(files),
        oddities=tuple(found.oddities),
        folders=places,
        notes=tuple(notes),
        imageless=imageless,
        walked=found.walked,
        lists=tuple(found.lists),
    )


def _split_where_needed(
    files: list[File], places: Mapping[str, str], seed: int, options: LayoutOptions
) -> tuple[list[File], dict[str, str]]:
    """The files with their splits, and where each split comes from, in words."""
    val, test = options.val_fraction, options.test_fraction
    if "" in places:
        val = _HELD_OUT if val is None else val
        test = _HELD_OUT if test is None else test
        files = split_files(files, seed=seed, val=val, test=test)
        place, said = places[""] or "the folder", {"val": val, "test": test}
    else:
        if "train" not in places and not (val is None and test is None):
            raise LayoutError(
                f"--{'test' if val is None else 'val'}-fraction takes images from train, and there "
                f"is no train, only {' and '.join(places)}; leave the option out to evaluate with "
                "these, or take every folder for a class with --layout classes"
            )
        for split, fraction in (("val", val), ("test", test)):
            if fraction is not None and split in places:
                folder = not any(file.container for file in files)
                others = f", or the folder with {exclude_option(places[split])}" if folder else ""
                raise LayoutError(
                    f"--{split}-fraction {fraction} takes {split} from train, but {places[split]} "
                    f"is {split} already; leave the option out{others}"
                )
        train = [file for file in files if file.split == "train"]
        rest = [file for file in files if file.split != "train"]
        if val or test:
            train = split_files(train, seed=seed, val=val or 0.0, test=test or 0.0)
        files = [*train, *rest]
        place, said = places.get("train", ""), {"val": val or 0.0, "test": test or 0.0}
    present = {file.split for file in files}
    origins = {}
    for split in SPLITS:
        if split in places:
            origins[split] = places[split] or "the folder"
        elif split in present:
            share = f"{said[split]:g} of each class of " if split in said else ""
            origins[split] = f"{share}{place}"
    return files, origins


def split_files(files: Sequence[File], *, seed: int, val: float, test: float) -> list[File]:
    """Give each file a split, class by class.

    A class of three or more has at least one image in each split whose fraction is above 0; one of
    two has train and val, or test where val is 0; one of one is in train. The choice depends on the
    seed and on the sorted order of the files alone.

    Args:
        files: The files, sorted.
        seed: Another seed, another choice.
        val: Fraction of each class in val.
        test: Fraction of each class in test; with `val` below 1.
    """
    members: dict[int, list[int]] = {}
    for index, file in enumerate(files):
        members.setdefault(file.label, []).append(index)
    result = list(files)
    keys = randomness.hashes(seed, 0, np.arange(len(files)))
    for indices in members.values():
        count = len(indices)
        in_val = min(max(1, round(count * val)), count - 1) if val else 0
        in_test = min(max(1, round(count * test)), count - 1 - in_val) if test else 0
        shuffled = sorted(indices, key=keys.__getitem__)
        for rank, index in enumerate(shuffled):
            split = "val" if rank < in_val else "test" if rank < in_val + in_test else "train"
            file = files[index]  # `replace` takes three times as long
            result[index] = File(
                *(file.path, split, file.label, file.bytes, file.modified_ns),
                *(file.container, file.offset),
            )
    return result


def training_needed(files: Iterable[File]) -> bool:
    """Whether the files of a source are to train with: those of splits without train are not."""
    return any(file.split == "train" for file in files)


def classes_without_training(
    classes: Sequence[str], files: Iterable[File], *, training: bool = True
) -> list[str]:
    """Names of the classes without one of the files in train; if not `training`, in any split."""
    there = {file.label for file in files if file.split == "train" or not training}
    return [name for label, name in enumerate(classes) if label not in there]
