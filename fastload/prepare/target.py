"""Where shards go while they are made, and stay: what a folder and a bucket have in common.

claim ─▶ a shard at partial_path ─▶ keep: NAME.partial, then its journal      phase 1
name_partial, or bring_partial ─▶ a new tar ─▶ name_rewritten: NAME           phase 2
the other files in `out` ─▶ publish; the manifest in `out` ─▶ publish
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from fastload.prepare.journal import Journal
from fastload.store.manifest import Manifest


class Target(Protocol):
    """`journal.StateFolder`, or `bucket.BucketTarget`.

    All methods raise OSError, and those of a bucket ShardError and StalledError.

    Attributes:
        place: Where the shards stay, for messages.
        out: Folder of this machine in which files are made.
        at_once: Shards that get their final names at the same time.
    """

    place: Path | str
    out: Path
    at_once: int

    def partial_path(self, name: str) -> Path:
        """Where a shard is written."""
        ...

    def locked(self) -> AbstractContextManager[None]:
        """Hold the place against a second run."""
        ...

    def claim(self, facts: dict[str, Any]) -> None:
        """Note which run the place belongs to, or see that it belongs to the same run already.

        Raises:
            OutputError: If it does not.
        """
        ...

    def read_journal(self, name: str) -> Journal | None:
        """The journal of a finished shard whose bytes are still there; else None."""
        ...

    def read_manifest(self) -> Manifest | None:
        """The manifest of a complete set; None where there is none."""
        ...

    def keep(self, name: str, journal: Journal) -> None:
        """Keep a shard, durable at `partial_path`, and then its journal."""
        ...

    def size(self, name: str) -> int | None:
        """Bytes of the shard under its final name; None where it is not there."""
        ...

    def drop_partial(self, name: str) -> None:
        """Remove a shard that was kept, if it is there."""
        ...

    def name_partial(self, name: str) -> None:
        """Give a shard that was kept its final name; nothing, where it has it already."""
        ...

    def bring_partial(self, name: str) -> Path | None:
        """A file with a shard that was kept; None where it is not there any more."""
        ...

    def name_rewritten(self, name: str, path: Path) -> None:
        """Put a file under the final name of a shard, in the place of what was kept."""
        ...

    def sha256_of(self, name: str) -> str:
        """SHA-256 of the shard under its final name, hexadecimal."""
        ...

    def publish(self) -> None:
        """Make what lies in `out` durable in its place, before what is written there next."""
        ...

    def remove(self) -> None:
        """Remove the state of a complete run; what cannot be removed does no harm."""
        ...
