"""Processes that apply a function to items: in order, and alive after items that kill them."""

from __future__ import annotations

import importlib
import os
import re
import signal
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from fastload.cores import usable_cores
from fastload.errors import FastloadError
from fastload.prepare.workers import Cause, Lost, run_chunks


class OddError(Exception):
    """An exception that pickle writes but cannot read back."""

    def __init__(self, name: str, *, place: int) -> None:
        super().__init__(f"{name} at {place}")


def act(item: str) -> object:
    """What a decoder might do with a file."""
    what = item.split()[0]
    if what == "unwieldy":
        return _Unwieldy()
    if what in ACTS:
        ACTS[what](item)
    return item.upper()


def _loop(_: str) -> None:
    while True:
        pass


def _raise(item: str) -> None:
    if item == "raise oddly":
        raise OddError("it", place=3)
    raise FileNotFoundError(2, "it is gone", "x.jpg")


def _lack_memory(_: str) -> None:
    raise MemoryError


def _stop_for_a_while(_: str) -> None:
    """Stop this process as a laptop that sleeps does; a shell wakes it."""
    subprocess.Popen(["sh", "-c", f"sleep 2.5; kill -CONT {os.getpid()}"])
    os.kill(os.getpid(), signal.SIGSTOP)


def _wait_until(item: str) -> None:
    """Wait until a file is there: "until /tmp/marker"."""
    while not Path(item.split()[1]).exists():
        time.sleep(0.05)


def _end_in_the_middle_of_an_answer(_: str) -> None:
    for descriptor in range(3, 256):
        with suppress(OSError):
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                os.write(descriptor, struct.pack("!i", 1000) + b"less")
    os.kill(os.getpid(), signal.SIGTERM)


class _Unwieldy:
    """A result that there is no memory to send."""

    def __reduce__(self) -> str:
        raise MemoryError


def _once(item: str) -> None:
    """Do what the second word says, but only the first time: "once kill /tmp/marker"."""
    _, what, marker = item.split()
    try:
        Path(marker).touch(exist_ok=False)
    except FileExistsError:
        return
    act(what)


ACTS: dict[str, Callable[[str], object]] = {
    "crash": lambda _: os.kill(os.getpid(), signal.SIGSEGV),
    "kill": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda _: os._exit(7),
    "loop": _loop,
    "wait": lambda _: time.sleep(2.5),
    "slow": lambda _: time.sleep(0.05),
    "until": _wait_until,
    "stop": _stop_for_a_while,
    "memory": _lack_memory,
    "raise": _raise,
    "break": _end_in_the_middle_of_an_answer,
    "once": _once,
}


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
    assert done["crash"] == Lost("ended its process with SIGSEGV", Cause.CRASH)
    assert done["exit"] == Lost("ended its process with exit status 7", Cause.CRASH)
    assert [done[item] for item in "abcd"] == list("ABCD")
    assert no_process_is_left()


def test_an_item_that_computes_for_ever_is_lost_and_the_others_are_not():
    done = dict(run_chunks(act, chunked(["a", "loop", "b"], 3), workers=1, limit_seconds=0.5))
    assert done["loop"] == Lost("took longer than 0.5 seconds", Cause.SLOW)
    assert done["a"] == "A"
    assert done["b"] == "B"
    assert no_process_is_left()


@pytest.mark.parametrize("item", ["wait", "stop"])
def test_the_limit_counts_computing_and_not_waiting(item: str):
    """A read that hangs, a laptop that sleeps, a machine that is busy: no fault of a picture."""
    done = dict(run_chunks(act, [["a", item, "b"]], workers=1, limit_seconds=0.5))
    assert done == {name: name.upper() for name in ("a", item, "b")}


def test_who_must_not_wait_limits_the_time_that_passes():
    tried = run_chunks(act, [["wait"]], workers=1, limit_seconds=0.5, clock=signal.ITIMER_REAL)
    assert dict(tried) == {"wait": Lost("took longer than 0.5 seconds", Cause.SLOW)}


def test_what_is_waited_for_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def name(item: str) -> str:
        if item.startswith("until"):
            (tmp_path / "named").touch()  # which ends the wait
        return f"x/{item}.jpg"

    items = ["a", f"until {tmp_path}/named", "b"]
    assert len(list(run_chunks(act, [items], workers=1, name=name, note_seconds=0.2))) == 3
    wanted = re.escape(f"waiting for storage or processor: x/until {tmp_path}/named.jpg, ")
    assert re.search(rf"^{wanted}\d+ s$", capsys.readouterr().err, re.MULTILINE)


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("what", ["kill", "memory", "crash", "break"])
def test_an_item_whose_process_is_killed_once_is_not_lost(what: str, size: int, tmp_path: Path):
    items = ["a", f"once {what} {tmp_path}/marker", *"bcdefgh"]
    done = list(run_chunks(act, chunked(items, size), workers=2))
    assert done == [(item, item.upper()) for item in items]
    assert no_process_is_left()


@pytest.mark.parametrize("what", ["kill", "memory", "unwieldy"])
def test_an_item_that_fails_alone_too_needs_too_much_memory(what: str):
    done = dict(run_chunks(act, chunked(["a", what, "b", "slow c"], 2), workers=2))
    lost = done.pop(what)
    assert isinstance(lost, Lost)
    assert lost.cause is Cause.MEMORY
    assert lost.reason.startswith("needs more memory than there is")
    assert done == {name: name.upper() for name in ("a", "b", "slow c")}


def test_fewer_workers_go_on_where_workers_are_killed_again_and_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    items = [f"once kill {tmp_path}/{number}" for number in range(3)]
    done = list(run_chunks(act, chunked([*items, *"abcdef"], 1), workers=2))
    assert [result for _, result in done] == [item.upper() for item in [*items, *"abcdef"]]
    assert capsys.readouterr().err == "--workers 1 from here on: memory ran out\n"


LIMITED = """
import os, resource, sys
from fastload.errors import FastloadError
from fastload.prepare.workers import run_chunks
from tests.prepare.test_workers import act
spare = os.open("/dev/null", os.O_RDONLY)
resource.setrlimit(resource.RLIMIT_NOFILE, (spare + int(sys.argv[1]),) * 2)
try:
    print([result for _, result in run_chunks(act, [[item] for item in "abcdef"], workers=4)])
except FastloadError as error:
    print(error)
"""


def limited(descriptors: int) -> tuple[str, str]:
    """Output and errors of a process that may open few files."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(descriptors)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    return done.stdout.strip(), done.stderr


def test_where_descriptors_run_out_those_workers_go_on_that_run():
    output, errors = limited(12)
    assert output == str(list("ABCDEF"))
    assert re.fullmatch(
        r"--workers [123] from here on: no other can start: Too many open files\n", errors
    )


def test_where_no_worker_can_start_the_error_says_why():
    output, _ = limited(2)
    assert output.startswith("a worker process cannot start: Too many open files; see `ulimit -a`")


def test_an_exception_ends_the_run_and_reaches_the_caller():
    with pytest.raises(FileNotFoundError, match="it is gone"):
        list(run_chunks(act, chunked(["a", "raise", "b"], 1), workers=2))
    assert no_process_is_left()


def test_an_exception_that_cannot_travel_is_named():
    with pytest.raises(RuntimeError, match="OddError: it at 3"):
        list(run_chunks(act, [["raise oddly"]], workers=1))
    assert no_process_is_left()


def imported_from(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module as this process has it; workers see what is written into its file afterwards."""
    (folder / f"{name}.py").write_text("def act(item):\n    return item\n")
    monkeypatch.syspath_prepend(folder)
    return importlib.import_module(name)


def test_the_limit_does_not_count_the_start_of_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tardy = imported_from(tmp_path, "tardy", monkeypatch)
    with (tmp_path / "tardy.py").open("a") as file:
        file.write("import time\nend = time.process_time() + 2\n")
        file.write("while time.process_time() < end:\n    pass\n")
    assert list(run_chunks(tardy.act, [["a"]], workers=1, limit_seconds=1)) == [("a", "a")]


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
    fleeting = imported_from(tmp_path, "fleeting", monkeypatch)
    (tmp_path / "fleeting.py").write_text("raise ImportError('no such library')\n")
    with pytest.raises(FastloadError, match="a worker process cannot start: it ended its process"):
        list(run_chunks(fleeting.act, iter([["a"]]), workers=2))
    assert "no such library" in capfd.readouterr().err
    assert no_process_is_left()


def test_a_worker_that_is_killed_as_it_starts_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    killed = imported_from(tmp_path, "killed", monkeypatch)
    with (tmp_path / "killed.py").open("a") as file:
        file.write(
            "import os, pathlib, signal\n"
            f"marker = pathlib.Path({str(tmp_path)!r}, 'marker')\n"
            "if not marker.exists():\n"
            "    marker.touch()\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n"
        )
    assert list(run_chunks(killed.act, [["a"], ["b"]], workers=1)) == [("a", "a"), ("b", "b")]
    assert (tmp_path / "marker").exists()


def test_the_number_of_workers_is_checked():
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        list(run_chunks(act, iter([["a"]]), workers=0))
    assert usable_cores() >= 1
