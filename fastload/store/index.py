"""The manifest and index of a shard directory: what is in it, and where each image's bytes lie.

    manifest.json           classes, splits, shards with sizes and sha256, options, cleaning summary
    {split}.index.npy       one SAMPLE for each image, in the order of the tars
    {split}-{000000}.tar    KEY.jpg + KEY.cls, see docs/format.md

The manifest is written last, so a directory that has a manifest is complete. Manifest and index are
checked before they are used: no offset, shard or label of an index points outside what the manifest
lists.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastload.errors import ShardError
from fastload.files import explain_os_error, write_atomically
from fastload.store.tar import TAR_BLOCK

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"

SAMPLE = np.dtype(
    [
        ("shard", "<u4"),  # in the order of the manifest's shards of this split
        ("offset", "<u8"),  # of the image's first byte in its tar
        ("size", "<u4"),  # bytes
        ("label", "<i4"),  # in the order of the manifest's classes
        ("height", "<u2"),  # pixels of the upright image
        ("width", "<u2"),
        ("crc32", "<u4"),  # of the image's bytes, zlib's CRC-32
    ]
)

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


def write_index(directory: Path, split: str, samples: NDArray[np.void]) -> None:
    """Write the index of a split atomically.

    Args:
        directory: The shard directory.
        split: Name of the split.
        samples: SAMPLE [N], in the order of the tars.

    Raises:
        OSError: If it cannot be written.
    """
    buffer = io.BytesIO()
    np.save(buffer, samples.astype(SAMPLE, copy=False), allow_pickle=False)
    write_atomically(directory / index_name(split), buffer.getbuffer())


def index_name(split: str) -> str:
    """File name of a split's index."""
    return f"{split}.index.npy"


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


def read_index(directory: str | os.PathLike[str], split: str) -> NDArray[np.void]:
    """Read and check the index of a split.

    Args:
        directory: The shard directory.
        split: Name of the split, such as "train".

    Returns:
        SAMPLE [N], owned by the caller, in the order of the tars. Every shard, label and byte
        range lies within what the manifest lists.

    Raises:
        ShardError: If there is no such split, or the index is missing, damaged or does not fit
            the manifest.
    """
    manifest = read_manifest(directory)
    if split not in manifest.splits:
        raise ShardError(
            f"there is no split {split!r}; choose one of {', '.join(manifest.splits)}",
            where=str(directory),
        )
    path = Path(directory) / index_name(split)
    try:
        with path.open("rb") as file:
            samples = np.lib.format.read_array(file, allow_pickle=False)
    except OSError as error:
        raise ShardError(f"{explain_os_error(error)}; {REBUILD}") from error
    except (ValueError, EOFError) as error:
        raise ShardError(f"is not an index ({error}); {REBUILD}", where=str(path)) from error
    if samples.dtype != SAMPLE or samples.ndim != 1:
        found = f"{samples.dtype} {list(samples.shape)}"
        raise ShardError(f"holds {found}, expected SAMPLE [N]; {REBUILD}", where=str(path))
    fault = _fault_of(samples, manifest.splits[split], len(manifest.classes))
    if fault:
        raise ShardError(f"{fault}; {REBUILD}", where=str(path))
    checked: NDArray[np.void] = samples
    return checked


def _fault_of(samples: NDArray[np.void], split: Split, num_classes: int) -> str:
    if len(samples) != split.samples:
        return f"has {len(samples)} samples, the manifest says {split.samples}"
    if not len(samples):
        return ""
    labels, shards = samples["label"], samples["shard"]
    if labels.min() < 0 or labels.max() >= num_classes:
        return f"has a label outside [0, {num_classes})"
    if not np.array_equal(np.bincount(labels, minlength=num_classes), split.class_counts):
        return "has other class counts than the manifest"
    if shards.max() >= len(split.shards):
        return f"names shard {shards.max()}, the manifest lists {len(split.shards)}"
    shard_bytes = np.array([shard.bytes for shard in split.shards], np.uint64)[shards]
    begins, ends = samples["offset"], samples["offset"] + samples["size"]
    if (begins < TAR_BLOCK).any() or (begins > shard_bytes).any() or (ends > shard_bytes).any():
        return "has an image that lies outside its shard"
    if min(samples["height"].min(), samples["width"].min()) < 1:
        return "has an image of no height or width"
    return ""
