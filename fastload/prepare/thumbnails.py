"""Small pictures of files that were set aside: what is decoded is decoded in other processes.

    path in the report ─▶ a file, or a member of a tar ─▶ worker ─▶ a small JPEG, or nothing

The files may hold anything, and some may end their decoder's process: see `transcode` and
`workers`. Because a report names it nothing is opened but what lies in the source's folder, or
where links in that folder lead; as in `tree`, not through links to folders above it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath

from fastload.cores import usable_cores
from fastload.errors import FastloadError
from fastload.files import lies_within
from fastload.prepare.reading import read_bytes
from fastload.prepare.reasons import Rules, SetAsideError
from fastload.prepare.source import File
from fastload.prepare.tar_members import TarFile
from fastload.prepare.transcode import MAX_FILE_BYTES, store_image
from fastload.prepare.workers import Lost, run_chunks

SIDE = 112  # pixels of the longer side
_LIMIT_SECONDS = 10.0  # of computing for one; a photograph of 100 megapixels takes 2
_CHUNK = 8
_MOST_TARS = 16  # whose members are listed: a shard of 256 MB takes some 20 ms
_RULES = Rules(convert=True, min_side=1, max_side=SIDE)


def draw_thumbnails(root: Path, paths: Iterable[str]) -> dict[str, bytes]:
    """A small JPEG of each file that is still there and can be decoded whole.

    Args:
        root: The folder of the source.
        paths: As a cleaning report names them: relative to the root, "/" between their parts; a
            member of a tar stands behind the path of its tar.

    Returns:
        Path -> JPEG, upright, of `SIDE` pixels at most.
    """
    wanted = list(_found(root, paths))
    chunks = (wanted[at : at + _CHUNK] for at in range(0, len(wanted), _CHUNK))
    results = run_chunks(
        partial(thumbnail, root),
        chunks,
        workers=min(usable_cores(), -(-len(wanted) // _CHUNK)) or 1,
        limit_seconds=_LIMIT_SECONDS,
        name=_name_of,
    )
    with closing(results):  # type: ignore[type-var]  # a generator
        return {
            _name_of(file): jpeg
            for file, jpeg in results
            if not isinstance(jpeg, Lost) and jpeg is not None
        }


def thumbnail(root: Path, file: File) -> bytes | None:
    """A small JPEG of one file; None where it cannot be read or decoded. Runs in a worker."""
    try:
        data = read_bytes(root, file)
        return store_image(data, extension=PurePosixPath(file.path).suffix, rules=_RULES).jpeg
    except (OSError, SetAsideError, FastloadError):
        return None


def _name_of(file: File) -> str:
    return f"{file.container}/{file.path}" if file.container else file.path


def _found(root: Path, paths: Iterable[str]) -> Iterator[File]:
    """Where the files lie, of those that are there; the members of a tar after all others."""
    within: dict[str, set[str]] = {}
    for path in paths:
        parts = path.split("/")
        if "\0" in path or "" in parts or ".." in parts:
            continue  # no path that fastload writes: it might lead anywhere
        try:
            if _leads_above(root, parts):
                continue
            if (root / path).is_file():
                if (root / path).stat().st_size <= MAX_FILE_BYTES:
                    yield _file(path)
            elif tar := next(_tars(root, parts), ""):
                within.setdefault(tar, set()).add(path[len(tar) + 1 :])
        except OSError:  # a name that is too long, a folder that may not be entered
            continue
    for tar, names in islice(within.items(), _MOST_TARS):
        yield from _members(root, tar, names)


def _leads_above(root: Path, parts: list[str]) -> bool:
    """Whether a path leads through a link to a folder that holds the root; `tree` enters none."""
    folders = (root.joinpath(*parts[:count]) for count in range(1, len(parts)))
    return any(lies_within(root, folder) for folder in folders)


def _tars(root: Path, parts: list[str]) -> Iterator[str]:
    for count in range(1, len(parts)):
        tar = "/".join(parts[:count])
        if tar.endswith(".tar") and (root / tar).is_file():
            yield tar


def _members(root: Path, tar: str, names: set[str]) -> Iterator[File]:
    try:
        with TarFile(root / tar) as opened:
            changed = opened.status.st_mtime_ns
            # Of several members of one name the last is meant, as when a tar is unpacked.
            found = {
                member.name: member
                for member in opened.members()
                if member.name in names and not member.kind and member.size <= MAX_FILE_BYTES
            }
    except (OSError, FastloadError):
        return
    for member in found.values():
        yield _file(member.name, tar, member.offset, member.size, changed)


def _file(path: str, container: str = "", offset: int = 0, size: int = 0, changed: int = 0) -> File:
    return File(
        path=path,
        split="",
        label=0,
        bytes=size,
        modified_ns=changed,
        container=container,
        offset=offset,
    )
