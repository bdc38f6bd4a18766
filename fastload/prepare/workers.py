"""Apply one function to many items in processes, in order, and survive the items that kill them.

    chunks ──▶ worker ──▶ results, in the order of the items
           ──▶ worker

A decoder fed with files from the internet may crash or loop; then only its process ends. The items
of its chunk are tried again one by one in a new process. An item that ends its process again is
yielded as `Lost`.

The time limit of an item counts the seconds that the process computes. Waiting is no fault of an
item: a read from a storage that hangs, a laptop that sleeps, a process that is stopped or gets no
processor. Whoever waits for long is named once a minute.

A process that is killed, as by Linux where memory runs out, or that gets no memory, has its chunk
tried again while no other worker runs, and fewer workers go on. Where a worker cannot start, those
that run go on without it.

Success: results come in the order of the items; at most `WINDOW` chunks for each worker are under
    way or waiting to be yielded, so memory is bounded.
Failure: an exception that the function raises ends the run and is raised to the caller, except
    MemoryError; so does the lack of any worker that can start.
Cancel: a caller that stops iterating, by `break`, Ctrl-C or an exception, leaves no process behind,
    but one that the system cannot end before a storage answers.
    Where the caller's process is killed, each worker reads the end of its pipe and ends.

The workers are plain subprocesses, not those of `multiprocessing`: those import the caller's main
module again, which needs a guard in that module and fails where there is no such module, as in a
notebook.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from enum import Enum
from multiprocessing import connection
from typing import Any, Generic, TypeVar

from fastload.console.terminal import say
from fastload.errors import FastloadError

Item = TypeVar("Item")
Result = TypeVar("Result")

WINDOW = 4  # chunks for each worker; 2 keep it busy, the rest absorbs uneven chunks
LIMIT_SECONDS = 60.0  # for one item; the slowest of the 206 awkward images takes 3 s
NOTE_SECONDS = 60.0  # between two notes about a worker that is waited for
START_TRIES, START_PAUSE_SECONDS = 5, 1.0  # for the first worker, where processes run out
END_SECONDS = 2.0  # to end a process that was killed

# Its computing stops a process by SIGVTALRM; whoever must not wait takes SIGALRM, by the clock.
_TIMER_SIGNALS = {signal.SIGVTALRM, signal.SIGALRM}
# What a lack of memory looks like: the system's killer, `abort` in a library, a page without room.
_MEMORY_SIGNALS = {signal.SIGKILL, signal.SIGABRT, signal.SIGBUS}


class Cause(Enum):
    """Why an item was lost."""

    CRASH = "crash"
    SLOW = "slow"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class Lost:
    """What is yielded for an item that ended its process.

    Attributes:
        reason: "took longer than 60 seconds", or how the process ended.
        cause: What the reason means.
    """

    reason: str
    cause: Cause


@dataclass(slots=True)
class _Chunk(Generic[Item, Result]):
    items: Sequence[Item]
    results: list[Result | Lost] | None = None


@dataclass(slots=True, eq=False)
class _Worker:
    process: subprocess.Popen[bytes]
    pipe: connection.Connection
    steps: int  # descriptor on which the worker writes a byte as it begins an item
    since: float  # when it began what it does
    ready: bool = False
    chunk: _Chunk[Any, Any] | None = None
    begun: int = 0  # items of the chunk

    def look(self) -> None:
        """See which item the worker is at."""
        with suppress(BlockingIOError):
            self.begun += len(os.read(self.steps, 1 << 16))


def run_chunks(
    function: Callable[[Item], Result],
    chunks: Iterable[Sequence[Item]],
    *,
    workers: int,
    limit_seconds: float = LIMIT_SECONDS,
    clock: int = signal.ITIMER_VIRTUAL,
    before: Callable[[Sequence[Item]], None] | None = None,
    name: Callable[[Item], str] = str,
    note_seconds: float = NOTE_SECONDS,
) -> Iterator[tuple[Item, Result | Lost]]:
    """Yield each item with the function's result, in the order of the chunks and items.

    Args:
        function: Runs in the workers. They import the function and the classes of the items by
            name, so none of these may be defined in `__main__`.
        chunks: Items that travel together; all results of a chunk are in memory at once.
        workers: Number of processes, at least 1.
        limit_seconds: Limit for one item. The start of a process and its imports do not count.
        clock: What the limit counts: ITIMER_VIRTUAL the seconds that the process computes,
            ITIMER_REAL those that pass.
        before: Called in a worker with the items of a chunk before the function is, such as to ask
            for what all of them need. What it shares with the function stays shared.
        name: What a note calls an item that is waited for.
        note_seconds: Time between two such notes.

    Raises:
        Exception: What `function` raised, or a RuntimeError that names it where pickle cannot
            carry it.
        FastloadError: If no worker can start.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    task = _Task(function, before)
    crew = _Crew(task, workers, _Limit(limit_seconds, clock), _Notes(name, note_seconds))
    try:
        yield from crew.run(iter(chunks))
    finally:
        crew.close()


@dataclass(frozen=True, slots=True)
class _Task(Generic[Item, Result]):
    """What a worker does with a chunk, and then with each item."""

    function: Callable[[Item], Result]
    before: Callable[[Sequence[Item]], None] | None


@dataclass(frozen=True, slots=True)
class _Limit:
    seconds: float
    clock: int


@dataclass(slots=True)
class _Notes:
    """Says what is waited for."""

    name: Callable[[Any], str]
    seconds: float
    said: float = 0.0

    def wait_for(self, busy: Iterable[_Worker]) -> None:
        """Say which worker is longest at one thing, if that is long; at most once in a while."""
        now = time.monotonic()
        worker = min(busy, key=lambda worker: worker.since)
        waited = now - worker.since
        if min(waited, now - self.said) < self.seconds:
            return
        self.said = now
        what = "a worker process to start"
        if worker.ready and worker.chunk is not None:
            worker.look()
            item = worker.chunk.items[max(worker.begun - 1, 0)]
            what = f"storage or processor: {self.name(item)}"
        say(f"waiting for {what}, {waited:,.0f} s", error=True)


class _Crew(Generic[Item, Result]):
    """The processes of one `run_chunks` and the chunks they work on.

    Args:
        task: What they do.
        size: Number of workers.
        limit: Limit for one item.
        notes: What is waited for.
        last_try: An item that ends its process is lost; chunks hold one item.
    """

    def __init__(
        self,
        task: _Task[Item, Result],
        size: int,
        limit: _Limit,
        notes: _Notes,
        *,
        last_try: bool = False,
    ) -> None:
        self.task = task
        self.pickled_task = pickle.dumps((task, limit.seconds, limit.clock))
        self.size = size
        self.limit = limit
        self.notes = notes
        self.last_try = last_try
        self.kills = 0  # of workers, for memory or by somebody
        self.killed_starts = 0  # since a worker was ready
        self.workers: list[_Worker] = []
        self.todo: deque[_Chunk[Item, Result]] = deque()

    def run(self, chunks: Iterator[Sequence[Item]]) -> Iterator[tuple[Item, Result | Lost]]:
        pending: deque[_Chunk[Item, Result]] = deque()
        exhausted = False
        while True:
            while not exhausted and len(pending) < WINDOW * self.size:
                items = next(chunks, None)
                if items is None:
                    exhausted = True
                elif len(items):
                    pending.append(_Chunk(items))
                    self.todo.append(pending[-1])
            if not pending:
                return
            self._hand_out()
            if pending[0].results is None:
                self._collect()
                continue
            done = pending.popleft()
            if done.results is not None:
                yield from zip(done.items, done.results, strict=True)

    def _hand_out(self) -> None:
        idle = [worker for worker in self.workers if worker.chunk is None]
        while self.todo and (idle or len(self.workers) < self.size):
            worker = idle.pop() if idle else self._start()
            if worker is None:
                continue
            worker.chunk, worker.begun, worker.since = self.todo.popleft(), 0, time.monotonic()
            with suppress(BrokenPipeError, ConnectionResetError):  # _collect sees that it is gone
                worker.pipe.send(worker.chunk.items)

    def _start(self) -> _Worker | None:
        """A new worker; None where those that run must do."""
        for tries_left in reversed(range(START_TRIES)):
            try:
                return self._launch()
            except OSError as error:  # noqa: PERF203  no process, descriptor or memory is left
                if self.workers:
                    self._go_on_with(len(self.workers), f"no other can start: {error.strerror}")
                    return None
                if not tries_left:
                    raise FastloadError(
                        f"a worker process cannot start: {error.strerror}; see `ulimit -a`, and "
                        "end other programs or take fewer --workers"
                    ) from error
                time.sleep(START_PAUSE_SECONDS)
        return None

    def _launch(self) -> _Worker:
        with ExitStack() as stack:
            ours, theirs = map(stack.enter_context, socket.socketpair())
            begins, ends = os.pipe()
            stack.callback(os.close, ends)
            closed_on_error = stack.enter_context(ExitStack())
            closed_on_error.callback(os.close, begins)
            os.set_blocking(begins, False)
            os.set_blocking(ends, False)
            program = f"import sys; sys.path[:] = {sys.path!r}; "
            program += "from fastload.prepare import workers; "
            program += f"workers.serve({theirs.fileno()}, {ends})"
            process = subprocess.Popen(
                [sys.executable, "-c", program],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), ends],
                start_new_session=True,  # Ctrl-C is the parent's to handle
                # NumPy's threads, one for each core in each worker, would have nothing to do.
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            )
            closed_on_error.pop_all()
            pipe = connection.Connection(ours.detach())
        worker = _Worker(process, pipe, begins, time.monotonic())
        self.workers.append(worker)
        with suppress(BrokenPipeError, ConnectionResetError):
            pipe.send_bytes(self.pickled_task)
        return worker

    def _go_on_with(self, size: int, why: str) -> None:
        if size < self.size:
            self.size = size
            say(f"--workers {size} from here on: {why}", error=True)

    def _collect(self) -> None:
        """Wait until a worker answers or ends; take its results."""
        busy = {worker.pipe: worker for worker in self.workers if worker.chunk is not None}
        for pipe in connection.wait(list(busy), timeout=self.notes.seconds / 4):
            worker = busy[pipe]  # type: ignore[index]  # wait() gives back what it was given
            if worker not in self.workers:  # ended meanwhile, to make room
                continue
            try:
                results, error = worker.pipe.recv()
            except (EOFError, OSError):  # OSError: it was killed in the middle of an answer
                self._replace(worker)
                continue
            worker.look()
            worker.since = time.monotonic()
            if isinstance(error, MemoryError):
                self._replace(worker, out_of_memory=True)
            elif error is not None:
                raise error
            elif not worker.ready:
                worker.ready, self.killed_starts = True, 0  # it may be at its chunk by now
            elif worker.chunk is not None:
                worker.chunk.results, worker.chunk = results, None
        waiting = [worker for worker in self.workers if worker.chunk is not None]
        if waiting:
            self.notes.wait_for(waiting)

    def _replace(self, worker: _Worker, *, out_of_memory: bool = False) -> None:
        """End a worker; try its items one by one in another worker, to find the one to blame."""
        chunk, place = worker.chunk, self._place_of(worker)
        ended = self._end(worker)
        if not worker.ready:
            self._do_without(worker, ended)
            return
        if chunk is None:
            return
        lost = self._lost(ended, out_of_memory=out_of_memory)
        if self.last_try:
            chunk.results = [lost]
            return
        blamed = place if lost.cause is Cause.SLOW else -1
        if not out_of_memory and -ended not in _MEMORY_SIGNALS:
            chunk.results = self._one_by_one(chunk.items, blamed, lost)
            return
        size = len(self.workers) + 1
        self._make_room()
        chunk.results = self._one_by_one(chunk.items, blamed, lost)
        self.kills += 1
        alone = any(isinstance(one, Lost) and one.cause is Cause.MEMORY for one in chunk.results)
        if self.kills > 1 and not alone:  # the first may be anybody's `kill -9`
            self._go_on_with(max(1, size // 2), "memory ran out")

    def _place_of(self, worker: _Worker) -> int:
        """Which item of its chunk a worker is at."""
        worker.look()
        return worker.begun - 1

    def _lost(self, ended: int, *, out_of_memory: bool) -> Lost:
        """What to call an item that ended its process."""
        if -ended in _TIMER_SIGNALS:
            return Lost(f"took longer than {self.limit.seconds:g} seconds", Cause.SLOW)
        if out_of_memory:
            return Lost("needs more memory than there is", Cause.MEMORY)
        if -ended == signal.SIGKILL:
            words = "needs more memory than there is, or something else killed its process"
            return Lost(words, Cause.MEMORY)
        return Lost(_words_of(ended), Cause.CRASH)

    def _do_without(self, worker: _Worker, ended: int) -> None:
        """Replace a worker that was killed before it was ready; else go on without it."""
        how = _words_of(ended)
        if worker.chunk is not None:
            self.todo.appendleft(worker.chunk)
        self.killed_starts += 1
        if ended < 0 and self.killed_starts < START_TRIES:
            return
        if not self.workers:
            raise FastloadError(f"a worker process cannot start: it {how}, see above")
        self._go_on_with(len(self.workers), f"another cannot start: it {how}, see above")

    def _make_room(self) -> None:
        """End all other workers; their chunks wait."""
        for other in self.workers:
            if other.chunk is not None:
                self.todo.appendleft(other.chunk)
        self.close()

    def _one_by_one(self, items: Sequence[Item], blamed: int, lost: Lost) -> list[Result | Lost]:
        """Apply the function to each item in a process beside these; all but the one to blame."""
        others = [[item] for place, item in enumerate(items) if place != blamed]
        again: _Crew[Item, Result] = _Crew(self.task, 1, self.limit, self.notes, last_try=True)
        try:
            results = [result for _, result in again.run(iter(others))]
        finally:
            again.close()
        if len(others) < len(items):
            results.insert(blamed, lost)
        return results

    def _end(self, worker: _Worker, *, seconds: float = END_SECONDS) -> int:
        """Wait until a worker that has closed its pipe ends, or end it.

        Returns:
            Its exit status; negative: the signal that ended it.
        """
        self.workers.remove(worker)
        worker.pipe.close()
        os.close(worker.steps)
        with suppress(subprocess.TimeoutExpired):
            return worker.process.wait(timeout=seconds)
        worker.process.kill()
        with suppress(subprocess.TimeoutExpired):
            return worker.process.wait(timeout=seconds)
        return -signal.SIGKILL  # it waits for a storage, and ends when that answers

    def close(self) -> None:
        """End all workers at once."""
        for worker in self.workers:
            worker.process.kill()
        deadline = time.monotonic() + END_SECONDS
        for worker in list(self.workers):
            self._end(worker, seconds=max(0.0, deadline - time.monotonic()))


def _words_of(ended: int) -> str:
    if ended < 0:
        with suppress(ValueError):
            return f"ended its process with {signal.Signals(-ended).name}"
    return f"ended its process with exit status {ended}"


def serve(descriptor: int, steps: int) -> None:
    """The life of a worker: take the task, say ready, apply the function to chunks."""
    pipe = connection.Connection(descriptor)
    for number in _TIMER_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    with suppress(EOFError, OSError):  # the parent is gone
        task, limit_seconds, clock = pickle.loads(pipe.recv_bytes())  # noqa: S301  our parent's
        pipe.send((None, None))
        while True:
            items, results, failure = pipe.recv(), [], None
            if task.before is not None:
                task.before(items)
            for item in items:
                os.write(steps, b".")
                signal.setitimer(clock, limit_seconds)
                try:
                    results.append(task.function(item))
                except Exception as error:  # noqa: BLE001  the parent raises it
                    failure = portable(error)
                    break
                finally:
                    signal.setitimer(clock, 0.0)
            try:
                pipe.send((results, failure))
            except MemoryError as error:
                pipe.send(([], error))


def portable(error: Exception) -> Exception:
    """The error, or one that says the same where pickle cannot carry it to the parent."""
    if isinstance(error, MemoryError):
        return MemoryError()
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  our own bytes
    except Exception:  # noqa: BLE001  an exception with odd arguments may raise anything here
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
