"""The state of an unfinished shard directory: who writes it, and what became of each file so far.

OUT/.fastload/run.json           source and options: another run may go on, if they are the same
OUT/.fastload/NAME.tar.json      the journal of a finished shard
OUT/.fastload/lock               held by the run that writes
OUT/NAME.tar.partial             the shard, until duplicates are known
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastload.console.terminal import say
from fastload.errors import OutputError
from fastload.files import locked, write_atomically
from fastload.prepare.reasons import Reason
from fastload.prepare.verdict import Dropped, Kept, Verdict

STATE_NAME = ".fastload"


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """What became of each file of a planned shard.

    Attributes:
        sha256: SHA-256 of the partial tar, hexadecimal.
        tar_bytes: Size of the partial tar.
        verdicts: One for each file of the shard's plan, in its order.
    """

    sha256: str
    tar_bytes: int
    verdicts: tuple[Verdict, ...]

    def to_json(self) -> bytes:
        """The journal as it lies in the state folder."""
        verdicts = [
            list(one) if isinstance(one, Kept) else [one.reason.slug, one.detail]
            for one in self.verdicts
        ]
        return json.dumps([self.sha256, self.tar_bytes, verdicts]).encode("ascii")

    @staticmethod
    def from_json(text: bytes) -> Journal:
        """Undo `to_json`.

        Raises:
            ValueError: If the text has another form.
            TypeError: If the text has another form.
        """
        sha256, tar_bytes, verdicts = json.loads(text)
        return Journal(
            sha256=sha256, tar_bytes=tar_bytes, verdicts=tuple(map(_verdict_of, verdicts))
        )


def _verdict_of(facts: list[Any]) -> Verdict:
    if len(facts) == len(Dropped._fields):
        slug, detail = facts
        return Dropped(Reason(slug), detail)
    return Kept(*facts)


class StateFolder:
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
        """Note which run the folder belongs to, or see that it belongs to the same run already.

        Raises:
            OutputError: If the folder belongs to another source or to other options, or holds
                other files.
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
        """The journal of a finished shard whose bytes are still there; else None.

        A journal that another version of fastload wrote in another form counts as none: the shard
        is written again.
        """
        try:
            journal = Journal.from_json(self.journal_path(name).read_bytes())
        except (FileNotFoundError, ValueError, TypeError):
            return None
        final, partial = self.out / name, self.partial_path(name)
        if final.exists() or (partial.exists() and partial.stat().st_size == journal.tar_bytes):
            return journal
        return None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder against a second run; the lock ends with the process.

        Where the file system has no locks, a line says so, and the run goes on without.
        """

        def refuse() -> None:
            raise OutputError(f"another fastload.shard is writing to {self.out}; wait for it")

        def warn(error: OSError) -> None:
            say(
                f"{self.out} cannot be locked ({error.strerror}): see that no second"
                " fastload.shard writes to it",
                error=True,
            )

        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / "lock", held=refuse, unlockable=warn):
            yield
        # NFS keeps an open file that was removed under another name, so its folder stays till now.
        with suppress(OSError):
            self.folder.rmdir()

    def remove(self) -> None:
        """Remove the state of a complete run; what cannot be removed does no harm."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _difference(out: Path, found: dict[str, Any], facts: dict[str, Any]) -> str:
    before, now = found.get("options", {}), facts.get("options", {})
    changed = [name for name in now if before.get(name) != now[name]]
    if changed:
        what = ", ".join(f"{name} {before.get(name)}, now {now[name]}" for name in changed)
        return f"{out} was begun with other options ({what}); use the same, or another --out"
    return f"{out} was begun from another folder, or its files changed since; choose another --out"
