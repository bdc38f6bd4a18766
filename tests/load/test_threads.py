"""Threads: a job gets its error, an idle thread keeps nothing, and all end with their owner."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Iterator
from queue import SimpleQueue

import pytest

from fastload.load import threads
from fastload.load.threads import Worker, Workers
from fastload.stages import Stages


class Owner:
    """Whoever wants the jobs done."""


class Errand:
    """A job that reports that it was done, or its error."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.reports = error, SimpleQueue[object]()

    def fail(self, error: BaseException) -> None:
        self.reports.put(error)


def do(errand: Errand, worker: Worker) -> None:
    worker.doing = "runs an errand"
    if errand.error is not None:
        raise errand.error
    errand.reports.put("done")


@pytest.fixture
def workers() -> Iterator[Workers[Errand]]:
    group = Workers(do, [Stages(), Stages()])
    yield group
    group.stop()
    assert group.join(60)


def test_an_error_is_given_to_its_job_and_the_thread_goes_on(workers):
    owner = Owner()
    workers.start(owner)
    for _ in range(3):
        failing, sound = Errand(LookupError("it rains")), Errand()
        workers.put(failing)
        workers.put(sound)
        assert str(failing.reports.get(timeout=60)) == "it rains"
        assert sound.reports.get(timeout=60) == "done"


def test_an_idle_thread_keeps_no_job(workers):
    owner, errand = Owner(), Errand()
    workers.start(owner)
    workers.put(errand)
    errand.reports.get(timeout=60)
    gone = weakref.ref(errand)
    del errand
    wait_until(lambda: gone() is None)


def test_threads_end_when_their_owner_is_gone(workers, monkeypatch):
    monkeypatch.setattr(threads, "_IDLE_SECONDS", 0.02)
    owner = Owner()
    workers.start(owner)
    wait_until(lambda: workers.doing().count("has nothing to do") == 2)
    del owner
    gc.collect()
    wait_until(lambda: workers.doing() == "no worker is alive")


def test_stopping_before_the_start_starts_nothing(workers):
    before = threading.active_count()
    workers.stop()
    workers.start(Owner())
    assert workers.join(60)
    assert threading.active_count() == before


def test_a_thread_that_does_not_end_in_time_is_told():
    gate = threading.Event()

    def wait(_errand: Errand, _worker: Worker) -> None:
        gate.wait(60)

    workers = Workers(wait, [Stages()])
    owner = Owner()
    workers.start(owner)
    workers.put(Errand())
    workers.stop()
    assert not workers.join(0.05)
    gate.set()
    assert workers.join(60)


def wait_until(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
