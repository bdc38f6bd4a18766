"""Folders for what is being written, and what becomes of those of runs that were killed.

    staged         of a run, on the disk of the machine that runs the command
    part_folder    of a part, on the disk of a node
    run_folder     of a run of a cluster, where all its nodes see it

Each is gone at its end. What a kill leaves, the next run on that machine, or to that place,
removes: a lock tells the folder of a process that lives, since it ends with the process.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from fastload.console.terminal import say
from fastload.errors import OutputError
from fastload.files import locked


@contextmanager
def staged(address: str, parent: Path | None) -> Iterator[Path]:
    """An empty folder that is ours alone.

    Args:
        address: Where the run writes to; another run to it is refused.
        parent: The folder to make one in, which is made too; None for that of temporary files.

    Raises:
        OutputError: If another run of this machine has it, or somebody else.
        OSError: If it cannot be made.
    """

    def refuse() -> None:
        raise OutputError(f"another fastload.shard is writing to {address}; wait for it")

    def warn(error: OSError) -> None:
        say(f"{folder} cannot be locked ({error.strerror}); start no second run", error=True)

    digest = hashlib.blake2b(address.encode(), digest_size=8).hexdigest()
    place = parent or Path(tempfile.gettempdir())
    made = [one for one in (place, *place.parents) if not one.exists()]
    place.mkdir(parents=True, exist_ok=True)
    folder = place / f"fastload-{os.getuid()}-{digest}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise OutputError(f"{folder} belongs to somebody else; give another --staging")
    files = folder / "files"
    with locked(folder / "lock", held=refuse, unlockable=warn):
        shutil.rmtree(files, ignore_errors=True)  # of a run that was killed
        files.mkdir()
        try:
            yield files
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # another run is in it
                for one in made:
                    one.rmdir()


@contextmanager
def part_folder(parent: Path | None) -> Iterator[Path]:
    """An empty folder that is ours alone; a machine may have many at a time.

    Args:
        parent: As of `staged`.

    Raises:
        OSError: If it cannot be made.
    """
    place, owner = parent or Path(tempfile.gettempdir()), os.getuid()
    place.mkdir(parents=True, exist_ok=True)
    for left in place.glob(f"fastload-{owner}-part-*"):
        with suppress(OSError), _held(left):  # else its process lives, or it is not ours
            shutil.rmtree(left)
    new = Path(tempfile.mkdtemp(prefix=f"fastload-{owner}-new-", dir=place))
    with ExitStack() as stack:
        with suppress(OSError):  # of a file system without locks; nobody removes it there
            stack.enter_context(_held(new))  # before it has a name that others look for
        folder = new.rename(place / f"fastload-{owner}-part-{uuid.uuid4().hex}")
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold a folder; raises OSError where another process does, or where it cannot be held."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def run_folder(state: Path) -> Iterator[Path]:
    """A folder under a new name in that of a run's state; those of killed runs go."""
    for left in state.glob("run-*"):
        _remove(left)
    folder = state.absolute() / f"run-{uuid.uuid4().hex}"
    folder.mkdir()
    try:
        yield folder
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a folder of a run, in which a node may still write.

    Under its new name nothing can be added to it.
    """
    with suppress(OSError):  # what is left does no harm
        shutil.rmtree(folder.rename(folder.with_name(f"{folder.name}.ended")))
