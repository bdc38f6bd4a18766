"""Samples to one uint8 [N, H, W, 3]: threads, bounded queues, recycled buffers.

    EpochPlan.batch(step) -> rows, boxes, flips of one batch       once, vectorised
    chunks of it -> Reader.read -> Renderer.render -> a slice of the batch's buffer
    all chunks done -> Batch, delivered in the order of the epoch

Any worker plans or renders; at most `depth` batches are planned, being rendered or ready. A batch
that the caller takes lets the next one in.

Success: batches come in order, then None; the threads end by themselves.
Failure: an error that concerns no single sample is raised when its batch is due; batches before it
    are delivered.
A bad sample: its place is given to the sample at the next position of the epoch's order, with the
    draws of its own position; or it is left out, in evaluation. Either way it is reported.
Cancel: `close()` lets each worker finish its chunk, then joins it. It may be called at any time,
    from any thread, more than once. Where it is not called, because Ctrl-C fell between two lines,
    the workers end soon after whoever iterates is gone.
"""

from __future__ import annotations

import _thread
import math
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from queue import Empty, SimpleQueue

import numpy as np
from numpy.typing import NDArray

from fastload.errors import StalledError, TooManyCorruptError
from fastload.load.augment import Choices
from fastload.load.plan import BatchPlan, EpochPlan
from fastload.pixels.decode import Memory, Renderer
from fastload.stages import Stages
from fastload.store.reader import Reader, Scratch

# Samples of one task of a worker: some 6 ms of decoding, against some 0.1 ms of Python around it.
CHUNK = 16
CHUNK_BYTES = 8 << 20  # of encoded images in a worker's memory; one that is larger stands alone
SMALLEST_CHUNK = 8  # where there are more threads than that leaves tasks for
READY_BATCHES = 2  # besides those that the workers are at

REPLACEMENTS = 64  # neighbours tried in place of a bad sample
_IDLE_SECONDS = 1.0  # a worker without work looks this often whether it is still wanted


@dataclass(frozen=True, slots=True)
class BadSample:
    """A sample that could not be used, and why."""

    row: int
    position: int
    reason: str


@dataclass(frozen=True, slots=True)
class Batch:
    """One rendered batch.

    Attributes:
        pixels: uint8 [N, S, S, 3]; the memory is used again once nothing refers to it.
        labels: int64 [N].
        rows: int64 [N], the rows of the index that were used.
        choices: What was drawn; boxes and flips are applied already.
        end: Position in the epoch after the whole global batch.
        bad: Samples of this rank that were replaced or left out.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    rows: NDArray[np.int64]
    choices: Choices
    end: int
    bad: tuple[BadSample, ...]


@dataclass(slots=True)
class _Slot:
    """A batch on its way."""

    step: int
    # Gets an item when the batch is there, or will never be.
    signal: SimpleQueue[None] = field(default_factory=SimpleQueue)
    plan: BatchPlan | None = None
    pixels: NDArray[np.uint8] | None = None
    rows: NDArray[np.int64] | None = None
    chunks_left: int = 0
    bad: list[BadSample] = field(default_factory=list)
    batch: Batch | None = None
    error: BaseException | None = None

    @property
    def done(self) -> bool:
        return self.batch is not None or self.error is not None


def chunk_bounds(sizes: NDArray[np.int64], *, count: int, most_bytes: int | None) -> list[int]:
    """Where the chunks of a batch begin and end: few enough samples, and few enough bytes.

    Args:
        sizes: int64 [N], bytes of each sample.
        count: Samples of a chunk at most.
        most_bytes: Bytes of a chunk at most, unless it is a single sample; None for no limit.
    """
    bounds, held = [0], 0
    for place, size in enumerate(sizes.tolist()):
        full = place - bounds[-1] == count
        heavy = most_bytes is not None and held + size > most_bytes
        if (full or heavy) and place > bounds[-1]:
            bounds.append(place)
            held = 0
        held += size
    return [*bounds, len(sizes)] if len(sizes) else bounds


@dataclass(frozen=True, slots=True)
class _Chunk:
    slot: _Slot
    first: int
    last: int


class Rendering:
    """Renders the batches of one epoch ahead of the caller.

    The caller's thread takes no lock of Python's, only queues written in C, and starts no
    `threading.Thread`: Ctrl-C may hit between the acquisition of a `Condition` and its `with`
    block, and the workers would wait for ever.

    Args:
        plan: What to render.
        reader: Where the bytes come from.
        renderer: Bytes to pixels.
        buffers: Where the pixels go.
        chunk: Samples that are rendered at a time; as suits the workers when None.
        replace_bad: Replace bad samples; otherwise leave them out.
        timeout_seconds: How long one batch may be waited for.
        spent: Of each worker its seconds, added to.
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
        self._replace_bad, self._timeout = replace_bad, timeout_seconds
        largest = max(1, int(np.diff(plan.bounds).max(initial=1)) // plan.world.size)
        share = max(SMALLEST_CHUNK, math.ceil(largest / num_threads))
        self._chunk = chunk or min(CHUNK, largest, share)
        self._chunk_bytes = None if chunk else CHUNK_BYTES
        self.depth = READY_BATCHES + math.ceil(num_threads * self._chunk / largest)
        self._process = os.getpid()
        self._jobs: SimpleQueue[_Slot | _Chunk | None] = SimpleQueue()
        self._slots: deque[_Slot] = deque()  # the caller's thread alone changes it
        self._planned = self._taken = 0
        self._closed = False
        self._owner: Callable[[], object | None] = lambda: None
        self._launch: SimpleQueue[RuntimeError | None] = SimpleQueue()
        self._launch_begun = self._launch_over = False
        self._counting = threading.Lock()  # among the workers
        self._doing: dict[str, str] = {}
        self._threads = [
            threading.Thread(
                target=self._run, args=(stages,), name=f"fastload-worker-{i}", daemon=True
            )
            for i, stages in enumerate(spent)
        ]

    def start(self, owner: object) -> None:
        """Start the threads.

        Args:
            owner: Whoever wants the batches; the threads end when nothing refers to it any more.

        Raises:
            RuntimeError: If the system allows no more threads.
        """
        self._owner = weakref.ref(owner)
        for _ in range(self.depth):
            self._plan_another()
        # Signals are handled in the main thread, so another one starts the workers.
        _thread.start_new_thread(self._start_workers, ())
        error = self._launch.get()
        if error is not None:
            raise error

    def _start_workers(self) -> None:
        self._launch_begun = True
        error = None
        try:
            for thread in self._threads:
                if self._closed:
                    break
                thread.start()
        except RuntimeError as too_many:
            error = too_many
        self._launch_over = True
        self._launch.put(error)

    def take(self) -> Batch | None:
        """The next batch, or None after the last.

        Raises:
            StalledError: If it did not come within the time limit.
            RuntimeError: If the rendering was closed, or began in another process.
            ShardError: And whatever else happened to this batch.
        """
        if os.getpid() != self._process:
            raise RuntimeError(
                f"this iteration began in process {self._process}, and its threads are there; "
                "after a fork begin a new one"
            )
        if self._taken == self._plan.steps:
            return None
        slot = self._slots[0] if self._slots else None
        if slot is None or self._closed:
            raise RuntimeError("this iteration was ended: the loader was closed or reused")
        try:
            slot.signal.get(timeout=self._timeout)
        except Empty:
            raise StalledError(self._who_stalls()) from None
        if not slot.done:
            raise RuntimeError("this iteration was ended: the loader was closed or reused")
        self._slots.popleft()
        self._taken += 1
        self._plan_another()
        # A worker may still hold the slot; the memory of the batch shall be the caller's alone.
        batch, slot.batch = slot.batch, None
        if slot.error is not None:
            raise slot.error
        return batch

    def ready(self) -> int:
        """Batches that can be taken without waiting."""
        return sum(slot.done for slot in self._slots)

    def close(self) -> None:
        """End the threads; returns when they have ended.

        Raises:
            StalledError: If one does not within the time limit.
        """
        if os.getpid() != self._process:
            return  # a fork: the threads belong to the parent
        self._closed = True
        for _ in self._threads:
            self._jobs.put(None)
        for slot in tuple(self._slots):
            slot.signal.put(None)
        deadline = time.monotonic() + self._timeout
        # The launch saw `_closed`, or is seen here.
        while self._launch_begun and not self._launch_over and time.monotonic() < deadline:
            time.sleep(0.001)
        for thread in self._threads:
            if thread.ident is not None and thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
                if thread.is_alive():
                    raise StalledError(self._who_stalls())

    def _plan_another(self) -> None:
        if self._planned < self._plan.steps:
            slot = _Slot(self._planned)
            self._planned += 1
            self._slots.append(slot)
            self._jobs.put(slot)

    def _who_stalls(self) -> str:
        doing = "; ".join(f"{name} {what}" for name, what in sorted(dict(self._doing).items()))
        return (
            f"waited {self._timeout:g} s for batch {self._taken} of epoch {self._plan.number}: "
            f"{doing or 'no worker is alive'}; look at the storage, or raise timeout_seconds"
        )

    def _run(self, spent: Stages) -> None:
        name = threading.current_thread().name
        scratch = Scratch()
        try:
            while (job := self._next_job(name, spent)) is not None:
                slot = job if isinstance(job, _Slot) else job.slot
                try:
                    if isinstance(job, _Slot):
                        began = time.perf_counter()
                        self._open(job, name)
                        spent.plan += time.perf_counter() - began
                    else:
                        self._render(job, scratch, name, spent)
                except BaseException as error:  # noqa: BLE001  raised again by take(), in order
                    slot.error = slot.error or error
                    slot.signal.put(None)
                del job, slot  # else an idle worker would keep a batch
        finally:
            self._doing.pop(name, None)

    def _next_job(self, name: str, spent: Stages) -> _Chunk | _Slot | None:
        self._doing[name] = "has nothing to do"
        began = time.perf_counter()
        try:
            while not self._closed and self._owner() is not None:
                with suppress(Empty):
                    return self._jobs.get(timeout=_IDLE_SECONDS)
            return None
        finally:
            spent.idle += time.perf_counter() - began

    def _open(self, slot: _Slot, name: str) -> None:
        """Plan a batch, ask for the bytes of later ones, hand out its chunks."""
        self._doing[name] = f"plans batch {slot.step}"
        plan = self._plan.batch(slot.step)
        count, size = len(plan.rows), self._plan.augment.size
        slot.plan, slot.rows = plan, plan.rows
        slot.pixels = self._buffers.take((count, size, size, 3))
        sizes = self._plan.index["size"][plan.rows].astype(np.int64)
        bounds = chunk_bounds(sizes, count=self._chunk, most_bytes=self._chunk_bytes)
        chunks = [_Chunk(slot, first, last) for first, last in pairwise(bounds)]
        slot.chunks_left = len(chunks)
        for chunk in chunks:
            self._jobs.put(chunk)
        if not chunks:
            self._finish(slot)
        self._doing[name] = "reads ahead"
        self._reader.read_ahead(self._plan.ahead(slot.step))

    def _render(self, chunk: _Chunk, scratch: Scratch, name: str, spent: Stages) -> None:
        slot = chunk.slot
        if slot.error is None and slot.plan is not None and slot.pixels is not None:
            part = slice(chunk.first, chunk.last)
            rows, choices, out = slot.plan.rows[part], slot.plan.choices, slot.pixels[part]
            self._doing[name] = (
                f"reads {len(rows)} samples, first of {self._reader.file_of(rows[0])}"
            )
            began = time.perf_counter()
            encoded, bad = self._reader.read(rows, scratch)
            spent.read += time.perf_counter() - began
            self._doing[name] = f"decodes {len(rows)} samples with {self._renderer.name}"
            boxes, flips = choices.boxes[part], choices.flips[part]
            failed = self._renderer.render(encoded, boxes, flips, out, spent)
            if bad or failed:
                self._mend(slot, chunk, failed | bad, scratch)
        with self._counting:
            slot.chunks_left -= 1
            finished = slot.chunks_left == 0 and slot.error is None
        if finished:
            self._finish(slot)

    def _mend(self, slot: _Slot, chunk: _Chunk, reasons: dict[int, str], scratch: Scratch) -> None:
        """Put neighbours in the places of bad samples, and note both."""
        if slot.plan is None or slot.pixels is None:
            return
        for i, reason in sorted(reasons.items()):
            place = chunk.first + i
            row, position = int(slot.plan.rows[place]), int(slot.plan.positions[place])
            used = row
            if self._replace_bad:
                used = self._replace(position, slot.pixels[place : place + 1], scratch)
            with self._counting:
                slot.bad.append(BadSample(row, position, reason))
                if used != row and slot.rows is not None:
                    if slot.rows is slot.plan.rows:
                        slot.rows = slot.rows.copy()
                    slot.rows[place] = used

    def _replace(self, position: int, out: NDArray[np.uint8], scratch: Scratch) -> int:
        for attempt in range(1, REPLACEMENTS + 1):
            plan = self._plan.replacement(position, attempt)
            encoded, bad = self._reader.read(plan.rows, scratch)
            if bad or self._renderer.render(encoded, plan.choices.boxes, plan.choices.flips, out):
                continue
            return int(plan.rows[0])
        raise TooManyCorruptError(
            f"the sample at position {position} of epoch {self._plan.number} and the"
            f" {REPLACEMENTS} after it cannot be decoded; check with `python -m fastload.verify`"
        )

    def _finish(self, slot: _Slot) -> None:
        if slot.plan is None or slot.pixels is None or slot.rows is None:
            return
        pixels, rows, choices = slot.pixels, slot.rows, slot.plan.choices
        bad = tuple(sorted(slot.bad, key=lambda sample: sample.position))
        if bad and not self._replace_bad:
            kept = ~np.isin(slot.plan.positions, [sample.position for sample in bad])
            pixels = self._buffers.select(pixels, kept)
            rows, choices = rows[kept], choices.keep(kept)
        labels = self._plan.index["label"][rows].astype(np.int64)
        end = int(self._plan.bounds[slot.step + 1])
        slot.pixels = None
        slot.batch = Batch(pixels, labels, rows, choices, end, bad)
        slot.signal.put(None)
