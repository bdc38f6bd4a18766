"""Phase 1 of sharding: each file is read once; each finished shard has a journal."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from types import TracebackType
from typing import Protocol

from fastload.console.progress import Progress
from fastload.prepare.examine import examine_files
from fastload.prepare.journal import Journal
from fastload.prepare.plan import Plan, PlannedShard
from fastload.prepare.reasons import Reason
from fastload.prepare.target import Target
from fastload.prepare.verdict import Dropped, Kept, Verdict
from fastload.store.tar import TarWriter, key_of, label_bytes


class WriteShards(Protocol):
    """Writes shards and their journals; yields verdicts as they are known, some at a time."""

    def __call__(
        self,
        plan: Plan,
        shards: Sequence[PlannedShard],
        state: Target,
        journals: dict[str, Journal],
    ) -> Iterator[Sequence[Verdict]]:
        """Write shards of the plan; the journal of each goes to `journals` too."""
        ...


def write_partial_shards(
    plan: Plan, state: Target, *, write: WriteShards
) -> tuple[list[Journal], float]:
    """Phase 1: write the shards that are not there yet.

    Args:
        plan: What is written.
        state: Where the shards go.
        write: Writes some shards, on this machine or on others.

    Returns:
        The journals of all shards of the plan, and images a second.

    Raises:
        OSError: If there is no room or no permission; finished shards stay.
    """
    found = {shard.name: _finished(state, shard) for shard in plan.shards}
    journals = {name: journal for name, journal in found.items() if journal is not None}
    missing = [shard for shard in plan.shards if shard.name not in journals]
    count, total = (sum(len(shard.files) for shard in some) for some in (missing, plan.shards))
    begin, aside = time.monotonic(), 0
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(total, "images", done=total - count))
        written = write(plan, missing, state, journals)
        stack.callback(written.close)  # type: ignore[attr-defined]  # a generator
        for verdicts in written:
            aside += sum(isinstance(verdict, Dropped) for verdict in verdicts)
            progress.add(len(verdicts), note=f"{aside:,} set aside")
    rate = count / max(time.monotonic() - begin, 1e-9)
    return [journals[shard.name] for shard in plan.shards], rate


def write_here(
    plan: Plan,
    shards: Sequence[PlannedShard],
    state: Target,
    journals: dict[str, Journal],
    *,
    workers: int,
) -> Iterator[Sequence[Verdict]]:
    """Write shards with processes of this machine; see `WriteShards`."""
    files = [file for shard in shards for file in shard.files]
    root, rules = plan.source.root, plan.options.rules
    with ShardWriter(state, shards, len(plan.source.classes)) as writer:
        results = examine_files(files, root=root, rules=rules, workers=workers, with_jpeg=True)
        with closing(results):  # type: ignore[type-var]  # a generator
            for _, verdict, jpeg in results:
                writer.add(verdict, jpeg)
                yield (verdict,)
    journals |= writer.journals


def _finished(state: Target, shard: PlannedShard) -> Journal | None:
    """The journal of a finished shard; None where a file of it must be tried again.

    What could not be read or decoded for lack of storage or memory may be there now.
    """
    journal = state.read_journal(shard.name)
    if journal and any(
        isinstance(one, Dropped) and one.reason in {Reason.UNREADABLE, Reason.MEMORY}
        for one in journal.verdicts
    ):
        return None
    return journal


class ShardWriter:
    """Writes the planned shards one after another, from results that arrive in order.

    Another thread makes a finished shard durable and writes its journal. At most two shards wait
    for that thread.

    Attributes:
        journals: Name of each finished shard -> its journal.
    """

    def __init__(self, state: Target, shards: Sequence[PlannedShard], num_classes: int) -> None:
        self.journals: dict[str, Journal] = {}
        self._state = state
        self._todo = iter(shards)
        self._num_classes = num_classes
        self._tar: TarWriter | None = None
        self._shard: PlannedShard | None = None
        self._verdicts: list[Verdict] = []
        self._closer = ThreadPoolExecutor(1)
        self._closing: list[Future[None]] = []

    def add(self, verdict: Verdict, jpeg: bytes) -> None:
        """Take the verdict on the next file, and its JPEG where it is kept."""
        if self._shard is None or self._tar is None:
            self._shard = next(self._todo)
            self._tar = TarWriter(self._state.partial_path(self._shard.name))
            self._verdicts = []
        if isinstance(verdict, Kept):
            index = len(self._verdicts)
            label = label_bytes(self._shard.files[index].label, self._num_classes)
            self._tar.add_sample(key_of(self._shard.first + index), jpeg, label)
        self._verdicts.append(verdict)
        if len(self._verdicts) == len(self._shard.files):
            self._finish(self._shard, self._tar)
            self._shard = self._tar = None

    def _finish(self, shard: PlannedShard, tar: TarWriter) -> None:
        journal = Journal(sha256=tar.finish(), tar_bytes=tar.bytes, verdicts=tuple(self._verdicts))
        self.journals[shard.name] = journal
        if len(self._closing) == 2:
            self._closing.pop(0).result()
        closing = self._closer.submit(_make_durable, tar, self._state, shard.name, journal)
        self._closing.append(closing)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closer.shutdown(wait=True)
        if self._tar is not None:
            self._tar.discard()
        if error is None:
            for future in self._closing:
                future.result()


def _make_durable(tar: TarWriter, state: Target, name: str, journal: Journal) -> None:
    tar.sync()
    state.keep(name, journal)
