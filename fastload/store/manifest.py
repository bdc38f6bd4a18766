"""The manifest of a shard directory: classes, splits, shards with sizes and SHA-256, options.

The manifest is written last, so a directory that has a manifest is complete. It is checked before
it is used.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastload.errors import ShardError
from fastload.files import explain_os_error, write_atomically

FORMAT_VERSION = 1


MANIFEST_NAME = "manifest.json"


REBUILD = "rebuild it with `python -m fastload.shard`"


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


def fingerprint(classes: Sequence[str], splits: Mapping[str, Split]) -> str:
    """128 bits, hexadecimal, that change when a class, a split or a byte of a shard changes."""
    shards = {
        name: [[shard.name, shard.sha256] for shard in split.shards]
        for name, split in splits.items()
    }
    return digest_of([FORMAT_VERSION, list(classes), shards])


def digest_of(value: object) -> str:
    """128 bits, hexadecimal, of a value made of JSON's types; the order of dictionaries counts."""
    return hashlib.blake2b(_to_json(value, indent=None), digest_size=16).hexdigest()


def _to_json(value: object, *, indent: int | None) -> bytes:
    """JSON in UTF-8. File names that are not UTF-8 become escapes, which JSON reads back."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return text.encode("utf-8", "backslashreplace")


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write `manifest.json` atomically.

    Raises:
        OSError: If it cannot be written.
    """
    data = _to_json(asdict(manifest), indent=1) + b"\n"
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
        facts = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ShardError(
            f"there is no complete set of shards (no {MANIFEST_NAME}); "
            "make it with `python -m fastload.shard data/`",
            where=str(directory),
        ) from None
    except OSError as error:
        raise ShardError(explain_os_error(error)) from error
    except (ValueError, RecursionError) as error:
        raise ShardError(f"is not JSON ({error}); {REBUILD}", where=str(path)) from error
    version = facts.get("format_version") if isinstance(facts, dict) else None
    if version != FORMAT_VERSION:
        raise ShardError(
            f"has format version {version!r}, this fastload reads {FORMAT_VERSION}; {REBUILD}",
            where=str(path),
        )
    try:
        return _manifest_of(facts)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ShardError(f"is damaged ({error}); {REBUILD}", where=str(path)) from error


def _manifest_of(facts: dict[str, Any]) -> Manifest:
    splits = {}
    for name, split in facts["splits"].items():
        shards = tuple(_shard_of(shard) for shard in split["shards"])
        counts = tuple(int(count) for count in split["class_counts"])
        splits[str(name)] = Split(samples=int(split["samples"]), class_counts=counts, shards=shards)
    manifest = Manifest(
        classes=tuple(str(name) for name in facts["classes"]),
        class_names=tuple(str(name) for name in facts["class_names"]),
        splits=splits,
        options=dict(facts["options"]),
        stored={str(how): int(count) for how, count in facts["stored"].items()},
        cleaning={str(reason): int(count) for reason, count in facts["cleaning"].items()},
        fingerprint=str(facts["fingerprint"]),
        recipe=str(facts["recipe"]),
        format_version=int(facts["format_version"]),
    )
    _check_counts(manifest)
    return manifest


def _shard_of(facts: dict[str, Any]) -> Shard:
    name = str(facts["name"])
    if name != Path(name).name or name in {"", ".", ".."}:
        raise ValueError(f"shard name {name!r} is not a plain file name")
    return Shard(
        name=name,
        bytes=int(facts["bytes"]),
        sha256=str(facts["sha256"]),
        samples=int(facts["samples"]),
    )


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
