"""The state of an unfinished shard directory: who writes it, and what became of each file so far.

`StateFolder` is a `target.Target`.

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
from fastload.files import locked, sha256_of, sync_directory, write_atomically
from fastload.prepare.reasons import Reason
from fastload.prepare.verdict import Dropped, Kept, Verdict
from fastload.store.manifest import MANIFEST_NAME, Manifest, read_manifest

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

    at_once = 1  # a disk is not faster with several

    def __init__(self, out: Path) -> None:
        self.out = out
        self.place: Path | str = out
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
                raise OutputError(difference(self.out, found, facts))
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

    def keep(self, name: str, journal: Journal) -> None:
        """See `Target.keep`: the shard is where it stays."""
        write_atomically(self.journal_path(name), journal.to_json())

    def size(self, name: str) -> int | None:
        """See `Target.size`."""
        try:
            return (self.out / name).stat().st_size
        except FileNotFoundError:
            return None

    def read_manifest(self) -> Manifest | None:
        """See `Target.read_manifest`."""
        return read_manifest(self.out) if (self.out / MANIFEST_NAME).exists() else None

    def drop_partial(self, name: str) -> None:
        """See `Target.drop_partial`."""
        self.partial_path(name).unlink(missing_ok=True)

    def name_partial(self, name: str) -> None:
        """See `Target.name_partial`."""
        if self.partial_path(name).exists():
            self.partial_path(name).replace(self.out / name)

    def bring_partial(self, name: str) -> Path | None:
        """See `Target.bring_partial`."""
        path = self.partial_path(name)
        return path if path.exists() else None

    def name_rewritten(self, name: str, path: Path) -> None:
        """See `Target.name_rewritten`."""
        path.replace(self.out / name)
        self.drop_partial(name)

    def sha256_of(self, name: str) -> str:
        """See `Target.sha256_of`."""
        return sha256_of(self.out / name)

    def publish(self) -> None:
        """See `Target.publish`: all lies in its place."""
        sync_directory(self.out)

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


def difference(out: Path | str, found: dict[str, Any], facts: dict[str, Any]) -> str:
    """Why a run cannot go on with what a run of other facts began."""
    before, now = found.get("options", {}), facts.get("options", {})
    changed = [name for name in now if before.get(name) != now[name]]
    if changed:
        what = ", ".join(f"{name} {before.get(name)}, now {now[name]}" for name in changed)
        return f"{out} was begun with other options ({what}); use the same, or another --out"
    return f"{out} was begun from another folder, or its files changed since; choose another --out"
