"""The manifest of a shard directory: classes, splits, shards with sizes and SHA-256, options.

The manifest is written last, so a directory that has a manifest is complete. It is checked before
it is used: what it says of types, ranges, names and counts may be wrong, its size may be anything.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastload.errors import ShardError
from fastload.files import explain_os_error, write_atomically
from fastload.store.facts import (
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
from fastload.store.misplaced import why_no_shards
from fastload.store.summary import contents_html
from fastload.store.tar import TAR_BLOCK

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
REBUILD = "rebuild it with `python -m fastload.shard`"

_LEAST_BLOCKS = 3  # of a sample in a tar: two headers and a label, see docs/format.md


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One tar of a split.

    Attributes:
        name: File name, in the directory of the manifest.
        bytes: Size of the file.
        sha256: SHA-256 of the file, hexadecimal.
        samples: Images in it.
    """

    name: str
    bytes: int
    sha256: str
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """One split: train, val or test.

    Attributes:
        samples: Images in all its shards.
        class_counts: Images of each class, in the order of the manifest's classes.
        shards: Its tars; the position in this tuple is `SAMPLE["shard"]`.
    """

    samples: int
    class_counts: tuple[int, ...]
    shards: tuple[Shard, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All facts of a shard directory; `manifest.json` holds exactly these.

    Attributes:
        classes: Names of the class folders, sorted as torchvision's ImageFolder sorts them; the
            position in this tuple is the label.
        class_names: Readable names of the same classes, such as species; equal to `classes` where
            the source gave none.
        splits: Name -> split, in the order train, val, test.
        options: Options of the command that wrote the directory, as they were used.
        stored: Number of images stored lossless, near-lossless, re-encoded, as the original.
        cleaning: Reason -> number of files that were set aside.
        fingerprint: Digest of the classes and of all bytes of all shards: equal fingerprints, equal
            data.
        recipe: Digest of the source's file list and of the options: a second run with the same
            digest has nothing to do.
        format_version: Version of the layout that docs/format.md describes.
    """

    classes: tuple[str, ...]
    class_names: tuple[str, ...]
    splits: dict[str, Split]
    options: dict[str, Any]
    stored: dict[str, int]
    cleaning: dict[str, int]
    fingerprint: str
    recipe: str
    format_version: int = FORMAT_VERSION

    def _repr_html_(self) -> str:
        splits = {name: (one.samples, one.class_counts) for name, one in self.splits.items()}
        return contents_html(splits, self.class_names, stored=self.stored, cleaning=self.cleaning)


def fingerprint(classes: Sequence[str], splits: Mapping[str, Split]) -> str:
    """128 bits, hexadecimal, that change when a class, a split or a byte of a shard changes."""
    shards = {
        name: [[shard.name, shard.sha256] for shard in split.shards]
        for name, split in splits.items()
    }
    return digest_of([FORMAT_VERSION, list(classes), shards])


def digest_of(value: object) -> str:
    """128 bits, hexadecimal, of a value made of JSON's types; the order of dictionaries counts."""
    return hashlib.blake2b(to_json(value), digest_size=16).hexdigest()


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write `manifest.json` atomically.

    Raises:
        OSError: If it cannot be written.
    """
    data = to_json(asdict(manifest), indent=1) + b"\n"
    write_atomically(directory / MANIFEST_NAME, data)


def shard_name(split: str, number: int) -> str:
    """File name of a split's tar."""
    return f"{split}-{number:06d}.tar"


def read_manifest(directory: str | os.PathLike[str]) -> Manifest:
    """Read and check `manifest.json`.

    Raises:
        ShardError: If the directory holds no complete shards, or the manifest is damaged or of
            another version.
    """
    path = Path(directory) / MANIFEST_NAME
    try:
        return _checked(lambda: read_facts(path, what="manifest"), str(path))
    except (FileNotFoundError, NotADirectoryError):
        raise ShardError(
            why_no_shards(directory, MANIFEST_NAME), where=os.fspath(directory)
        ) from None


def manifest_in(data: bytes, where: str) -> Manifest:
    """Check the content of a `manifest.json` that lies at `where`; errors as of `read_manifest`."""
    return _checked(lambda: parsed_facts(data, what="manifest", where=where), where)


def _checked(read: Callable[[], object], where: str) -> Manifest:
    try:
        facts = read()
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise ShardError(explain_os_error(error)) from error
    except ValueError as error:
        raise ShardError(f"{error}; {REBUILD}", where=where) from None
    return checked_facts(facts, _manifest_of, version=FORMAT_VERSION, where=where, remedy=REBUILD)


def _manifest_of(facts: dict[str, Any]) -> Manifest:
    """The manifest.

    Raises:
        KeyError: If a key is missing.
        ValueError: If a value is of a wrong type, out of range, or contradicts another.
    """
    splits = {
        plain_name(name, "a split"): _split_of(typed(split, dict, name), name)
        for name, split in typed(facts["splits"], dict, "splits").items()
    }
    manifest = Manifest(
        classes=texts_of(facts["classes"], "classes"),
        class_names=texts_of(facts["class_names"], "class_names"),
        splits=splits,
        options=typed(facts["options"], dict, "options"),
        stored=counts_by_name(facts["stored"], "stored"),
        cleaning=counts_by_name(facts["cleaning"], "cleaning"),
        fingerprint=typed(facts["fingerprint"], str, "fingerprint"),
        recipe=typed(facts["recipe"], str, "recipe"),
        format_version=FORMAT_VERSION,
    )
    _check_counts(manifest)
    _check_names(manifest)
    return manifest


def _split_of(facts: dict[str, Any], name: str) -> Split:
    counts = typed(facts["class_counts"], list, f"class_counts of {name}")
    shards = typed(facts["shards"], list, f"shards of {name}")
    return Split(
        samples=count_of(facts["samples"], f"samples of {name}"),
        class_counts=tuple(count_of(count, f"a class count of {name}") for count in counts),
        shards=tuple(_shard_of(typed(shard, dict, f"a shard of {name}")) for shard in shards),
    )


def _shard_of(facts: dict[str, Any]) -> Shard:
    name = plain_name(typed(facts["name"], str, "the name of a shard"), "a shard")
    shard = Shard(
        name=name,
        bytes=count_of(facts["bytes"], f"bytes of {name}"),
        sha256=typed(facts["sha256"], str, f"sha256 of {name}"),
        samples=count_of(facts["samples"], f"samples of {name}"),
    )
    if not re.fullmatch("[0-9a-f]{64}", shard.sha256):
        raise ValueError(f"sha256 of {name} is not 64 hexadecimal digits")
    if shard.samples * _LEAST_BLOCKS * TAR_BLOCK > shard.bytes:
        raise ValueError(f"{name} cannot hold {shard.samples} samples in {shard.bytes} bytes")
    return shard


def _check_counts(manifest: Manifest) -> None:
    if len(manifest.class_names) != len(manifest.classes):
        raise ValueError("class_names and classes differ in length")
    for name, split in manifest.splits.items():
        if len(split.class_counts) != len(manifest.classes):
            raise ValueError(f"class_counts of {name} and classes differ in length")
        if sum(split.class_counts) != split.samples:
            raise ValueError(f"class_counts of {name} do not add up to its samples")
        if sum(shard.samples for shard in split.shards) != split.samples:
            raise ValueError(f"shards of {name} do not add up to its samples")


def _check_names(manifest: Manifest) -> None:
    if not manifest.splits:
        raise ValueError("it lists no split")
    if len(set(manifest.classes)) < len(manifest.classes):
        raise ValueError("a class is listed twice")
    shards = [shard.name for split in manifest.splits.values() for shard in split.shards]
    if len(set(shards)) < len(shards):
        raise ValueError("a shard is listed twice")
    made = fingerprint(manifest.classes, manifest.splits)
    if manifest.fingerprint != made:
        raise ValueError(
            f"its fingerprint is {manifest.fingerprint[:40]!r}, its classes and shards give {made}"
        )
