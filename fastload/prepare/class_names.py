"""Class folders -> the names of the classes, and the readable ones of Pl@ntNet's tables."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from fastload.errors import LayoutError
from fastload.prepare.layout import Layout, named
from fastload.prepare.spelling import (
    difference,
    invisible_characters,
    look_alikes,
    one_form,
    visible,
)
from fastload.store.object_paths import AnyPath

# Pl@ntNet-300K's table of species: as it is published in the archive, as it is found elsewhere, and
# that of the second version, whose folders are 0000, 0001, …
_PLANTNET_NAMES = ("plantnet300K_species_names.json", "plantnet300K_species_id_2_name.json")
_PLANTNET_SPECIES = "species_metadata.csv"


def classes_of(layout: Layout) -> tuple[tuple[str, ...], list[str]]:
    """Names of the classes, sorted; sentences about names that look alike or hide something."""
    spelled: dict[str, set[str]] = {}
    for split in layout.splits:
        for folder in layout.class_folders(split):
            spelled.setdefault(one_form(folder.name), set()).add(folder.name)
    classes = sorted(name if len(all_) > 1 else next(iter(all_)) for name, all_ in spelled.items())
    merged = [
        " and ".join(map(visible, sorted(all_))) for all_ in spelled.values() if len(all_) > 1
    ]
    notes = about_spelling(classes)
    if merged:
        notes.insert(
            0, f"one class each, since Unicode has two forms for one name: {named(merged)}"
        )
    return tuple(classes), notes


def about_spelling(classes: Sequence[str]) -> list[str]:
    """Sentences about names that look alike or hide something."""
    twins = [
        f"{' and '.join(map(visible, group))} ({difference(group)})"
        for group in look_alikes(classes)
    ]
    hidden = [
        f"{visible(name)} ({what})" for name in classes if (what := invisible_characters(name))
    ]
    found = (
        ("classes that look alike; rename a folder if they are one class: ", twins),
        ("classes whose names hold what nobody sees: ", hidden),
    )
    return [f"{what}{named(names)}" for what, names in found if names]


def folders_above(root: AnyPath, layout: Layout) -> list[AnyPath]:
    """The folders of a source that may hold a table of names: beside the images, and above."""
    inner = PurePosixPath(layout.base.path)
    return [root / part for part in (inner, *inner.parents)] if inner.parts else [root]


def readable_names(
    folders: Sequence[AnyPath], beside: Sequence[AnyPath], classes: Sequence[str]
) -> tuple[tuple[str, ...], list[str]]:
    """Pl@ntNet's species names for its numbers, and a sentence where a table lacks some.

    Args:
        folders: Folders of the source where a table may lie.
        beside: Folders beside the source: a table there may be of another source.
        classes: Names of the classes.

    Raises:
        LayoutError: If a table is damaged.
    """
    tables = [
        (path, _read_names(path))
        for folder in (*folders, *beside)
        for name in (*_PLANTNET_NAMES, _PLANTNET_SPECIES)
        if (path := folder / name).exists()
    ]
    if not tables:
        return tuple(classes), []
    numbers = {
        name: str(int(name)) if name.isascii() and name.isdecimal() else name for name in classes
    }
    path, table = max(tables, key=lambda one: sum(name in one[1] for name in numbers.values()))
    lacking = [name for name in classes if numbers[name] not in table]
    if len(lacking) == len(classes) and path.parent not in folders:
        return tuple(classes), []  # of another set, beside this one
    note = f"{path} names {'none' if len(lacking) == len(classes) else 'not all'} of the classes"
    names = tuple(table.get(numbers[name], name) for name in classes)
    return names, [f"{note}: it lacks {named(lacking)}"] if lacking else []


def _read_names(path: AnyPath) -> dict[str, str]:
    """Number of a species, without zeros in front -> its name."""
    fault = "" if path.is_file() else "no regular file"
    table: Any = None
    try:
        if not fault:
            text = path.read_bytes()
            table = json.loads(text) if path.suffix == ".json" else _species_in(text)
    except (ValueError, RecursionError, OSError, csv.Error) as error:
        fault = str(error)
    if not fault and not (
        isinstance(table, dict) and all(isinstance(name, str) for name in table.values())
    ):
        fault = "expected an object of number to name"
    if fault:
        raise LayoutError(f"{path} is not a table of species names ({fault}); repair or remove it")
    return {
        str(int(name)) if name.isascii() and name.isdecimal() else name: said
        for name, said in table.items()
    }


def _species_in(text: bytes) -> dict[str, str]:
    """The columns species_id and full_species, or species, of Pl@ntNet-300K's second version."""
    rows = csv.DictReader(io.StringIO(text.decode("utf-8-sig"), newline=""), strict=True)
    columns = rows.fieldnames or []
    name = next((one for one in ("full_species", "species") if one in columns), "")
    if "species_id" not in columns or not name:
        raise ValueError("expected the columns species_id and full_species")
    return {row["species_id"].strip(): (row[name] or "").strip() for row in rows}
