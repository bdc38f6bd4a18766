"""Phase 1 of sharding: every file is read once; each finished shard has a journal."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from fastload.console.progress import Progress
from fastload.files import write_atomically
from fastload.prepare.examine import Dropped, Kept, examine
from fastload.prepare.journal import Journal, State
from fastload.prepare.plan import PlannedShard
from fastload.prepare.reasons import Rules
from fastload.prepare.source import Source
from fastload.store.tar import TarWriter, key_of, label_bytes


class ShardWriter:
    """Writes the planned shards one after another, from results that arrive in order.

    A finished shard is synced and journalled by one thread beside, at most two of them at once.
    """

    def __init__(self, state: State, shards: Sequence[PlannedShard], num_classes: int) -> None:
        self.state = state
        self.todo = iter(shards)
        self.num_classes = num_classes
        self.tar: TarWriter | None = None
        self.shard: PlannedShard | None = None
        self.journal = Journal()
        self.index = 0
        self.closer = ThreadPoolExecutor(1)
        self.closing: list[Future[None]] = []

    def add(self, result: Kept | Dropped) -> None:
        """Take the result of the next file."""
        if self.shard is None or self.tar is None:
            self.shard = next(self.todo)
            self.tar = TarWriter(self.state.partial_path(self.shard.name))
            self.journal, self.index = Journal(), 0
        offset = 0
        if isinstance(result, Kept):
            label = label_bytes(self.shard.files[self.index].label, self.num_classes)
            offset = self.tar.add_sample(key_of(self.shard.first + self.index), result.jpeg, label)
        self.journal.add(self.index, result, offset)
        self.index += 1
        if self.index == len(self.shard.files):
            self._finish(self.shard, self.tar)
            self.shard = self.tar = None

    def _finish(self, shard: PlannedShard, tar: TarWriter) -> None:
        self.journal.sha256 = tar.finish()
        self.journal.tar_bytes = tar.bytes
        path, journal = self.state.journal_path(shard.name), self.journal
        if len(self.closing) == 2:
            self.closing.pop(0).result()
        self.closing.append(self.closer.submit(_make_durable, tar, path, journal))

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.closer.shutdown(wait=True)
        if self.tar is not None:
            self.tar.discard()
        if error is None:
            for future in self.closing:
                future.result()


def _make_durable(tar: TarWriter, journal_path: Path, journal: Journal) -> None:
    tar.sync()
    write_atomically(journal_path, journal.to_json())


def write_partial_shards(
    source: Source, state: State, shards: Sequence[PlannedShard], *, rules: Rules, workers: int
) -> float:
    """Phase 1: write the shards that are not there yet; returns images a second.

    Raises:
        OSError: If there is no room or no permission; finished shards stay.
    """
    missing = [shard for shard in shards if state.read_journal(shard.name) is None]
    total = sum(len(shard.files) for shard in shards)
    todo = sum(len(shard.files) for shard in missing)
    begin, aside = time.monotonic(), 0
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(total, "images", done=total - todo))
        writer = stack.enter_context(ShardWriter(state, missing, len(source.classes)))
        files = [file for shard in missing for file in shard.files]
        results = examine(files, root=source.root, rules=rules, workers=workers, with_jpeg=True)
        stack.callback(results.close)  # type: ignore[attr-defined]  # examine is a generator
        for _, result in results:
            writer.add(result)
            aside += isinstance(result, Dropped)
            progress.add(note=f"{aside:,} set aside")
    return todo / max(time.monotonic() - begin, 1e-9)
