"""Catalogues in COCO's form, as iNaturalist publishes them -> the images that they name.

train.json  {"images": [{"id", "file_name"}], "annotations": [{"image_id", "category_id"}],
             "categories": [{"id", "name"}]}          or the categories in categories.json
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastload.console.terminal import counted
from fastload.errors import LayoutError
from fastload.prepare.found import Found
from fastload.prepare.labels import ClassList, joined_names, label_text, take_labels
from fastload.prepare.layout import named
from fastload.prepare.listed import Listed
from fastload.prepare.naming import splits_of_paths
from fastload.prepare.tables import read_json
from fastload.prepare.tree import Exclusions
from fastload.store.object_paths import AnyPath

_CATEGORIES = "categories.json"


def is_catalogue(held: object) -> bool:
    """Whether what a file of JSON holds has COCO's form."""
    return isinstance(held, dict) and isinstance(held.get("images"), list)


def find_in_catalogues(
    held: Mapping[str, dict[str, Any]], *, root: AnyPath, exclusions: Exclusions
) -> Found:
    """Find the images that catalogues name.

    Args:
        held: Path of each catalogue, relative to the root -> what it holds.
        root: The folder that they lie in.
        exclusions: Images that are passed over.

    Raises:
        LayoutError: If a catalogue is damaged, names files outside its folder, or gives an image
            two classes.
    """
    paths = list(held)
    listed = Listed(paths, root, exclusions, "image")
    splits = splits_of_paths(paths, root) if len(held) > 1 else dict.fromkeys(paths, "")
    names: list[tuple[str, int, str]] = []
    for number, (path, catalogue) in enumerate(held.items()):
        split = splits[path]
        if split == "test" and not catalogue.get("annotations"):
            images = counted(len(catalogue["images"]), "image")
            listed.found.notes.append(f"passed over, no labels: {path} ({images})")
            continue
        listed.found.places.setdefault(split, path)
        try:
            names += [(path, *one) for one in _names_in(catalogue, root / path, listed.found)]
            _take_images(catalogue, number, split, listed)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise LayoutError(
                f"{root / path} is no catalogue of labelled images ({error})"
            ) from error
    found = listed.finish()
    origin = f"the categories of {named(paths)}"
    listed_classes = ClassList(origin, joined_names(names)) if names else None
    return take_labels(found, listed=listed_classes, folders=[root])


def _take_images(catalogue: dict[str, Any], number: int, split: str, listed: Listed) -> None:
    folder = listed.paths[number].rpartition("/")[0]
    labels = _labels_in(catalogue)
    names: dict[Any, str] = {}
    for place, image in enumerate(catalogue["images"], 1):
        name = str(image["file_name"])
        if (first := names.setdefault(image["id"], name)) != name:
            raise ValueError(f"two images have the id {image['id']!r}: {first} and {name}")
        given = f"{folder}/{name}" if folder and not name.startswith("/") else name
        path = listed.within(number, place, name, given)
        listed.take(number, place, path, labels.get(image["id"], ""), split)


def _labels_in(catalogue: dict[str, Any]) -> dict[Any, str]:
    """Id of an image -> the number of its category.

    Raises:
        ValueError: If an image has two.
    """
    labels: dict[Any, str] = {}
    for one in catalogue.get("annotations") or []:
        category = label_text(one["category_id"])
        first = labels.setdefault(one["image_id"], category)
        if first != category:
            raise ValueError(
                f"image {one['image_id']!r} has two categories, {first} and {category}; expected "
                "one class for each image"
            )
    return labels


def _names_in(catalogue: dict[str, Any], path: AnyPath, found: Found) -> list[tuple[int, str]]:
    """Number and name of each category; those of categories.json where the catalogue has none."""
    categories = catalogue.get("categories") or []
    beside = path.with_name(_CATEGORIES)
    if not any("name" in one for one in categories) and beside.is_file():
        found.note_list(beside)
        held = read_json(beside)
        categories = held.get("categories", []) if isinstance(held, dict) else held
    return [(int(one["id"]), str(one.get("name", one["id"]))) for one in categories]
