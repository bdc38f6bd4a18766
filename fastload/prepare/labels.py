"""Labels that a source tells beside its images -> classes: `number_labels`.

Integers are labels already: label 7 is class "7", whether or not there is a 6. Names are sorted by
code point, or as a list of classes has them. What a source says of its classes by integers above
`MOST_CLASSES`, as numbers of species in a catalogue, are names too.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fastload.console.terminal import counted, printable
from fastload.errors import LayoutError
from fastload.prepare.class_names import about_spelling, readable_names
from fastload.prepare.found import Classes, Found, Oddity
from fastload.prepare.layout import named
from fastload.prepare.naming import splits_for_classes
from fastload.prepare.reasons import Reason
from fastload.prepare.spelling import one_form, visible
from fastload.store.manifest import MANIFEST_NAME
from fastload.store.object_paths import AnyPath

# What a column of a table, a field of JSON or a member of a sample is called that holds the class,
# the likeliest first.
LABEL_FIELDS = (
    *("label", "labels", "cls", "class", "target", "category", "species", "breed", "y"),
    *("class_name", "classname", "label_name", "category_name", "species_name", "scientific_name"),
    *("class_id", "classid", "label_id", "labelid", "category_id", "species_id", "class_idx"),
    *("class_index", "label_idx", "ground_truth", "gt"),
)
MOST_CLASSES = 100_000  # ImageNet-22k has 21,841; the species of the catalogues have larger numbers
_INTEGER = re.compile(r"-?\d{1,18}(?:\.0+)?")  # pandas writes a column with gaps as 3.0
_NUMBERED = re.compile(r"(\d{1,9})[\s:,]+(\S.*)")
_LISTS = ("classes.txt", "classnames.txt", "class_names.txt")
_MOST_LIST_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class ClassList:
    """What somebody wrote down of the classes.

    Attributes:
        origin: Where, in words.
        names: Label -> name.
    """

    origin: str
    names: dict[int, str]


def label_text(value: object) -> str:
    """What a source says of a class, as a text; "" where it says nothing.

    Raises:
        ValueError: If it is neither a name nor an integer; the message says what it is.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"{value[:20]!r}, which is not UTF-8") from error
    if isinstance(value, str):
        return one_form(value.strip())
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    kinds = {bool: "true or false", float: "a fraction", list: "a list", dict: "an object"}
    kind = kinds.get(type(value), f"of the type {type(value).__name__}")
    raise ValueError(f"{kind}, {str(value)[:60]!r}")


def is_number(label: str) -> bool:
    """Whether a label is an integer: 3, or 3.0."""
    return _INTEGER.fullmatch(label) is not None


def number_of(label: str) -> int:
    """The integer that a label is."""
    return int(label.partition(".")[0])


def joined_names(said: Iterable[tuple[str, int, str]]) -> dict[int, str]:
    """The names of classes, as several lists give them.

    Args:
        said: Path of a list, number of a class, its name there.

    Raises:
        LayoutError: If a class has two names: the lists number the classes in different ways.
    """
    names: dict[int, tuple[str, str]] = {}
    for path, number, name in said:
        first, other = names.setdefault(number, (path, name))
        if other != name:
            raise LayoutError(
                f"{path} calls class {number} {visible(name)}, and {first} calls it "
                f"{visible(other)}; give each class one number, the same in all lists"
            )
    return {number: name for number, (_, name) in names.items()}


def field_key(name: str) -> str:
    """The name of a column or field as it is compared: "Class ID" is class_id."""
    return re.sub(r"[\s\-]+", "_", name.strip().lower())


def choose_field(
    fields: Sequence[str], given: str, likely: Sequence[str], what: str, option: str
) -> str:
    """The field that holds something: the one that was asked for, or the likeliest by its name.

    Args:
        fields: All fields.
        given: What the user asked for, or "".
        likely: Names to look for, the likeliest first, as `field_key` gives them.
        what: What the fields are of, for the message: "labels.csv has no column".
        option: The option that names the field.

    Raises:
        LayoutError: If it is not there, or no name is known and `what` is not "".
    """
    if given:
        if given in fields:
            return given
        raise LayoutError(f"{what} {given}, as {option} asks; it has {_listed(fields)}")
    keys = {field_key(name): name for name in reversed(fields)}
    return next((keys[name] for name in likely if name in keys), "")


def _listed(fields: Sequence[str]) -> str:
    return named([printable(name) for name in fields]) or "none"


def take_labels(
    found: Found,
    *,
    listed: ClassList | None = None,
    folders: Sequence[AnyPath] = (),
) -> Found:
    """Number the classes of a source whose images say what they are.

    Images without a label become oddities. A test split that has none is passed over.

    Args:
        found: The source; its classes are replaced.
        listed: The classes, where the source itself names them.
        folders: Where a list of the classes may lie, the likeliest first.

    Raises:
        LayoutError: If no image has a label, or a label is no class.
    """
    if not found.images:
        odd = next((f"; {odd.path} is {odd.detail}" for odd in found.oddities), "")
        raise LayoutError(f"{found.root} holds no images ({found.layout}){odd}")
    told = {image.label for image in found.images} - {""}
    integers = all(map(is_number, told))
    numbers = {label: number_of(label) for label in told} if integers else {}
    if wrong := sorted(label for label, number in numbers.items() if number < -1):
        raise LayoutError(f"{found.layout}: {wrong[0]} is no label; expected 0, 1, 2, … or a name")
    none = {"", *(label for label, number in numbers.items() if number == -1)}
    _drop_unlabelled(found, none)
    numbers = {label: number for label, number in numbers.items() if label not in none}
    listed = listed or _read_class_list(folders, found)
    if not integers or max(numbers.values()) >= MOST_CLASSES:
        found.classes = _named_classes(sorted(told - none), numbers, listed, folders)
    else:
        found.classes = _numbered_classes(numbers, listed)
    splits = splits_for_classes(image.split for image in found.images)
    found.pictured = {image.label for image in found.images if image.split in splits}
    return found


def _drop_unlabelled(found: Found, none: set[str]) -> None:
    """Leave out the images that have no label."""
    images = Counter(image.split for image in found.images)
    without = Counter(image.split for image in found.images if image.label in none)
    for split, count in without.items():
        if count < images[split]:
            continue
        if split != "test":
            where = f"of {found.places.get(split) or found.root} "
            raise LayoutError(f"none of the {counted(count, 'image')} {where}has a label")
        found.notes.append(f"passed over, no labels: {found.places[split]} ({count:,} images)")
        del found.places[split]
        found.images = [image for image in found.images if image.split != split]
    if without:
        found.oddities += [
            Oddity(image.path, Reason.NO_CLASS, "has no label")
            for image in found.images
            if image.label in none
        ]
        found.images = [image for image in found.images if image.label not in none]


def _numbered_classes(numbers: dict[str, int], listed: ClassList | None) -> Classes:
    """Classes whose labels are given: label i is class i."""
    most = max(numbers.values())
    names = listed.names if listed else {}
    notes = []
    count = max(most, *names, 0) + 1 if names else most + 1
    lacking = [str(number) for number in sorted(set(numbers.values())) if number not in names]
    if listed and lacking:
        notes.append(f"{listed.origin} names not all of the classes: it lacks {named(lacking)}")
    elif listed:
        notes.append(f"names of the classes: {listed.origin}")
    if 0 not in numbers.values() and 0 not in names:
        notes.append(f"labels begin at {min(numbers.values())}: class 0 has no image")
    return Classes(
        classes=tuple(map(str, range(count))),
        class_names=tuple(names.get(label, str(label)) for label in range(count)),
        numbers=numbers,
        notes=tuple(notes),
    )


def _named_classes(
    told: list[str], numbers: dict[str, int], listed: ClassList | None, folders: Sequence[AnyPath]
) -> Classes:
    """Classes whose labels are their places among sorted names."""
    notes = []
    spelled = {label: label for label in told}
    digits = next(filter(is_number, told), "")
    if digits and not numbers:
        other = next(label for label in told if not is_number(label))
        notes.append(
            f"{visible(digits)} is taken for the name of a class, since {visible(other)} is one"
        )
    if numbers:
        shortest = {numbers[label]: label for label in sorted(told, key=len, reverse=True)}
        spelled = {label: shortest[number] for label, number in numbers.items()}  # 3 and 3.0
        told = [label for _, label in sorted(shortest.items())]
        first, last = told[0], told[-1]
        notes.append(
            f"labels from {first} to {last} are taken for names of {counted(len(told), 'class')}, "
            "numbered in their order"
        )
    order = [one_form(name) for _, name in sorted(listed.names.items())] if listed else []
    if listed and set(told) <= set(order) and len(set(order)) == len(order):
        notes.append(f"classes are numbered as in {listed.origin}")
        told = order
    elif listed and not numbers:
        lacking = named(visible(name) for name in told if name not in order)
        notes.append(
            f"{listed.origin} is no list of these classes, which are numbered by name: it "
            f"{f'lacks {lacking}' if lacking else 'has a name twice'}"
        )
    names, about_names = readable_names(folders, folders[-1:], told)
    if listed and numbers:
        names = tuple(
            listed.names.get(numbers.get(label, -1), name)
            for label, name in zip(told, names, strict=True)
        )
    places = {name: label for label, name in enumerate(told)}
    return Classes(
        classes=tuple(told),
        class_names=names,
        numbers={label: places[name] for label, name in spelled.items()},
        notes=(*notes, *about_spelling(told), *about_names),
    )


def _read_class_list(folders: Iterable[AnyPath], found: Found) -> ClassList | None:
    """The first list of classes in the folders: a name a line, or the names of a shard directory.

    A line may begin with its label; else the first line is class 0.

    Raises:
        LayoutError: If a list is not UTF-8.
    """
    for folder in folders:
        for name in _LISTS:
            path = folder / name
            if path.is_file() and path.stat().st_size <= _MOST_LIST_BYTES:
                found.note_list(path)
                try:
                    lines = path.read_text(encoding="utf-8-sig").splitlines()
                except UnicodeDecodeError as error:
                    raise LayoutError(
                        f"{path} is not UTF-8 (byte {error.start:,}); save it as UTF-8"
                    ) from error
                names = _names_in([line.strip() for line in lines if line.strip()])
                return ClassList(str(path), names)
        path = folder / MANIFEST_NAME
        if path.is_file() and (names := _names_of_shards(path)):
            found.note_list(path)
            return ClassList(str(path), names)
    return None


def _names_in(lines: Sequence[str]) -> dict[int, str]:
    numbered = [_NUMBERED.fullmatch(line) for line in lines]
    if all(numbered):
        return {int(one[1]): one[2].strip() for one in numbered if one}
    return dict(enumerate(lines))


def _names_of_shards(path: AnyPath) -> dict[int, str]:
    try:
        manifest: Any = json.loads(path.read_bytes())
        classes = manifest["classes"]
    except (ValueError, RecursionError, TypeError, KeyError):
        return {}
    sound = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    return dict(enumerate(classes)) if sound else {}
