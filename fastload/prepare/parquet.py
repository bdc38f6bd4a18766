"""Parquet with a column of images, as Hugging Face writes it -> the images in it.

    image: struct<bytes: binary, path: string>     label: int64, with the names of ClassLabel

Where the column is stored uncompressed, the bytes of each image lie in the file as they are, and
are found there by comparing. A compressed image is no range of the file: only pyarrow can read it.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from fastload.console.terminal import counted, printable
from fastload.errors import LayoutError, first_line
from fastload.files import open_regular
from fastload.installation import install_command
from fastload.prepare.formats import format_named, sniff_format
from fastload.prepare.found import Classes, Found, Image, Oddity
from fastload.prepare.labels import (
    LABEL_FIELDS,
    ClassList,
    choose_field,
    field_key,
    label_text,
    take_labels,
)
from fastload.prepare.layout import LayoutOptions, named
from fastload.prepare.naming import splits_of_paths
from fastload.prepare.reasons import Reason
from fastload.prepare.tree import Exclusions

_BATCH_ROWS = 64  # images in memory at a time while a file is listed
_CACHED_GROUPS = 4  # of rows; a group of Hugging Face has 100 images, or 1,000
_PROBE_BYTES = 64  # of an image by which its place is looked for
_IMAGE_FIELDS = ("image", "img", "picture", "photo", "jpg", "jpeg", "png", "bytes", "image_bytes")
_ENDINGS = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "GIF": ".gif",
    "BMP": ".bmp",
    "TIFF": ".tif",
    "AVIF": ".avif",
    "JPEG2000": ".jp2",
}


def find_in_parquet(
    paths: Sequence[str], *, root: Path, options: LayoutOptions, exclusions: Exclusions
) -> Found:
    """Find the images in parquet files.

    Args:
        paths: The files, relative to the root.
        root: The folder that they lie in.
        options: Which columns to take, where their names and types do not say so.
        exclusions: Images that are passed over.

    Raises:
        LayoutError: If pyarrow is not there, a file is damaged, or there are no images or labels.
        OSError: If a file cannot be read.
    """
    found = Found(
        root=root,
        layout="",
        images=[],
        places={},
        classes=Classes(classes=(), class_names=(), numbers={}),
    )
    paths = sorted(paths)
    splits = splits_of_paths(paths, root)
    _refuse_two_sets(splits, root)
    listed: ClassList | None = None
    for path in paths:
        names = _Lister(root / path, path, splits[path], found, exclusions).list_file(options)
        if listed is not None and names != listed.names:
            raise LayoutError(f"{path} in {root} names other classes than {paths[0]}")
        listed = ClassList(f"ClassLabel of {paths[0]}", names)
    exclusions.refuse_unused()
    for split in dict.fromkeys(splits.values()):
        those = [path for path, its in splits.items() if its == split]
        more = f" and {len(those) - 1:,} more" if len(those) > 1 else ""
        found.places[split] = those[0] + more
    found.layout = f"rows of {counted(len(paths), 'parquet file')}, {found.layout}"
    packed = sum(image.offset < 0 for image in found.images)
    if packed:
        found.notes.append(
            f"{counted(packed, 'image')} of {len(found.images):,} are compressed in the parquet "
            "files: they can be sharded, and not read in place; to read one, pyarrow unpacks its "
            "whole group of rows"
        )
    folders = dict.fromkeys((root / path).parent for path in paths)
    listed = listed if listed and listed.names else None
    return take_labels(found, listed=listed, folders=[*folders, root])


def _refuse_two_sets(splits: dict[str, str], root: Path) -> None:
    """Refuse folders of the same splits: they are several sets, or one in several forms."""
    folders: dict[str, str] = {}
    for path, split in splits.items():
        folder = path.rpartition("/")[0]
        first = folders.setdefault(split, folder)
        if folder != first:
            raise LayoutError(
                f"{root} can be read in two ways: {first or '.'} and {folder or '.'} both hold "
                f"parquet files{f' for {split}' if split else ''}; give one of them: "
                f"{root / first} or {root / folder}"
            )


class _Lister:
    """Lists the images of one file."""

    def __init__(
        self, place: Path, path: str, split: str, found: Found, exclusions: Exclusions
    ) -> None:
        self.path = path
        self.split = split
        self.found = found
        self.exclusions = exclusions
        self.place = place
        self.row = 0
        os.close(open_regular(self.place))
        self.modified_ns = self.place.stat().st_mtime_ns

    def list_file(self, options: LayoutOptions) -> dict[int, str]:
        """Add all images to what was found; returns the names of the classes."""
        module = _pyarrow()
        try:
            with module.ParquetFile(self.place) as opened:
                columns = _Columns(opened, self.place, options)
                for group in range(opened.metadata.num_row_groups):
                    with _Chunk(opened, group, columns.leaf, self.place) as chunk:
                        self._list_group(opened, group, columns, chunk)
        except _arrow_errors() as error:
            raise _refusal(self.place, error) from error
        self.found.layout = f"images in {columns.image}, labels in {columns.label}"
        note = f"passed over: column {columns.split}; splits are told by the names of the files"
        if columns.split and note not in self.found.notes:
            self.found.notes.append(note)
        return columns.names

    def _list_group(self, opened: Any, group: int, columns: _Columns, chunk: _Chunk) -> None:  # noqa: ANN401
        wanted = [*columns.leaves, columns.label]
        for batch in opened.iter_batches(_BATCH_ROWS, row_groups=[group], columns=wanted):
            images = batch.column(columns.image).to_pylist()
            labels = batch.column(columns.label).to_pylist()
            for image, label in zip(images, labels, strict=True):
                self._take_row(*columns.parts_of(image), label, columns, chunk)

    def _take_row(
        self, data: bytes | None, name: str, label: object, columns: _Columns, chunk: _Chunk
    ) -> None:
        path = f"{self.path}/{self.row}{_ending_of(name, data or b'')}"
        self.row += 1
        if self.exclusions.match_within(path):
            return
        if data is None:
            detail = f"a row that holds no image{f', but the path {name}' if name else ''}"
            self.found.oddities.append(Oddity(path, Reason.NOT_FILE, detail))
            return
        try:
            told = label_text(label)
        except ValueError as error:
            raise LayoutError(
                f"{self.place}, row {self.row - 1:,}, column {printable(columns.label)}: holds "
                f"{error}; expected an integer or a name; --label-field names another column"
            ) from error
        self.found.images.append(
            Image(
                *(path, self.split, told, len(data), self.modified_ns, self.path),
                chunk.offset_of(data),
            )
        )


class _Columns:
    """Which columns of a file hold the image and the class.

    Attributes:
        image: The column of images.
        label: The column of classes.
        split: A column that may tell splits, which are not read from it; "" for none.
        names: Label -> name, where the column of classes has names.
        leaf: The number of the column of bytes among all leaves.
        leaves: What to read of the column of images.
    """

    def __init__(self, opened: Any, place: Path, options: LayoutOptions) -> None:  # noqa: ANN401
        schema = opened.schema_arrow
        features = _features_of(schema.metadata or {})
        fields = list(schema.names)
        what = f"{place} has no column"
        structs = [
            one.name
            for one in schema
            if _is_struct(one.type) or features.get(one.name, {}).get("_type") == "Image"
        ]
        structs = structs or [one for one in fields if "binary" in str(schema.field(one).type)]
        image = choose_field(
            fields if options.image_field else structs,
            *(options.image_field, _IMAGE_FIELDS, what, "--image-field"),
        )
        self.image = image or self._only(structs, place, "images", "--image-field", fields)
        kinds = [name for name in fields if features.get(name, {}).get("_type") == "ClassLabel"]
        label = options.label_field or (kinds[0] if len(kinds) == 1 else "")
        others = [name for name in kinds or fields if name != self.image]
        label = choose_field(
            fields if label else others, label, LABEL_FIELDS, what, "--label-field"
        )
        self.label = label or self._only(kinds, place, "classes", "--label-field", fields)
        self.split = next((name for name in fields if field_key(name) == "split"), "")
        self.names = _names_of(features.get(self.label, {}))
        self.leaves, self.leaf = self._leaves(opened, place)

    def _only(
        self, names: Sequence[str], place: Path, what: str, option: str, fields: Sequence[str]
    ) -> str:
        if len(names) == 1:
            return names[0]
        found = f"{named(names)} may hold" if names else "no column is known to hold"
        raise LayoutError(
            f"{place}: {found} the {what}, among {named(map(printable, fields))}; name the column "
            f"with {option}"
        )

    def _leaves(self, opened: Any, place: Path) -> tuple[list[str], int]:  # noqa: ANN401
        wanted = {self.image, f"{self.image}.bytes"}
        schema = opened.schema
        paths = [schema.column(number).path for number in range(len(schema))]
        leaf = next((number for number, path in enumerate(paths) if path in wanted), -1)
        column = schema.column(max(leaf, 0))
        text = str(column.logical_type.type) in {"STRING", "JSON"}
        if leaf < 0 or column.physical_type != "BYTE_ARRAY" or text:
            raise LayoutError(
                f"{place}: the column {printable(self.image)} holds no encoded images, but "
                f"{opened.schema_arrow.field(self.image).type}; expected bytes, or bytes and path"
            )
        beside = f"{self.image}.path"
        return [paths[leaf], *([beside] if beside in paths else [])], leaf

    def parts_of(self, value: Any) -> tuple[bytes | None, str]:  # noqa: ANN401
        """The bytes of an image, None where the row holds none; and its name, or ""."""
        if isinstance(value, dict):
            return value.get("bytes"), str(value.get("path") or "")
        return value, ""


class _Chunk:
    """The column of bytes in one group of rows: where an image lies in the file."""

    def __init__(self, opened: Any, group: int, leaf: int, place: Path) -> None:  # noqa: ANN401
        column = opened.metadata.row_group(group).column(leaf)
        self.packed = -1 - leaf
        self.mapped: mmap.mmap | None = None
        begins = [column.data_page_offset]
        if column.has_dictionary_page:
            begins.append(column.dictionary_page_offset)
        self.begin = self.at = min(begins)
        self.end = self.begin + column.total_compressed_size
        if column.compression == "UNCOMPRESSED":
            with place.open("rb") as file:
                self.mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def offset_of(self, data: bytes) -> int:
        """Where the bytes lie in the file; below 0, and telling the column, where they do not."""
        for begin in (self.at, self.begin):
            found = self._find(data, begin)
            if found >= 0:
                self.at = found + len(data)
                return found
        return self.packed

    def _find(self, data: bytes, begin: int) -> int:
        if self.mapped is None:
            return -1
        probe = data[:_PROBE_BYTES]
        at = self.mapped.find(probe, begin, self.end)
        while at >= 0 and self.mapped[at : at + len(data)] != data:
            at = self.mapped.find(probe, at + 1, self.end)
        return at

    def __enter__(self) -> _Chunk:
        return self

    def __exit__(self, *_: object) -> None:
        if self.mapped is not None:
            self.mapped.close()


def read_packed(place: Path, path: str, offset: int, modified_ns: int) -> bytes:
    """The bytes of an image that is compressed in its parquet file.

    Args:
        place: The parquet file.
        path: Path of the image, which ends in the number of its row.
        offset: As `_Chunk.offset_of` gives it.
        modified_ns: Time of the file's last change when it was listed.

    Raises:
        LayoutError: If the file cannot be read, or has no such row.
        OSError: If the file cannot be opened.
    """
    row = int(path.rpartition("/")[2].partition(".")[0])
    try:
        for group, count in enumerate(_group_rows(place, modified_ns)):
            if row < count:
                value = _group_column(place, modified_ns, group, -1 - offset)[row].as_py()
                data: bytes = value["bytes"] if isinstance(value, dict) else value
                return data
            row -= count
    except _arrow_errors() as error:
        raise _refusal(place, error) from error
    raise LayoutError(f"{place} has changed since it was listed; run again")


@lru_cache(maxsize=64)
def _group_rows(place: Path, modified_ns: int) -> list[int]:  # noqa: ARG001  a key of the cache
    with _pyarrow().ParquetFile(place) as opened:
        facts = opened.metadata
        return [facts.row_group(group).num_rows for group in range(facts.num_row_groups)]


@lru_cache(maxsize=_CACHED_GROUPS)
def _group_column(place: Path, modified_ns: int, group: int, leaf: int) -> Any:  # noqa: ANN401, ARG001
    with _pyarrow().ParquetFile(place) as opened:
        return opened.read_row_group(group, columns=[opened.schema.column(leaf).path]).column(0)


def _pyarrow() -> Any:  # noqa: ANN401  a module without types
    """The module pyarrow.parquet, loaded when parquet is read and not before."""
    try:
        import pyarrow.parquet as module
    except ImportError as error:
        raise LayoutError(
            f"parquet is read by pyarrow, which is not installed: {install_command('parquet')}"
        ) from error
    return module


def _arrow_errors() -> tuple[type[Exception], ...]:
    import pyarrow

    return (pyarrow.ArrowException, EOFError)


def _refusal(place: Path, error: Exception) -> LayoutError:
    return LayoutError(f"{place} cannot be read as parquet ({printable(first_line(error))})")


def _is_struct(kind: Any) -> bool:  # noqa: ANN401
    return str(kind).startswith("struct<") and "bytes" in [
        kind.field(number).name for number in range(kind.num_fields)
    ]


def _features_of(metadata: dict[bytes, bytes]) -> dict[str, Any]:
    """What Hugging Face's datasets says of the columns."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return {name: one for name, one in features.items() if isinstance(one, dict)}


def _names_of(feature: dict[str, Any]) -> dict[int, str]:
    names = feature.get("names") or []
    pairs = names.items() if isinstance(names, dict) else enumerate(names)
    return {int(number): str(name) for number, name in pairs}


def _ending_of(name: str, data: bytes) -> str:
    """The extension of an image: that of its name, or of its format where it has no name."""
    ending = f".{name.rpartition('.')[2]}" if "." in name.rpartition("/")[2] else ""
    return ending if format_named(ending) else _ENDINGS.get(sniff_format(data[:64]), "")
