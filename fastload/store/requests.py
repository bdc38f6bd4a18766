"""Ranges of objects, many in flight: bounded in number and in bytes.

    any thread   ask(fetches) ──► queue, or the front of it where a thread waits
    one thread   queue ──► at most MOST_IN_FLIGHT requests ──► Fetch.outcome: bytes or an error
    any thread   release(fetch) ──► room for more

The bytes in flight and those that nobody has taken yet are bounded; what a thread waits for goes
before, so that full memory is no dead end. A request that fails is tried again as `objects` says;
its error is raised by whoever waits for it. `cancel` ends what is queued or under way.

Of a core a range of 43 kB takes some 0.2 ms more than reading it from the disk. obstore's blocking
calls in 64 threads took 0.1 ms less, but they cannot be ended: where a server stalls, the threads
of a closed reader would stay for the client's 30 seconds.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from fastload.errors import ResourceError, StalledError
from fastload.store.objects import Version, bytes_of
from fastload.store.remote import Bucket

MOST_IN_FLIGHT = 128  # 1,619 images/s on one core at 50 ms; 64 gave 1,136 and left it idle
IN_FLIGHT_BYTES = 64 << 20  # a line of 5 MB a second brings them within the limit of an attempt
HELD_BYTES = 512 << 20  # of memory: the window of the sequential order, 4,096 samples of 117 kB
_POLL_SECONDS = 0.02  # while another process fetches the same range

_Result = TypeVar("_Result")


@dataclass(slots=True, eq=False)
class Fetch:
    """A range of an object that is wanted.

    Attributes:
        bucket: Where the object is.
        name: Its name there.
        begin: First byte.
        end: Behind the last byte.
        samples: Where the samples in it begin, that are the reason for it.
        keeper: Where it goes; None to leave it in memory.
        kept_in: Name of the keeper's file, and where the object begins in it.
        version: The state of the object that is meant; None for any.
        outcome: The bytes; None where the keeper has them now.
        started: Whether it has left the queue.
        holds: Bytes of memory that count for it.
    """

    bucket: Bucket
    name: str
    begin: int
    end: int
    samples: list[int] = field(default_factory=list)
    keeper: Keeper | None = None
    kept_in: tuple[str, int] = ("", 0)
    version: Version | None = None
    outcome: Future[memoryview | None] = field(default_factory=Future)
    started: bool = False
    holds: int = 0

    def __str__(self) -> str:
        return f"{self.bucket.of(self.name)}, bytes {self.begin} to {self.end}"


class Keeper(Protocol):
    """Keeps what was fetched, and sees that processes do not fetch the same; a cache."""

    def claim(self, fetch: Fetch) -> bool | None:
        """True: fetch it. False: it is here already. None: another process is at it."""

    def keep(self, fetch: Fetch, data: memoryview) -> bool:
        """Store the bytes; False where they are not kept."""

    def unclaim(self, fetch: Fetch) -> None:
        """End a claim."""


class Requests:
    """Brings ranges of objects; thread-safe. The thread starts with the first request.

    Args:
        timeout_seconds: How long a request is tried, all attempts together.
        held_bytes: Bytes of memory, in flight or not yet taken.
    """

    def __init__(self, *, timeout_seconds: float, held_bytes: int = HELD_BYTES) -> None:
        self.timeout_seconds, self._most_held = timeout_seconds, held_bytes
        self._waiting: deque[Fetch] = deque()
        self._urgent: deque[Fetch] = deque()
        self._tasks: dict[asyncio.Task[None], Fetch] = {}
        self._held = self._flying = 0
        self._lock, self._process, self._closed = threading.Lock(), os.getpid(), False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self.count = self.bytes = 0
        """Requests that brought something since the start, and the bytes that they brought."""

    def __enter__(self) -> Requests:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, fetches: Sequence[Fetch], *, urgent: bool = False) -> None:
        """Queue ranges; those that a thread waits for before all others."""
        self._call(lambda: self._enqueue(fetches, urgent=urgent))

    def release(self, fetches: Sequence[Fetch]) -> None:
        """The bytes of these are dropped: others may be fetched."""
        with suppress(StalledError):  # closed meanwhile
            self._call(lambda: self._let_go(fetches))

    def cancel(self) -> None:
        """End all that is queued or under way: whoever waits for it gets a `StalledError`."""
        if self._loop is not None:
            with suppress(StalledError):
                self._call(self._drop_all)

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Wait for something of `objects`, and give its result or raise its error."""
        future = asyncio.run_coroutine_threadsafe(work, self._running())
        try:
            return future.result()
        except BaseException:  # Ctrl-C too
            future.cancel()
            raise

    def close(self) -> None:
        """End the thread. May be called more than once."""
        with self._lock:
            loop, thread, self._loop, self._closed = self._loop, self._thread, None, True
        if loop is None or thread is None or os.getpid() != self._process:
            return  # in a fork the thread is the parent's
        loop.call_soon_threadsafe(self._drop_all)
        loop.call_soon_threadsafe(loop.stop)
        if thread is not threading.current_thread():
            thread.join(10.0)
        _last_end[0] = time.monotonic()

    def _running(self) -> asyncio.AbstractEventLoop:
        if os.getpid() != self._process:
            raise ResourceError(
                "this process was forked from one that reads an object store, whose threads are"
                ' not in it; start workers with multiprocessing_context="spawn" or "forkserver"'
            )
        with self._lock:
            if self._closed:
                raise StalledError("the reader of the object store was closed; make a new one")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_run, args=(self._loop,), name="fastload-requests", daemon=True
                )
                self._thread.start()
            return self._loop

    def _call(self, do: Callable[[], None]) -> None:
        self._running().call_soon_threadsafe(do)

    # What follows runs in the thread of the loop alone.

    def _enqueue(self, fetches: Sequence[Fetch], *, urgent: bool) -> None:
        for fetch in fetches:
            if not fetch.started:  # one that waits in the other queue is passed over there
                (self._urgent if urgent else self._waiting).append(fetch)
        self._start_more()

    def _let_go(self, fetches: Sequence[Fetch]) -> None:
        for fetch in fetches:
            self._held -= fetch.holds
            fetch.holds = 0
        self._start_more()

    async def _get(self, fetch: Fetch) -> memoryview:
        data = await bytes_of(
            *(fetch.bucket, fetch.name, fetch.begin, fetch.end),
            timeout_seconds=self.timeout_seconds,
            version=fetch.version,
        )
        self.count += 1
        self.bytes += len(data)
        return data

    def _start_more(self) -> None:
        while len(self._tasks) < MOST_IN_FLIGHT and (fetch := self._next()) is not None:
            fetch.started, fetch.holds = True, fetch.end - fetch.begin
            self._held += fetch.holds
            self._flying += fetch.holds
            task = asyncio.get_running_loop().create_task(self._fetch(fetch))
            self._tasks[task] = fetch
            task.add_done_callback(self._ended)

    def _next(self) -> Fetch | None:
        while self._urgent:
            if not (fetch := self._urgent.popleft()).started:
                return fetch
        while self._waiting and self._waiting[0].started:
            self._waiting.popleft()
        if not self._waiting:
            return None
        size = self._waiting[0].end - self._waiting[0].begin
        full = self._held + size > self._most_held or self._flying + size > IN_FLIGHT_BYTES
        return None if full and self._held else self._waiting.popleft()

    def _ended(self, task: asyncio.Task[None]) -> None:
        fetch = self._tasks.pop(task)
        self._flying -= fetch.end - fetch.begin
        if not task.cancelled():
            task.exception()  # it is in the outcome
        if not fetch.outcome.done():
            fetch.outcome.set_exception(_cancelled(fetch))
            self._let_go([fetch])
        self._start_more()

    def _drop_all(self) -> None:
        for fetch in (*self._urgent, *self._waiting):
            if not fetch.started and not fetch.outcome.done():
                fetch.started = True
                fetch.outcome.set_exception(_cancelled(fetch))
        self._urgent.clear()
        self._waiting.clear()
        for task in self._tasks:
            task.cancel()

    async def _fetch(self, fetch: Fetch) -> None:
        """Bring a range; its outcome is set at the end, whatever happens."""
        try:
            data = await (self._kept(fetch, fetch.keeper) if fetch.keeper else self._get(fetch))
        except Exception as error:  # noqa: BLE001  whoever waits for it raises it
            self._fail(fetch, error)
        else:
            if data is None:
                self._let_go([fetch])
            fetch.outcome.set_result(data)

    def _fail(self, fetch: Fetch, error: Exception) -> None:
        self._let_go([fetch])
        fetch.outcome.set_exception(error)

    async def _kept(self, fetch: Fetch, keeper: Keeper) -> memoryview | None:
        """As `_get`; None once the keeper has the bytes."""
        deadline = time.monotonic() + self.timeout_seconds
        while (ours := keeper.claim(fetch)) is None and time.monotonic() < deadline:
            await asyncio.sleep(_POLL_SECONDS)
        if ours is False:
            return None
        try:
            data = await self._get(fetch)
            kept = await asyncio.get_running_loop().run_in_executor(None, keeper.keep, fetch, data)
            return None if kept else data
        finally:
            keeper.unclaim(fetch)


# The client's own threads still need the interpreter a moment after their last request, such as to
# drop its result. Where the interpreter has ended by then, Python 3.11 aborts the process: 4 of 200
# runs of `fastload.fetch` on a full disk, five at a time on two cores; with the pause none of 220.
# Neither obstore 0.12.1 nor what it is built on can end its threads, which is
# https://github.com/PyO3/pyo3-async-runtimes/issues/40; a release that can makes this needless.
_SETTLING_SECONDS = 0.3
_last_end = [float("-inf")]


@atexit.register
def _settle() -> None:
    """Let the client's threads end what they do before the interpreter ends."""
    left = _last_end[0] + _SETTLING_SECONDS - time.monotonic()
    if left > 0:
        time.sleep(left)


def _cancelled(fetch: Fetch) -> StalledError:
    return StalledError(f"{fetch}: the iteration was ended before the bytes were there")


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        if pending := asyncio.all_tasks(loop):
            for task in pending:
                task.cancel()
            loop.run_until_complete(asyncio.wait(pending, timeout=5.0))
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
