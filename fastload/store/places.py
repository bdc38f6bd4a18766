"""The index of data in place: where the bytes of each image lie in files that nobody rewrote.

    .fastload/index.json            classes, splits, counts, options; names the folder of the rest
    .fastload/index-XXXXXXXX/       {split}.index.npy   PLACE for each image
                                    files.npy, files    FILE for each file, and its name
                                    folders.npy, folders    FOLDER for each folder, and its name
    .fastload/points-N.seek         the seek tables of all images, end to end
    .fastload/examined-N            what is known of each file: `prepare/examined`
    .fastload/cleaning.csv          what was left out

The folder lies beside the data, or in the user's cache where the data cannot be written. Data in an
object store have theirs there too, and each machine a copy of it: `remote_index`. What
`index.json` names is written before it, under names that no other index has, so an index is whole
or not there. It is checked before it is used: each file has the digest that `index.json` says, and
no image points outside the file that holds it, nor any file outside the data.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastload.arguments import did_you_mean, shown
from fastload.console.shell import module_command, program
from fastload.errors import ShardError
from fastload.files import explain_os_error, open_regular, write_atomically
from fastload.store.facts import (
    JSON_BYTES,
    checked_facts,
    count_of,
    counts_by_name,
    parsed_facts,
    plain_name,
    read_facts,
    texts_of,
    to_json,
    typed,
)
from fastload.store.holders import FILE, PlacedFiles
from fastload.store.index import index_name
from fastload.store.remote import Access, Bucket, is_remote
from fastload.store.rows import read_rows, write_rows
from fastload.store.summary import contents_html

FORMAT_VERSION = 1
FOLDER_NAME = ".fastload"
INDEX_NAME = "index.json"
KINDS = ("baseline JPEG", "other JPEG", "other format")  # PLACE["kind"]; the core takes the first

PLACE = np.dtype(
    [
        ("file", "<u4"),  # that holds the image: its number among the files
        ("offset", "<u8"),  # of the image's first byte in that file
        ("size", "<u4"),  # bytes
        ("label", "<i4"),  # in the order of the classes
        ("height", "<u2"),  # pixels of the upright image
        ("width", "<u2"),
        ("crc32", "<u4"),  # of the image's bytes, zlib's CRC-32
        ("orientation", "u1"),  # EXIF's, in [1, 8], by which the stored picture becomes upright
        ("kind", "u1"),  # position in KINDS
        ("seek", "<u8"),  # of the seek table's first byte among all seek tables
        ("seek_size", "<u4"),  # bytes of the seek table; 0 where there is none
    ]
)
FOLDER = np.dtype(
    [
        ("name_end", "<u8"),  # of its path, relative to the root, among the names
        ("modified_ns", "<i8"),  # time of its last change, nanoseconds
        ("folders", "<u4"),  # CRC-32 of the names of the folders in it
    ]
)
_OF_DATA = ("label", "height", "width", "size", "crc32", "orientation")  # the fingerprint's columns
_BLOCK = 1 << 20
_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedSplit:
    """One split: train, val or test.

    Attributes:
        samples: Images in it.
        class_counts: Images of each class, in the order of the classes.
    """

    samples: int
    class_counts: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """All facts of an index in place; `index.json` holds exactly these.

    Attributes:
        source: What was indexed, as `python -m fastload.index` takes it, relative to `root`.
        root: The folder that paths of files are relative to, or its address; relative to the index
            where it lies beside the data, so that both can be moved together.
        classes: Names of the classes; the position is the label.
        class_names: Readable names of the same classes.
        splits: Name -> split, in the order train, val, test.
        options: Options of the command that wrote the index, as words of its command line.
        bytes: Of all images.
        stored: Number of images of each of `KINDS`.
        cleaning: Reason -> number of files that were left out.
        fingerprint: Digest of the classes, labels, sizes and CRC-32 of all images: equal
            fingerprints, equal data.
        recipe: Digest of the source's file list and of the options: a second run with the same
            digest has nothing to do.
        folder: Name of the folder that holds the files of `digests`.
        files: Files that were found.
        folders: Folders that were found.
        points: Number of the file of the seek tables.
        points_bytes: Bytes of all seek tables.
        digests: Name of each other file of the index -> 128 bits, hexadecimal.
        format_version: Version of this layout.
    """

    source: tuple[str, ...]
    root: str
    classes: tuple[str, ...]
    class_names: tuple[str, ...]
    splits: dict[str, PlacedSplit]
    options: tuple[str, ...]
    bytes: int
    stored: dict[str, int]
    cleaning: dict[str, int]
    fingerprint: str
    recipe: str
    folder: str = ""
    files: int = 0
    folders: int = 0
    points: int = 0
    points_bytes: int = 0
    digests: dict[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def _repr_html_(self) -> str:
        splits = {name: (one.samples, one.class_counts) for name, one in self.splits.items()}
        return contents_html(splits, self.class_names, stored=self.stored, cleaning=self.cleaning)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """What an index in place holds beside its facts.

    Attributes:
        samples: Split -> PLACE [N], sorted as the source sorts its files.
        files: FILE [F], every file that was found.
        file_names: Their paths relative to the root, each ended by a zero.
        folders: FOLDER [D], every folder that was found.
        folder_names: Their paths.
    """

    samples: dict[str, NDArray[np.void]]
    files: NDArray[np.void]
    file_names: bytes
    folders: NDArray[np.void]
    folder_names: bytes


@dataclass(frozen=True, slots=True)
class PlacedData:
    """An index in place that was found and whose facts were checked.

    Attributes:
        path: The folder of the index, on this machine.
        places: Its facts.
        bucket: Where the data lie, if that is an object store.
    """

    path: Path
    places: Places
    bucket: Bucket | None = None

    @property
    def root(self) -> str:
        """The folder that paths of files are relative to, or its address."""
        if self.bucket is not None:
            return self.bucket.address
        return os.path.normpath(self.path / self.places.root)

    @property
    def remedy(self) -> str:
        """What to do where the data are no longer those that were indexed."""
        return f"run `{index_command(self)}`, which takes only what changed"

    def table(self, name: str) -> Path:
        """Where a file of the index lies."""
        return self.path / self.places.folder / name


def placed(samples: NDArray[np.void]) -> NDArray[np.void]:
    """Rows of the index of shards, SAMPLE, as rows of data in place: PLACE, of the same shape."""
    rows = np.zeros(samples.shape, PLACE)
    rows["file"], rows["orientation"] = samples["shard"], 1
    for name in ("offset", "size", "label", "height", "width", "crc32"):
        rows[name] = samples[name]
    return rows


def points_name(number: int) -> str:
    """File name of the seek tables of that number."""
    return f"points-{number}.seek"


def index_command(data: PlacedData) -> str:
    """The command that makes this index again."""
    source = [_named(data, word) for word in data.places.source]
    words: list[str | Path] = [*source, *data.places.options]
    if data.bucket is not None:
        found = data.path.is_relative_to(cache_folder(*source))
    else:
        found = data.path in (index_folder(*source), cache_folder(*source))
    if not found:
        words += ["--out", data.path]
    return module_command("fastload.index", *words)


def _named(data: PlacedData, word: str) -> str | Path:
    """A part of a source, as the command takes it."""
    if data.bucket is None:
        return Path(os.path.normpath(Path(data.root) / word))
    return data.root if word == "." else data.bucket.of(word)


def index_folder(first: str | os.PathLike[str], *others: str | os.PathLike[str]) -> Path:
    """Where the index of a source lies beside the data.

    Args:
        first: A folder, a file, or a pattern of files.
        others: More files.
    """
    path = Path(first)
    if path.is_dir() and not others:
        return path / FOLDER_NAME
    base = Path(re.split(r"[*?\[{]", os.fspath(first), maxsplit=1)[0] + "x").parent
    names = [os.path.relpath(word, base) for word in (first, *others)]
    return base / FOLDER_NAME / f"of-{_plain(chr(0).join(names))}"


def cache_folder(*source: str | os.PathLike[str]) -> Path:
    """Where the index of a source lies that cannot be written to, or that is an address."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    real = "\0".join(str(word) if is_remote(word) else os.path.realpath(word) for word in source)
    return Path(base).expanduser() / "fastload" / _plain(real)


def _plain(name: str) -> str:
    """A name of letters and digits for a path, and its digest, which tells it from others."""
    word = re.sub(r"[^A-Za-z0-9]+", "-", name.rpartition("/")[2]).strip("-")[:40]
    return f"{word or 'data'}-{hashlib.blake2b(os.fsencode(name), digest_size=8).hexdigest()}"


def find_index(path: str | os.PathLike[str]) -> Path | None:
    """The folder of the index that belongs to a source, or that `path` itself is; else None.

    Of an index beside the data and one in the user's cache the newer counts.
    """
    found = {}
    for folder in (cache_folder(path), index_folder(path)):
        with suppress(OSError):
            found[(folder / INDEX_NAME).stat().st_mtime_ns] = folder
    if found:
        return found[max(found)]
    own = Path(path) / INDEX_NAME
    if own.is_file():  # of --out; another program may call a file so too
        with suppress(OSError), own.open("rb") as file:
            if b'"points_bytes"' in file.read(JSON_BYTES):
                return Path(path)
    return None


def write_places(folder: Path, places: Places, tables: Tables) -> Places:
    """Write an index; the one that was there is whole until the new one takes its place.

    Returns:
        The facts as they were written.

    Raises:
        OSError: If it cannot be written; the index that was there stays.
    """
    new = folder / f"index-{secrets.token_hex(4)}"
    new.mkdir()
    try:
        for split, samples in tables.samples.items():
            write_rows(new / index_name(split), samples)
        write_rows(new / "files.npy", tables.files)
        write_rows(new / "folders.npy", tables.folders)
        write_atomically(new / "files", tables.file_names)
        write_atomically(new / "folders", tables.folder_names)
        places = replace(
            places,
            folder=new.name,
            files=len(tables.files),
            folders=len(tables.folders),
            digests={path.name: _digest_of(path) for path in sorted(new.iterdir())},
        )
        write_atomically(folder / INDEX_NAME, to_json(asdict(places), indent=1) + b"\n")
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    for old in folder.glob("index-*"):
        if old != new:
            shutil.rmtree(old, ignore_errors=True)
    return places


def fingerprint_of(classes: Sequence[str], samples: dict[str, NDArray[np.void]]) -> str:
    """128 bits, hexadecimal, that change when a class, a split or an image does."""
    digest = hashlib.blake2b(to_json([FORMAT_VERSION, list(classes)]), digest_size=16)
    for split, rows in samples.items():
        digest.update(to_json([split, len(rows)]))
        for name in _OF_DATA:
            digest.update(rows[name].tobytes())
    return digest.hexdigest()


def names_of(paths: Iterable[str]) -> tuple[bytes, NDArray[np.uint64]]:
    """Paths as one text, each ended by a zero, and where each ends in it."""
    encoded = [os.fsencode(path) for path in paths]
    ends = np.cumsum([len(path) + 1 for path in encoded], dtype=np.uint64) - np.uint64(1)
    return b"".join(path + b"\0" for path in encoded), ends


def read_places(
    folder: str | os.PathLike[str], *, address: str = "", access: Access | None = None
) -> PlacedData:
    """Read and check `index.json`.

    Args:
        folder: Of the index.
        address: Where the data lie, if that is an object store, whatever `root` says.
        access: How an object store is reached; by the environment when None.

    Raises:
        ShardError: If it is missing, damaged or of another version.
    """
    path = Path(folder) / INDEX_NAME
    places = _checked(lambda: read_facts(path, what="index"), str(path), str(folder))
    where = address or (places.root if is_remote(places.root) else "")
    return PlacedData(Path(folder), places, Bucket(where, access or Access()) if where else None)


def places_in(data: bytes, where: str, folder: str) -> Places:
    """Check the content of an `index.json` that lies at `where` in a folder; errors as above."""
    return _checked(lambda: parsed_facts(data, what="index", where=where), where, folder)


def _checked(read: Callable[[], object], where: str, folder: str) -> Places:
    remake = f"remove {folder} and run `{program('fastload.index')}` again"
    try:
        facts = read()
    except OSError as error:
        raise ShardError(explain_os_error(error)) from error
    except ValueError as error:
        raise ShardError(f"{error}; {remake}", where=where) from None
    return checked_facts(facts, _places_of, version=FORMAT_VERSION, where=where, remedy=remake)


def _places_of(facts: dict[str, Any]) -> Places:
    splits = {
        plain_name(name, "a split"): _split_of(typed(split, dict, name), name)
        for name, split in typed(facts["splits"], dict, "splits").items()
    }
    digests = typed(facts["digests"], dict, "digests")
    places = Places(
        source=texts_of(facts["source"], "source"),
        root=typed(facts["root"], str, "root"),
        classes=texts_of(facts["classes"], "classes"),
        class_names=texts_of(facts["class_names"], "class_names"),
        splits=splits,
        options=texts_of(facts["options"], "options"),
        bytes=count_of(facts["bytes"], "bytes"),
        stored=counts_by_name(facts["stored"], "stored"),
        cleaning=counts_by_name(facts["cleaning"], "cleaning"),
        fingerprint=typed(facts["fingerprint"], str, "fingerprint"),
        recipe=typed(facts["recipe"], str, "recipe"),
        folder=plain_name(typed(facts["folder"], str, "folder"), "the folder"),
        files=count_of(facts["files"], "files"),
        folders=count_of(facts["folders"], "folders"),
        points=count_of(facts["points"], "points"),
        points_bytes=count_of(facts["points_bytes"], "points_bytes"),
        digests={name: typed(value, str, f"digest of {name}") for name, value in digests.items()},
    )
    _check(places)
    return places


def _split_of(facts: dict[str, Any], name: str) -> PlacedSplit:
    counts = typed(facts["class_counts"], list, f"class_counts of {name}")
    return PlacedSplit(
        samples=count_of(facts["samples"], f"samples of {name}"),
        class_counts=tuple(count_of(count, f"a class count of {name}") for count in counts),
    )


def _check(places: Places) -> None:
    if not places.splits:
        raise ValueError("it lists no split")
    if "\0" in places.root + "".join(places.source):
        raise ValueError("its root or source is no path")
    if len(set(places.classes)) < len(places.classes):
        raise ValueError("a class is listed twice")
    if len(places.class_names) != len(places.classes):
        raise ValueError("class_names and classes differ in length")
    for name, split in places.splits.items():
        if len(split.class_counts) != len(places.classes):
            raise ValueError(f"class_counts of {name} and classes differ in length")
        if sum(split.class_counts) != split.samples:
            raise ValueError(f"class_counts of {name} do not add up to its samples")


def places_of(data: PlacedData, split: str) -> tuple[NDArray[np.void], PlacedFiles]:
    """The rows of a split, PLACE [N], owned by the caller, and the files that they point into.

    Each byte range lies within what the index says of its file, each label within the classes.

    Raises:
        ShardError: If there is no such split, or the index is damaged.
    """
    places = data.places
    if split not in places.splits:
        raise ShardError(
            f"there is no split {shown(split)}; choose one of {', '.join(places.splits)}"
            f"{did_you_mean(split, places.splits)}",
            where=data.root,
        )
    rows = _rows_of(data, index_name(split), PLACE, places.splits[split].samples)
    files = files_of(data)
    fault = _fault_of(data, rows, split) or _fault_of_ranges(data, rows, files.table)
    if fault:
        raise _damaged(data, index_name(split), fault)
    return rows, files


def files_of(data: PlacedData) -> PlacedFiles:
    """The files of an index.

    Raises:
        ShardError: If the list is damaged, or a path in it leads out of the data.
    """
    rows = _rows_of(data, "files.npy", FILE, data.places.files)
    names = _names_of(data, "files", rows)
    return PlacedFiles(root=data.root, table=rows, names=names, remedy=data.remedy)


def folders_of(data: PlacedData) -> list[tuple[str, int, int]]:
    """Path, time and CRC-32 of the names of folders, of each folder of an index.

    Raises:
        ShardError: If the list is damaged, or a path in it leads out of the data.
    """
    rows = _rows_of(data, "folders.npy", FOLDER, data.places.folders)
    names = _names_of(data, "folders", rows).split(b"\0")[:-1]
    columns = (rows["modified_ns"].tolist(), rows["folders"].tolist())
    return list(zip(map(os.fsdecode, names), *columns, strict=True))


def _rows_of(data: PlacedData, name: str, kind: np.dtype[np.void], count: int) -> NDArray[np.void]:
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    try:
        with os.fdopen(open_regular(data.table(name)), "rb") as file:
            rows = read_rows(file, kind, count, name="rows of this version", see=digest.update)
    except OSError as error:
        raise _damaged(data, name, explain_os_error(error)) from error
    except ValueError as error:
        raise _damaged(data, name, str(error)) from None
    _check_digest(data, name, digest.hexdigest())
    return rows


def _names_of(data: PlacedData, name: str, rows: NDArray[np.void]) -> bytes:
    """The names that a list of rows refers to, none of which leads out of the data."""
    try:
        with os.fdopen(open_regular(data.table(name)), "rb") as file:
            names = file.read()
    except OSError as error:
        raise _damaged(data, name, explain_os_error(error)) from error
    _check_digest(data, name, hashlib.blake2b(names, digest_size=_DIGEST_BYTES).hexdigest())
    ends = np.flatnonzero(np.frombuffer(names, np.uint8) == 0)
    if len(names) != (int(ends[-1]) + 1 if len(ends) else 0) or not np.array_equal(
        ends, rows["name_end"]
    ):
        raise _damaged(data, name, "holds other names than its list says")
    framed = b"\0" + names
    upwards = (b"\0../", b"/../", b"/..\0", b"\0..\0") if b".." in names else ()
    if any(part in framed for part in (b"\0/", *upwards)):
        raise _damaged(data, name, "has a path that leads out of the data")
    return names


def _check_digest(data: PlacedData, name: str, found: str) -> None:
    if found != data.places.digests.get(name):
        raise _damaged(data, name, f"is not the one that {INDEX_NAME} lists")


def _digest_of(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    with os.fdopen(open_regular(path), "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _damaged(data: PlacedData, name: str, fault: str) -> ShardError:
    return ShardError(
        f"{fault}; the index is damaged or was made anew: begin again, or remove {data.path} and"
        f" run `{index_command(data)}`",
        where=str(data.table(name)),
    )


def _fault_of(data: PlacedData, rows: NDArray[np.void], split: str) -> str:
    """What is wrong with the rows of a split; "" if nothing is."""
    if not len(rows):
        return ""
    labels, num_classes = rows["label"], len(data.places.classes)
    if labels.min() < 0 or labels.max() >= num_classes:
        return f"has a label outside [0, {num_classes})"
    counts = np.bincount(labels, minlength=num_classes)
    if not np.array_equal(counts, data.places.splits[split].class_counts):
        return f"has other class counts than {INDEX_NAME}"
    return _fault_of_pictures(rows)


def _fault_of_pictures(rows: NDArray[np.void]) -> str:
    if min(rows["height"].min(), rows["width"].min()) < 1:
        return "has an image of no height or width"
    if rows["orientation"].min() < 1 or rows["orientation"].max() > 8:
        return "has an orientation outside [1, 8]"
    return "has an image of an unknown kind" if rows["kind"].max() >= len(KINDS) else ""


def _fault_of_ranges(data: PlacedData, rows: NDArray[np.void], files: NDArray[np.void]) -> str:
    if not len(rows):
        return ""
    if _beyond(rows["seek"], rows["seek_size"], np.uint64(data.places.points_bytes)):
        return "has a seek table that lies outside all seek tables"
    if rows["file"].max() >= len(files):
        return f"names file {rows['file'].max()}, the index lists {len(files)}"
    sizes, alone = files["bytes"][rows["file"]], files["alone"][rows["file"]] != 0
    if _beyond(rows["offset"], rows["size"], sizes):
        return "has an image that lies outside its file"
    if (rows["size"] != sizes)[alone].any():
        return "has an image that is not the whole of its file"
    return ""


def _beyond(
    begins: NDArray[np.uint64], sizes: NDArray[np.uint32], limits: NDArray[np.uint64] | np.uint64
) -> bool:
    """Whether a range ends behind its limit; no sum is made that could overflow."""
    limits = np.broadcast_to(np.asarray(limits, np.uint64), begins.shape)
    return bool((begins > limits).any() or (sizes > limits - begins).any())
