"""An index in place for data that have none yet, made in another process: `fastload.index`.

What makes it is a command of its own, since whoever reads knows nothing of how data are prepared.
Of several processes that want the same index, as the ranks of a run do, one makes it: the others
wait for its lock, and find the index there.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from fastload.console.shell import module_command, program
from fastload.console.terminal import say
from fastload.errors import ShardError
from fastload.files import explain_os_error
from fastload.store.collection import Paths, listed
from fastload.store.manifest import MANIFEST_NAME
from fastload.store.misplaced import has_images, is_address
from fastload.store.places import FOLDER_NAME, find_index
from fastload.store.remote import is_remote

_SOURCES = frozenset((".tar", ".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".json", ".parquet"))
_OF_SHARDS = (".index.npy", ".sources.csv", ".idx", ".partial")  # an unfinished run, or copy


def make_missing_indexes(path: Paths, *, quiet: bool = False) -> None:
    """Index each folder of images among the paths that holds neither shards nor an index.

    Args:
        path: What the caller was given; a path that is something else is passed over.
        quiet: Show no progress.

    Raises:
        ShardError: If an index could not be made; says why.
        TypeError: If `path` is neither a path nor a list of them.
        ValueError: If `path` names no directory.
    """
    for each in listed(path):
        if is_remote(each):  # hours for what is hardly meant; the error names the command
            continue
        try:
            lacking = lacks_index(Path(each))
        except OSError as error:
            raise ShardError(explain_os_error(error)) from error
        if lacking:
            _make(Path(each), quiet=quiet)


def lacks_index(path: Path) -> bool:
    """Whether a source of images holds neither shards, finished or begun, nor an index."""
    if find_index(path) is not None:
        return False
    if not path.is_dir():  # a tar, a table, or a pattern of such files
        named = path.suffix.lower() in _SOURCES and not (path.parent / MANIFEST_NAME).exists()
        pattern = re.search(r"[*?\[{]", path.name) and not is_address(str(path))
        return named and (path.exists() or bool(pattern))
    if (path / MANIFEST_NAME).exists() or (path / FOLDER_NAME / "run.json").exists():
        return False
    if os.path.realpath(path) in (os.sep, os.path.realpath(os.environ.get("HOME", os.sep))):
        return False  # hours for what is hardly meant; the error names the command
    if has_images(path):
        return True
    names = [entry.name for entry in path.iterdir()]
    of_shards = any(name.endswith(_OF_SHARDS) for name in names)
    return not of_shards and any(name.lower().endswith((".tar", ".parquet")) for name in names)


def _make(path: Path, *, quiet: bool) -> None:
    command = module_command("fastload.index", path)
    if not quiet:
        say(f"{path} has no index yet: `{command}` makes it, once", error=True)
    shown = not quiet and sys.stderr is not None and sys.stderr.isatty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", _program(), path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=None if shown else subprocess.STDOUT,
        )
    except OSError as error:
        raise ShardError(
            f"no index could be made ({error.strerror}); run `{command}`", where=str(path)
        ) from error
    with process:
        try:
            last = _passed_on(process, quiet=quiet)
            status = process.wait()
        except BaseException:  # Ctrl-C: what was read is kept
            process.terminate()
            raise
    if status:
        name = program("fastload.index").removeprefix("python -m ")
        why = last.removeprefix(f"{name}: ") or "see above"
        raise ShardError(f"no index could be made: {why}", where=os.fspath(path))


def _program() -> str:
    """What the other process runs, as a command that the user came to by the same door."""
    typed = sys.argv[0] if sys.argv else ""
    return (
        f"import sys; sys.path[:] = {sys.path!r}; sys.argv[0] = {typed!r}; "
        "from fastload.index import main; sys.exit(main())"
    )


def _passed_on(process: subprocess.Popen[bytes], *, quiet: bool) -> str:
    """What the command says, said here too as it comes; returns its last line."""
    last = ""
    for line in process.stdout or ():
        last = line.decode(errors="replace").rstrip("\n")
        if not quiet and not last.startswith("next "):  # for whoever typed the command
            say(last, error=True)
    return last
