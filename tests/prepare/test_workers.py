"""Processes that apply a function to items: in order, and alive after items that kill them."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastload.cores import usable_cores
from fastload.errors import FastloadError
from fastload.prepare.workers import Lost, run_chunks


class OddError(Exception):
    """An exception that pickle writes but cannot read back."""

    def __init__(self, name: str, *, place: int) -> None:
        super().__init__(f"{name} at {place}")


def act(item: str) -> str:
    """What a decoder might do with a file."""
    if item == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == "exit":
        os._exit(7)
    if item == "hang":
        time.sleep(600)
    if item == "raise":
        raise FileNotFoundError(2, "it is gone", "x.jpg")
    if item == "raise oddly":
        raise OddError("it", place=3)
    if item.startswith("slow"):
        time.sleep(0.05)
    return item.upper()


def chunked(items: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def no_process_is_left() -> bool:
    """Whether no worker runs, nor waits to be reaped (where /proc tells)."""
    children = "".join(path.read_text() for path in Path("/proc/self/task").glob("*/children"))
    programs = (Path(f"/proc/{child}/cmdline") for child in children.split())
    return not any(b"workers.serve" in path.read_bytes() for path in programs if path.exists())


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("size", [1, 3])
def test_results_come_in_the_order_of_the_items(workers: int, size: int):
    items = ["slow a", *"bcdefghij", "slow k", *"lmnop"]
    done = list(run_chunks(act, chunked(items, size), workers=workers))
    assert done == [(item, item.upper()) for item in items]
    assert no_process_is_left()


def test_nothing_in_is_nothing_out():
    assert list(run_chunks(act, iter([]), workers=2)) == []
    assert list(run_chunks(act, iter([[]]), workers=2)) == []


def test_an_item_that_crashes_its_process_is_lost_and_the_others_are_not():
    items = ["a", "crash", "b", "c", "exit", "d"]
    done = dict(run_chunks(act, chunked(items, 4), workers=2))
    assert done["crash"] == Lost("ended its process with SIGSEGV", slow=False)
    assert done["exit"] == Lost("ended its process with exit status 7", slow=False)
    assert [done[item] for item in "abcd"] == list("ABCD")
    assert no_process_is_left()


def test_an_item_that_hangs_is_lost_and_the_others_are_not():
    begin = time.monotonic()
    done = dict(run_chunks(act, chunked(["a", "hang", "b"], 3), workers=1, time_limit_seconds=1.5))
    assert done["hang"] == Lost("took longer than 1.5 seconds", slow=True)
    assert done["a"] == "A"
    assert done["b"] == "B"
    assert time.monotonic() - begin < 300
    assert no_process_is_left()


def test_an_exception_ends_the_run_and_reaches_the_caller():
    with pytest.raises(FileNotFoundError, match="it is gone"):
        list(run_chunks(act, chunked(["a", "raise", "b"], 1), workers=2))
    assert no_process_is_left()


def test_an_exception_that_cannot_travel_is_named():
    with pytest.raises(RuntimeError, match="OddError: it at 3"):
        list(run_chunks(act, [["raise oddly"]], workers=1))
    assert no_process_is_left()


def test_the_time_limit_does_not_count_the_start_of_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "tardy.py").write_text("def act(item):\n    return item\n")
    monkeypatch.syspath_prepend(tmp_path)
    tardy = importlib.import_module("tardy")
    with (tmp_path / "tardy.py").open("a") as file:
        file.write("import time\ntime.sleep(5)\n")
    assert list(run_chunks(tardy.act, [["a"]], workers=1, time_limit_seconds=4)) == [("a", "a")]


def test_whoever_stops_early_leaves_no_process():
    results = run_chunks(act, chunked(["slow"] * 100, 1), workers=2)
    assert next(results) == ("slow", "SLOW")
    results.close()  # type: ignore[attr-defined]  # a generator
    assert no_process_is_left()


def test_chunks_are_taken_only_as_they_are_needed():
    taken = 0

    def endless() -> Iterator[list[str]]:
        nonlocal taken
        while True:
            taken += 1
            yield ["a"]

    results = run_chunks(act, endless(), workers=1)
    next(results)
    assert taken <= 6
    results.close()  # type: ignore[attr-defined]  # a generator


def test_workers_leave_when_their_parent_is_killed(tmp_path: Path):
    (tmp_path / "late.py").write_text(
        "import os, time\ndef pid(item):\n    time.sleep(0.2)\n    return os.getpid()\n"
    )
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from late import pid\n"
        "from fastload.prepare.workers import run_chunks\n"
        "for _, number in run_chunks(pid, iter([[1]] * 1000), workers=2):\n"
        "    print(number, flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdin.write(program)
        parent.stdin.close()
        workers = {int(parent.stdout.readline()) for _ in range(4)}
        parent.kill()
    assert len(workers) == 2
    deadline = time.monotonic() + 120
    while any(_is_running(worker) for worker in workers):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.05)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")  # a process that has ended but waits to be reaped
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


def test_a_worker_that_cannot_start_is_an_error_not_a_bad_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    """Else every file of a data set would be set aside."""
    (tmp_path / "fleeting.py").write_text("def act(item):\n    return item\n")
    monkeypatch.syspath_prepend(tmp_path)
    fleeting = importlib.import_module("fleeting")
    (tmp_path / "fleeting.py").write_text("raise ImportError('no such library')\n")
    with pytest.raises(FastloadError, match="a worker process cannot start: it ended its process"):
        list(run_chunks(fleeting.act, iter([["a"]]), workers=2))
    assert "no such library" in capfd.readouterr().err
    assert no_process_is_left()


def test_the_number_of_workers_is_checked():
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        list(run_chunks(act, iter([["a"]]), workers=0))
    assert usable_cores() >= 1
