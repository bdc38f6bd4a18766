"""A table of labels -> the images that it names: CSV, TSV, or JSON lines, with a header.

path,label,split          images/1.jpg,rose,train          paths are relative to the table
"""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn, TextIO

from fastload.console.terminal import counted, printable
from fastload.errors import LayoutError
from fastload.prepare.found import Found
from fastload.prepare.labels import (
    LABEL_FIELDS,
    ClassList,
    choose_field,
    field_key,
    is_number,
    joined_names,
    label_text,
    number_of,
    take_labels,
)
from fastload.prepare.layout import LayoutOptions, named
from fastload.prepare.listed import Listed
from fastload.prepare.naming import read_name, splits_of_paths
from fastload.prepare.spelling import visible
from fastload.prepare.tree import Exclusions
from fastload.store.object_paths import AnyPath

IMAGE_FIELDS = (
    *("path", "paths", "filepath", "file_path", "filepaths", "filename", "file_name", "file"),
    *("image_path", "image", "img_path", "img", "image_name", "image_file", "image_filename"),
    *("relative_path", "rel_path", "fname", "image_id", "img_id", "id"),
)
_SPLIT_FIELDS = ("split", "set", "subset", "partition", "data_set", "dataset", "phase", "usage")
_NAME_FIELDS = (
    *("class_name", "classname", "label_name", "category_name", "species_name"),
    *("scientific_name", "species", "category", "class", "breed"),
)
_DELIMITERS = ",;\t|"
_PROBED = 100  # rows by which the folder of the paths is found
_SUFFIXES = ("", ".jpg", ".jpeg", ".JPG", ".JPEG", ".png")  # Kaggle's tables name images by id
_MOST_FOLDERS = 2_000  # below the table, that are looked into


@dataclass(slots=True)
class _Columns:
    """Which columns of a table hold what; "" for one that is not there."""

    image: str
    label: str
    split: str
    name: str


@dataclass(slots=True)
class _Place:
    """How paths of a table lead to files."""

    before: str = ""
    behind: str = ""
    windows: bool = False  # written with backslashes

    def path_of(self, given: str) -> str:
        """The path of a file, relative to the root."""
        given = given.replace("\\", "/") if self.windows else given
        return f"{self.before}{given}{self.behind}"


def find_in_tables(
    paths: Sequence[str], *, root: AnyPath, options: LayoutOptions, exclusions: Exclusions
) -> Found:
    """Find the images that tables name.

    Args:
        paths: The tables, relative to the root.
        root: The folder that all tables lie in.
        options: Which columns to take, where their names do not say so.
        exclusions: Images that are passed over.

    Raises:
        LayoutError: If a table is damaged, names files outside its folder, or names a file twice
            with two labels or in two splits.
        OSError: If a table cannot be read.
    """
    listed = Listed(paths, root, exclusions, "line")
    splits = splits_of_paths(paths, root) if len(paths) > 1 else {}
    names: list[tuple[str, int, str]] | None = []
    for number, path in enumerate(paths):
        table = _Table(number, listed, options)
        table.take(splits.get(path, ""))
        told = table.names or {}
        if names is not None and table.names is not None and all(map(is_number, told)):
            names += [(path, number_of(label), name) for label, name in told.items()]
        else:
            names = None  # the column is none of names for these classes
    found = listed.finish()
    classes = ClassList("a column of the table", joined_names(names)) if names else None
    return take_labels(found, listed=classes, folders=[(root / paths[0]).parent, root])


def rows_of_table(table: Path) -> list[tuple[str, str, str]]:
    """Path, class and split in each row of a table, for who does not need classes.

    A file may lie anywhere, and need not be there.

    Returns:
        Paths are relative to the folder of the table, or absolute; class and split may be "".

    Raises:
        LayoutError: If the table is damaged, or has no column of paths.
        OSError: If it cannot be read.
    """
    root = table.parent
    listed = Listed([table.name], root, Exclusions((), root), "line")
    return list(_Table(0, listed, LayoutOptions()).rows())


class _Table:
    """One table while it is read."""

    def __init__(self, number: int, listed: Listed, options: LayoutOptions) -> None:
        self.number = number
        self.listed = listed
        self.options = options
        self.path = listed.paths[number]
        self.file = listed.root / self.path
        self.folder = self.path.rpartition("/")[0]
        self.names: dict[str, str] | None = {}  # label -> readable name

    def take(self, split: str) -> None:
        """Take the images of all rows; `split` is that of rows which name none."""
        probed = list(islice(self._rows(), _PROBED))
        if not probed:
            raise LayoutError(f"{self.file} has no rows below its header")
        columns = self._columns(probed)
        place = self._place([str(row.get(columns.image) or "") for _, row in probed])
        for line, row in self._rows():
            self._take_row(line, row, columns, place, split)

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """Path, class and split of each row that names a file."""
        probed = list(islice(self._rows(), _PROBED))
        if not probed:
            raise LayoutError(f"{self.file} has no rows below its header")
        columns = self._columns(probed, labelled=False)
        try:
            place = self._place([str(row.get(columns.image) or "") for _, row in probed])
        except LayoutError:
            place = _Place()  # each file is missed by itself
        for _, row in self._rows():
            given, label = (row.get(name) for name in (columns.image, columns.label))
            if given not in {None, ""}:
                split = read_name(str(row.get(columns.split) or "")).split
                yield place.path_of(str(given)), "" if label is None else str(label), split

    def _columns(
        self, probed: Sequence[tuple[int, dict[str, Any]]], *, labelled: bool = True
    ) -> _Columns:
        fields = list(probed[0][1])
        what, asked = f"{self.file} has no column", self.options
        image = choose_field(fields, asked.image_field, IMAGE_FIELDS, what, "--image-field")
        others = [name for name in fields if name != image]
        label = choose_field(others, asked.label_field, LABEL_FIELDS, what, "--label-field")
        if not image or (labelled and not label):
            lacking = "the paths of the images" if not image else "the labels"
            option = "--image-field" if not image else "--label-field"
            columns = f"path,label,split; {option} names another" if labelled else "path"
            raise LayoutError(
                f"{self.file} has no column that is known to hold {lacking}: it has "
                f"{named(map(printable, fields))}; its first row must name the columns, such as "
                f"{columns}"
            )
        others = [name for name in others if name != label]
        split = choose_field(others, asked.split_field, _SPLIT_FIELDS, what, "--split-field")
        if split and not asked.split_field and field_key(split) != _SPLIT_FIELDS[0]:
            told = [str(row.get(split)) for _, row in probed]
            if not any(read_name(one).split for one in told):
                self.listed.found.notes.append(
                    f"passed over, no splits: column {printable(split)}, such as {visible(told[0])}"
                )
                split = ""
        aside = [name for name in others if _may_tell_splits(name)]
        if aside and not split:
            self.listed.found.notes.append(
                f"passed over: column {printable(aside[0])}; a column split, with train, val or "
                "test in each row, would be read"
            )
        names = {field_key(name): name for name in others if name != split}
        name = next((names[key] for key in _NAME_FIELDS if key in names), "")
        said = [f"paths in {image}", f"labels in {label}", f"splits in {split}" if split else ""]
        words = ", ".join(map(printable, filter(None, said)))
        self.listed.found.layout = f"listed in {named(self.listed.paths)}: {words}"
        return _Columns(image, label, split, name)

    def _take_row(
        self, line: int, row: dict[str, Any], columns: _Columns, place: _Place, split: str
    ) -> None:
        given = row.get(columns.image)
        if isinstance(given, bool) or not isinstance(given, str | int) or given == "":
            self._refuse(line, "names no file")
        path = self.listed.within(self.number, line, given, place.path_of(str(given)))
        try:
            label = label_text(row.get(columns.label))
        except ValueError as error:
            self._refuse(line, f"has {error} in {printable(columns.label)}; expected one class")
        if columns.split:
            told = str(row.get(columns.split))
            split = read_name(told).split
            if not split:
                what = f"has {visible(told)} in {printable(columns.split)}"
                self._refuse(line, f"{what}; expected train, val or test")
        if columns.name and self.names is not None and label:
            name = str(row.get(columns.name) or "").strip()
            if self.names.setdefault(label, name) != name:
                self.names = None  # no names of these classes
        words = f"column {printable(columns.split)}" if columns.split else self.path
        self.listed.found.places.setdefault(split, words)
        self.listed.take(self.number, line, path, label, split)

    def _refuse(self, line: int, what: str) -> NoReturn:
        self.listed.refuse(self.number, line, what)

    def _place(self, given: Sequence[str]) -> _Place:
        """How the paths lead to files: as they stand, or from a folder beside the table."""
        before = f"{self.folder}/" if self.folder else ""

        def there(place: _Place, given: Sequence[str] = given) -> int:
            paths = (place.path_of(path) for path in given if path and "\0" not in path)
            return sum((self.listed.root / path).exists() for path in paths)

        windows = not there(_Place(before), [path for path in given if "\\" in path])
        for behind in _SUFFIXES:
            if there(place := _Place(before, behind, windows)):
                return self._noted(place)
        folders = list(islice(self._folders_below(), _MOST_FOLDERS))
        for behind in _SUFFIXES:
            counts = {one: there(_Place(f"{before}{one}/", behind, windows)) for one in folders}
            most = max(counts.values(), default=0)
            best = [one for one, count in counts.items() if count == most]
            if most and len(best) > 1:
                raise LayoutError(
                    f"{self.file} names files that lie in {named(best)} alike, such as "
                    f"{printable(given[0])}; name them relative to the table"
                )
            if most:
                return self._noted(_Place(f"{before}{best[0]}/", behind, windows))
        raise LayoutError(
            f"{self.file} names {printable(given[0])}, which is not there, as none of the first "
            f"{counted(len(given), 'file')} is; paths must be relative to the folder of the table"
        )

    def _noted(self, place: _Place) -> _Place:
        if place.before.strip("/") != self.folder or place.behind:
            example = place.path_of("NAME")
            self.listed.found.notes.append(f"the images of {self.path} are {example}")
        return place

    def _folders_below(self) -> Iterator[str]:
        top = self.file.parent
        for folder in sorted(one for one in top.iterdir() if one.is_dir() and one.name[0] != "."):
            yield folder.name
            yield from sorted(
                f"{folder.name}/{one.name}" for one in folder.iterdir() if one.is_dir()
            )

    def _rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Line number and columns of each row."""
        with self.file.open("rb") as file:
            head = file.read(2)
        encoding = "utf-16" if head in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE} else "utf-8"
        suffix = self.file.suffix.lower()
        with self.file.open(encoding=encoding, errors="surrogateescape", newline="") as file:
            try:
                if file.read(1) != "\ufeff":
                    file.seek(0)
                objects = suffix in {".jsonl", ".ndjson", ".json"}
                for line, row in self._objects(file) if objects else self._cells(file, suffix):
                    self._check_encoding(line, row)
                    yield line, row
            except UnicodeError as error:
                raise LayoutError(f"{self.file} is not UTF-16; save it as UTF-8") from error

    def _check_encoding(self, line: int, row: dict[str, Any]) -> None:
        for value in row.values():
            if isinstance(value, str) and not value.isascii() and not _is_sound(value):
                self._refuse(line, "is not UTF-8; save the table as UTF-8")

    def _cells(self, file: TextIO, suffix: str) -> Iterator[tuple[int, dict[str, Any]]]:
        start = file.tell()
        first = file.readline()
        file.seek(start)
        delimiter = "\t" if suffix in {".tsv", ".tab"} else max(_DELIMITERS, key=first.count)
        reader = csv.reader(file, delimiter=delimiter, strict=True, skipinitialspace=True)
        filled = (cells for cells in reader if any(map(str.strip, cells)))
        try:
            header = next(filled, [])
            self._check_header(header)
            for cells in filled:
                if len(cells) != len(header):
                    what = f"has {counted(len(cells), 'field')}, and the header {len(header)}"
                    self._refuse(reader.line_num, f"{what}; quote a name that holds commas")
                yield reader.line_num, dict(zip(header, cells, strict=True))
        except csv.Error as error:
            self._refuse(reader.line_num, f"is damaged ({error})")

    def _check_header(self, header: Sequence[str]) -> None:
        if not header:
            raise LayoutError(f"{self.file} is empty; expected a header such as path,label")
        twice = sorted({name for name in header if name and header.count(name) > 1})
        if twice:
            raise LayoutError(f"{self.file} has two columns {printable(twice[0])}; rename one")

    def _objects(self, file: TextIO) -> Iterator[tuple[int, dict[str, Any]]]:
        if self.file.suffix.lower() == ".json":
            held = read_json(self.file)
            if not isinstance(held, list):
                raise LayoutError(
                    f"{self.file} holds no images: expected a list of {{path, label}}, or a "
                    "catalogue with images, annotations and categories"
                )
            lines: Iterator[Any] = iter(held)
        else:
            lines = (line for line in file if line.strip())
        for number, line in enumerate(lines, 1):
            row = line
            try:
                row = json.loads(line) if isinstance(line, str) else line
            except (ValueError, RecursionError) as error:
                self._refuse(number, f"is not JSON ({error})")
            if not isinstance(row, dict):
                self._refuse(number, 'is no object; expected {"path": …, "label": …}')
            yield number, row


def _may_tell_splits(column: str) -> bool:
    """Whether a column says yes or no to one split, as fastai's is_valid."""
    key = field_key(column)
    return key.startswith("is_") and bool(read_name(key).split)


def _is_sound(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


def read_json(path: AnyPath) -> Any:  # noqa: ANN401  whatever it holds
    """What a file of JSON holds.

    Raises:
        LayoutError: If it is not JSON in UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            return json.load(file)
    except (ValueError, RecursionError) as error:
        raise LayoutError(f"{path} is not JSON ({error}); repair it") from error
