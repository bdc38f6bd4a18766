"""Threads: a job gets its error, an idle thread keeps nothing, and all end with their owner."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
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


# The system counts the threads of a user: of one whom nobody else is, where root may become one.
FEW_THREADS = """
import logging, os, resource, sys
from pathlib import Path
from fastload.errors import ResourceError
from fastload.load.threads import Workers
from fastload.stages import Stages
from tests.load.test_threads import Errand, Owner, do

logging.basicConfig(stream=sys.stdout, format="%(message)s")
if os.geteuid() == 0:
    os.setuid(61_234)
allowed = len(os.listdir("/proc/self/task")) + int(sys.argv[1]) if int(sys.argv[1]) else 1
resource.setrlimit(resource.RLIMIT_NPROC, (allowed, allowed))
group, owner = Workers(do, [Stages() for _ in range(8)]), Owner()
try:
    group.start(owner)
except ResourceError as error:
    print(error)
errands = [Errand() for _ in range(50)]
for errand in errands:
    group.put(errand)
if sys.argv[1] != "0":
    print({errand.reports.get(timeout=60) for errand in errands})
group.stop()
print(group.join(60))
"""


def run_with_few_threads(count: int) -> list[str]:
    result = subprocess.run(
        [sys.executable, "-c", FEW_THREADS, str(count)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not count threads so")
def test_without_any_thread_one_sentence_says_what_to_do():
    sentence, joined = run_with_few_threads(0)
    assert sentence.startswith("the system allows 0 of 8 threads that load (can't start new thread")
    assert sentence.endswith("; end other programs, or raise `ulimit -u` or the container's limit")
    assert joined == "True"


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0,
    reason="only root may become a user of no other process; run as root",
)
def test_with_fewer_threads_than_asked_for_all_jobs_are_done_and_a_warning_says_so():
    warning, done, joined = run_with_few_threads(1 + 3)  # the one that starts the others, and 3
    assert warning.startswith("the system allows 3 of 8 threads that load (can't start new thread)")
    assert warning.endswith("or give num_threads=3")
    assert (done, joined) == ("{'done'}", "True")
