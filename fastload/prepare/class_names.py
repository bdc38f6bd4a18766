"""Class folders -> the names of the classes, and the readable ones of Pl@ntNet's tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
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

# Pl@ntNet-300K's table of species: as it is published in the archive, and as it is found elsewhere.
_PLANTNET_NAMES = ("plantnet300K_species_names.json", "plantnet300K_species_id_2_name.json")


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
    twins = [
        f"{' and '.join(map(visible, group))} ({difference(group)})"
        for group in look_alikes(classes)
    ]
    hidden = [
        f"{visible(name)} ({what})" for name in classes if (what := invisible_characters(name))
    ]
    found = (
        ("one class each, since Unicode has two forms for one name: ", merged),
        ("classes that look alike; rename a folder if they are one class: ", twins),
        ("classes whose names hold what nobody sees: ", hidden),
    )
    return tuple(classes), [f"{what}{named(names)}" for what, names in found if names]


def readable_names(
    root: Path, layout: Layout, classes: Sequence[str]
) -> tuple[tuple[str, ...], list[str]]:
    """Pl@ntNet's species names for its folder names, and a sentence where a table lacks some.

    The table lies beside the images, in the source or in a folder between, or beside the source.
    """
    inner = Path(layout.base.path)
    folders = [root / part for part in (inner, *inner.parents)] if inner.parts else [root]
    tables = [
        (path, _read_names(path))
        for folder in (*folders, root.resolve().parent)
        for name in _PLANTNET_NAMES
        if (path := folder / name).exists()
    ]
    if not tables:
        return tuple(classes), []
    path, table = max(tables, key=lambda one: sum(name in one[1] for name in classes))
    lacking = [name for name in classes if name not in table]
    if len(lacking) == len(classes) and path.parent not in folders:
        return tuple(classes), []  # of another set, beside this one
    note = f"{path} names {'none' if len(lacking) == len(classes) else 'not all'} of the classes"
    names = tuple(table.get(name, name) for name in classes)
    return names, [f"{note}: it lacks {named(lacking)}"] if lacking else []


def _read_names(path: Path) -> dict[str, str]:
    fault = "" if path.is_file() else "no regular file"
    table: Any = None
    try:
        table = {} if fault else json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        fault = str(error)
    if not fault and not (
        isinstance(table, dict) and all(isinstance(name, str) for name in table.values())
    ):
        fault = "expected an object of number to name"
    if fault:
        raise LayoutError(f"{path} is not a table of species names ({fault}); repair or remove it")
    names: dict[str, str] = table
    return names
