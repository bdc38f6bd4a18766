"""Apply one function to many items in processes, in order, and survive the items that kill them.

    chunks ──▶ worker ──▶ results, in the order of the items
           ──▶ worker

A decoder fed with files from the internet may crash or hang; then only its process ends. A chunk of
several items is tried again item by item in a new process. An item that ends its process alone is
yielded as `Lost`.

Success: results come in the order of the items; at most `WINDOW` chunks for each worker are under
    way or waiting to be yielded, so memory is bounded.
Failure: an exception that the function raises ends the run and is raised to the caller; so does a
    worker that cannot start.
Cancel: a caller that stops iterating, by `break`, Ctrl-C or an exception, leaves no process behind.
    Where the caller's process is killed, each worker reads the end of its pipe and ends.

The workers are plain subprocesses, not those of `multiprocessing`: those import the caller's main
module again, which needs a guard in that module and fails where there is no such module, as in a
notebook.
"""

from __future__ import annotations

import pickle
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any, Generic, TypeVar

from fastload.errors import FastloadError

Item = TypeVar("Item")
Result = TypeVar("Result")

WINDOW = 4  # chunks for each worker; 2 keep it busy, the rest absorbs uneven chunks
START_LIMIT_SECONDS = 120.0  # to import NumPy and Pillow from a cold network disk
TIME_LIMIT_SECONDS = 60.0  # for one item; the slowest of the 206 awkward images takes 3 s


@dataclass(frozen=True, slots=True)
class Lost:
    """What is yielded for an item that ended its process.

    Attributes:
        reason: "took longer than 60 seconds", or how the process ended.
        slow: Whether the process was ended because of the time limit.
    """

    reason: str
    slow: bool


@dataclass(slots=True)
class _Chunk(Generic[Item, Result]):
    items: Sequence[Item]
    results: list[Result | Lost] | None = None


@dataclass(slots=True)
class _Worker:
    process: subprocess.Popen[bytes]
    pipe: connection.Connection
    deadline: float
    ready: bool = False
    chunk: _Chunk[Any, Any] | None = None


def run_chunks(
    function: Callable[[Item], Result],
    chunks: Iterable[Sequence[Item]],
    *,
    workers: int,
    time_limit_seconds: float = TIME_LIMIT_SECONDS,
) -> Iterator[tuple[Item, Result | Lost]]:
    """Yield each item with the function's result, in the order of the chunks and items.

    Args:
        function: Runs in the workers. They import the function and the classes of the items by
            name, so none of these may be defined in `__main__`.
        chunks: Items that travel together; all results of a chunk are in memory at once.
        workers: Number of processes, at least 1.
        time_limit_seconds: Time limit for one item; a chunk that takes longer is tried again item
            by item. The start of a process and its imports do not count.

    Raises:
        Exception: What `function` raised, or a RuntimeError that names it where pickle cannot
            carry it.
        FastloadError: If a worker cannot start.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    crew = _Crew(function, workers, time_limit_seconds)
    try:
        yield from crew.run(iter(chunks))
    finally:
        crew.close()


class _Crew(Generic[Item, Result]):
    """The processes of one `run_chunks` and the chunks they work on."""

    def __init__(
        self, function: Callable[[Item], Result], workers: int, time_limit_seconds: float
    ) -> None:
        self.function = function
        self.pickled_function = pickle.dumps(function)
        self.size = workers
        self.time_limit_seconds = time_limit_seconds
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
            worker.chunk = self.todo.popleft()
            if worker.ready:
                worker.deadline = time.monotonic() + self.time_limit_seconds
            with suppress(BrokenPipeError, ConnectionResetError):  # _collect sees that it is gone
                worker.pipe.send(worker.chunk.items)

    def _start(self) -> _Worker:
        ours, theirs = socket.socketpair()
        program = f"import sys; sys.path[:] = {sys.path!r}; from fastload.prepare import workers; "
        program += f"workers.serve({theirs.fileno()})"
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-c", program],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is the parent's to handle
            )
        pipe = connection.Connection(ours.detach())
        worker = _Worker(process, pipe, time.monotonic() + START_LIMIT_SECONDS)
        self.workers.append(worker)
        with suppress(BrokenPipeError, ConnectionResetError):
            pipe.send_bytes(self.pickled_function)
        return worker

    def _collect(self) -> None:
        """Wait until a worker answers, ends or is overdue; take its results."""
        busy = {worker.pipe: worker for worker in self.workers if worker.chunk is not None}
        next_deadline = min(worker.deadline for worker in busy.values())
        ready = connection.wait(list(busy), timeout=max(0.0, next_deadline - time.monotonic()))
        for pipe in ready:
            worker = busy[pipe]  # type: ignore[index]  # wait() gives back what it was given
            try:
                results, error = worker.pipe.recv()
            except (EOFError, ConnectionResetError):
                self._replace(worker, slow=False)
                continue
            if error is not None:
                raise error
            if not worker.ready:
                worker.ready = True
                worker.deadline = time.monotonic() + self.time_limit_seconds
            elif worker.chunk is not None:
                worker.chunk.results, worker.chunk = results, None
        if not ready:
            for worker in busy.values():
                if worker.deadline <= time.monotonic():
                    self._replace(worker, slow=True)

    def _replace(self, worker: _Worker, *, slow: bool) -> None:
        """End a worker; try its items one by one in another worker, to find the one to blame."""
        if slow:
            worker.process.kill()
        reason = self._end(worker)
        if not worker.ready:
            raise FastloadError(f"a worker process cannot start: it {reason}, see above")
        if slow:
            reason = f"took longer than {self.time_limit_seconds:g} seconds"
        chunk = worker.chunk
        if chunk is None:
            return
        if len(chunk.items) == 1:
            chunk.results = [Lost(reason, slow)]
            return
        again: _Crew[Item, Result] = _Crew(self.function, 1, self.time_limit_seconds)
        try:
            one_by_one = again.run(iter([[item] for item in chunk.items]))
            chunk.results = [result for _, result in one_by_one]
        finally:
            again.close()

    def _end(self, worker: _Worker) -> str:
        """Wait until a worker that has closed its pipe ends, or end it; returns how it ended."""
        self.workers.remove(worker)
        worker.pipe.close()
        try:
            code = worker.process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            code = worker.process.wait()
        if code < 0:
            with suppress(ValueError):
                return f"ended its process with {signal.Signals(-code).name}"
        return f"ended its process with exit status {code}"

    def close(self) -> None:
        """End all workers at once."""
        for worker in list(self.workers):
            worker.process.kill()
            self._end(worker)


def serve(descriptor: int) -> None:
    """The life of a worker: take the function, say ready, apply the function to chunks."""
    pipe = connection.Connection(descriptor)
    with suppress(EOFError, ConnectionResetError, BrokenPipeError):
        function = pickle.loads(pipe.recv_bytes())  # noqa: S301  from our own parent
        pipe.send((None, None))
        while True:
            pipe.send(_apply(function, pipe.recv()))


def _apply(
    function: Callable[[Any], Any], items: Sequence[Any]
) -> tuple[list[Any] | None, Exception | None]:
    try:
        return [function(item) for item in items], None
    except Exception as error:  # noqa: BLE001  the parent raises it
        return None, _portable(error)


def _portable(error: Exception) -> Exception:
    """The error, or one that says the same where pickle cannot carry it to the parent."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  our own bytes
    except Exception:  # noqa: BLE001  an exception with odd arguments may raise anything here
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
