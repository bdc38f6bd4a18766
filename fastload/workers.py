"""Apply one function to many items in processes, in order, and survive the items that kill them.

    chunks ──▶ worker ──▶ results, in the order of the items
           ──▶ worker

A decoder fed with files from the internet may crash or hang; then only its process ends. The chunk
it worked on is tried again item by item, and the item that ends a process a second time is yielded
as `Lost`. An exception raised by the function is no such case: it ends the run, and the caller
gets it. At most `WINDOW` chunks for each worker are under way or waiting to be yielded, so memory
is bounded. Whoever stops iterating, by `break`, Ctrl-C or an exception, leaves no process behind; a
worker whose parent was killed reads the end of its pipe and leaves.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import connection
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

WINDOW = 4  # chunks for each worker; 2 keep it busy, the rest absorbs uneven chunks
TIME_LIMIT_SECONDS = 60.0  # for one item; the slowest of the 206 awkward images takes 3 s


@dataclass(frozen=True, slots=True)
class Lost:
    """What is yielded for an item that ended its process.

    Attributes:
        reason: "took longer than 60 seconds", or how the process ended.
        slow: Whether it was the time limit.
    """

    reason: str
    slow: bool


@dataclass(slots=True)
class _Chunk(Generic[Item, Result]):
    items: Sequence[Item]
    results: list[Result | Lost] | None = None


@dataclass(slots=True)
class _Worker:
    process: multiprocessing.process.BaseProcess
    pipe: connection.Connection
    chunk: _Chunk[Any, Any] | None = None
    deadline: float = field(default=0.0)


def available_cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_chunks(
    function: Callable[[Item], Result],
    chunks: Iterable[Sequence[Item]],
    *,
    workers: int,
    time_limit_seconds: float = TIME_LIMIT_SECONDS,
) -> Iterator[tuple[Item, Result | Lost]]:
    """Yield each item with the function's result, in the order of the chunks and items.

    Args:
        function: Pickled and run in the workers; importable by name, without global state.
        chunks: Items that travel together; a chunk's results are in memory at once.
        workers: Processes, at least 1.
        time_limit_seconds: For one item; a chunk that takes longer is tried again item by item.

    Raises:
        BaseException: Whatever `function` raised, with the worker's traceback as a note.
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
        methods = multiprocessing.get_all_start_methods()
        method = "forkserver" if "forkserver" in methods else "spawn"
        self.context: Any = multiprocessing.get_context(method)
        if method == "forkserver":  # what is imported once there is there in every worker
            self.context.set_forkserver_preload(["__main__", __name__, function_module(function)])
        self.function = function
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
            worker.deadline = time.monotonic() + self.time_limit_seconds
            with suppress(BrokenPipeError, ConnectionResetError):  # _collect sees that it is gone
                worker.pipe.send(worker.chunk.items)

    def _start(self) -> _Worker:
        ours, theirs = self.context.Pipe(duplex=True)
        process = self.context.Process(target=_work, args=(theirs, self.function), daemon=True)
        process.start()
        theirs.close()
        worker = _Worker(process, ours)
        self.workers.append(worker)
        return worker

    def _collect(self) -> None:
        """Wait until a worker answers, ends or is overdue; take what it brings."""
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
            if worker.chunk is not None:
                worker.chunk.results = results
            worker.chunk = None
        if not ready:
            for worker in busy.values():
                if worker.deadline <= time.monotonic():
                    self._replace(worker, slow=True)

    def _replace(self, worker: _Worker, *, slow: bool) -> None:
        """End a worker; try its items one by one in another, and find the one to blame."""
        if slow:
            worker.process.kill()
        reason = self._end(worker)
        if slow:
            reason = f"took longer than {self.time_limit_seconds:g} seconds"
        chunk = worker.chunk
        if chunk is None:
            return
        if len(chunk.items) == 1:
            chunk.results = [Lost(reason, slow)]
            return
        again = _Crew(self.function, 1, self.time_limit_seconds)
        try:
            one_by_one = again.run(iter([[item] for item in chunk.items]))
            chunk.results = [result for _, result in one_by_one]
        finally:
            again.close()

    def _end(self, worker: _Worker) -> str:
        self.workers.remove(worker)
        worker.pipe.close()
        worker.process.join(timeout=1.0)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        code = worker.process.exitcode or 0
        worker.process.close()
        if code < 0:
            with suppress(ValueError):
                return f"ended its process with {signal.Signals(-code).name}"
        return f"ended its process with exit status {code}"

    def close(self) -> None:
        """End all workers at once."""
        for worker in list(self.workers):
            worker.process.kill()
            self._end(worker)


def function_module(function: Callable[..., object]) -> str:
    """The module that a function, or the function inside a partial, comes from."""
    inner = getattr(function, "func", function)
    return str(inner.__module__)


def _work(pipe: connection.Connection, function: Callable[[Any], Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    while True:
        try:
            items = pipe.recv()
        except (EOFError, ConnectionResetError):
            return
        answer: tuple[list[Any] | None, BaseException | None]
        try:
            answer = [function(item) for item in items], None
        except Exception as error:  # noqa: BLE001  handed to the parent, which raises it
            answer = None, error
        try:
            pipe.send(answer)
        except (BrokenPipeError, ConnectionResetError):
            return
