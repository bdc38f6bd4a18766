"""The state of an unfinished shard directory: whose it is, and what became of each file so far.

OUT/.fastload/run.json           source and options: another run may go on, if they are the same
OUT/.fastload/NAME.tar.json      the journal of a finished shard
OUT/.fastload/lock               held by the run that writes
OUT/NAME.tar.partial             the shard, until duplicates are known
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from fastload.errors import OutputError
from fastload.files import write_atomically
from fastload.prepare.examine import Dropped, Kept

STATE_NAME = ".fastload"


class Entry(NamedTuple):
    """A stored image in a journal: where it lies in the partial tar, and its facts as in `Kept`."""

    offset: int
    size: int
    height: int
    width: int
    crc32: int
    digest: str
    how: str
    change: str


@dataclass(slots=True)
class Journal:
    """What became of each file of a planned shard.

    Attributes:
        sha256: Of the partial tar.
        tar_bytes: Its size.
        kept: Index of a file in the shard's plan -> its entry, in the order of the tar.
        dropped: Index -> (reason slug, detail).
    """

    sha256: str = ""
    tar_bytes: int = 0
    kept: dict[int, Entry] = field(default_factory=dict)
    dropped: dict[int, tuple[str, str]] = field(default_factory=dict)

    def add(self, index: int, result: Kept | Dropped, offset: int) -> None:
        """Note what became of one file; `offset` is where its JPEG begins in the tar."""
        if isinstance(result, Dropped):
            self.dropped[index] = (result.reason.slug, result.detail)
            return
        self.kept[index] = Entry(
            offset,
            result.size,
            result.height,
            result.width,
            result.crc32,
            result.digest.hex(),
            result.how,
            result.change,
        )

    def to_json(self) -> bytes:
        """For the state folder."""
        facts = [self.sha256, self.tar_bytes, self.kept, self.dropped]
        return json.dumps(facts).encode("ascii")

    @staticmethod
    def from_json(text: bytes) -> Journal:
        """Undo `to_json`."""
        sha256, tar_bytes, kept, dropped = json.loads(text)
        return Journal(
            sha256,
            tar_bytes,
            {int(index): Entry(*entry) for index, entry in kept.items()},
            {int(index): (slug, detail) for index, (slug, detail) in dropped.items()},
        )


class State:
    """The folder OUT/.fastload: whose shards these are, and the journals of finished ones."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.folder = out / STATE_NAME

    def partial_path(self, name: str) -> Path:
        """Where a shard is written."""
        return self.out / f"{name}.partial"

    def journal_path(self, name: str) -> Path:
        """Where a finished shard's journal lies."""
        return self.folder / f"{name}.json"

    def claim(self, facts: dict[str, Any]) -> None:
        """Make the folder this run's, or find that it is already.

        Raises:
            OutputError: If it belongs to another source or to other options.
        """
        path = self.folder / "run.json"
        if path.exists():
            found = json.loads(path.read_bytes())
            if found != facts:
                raise OutputError(_difference(self.out, found, facts))
            return
        strangers = [entry.name for entry in self.out.iterdir() if entry.name != STATE_NAME]
        if strangers:
            raise OutputError(
                f"{self.out} is not empty (it holds {min(strangers)!r}) and holds no shards; "
                "choose another --out"
            )
        write_atomically(path, json.dumps(facts).encode("ascii"))

    def read_journal(self, name: str) -> Journal | None:
        """The journal of a finished shard whose bytes are still there; else None."""
        try:
            journal = Journal.from_json(self.journal_path(name).read_bytes())
        except FileNotFoundError:
            return None
        final, partial = self.out / name, self.partial_path(name)
        if final.exists() or (partial.exists() and partial.stat().st_size == journal.tar_bytes):
            return journal
        return None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder against a second run; the lock ends with the process."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OutputError(
                    f"another fastload.shard is writing to {self.out}; wait for it"
                ) from None
            yield

    def remove(self) -> None:
        """Remove the state of a complete run."""
        shutil.rmtree(self.folder)


def _difference(out: Path, found: dict[str, Any], facts: dict[str, Any]) -> str:
    before, now = found.get("options", {}), facts.get("options", {})
    changed = [name for name in now if before.get(name) != now[name]]
    if changed:
        what = ", ".join(f"{name} {before.get(name)}, now {now[name]}" for name in changed)
        return f"{out} was begun with other options ({what}); use the same, or another --out"
    return f"{out} was begun from another folder, or its files changed since; choose another --out"
