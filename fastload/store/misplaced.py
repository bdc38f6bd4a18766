"""A path that leads to no shards: what people pass by mistake, and what to give instead."""

from __future__ import annotations

import os
import re
from itertools import islice
from pathlib import Path

from fastload.arguments import did_you_mean
from fastload.console.shell import module_command, program

_ARCHIVES = (".gz", ".tgz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".rar")
IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
_STORES = "(s3|gs|az|abfss?|https?)"
_LOOKED_AT = 100  # entries of a folder: enough to tell what it is, quick on any disk
_FOLDERS = 10  # of a folder, looked into
_DEPTH = 3  # folders above an image: the source, split, class


def why_no_shards(directory: str | os.PathLike[str], marker: str) -> str:
    """What is there in place of a shard directory, and what to do.

    Args:
        directory: What was passed.
        marker: Name of the file that makes a folder a shard directory.
    """
    text, path = os.fspath(directory), Path(directory)
    if is_address(text):
        if store := re.match(rf"\s*{_STORES}[:/]/*(.*)", text):
            command = module_command("fastload.fetch", f"{store[1]}://{store[2]}", "shards/")
            return f"is an address, expected a folder; copy the shards to one with `{command}`"
        local = text.removeprefix("file://")
        instead = (
            "copy the data to this machine, or mount them" if local == text else f"give {local}"
        )
        return f"is an address, expected a folder; {instead}"
    if path.name and (path.parent / marker).is_file():
        return f"is no folder of shards; give the folder that holds {marker}: {path.parent}"
    if path.is_dir():
        return _of_folder(path, marker)
    if path.exists():
        packed = "; unpack it first" if path.name.lower().endswith(_ARCHIVES) else ""
        return f"is no folder of shards; give a folder, a tar, a table or a parquet file{packed}"
    if any(sign in text for sign in "*?[{"):
        return f"there is no complete set of shards; give a folder, no pattern: {path.parent}"
    missing = f"there is no complete set of shards (no {marker}; the folder does not exist)"
    if text.startswith("~"):
        return f"{missing}; ~ is the shell's, give {Path.home() / text[1:].lstrip('/')}"
    near = did_you_mean(path.name, [entry.name for entry in _entries(path.parent)])
    return (
        f"{missing}; give a folder of images, a tar or a table, or make shards with"
        f" `{program('fastload.shard')} data/`{near}"
    )


def is_address(text: str) -> bool:
    """Whether a path is one of the web or of an object store, also after `Path` has read it.

    One that was meant as such counts: `s3:bucket/shards`, `s3//bucket/shards`, with a space before.
    """
    return re.match(rf"\s*([A-Za-z][A-Za-z0-9+.-]*:/|{_STORES}(:|//))", text) is not None


def why_no_bucket(address: str) -> str | None:
    """What is wrong with the spelling of an address, before a client takes it for another one.

    Clients drop a port or a name before the bucket, and "." in a path: one place would have many
    names, and nobody could tell that one lies within another.

    Args:
        address: SCHEME://BUCKET/PREFIX without a slash at its end.

    Returns:
        What was found and what to do; None where nothing is.
    """
    scheme, _, rest = address.partition("://")
    bucket, *parts = rest.split("/")
    if scheme.lower() in ("s3", "gs") and set(bucket) & set("@:"):
        return (
            "has more than a name for its bucket; give SCHEME://BUCKET/PREFIX, and credentials and"
            " the endpoint by the environment"
        )
    if bucket and not {"", ".", ".."}.isdisjoint(parts) and not scheme.lower().startswith("http"):
        return "has an empty part, or . or .., in its path; give the path without them"
    if sign := next((sign for sign in "?#*[{" if sign in address), ""):
        return (
            f"has {sign} in it, which no folder of an address may have; give SCHEME://BUCKET/PREFIX,"
            " no pattern, and what else the server needs as storage_options"
        )
    if address.endswith(".tar"):
        return "is the address of a tar, expected that of a folder: SCHEME://BUCKET/PREFIX"
    return None


def _of_folder(folder: Path, marker: str) -> str:
    entries = _entries(folder)
    within = [each.path for each in entries if (Path(each) / marker).is_file()]
    if within:
        return (
            f"there is no complete set of shards (no {marker}), but one in a folder of it;"
            f" give {within[0]}"
        )
    if any(each.name.endswith(".tar") for each in entries):
        return (
            f"there is no complete set of shards (tars, but no {marker}, which is written last);"
            " finish the run or the copy that was interrupted, or make shards of the images with"
            f" `{program('fastload.shard')} data/`"
        )
    if has_images(folder):
        return (
            f"there is no complete set of shards (no {marker}), but images; index them with"
            f" `{module_command('fastload.index', folder)}`, or make shards of them with"
            f" `{module_command('fastload.shard', folder)}`, and give the folder that is"
            " written"
        )
    packed = next((each.name for each in entries if each.name.lower().endswith(_ARCHIVES)), "")
    return (
        f"there is no complete set of shards (no {marker}; the folder is empty or holds other"
        " files), and no images; give a folder of images, such as CLASS/image.jpg, or make shards"
        f" with `{program('fastload.shard')} data/`"
        + (f"; unpack {packed} first" if packed else "")
    )


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(islice(entries, _LOOKED_AT))
    except OSError:
        return []


def has_images(folder: Path, depth: int = _DEPTH) -> bool:
    """Whether a folder, or a folder so far below it, has files whose names are those of images."""
    entries = _entries(folder)
    if any(entry.name.lower().endswith(IMAGES) for entry in entries):
        return True
    folders = [Path(entry) for entry in entries if depth > 1 and entry.is_dir()]
    return any(has_images(each, depth - 1) for each in folders[:_FOLDERS])
