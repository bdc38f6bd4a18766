"""Samples to one uint8 [N, H, W, 3]: threads, bounded queues, recycled buffers.

    caller     _Ticket: batch k is wanted
    a worker   EpochPlan.batch(k) -> _OpenBatch: rows, boxes, flips (vectorised), memory, chunks
    a worker   _Chunk -> Reader.read -> Renderer.render -> a slice of the batch's memory
    a worker   after the last chunk: Batch -> the ticket
    caller     takes the batches of its tickets in the order of the epoch

At most `depth` batches are planned, being rendered or ready. A batch that the caller takes lets the
next one in.

Success: batches come in order, then None; `close` ends the threads.
Failure: an error that concerns no single sample is raised when its batch is due; batches before it
    are delivered.
A bad sample: its place is given to the sample at the next position of the epoch's order, with the
    draws of its own position; or it is left out, in evaluation. Either way it is reported.
Cancel: `close` lets each worker finish its chunk, then joins it. It may be called at any time, from
    any thread, more than once. Ctrl-C may hit the caller's thread at any line: see `threads`.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from queue import Empty, SimpleQueue

import numpy as np
from numpy.typing import NDArray

from fastload.errors import StalledError
from fastload.load.augment import Choices
from fastload.load.buffers import batches_ahead
from fastload.load.plan import BatchPlan, EpochPlan
from fastload.load.replacement import BadSample, render_neighbour
from fastload.load.threads import Worker, Workers
from fastload.pixels.decode import Memory, Renderer, render_upright
from fastload.runs import run_bounds
from fastload.stages import Stages
from fastload.store.reader import Reader

# Samples of a chunk: some 6 ms of decoding, against some 0.1 ms of Python around it.
CHUNK = 16
CHUNK_BYTES = 8 << 20  # of encoded images in a worker's memory; a larger image is a chunk alone
SMALLEST_CHUNK = 8  # with many threads chunks shrink to this, so that more threads get one

# For threads to end, however short the time limit of a batch: a chunk may be in work.
ENDING_SECONDS = 10.0

_ENDED = "this iteration was ended: the loader was closed or reused"


@dataclass(frozen=True, slots=True)
class Batch:
    """One rendered batch.

    Attributes:
        pixels: uint8 [N, S, S, 3]; the memory is used again once nothing refers to it.
        labels: int64 [N].
        positions: int64 [N], positions in the epoch.
        rows: int64 [N], the rows of the index that were used.
        choices: What was drawn; boxes and flips are applied already.
        end: Position in the epoch after the whole global batch.
        bad: Samples of this rank that were replaced or left out.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    positions: NDArray[np.int64]
    rows: NDArray[np.int64]
    choices: Choices
    end: int
    bad: tuple[BadSample, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Ticket:
    """A batch that the caller will take; as a job of a worker: plan that batch.

    Attributes:
        step: Number of the batch in this iteration.
        outcome: Gets the batch, or the error in its place, or None when the rendering is closed.
            The first item counts.
    """

    step: int
    outcome: SimpleQueue[Batch | BaseException | None] = field(default_factory=SimpleQueue)

    def fail(self, error: BaseException) -> None:
        self.outcome.put(error)


@dataclass(slots=True, eq=False)
class _OpenBatch:
    """A batch that is planned and is being rendered, by several workers at a time.

    Attributes:
        ticket: Gets the batch.
        plan: What to render.
        pixels: uint8 [N, S, S, 3], written by the workers; deleted when the batch is handed over.
        rows: int64 [N], the rows of the index that are used.
        chunks_left: Chunks that are not rendered yet.
        bad: Samples that were replaced or are to be left out.
        failed: Whether a chunk failed, so that the others need not be rendered.
    """

    ticket: _Ticket
    plan: BatchPlan
    pixels: NDArray[np.uint8]
    rows: NDArray[np.int64]
    chunks_left: int
    bad: list[BadSample] = field(default_factory=list)
    failed: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class _Chunk:
    """Some neighbours of a batch; as a job of a worker: read and render them."""

    batch: _OpenBatch
    first: int
    last: int

    def fail(self, error: BaseException) -> None:
        self.batch.failed = True
        self.batch.ticket.fail(error)


class Rendering:
    """Renders the batches of one epoch ahead of the caller.

    Args:
        plan: What to render.
        reader: Where the bytes come from.
        renderer: Bytes to pixels.
        buffers: Where the pixels go.
        spent: For each worker its seconds by stage, added to.
        chunk: Samples that are rendered at a time; as suits the workers when None.
        replace_bad: Replace bad samples; otherwise leave them out.
        timeout_seconds: How long one batch may be waited for.
    """

    def __init__(
        self,
        plan: EpochPlan,
        reader: Reader,
        renderer: Renderer,
        buffers: Memory,
        *,
        spent: Sequence[Stages],
        chunk: int | None = None,
        replace_bad: bool,
        timeout_seconds: float,
    ) -> None:
        num_threads = len(spent)
        self._plan, self._reader, self._renderer, self._buffers = plan, reader, renderer, buffers
        self._replace_bad = replace_bad
        self._timeout = min(timeout_seconds, threading.TIMEOUT_MAX)
        begin, end = plan.batches.bounds(0)  # no other batch is larger
        largest = max(1, (end - begin) // plan.world.size)
        share = max(SMALLEST_CHUNK, math.ceil(largest / num_threads))
        self._chunk = chunk or min(CHUNK, largest, share)
        self._chunk_bytes = None if chunk else CHUNK_BYTES
        self.depth = batches_ahead(num_threads, chunk=self._chunk, batch=largest)
        self._process = os.getpid()
        self._tickets: deque[_Ticket] = deque()  # the caller's thread alone changes it
        self._asked = self._taken = 0
        self._counting = threading.Lock()  # among the workers
        self._workers: Workers[_Ticket | _Chunk] = Workers(self._work, spent)

    def start(self, owner: object) -> None:
        """Start the threads.

        Args:
            owner: The object that wants the batches; the threads end when nothing refers to it.

        Raises:
            ResourceError: If the system allows no more thread.
        """
        for _ in range(self.depth):
            self._ask_for_another()
        self._workers.start(owner)

    def take(self) -> Batch | None:
        """The next batch, or None after the last.

        Raises:
            StalledError: If it did not come within the time limit.
            RuntimeError: If the rendering was closed, or began in another process.
            Exception: If this batch has an error, such as a `ShardError`.
        """
        if os.getpid() != self._process:
            raise RuntimeError(
                f"this iteration began in process {self._process}, and its threads are there; "
                "after a fork begin a new one"
            )
        if self._taken == self._plan.steps:
            return None
        if not self._tickets or self._workers.stopped:
            raise RuntimeError(_ENDED)
        try:
            outcome = self._tickets[0].outcome.get(timeout=self._timeout)
        except Empty:
            raise StalledError(self._who_stalls()) from None
        if outcome is None:
            raise RuntimeError(_ENDED)
        self._tickets.popleft()
        self._taken += 1
        self._ask_for_another()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def ready(self) -> int:
        """Batches that can be taken without waiting."""
        return sum(not ticket.outcome.empty() for ticket in self._tickets)

    def close(self) -> None:
        """End the threads; returns when they have ended.

        Raises:
            StalledError: If one does not within the time limit, or 10 seconds if that is less.
        """
        if os.getpid() != self._process:
            return  # a fork: the threads belong to the parent
        first = not self._workers.stopped
        self._workers.stop()
        if first:  # later another iteration may use the reader
            self._reader.forget()
        for ticket in tuple(self._tickets):
            ticket.outcome.put(None)
        limit = max(self._timeout, ENDING_SECONDS)
        if not self._workers.join(limit):
            raise StalledError(f"threads did not end within {limit:g} s: {self._workers.doing()}")
        if first:  # a thread may have asked for more meanwhile
            self._reader.forget()

    def _ask_for_another(self) -> None:
        if self._asked < self._plan.steps:
            ticket = _Ticket(self._asked)
            self._asked += 1
            self._tickets.append(ticket)
            self._workers.put(ticket)

    def _who_stalls(self) -> str:
        return (
            f"waited {self._timeout:g} s for batch {self._taken} of epoch {self._plan.number}: "
            f"{self._workers.doing()}; look at the storage, or raise timeout_seconds"
        )

    def _work(self, job: _Ticket | _Chunk, worker: Worker) -> None:
        if isinstance(job, _Ticket):
            self._open(job, worker)
        else:
            self._render(job, worker)

    def _open(self, ticket: _Ticket, worker: Worker) -> None:
        """Plan a batch, hand out its chunks, ask for the bytes of later batches."""
        worker.doing = f"plans batch {ticket.step}"
        began = time.perf_counter()
        plan = self._plan.batch(ticket.step)
        count, size = len(plan.rows), self._plan.augment.size
        sizes = self._plan.index["size"][plan.rows].tolist()
        chunks = list(pairwise(run_bounds(sizes, count=self._chunk, total=self._chunk_bytes)))
        pixels = self._buffers.take((count, size, size, 3))
        batch = _OpenBatch(ticket, plan, pixels, plan.rows.copy(), chunks_left=len(chunks))
        for first, last in chunks:
            self._workers.put(_Chunk(batch, first, last))
        worker.doing = "reads ahead"
        self._reader.read_ahead(self._plan.ahead(ticket.step))
        if not chunks:
            self._hand_over(batch)
        worker.spent.plan += time.perf_counter() - began

    def _render(self, chunk: _Chunk, worker: Worker) -> None:
        batch = chunk.batch
        if not batch.failed:
            self._fill(chunk, worker)
        with self._counting:
            batch.chunks_left -= 1
            finished = batch.chunks_left == 0  # never, if a chunk failed
        if finished:
            self._hand_over(batch)

    def _fill(self, chunk: _Chunk, worker: Worker) -> None:
        """Read and render the samples of a chunk; replace the bad ones, or note them."""
        batch, part = chunk.batch, slice(chunk.first, chunk.last)
        rows, choices = batch.plan.rows[part], batch.plan.choices
        worker.doing = f"reads {len(rows)} samples, first of {self._reader.file_of(rows[0])}"
        began = time.perf_counter()
        encoded, unread = self._reader.read(rows, worker.scratch)
        worker.spent.read += time.perf_counter() - began
        worker.doing = f"decodes {len(rows)} samples with {self._renderer.name}"
        boxes, flips = choices.boxes[part], choices.flips[part]
        windows = None if choices.windows is None else choices.windows[part]
        undecoded = render_upright(
            self._renderer, encoded, boxes, flips, batch.pixels[part], worker.spent, windows
        )
        for i, reason in sorted((undecoded | unread).items()):
            self._mend(batch, chunk.first + i, reason, worker)

    def _mend(self, batch: _OpenBatch, place: int, reason: str, worker: Worker) -> None:
        row, position = int(batch.plan.rows[place]), int(batch.plan.positions[place])
        if self._replace_bad:
            batch.rows[place] = render_neighbour(
                position,
                batch.pixels[place : place + 1],
                plan=self._plan,
                reader=self._reader,
                renderer=self._renderer,
                scratch=worker.scratch,
            )
        batch.bad.append(BadSample(row, position, reason))

    def _hand_over(self, batch: _OpenBatch) -> None:
        pixels, rows, choices = batch.pixels, batch.rows, batch.plan.choices
        positions = batch.plan.positions
        # Another worker may still refer to `batch`; the memory shall be the caller's alone.
        del batch.pixels
        bad = tuple(sorted(batch.bad, key=lambda sample: sample.position))
        if bad and not self._replace_bad:
            kept = ~np.isin(positions, [sample.position for sample in bad])
            pixels = self._buffers.select(pixels, kept)
            positions, rows, choices = positions[kept], rows[kept], choices.keep(kept)
        labels = self._plan.index["label"][rows].astype(np.int64)
        _, end = self._plan.batches.bounds(batch.ticket.step)
        batch.ticket.outcome.put(Batch(pixels, labels, positions, rows, choices, end, bad))
