"""Threads that take jobs from one queue.

    put(job) -> a queue in C -> any thread: work(job, worker)

Success: the threads do jobs until `stop` is called, or their owner is gone.
Failure: the job gets the exception of `work` and reports it; the thread takes the next job.
A system that allows fewer threads: those that it allows do all jobs, and a warning says so.
Cancel: after `stop` each thread finishes its job and ends; `join` waits for that. Where `stop` is
    not called, because Ctrl-C hit between two lines, the threads end soon after their owner.

Ctrl-C may hit the caller's thread at any line. So the caller's thread takes only queues written in
C, takes no lock of Python's, and starts no `threading.Thread`: Ctrl-C could hit between the
acquisition of a `Condition` and its `with` block, and the workers would wait for ever.
"""

from __future__ import annotations

import _thread
import logging
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Generic, Protocol, TypeVar

from fastload.errors import ResourceError
from fastload.stages import Stages
from fastload.store.reader import Scratch

_log = logging.getLogger(__name__)

_IDLE_SECONDS = 1.0  # a thread without a job looks this often whether its owner is still there


class Job(Protocol):
    """What a thread is given to do."""

    def fail(self, error: BaseException) -> None:
        """Report the error to the thread that waits for the job."""


J = TypeVar("J", bound=Job)


@dataclass(slots=True, eq=False)
class Worker:
    """What belongs to one thread.

    Attributes:
        name: Name of the thread.
        spent: Seconds of the thread by stage, added to.
        scratch: Memory of the thread for encoded images.
        doing: What the thread does, in words; "" where it does not run.
    """

    name: str
    spent: Stages
    scratch: Scratch = field(default_factory=Scratch)
    doing: str = ""


class Workers(Generic[J]):
    """The threads, and the queue of their jobs.

    Args:
        work: Does one job.
        spent: For each thread its seconds by stage, added to.
    """

    def __init__(self, work: Callable[[J, Worker], None], spent: Sequence[Stages]) -> None:
        self.stopped = False
        self._jobs: SimpleQueue[J | None] = SimpleQueue()
        self._owner: Callable[[], object | None] = lambda: None
        self._launch: SimpleQueue[Exception | None] = SimpleQueue()
        self._launch_begun = self._launch_over = False
        self._workers = [Worker(f"fastload-worker-{i}", stages) for i, stages in enumerate(spent)]
        # A thread drops `work` when it ends; another reference to `work` would make a cycle.
        self._threads = [
            threading.Thread(target=self._run, args=(worker, work), name=worker.name, daemon=True)
            for worker in self._workers
        ]

    def put(self, job: J) -> None:
        """Add a job at the end of the queue."""
        self._jobs.put(job)

    def start(self, owner: object) -> None:
        """Start the threads, as many of them as the system allows.

        Args:
            owner: The threads end when nothing refers to it any more.

        Raises:
            ResourceError: If the system allows no more thread.
        """
        self._owner = weakref.ref(owner)
        try:
            # Signals are handled in the main thread, so another one starts the workers.
            _thread.start_new_thread(self._start_threads, ())
            error = self._launch.get()
        except RuntimeError as refused:
            error = refused
        if error is None:
            return
        started = sum(thread.ident is not None for thread in self._threads)
        limit = f"the system allows {started} of {len(self._threads)} threads that load ({error})"
        how = "end other programs, or raise `ulimit -u` or the container's limit"
        if not started:
            raise ResourceError(f"{limit}; {how}") from error
        _log.warning("%s: it will be slower; %s, or give num_threads=%d", limit, how, started)

    def stop(self) -> None:
        """Let each thread end after its job; returns at once."""
        self.stopped = True
        for _ in self._threads:
            self._jobs.put(None)

    def join(self, timeout_seconds: float) -> bool:
        """Wait for the threads after `stop`; False if one does not end within the time limit."""
        deadline = time.monotonic() + timeout_seconds
        # A launch that has begun sees `stopped`, or has started threads, which are joined below.
        while self._launch_begun and not self._launch_over and time.monotonic() < deadline:
            time.sleep(0.001)
        for thread in self._threads:
            if thread.ident is not None and thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
                if thread.is_alive():
                    return False
        return True

    def doing(self) -> str:
        """What each thread does, in words, for the message of a stall."""
        busy = [f"{worker.name} {doing}" for worker in self._workers if (doing := worker.doing)]
        return "; ".join(busy) or "no worker is alive"

    def _start_threads(self) -> None:
        self._launch_begun = True
        error: Exception | None = None
        try:
            for thread in self._threads:
                if self.stopped:
                    break
                thread.start()
        except (RuntimeError, MemoryError) as too_many:
            error = too_many
        self._launch_over = True
        self._launch.put(error)

    def _run(self, worker: Worker, work: Callable[[J, Worker], None]) -> None:
        try:
            while self._do_next(worker, work):
                pass
        finally:
            worker.doing = ""

    def _do_next(self, worker: Worker, work: Callable[[J, Worker], None]) -> bool:
        """Do one job; False if there will be none. An idle thread must not keep its last job."""
        job = self._next_job(worker)
        if job is None:
            return False
        try:
            work(job, worker)
        except BaseException as error:  # noqa: BLE001  the job reports it
            job.fail(error)
        return True

    def _next_job(self, worker: Worker) -> J | None:
        worker.doing = "has nothing to do"
        began = time.perf_counter()
        try:
            while not self.stopped and self._owner() is not None:
                with suppress(Empty):
                    return self._jobs.get(timeout=_IDLE_SECONDS)
            return None
        finally:
            worker.spent.idle += time.perf_counter() - began
