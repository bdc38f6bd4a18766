"""The report of a cleaning: any name is kept, reasons are counted."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastload.errors import OutputError
from fastload.prepare.report import (
    Row,
    count_reasons,
    quarantine,
    refuse_foreign_report,
    rows_in,
    write_report,
)


def test_the_report_keeps_any_name(tmp_path: Path):
    names = ['with "quotes", commas', "new\nline", "中文", os.fsdecode(b"caf\xe9"), "-rf", "=1+1"]
    rows = [Row(name, "grey", "has one channel", "set aside") for name in names]
    write_report(tmp_path / "r.csv", rows)
    assert rows_in((tmp_path / "r.csv").read_bytes(), "r.csv") == rows


def test_reasons_are_counted_commonest_first():
    rows = [Row("1", "grey", "", "set aside"), Row("2", "gif", "", "moved")]
    rows += [Row("3", "gif", "", "set aside"), Row("4", "changed", "", "stored")]
    assert list(count_reasons(rows).items()) == [("gif", 2), ("grey", 1)]


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system, where moving is copying."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs /dev/shm on a file system of its own")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.jpg").write_bytes(bytes(50_000))
    return tmp_path / "data"


def move(root: Path, folder: Path) -> str:
    (row,) = quarantine(root, folder, [Row("a.jpg", "grey", "", "set aside")])
    return row.action


def test_a_file_that_does_not_fit_stays_whole_and_no_half_of_it_is_left(
    root: Path, elsewhere: Path
):
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, former[1]))
    try:
        assert move(root, elsewhere) == "set aside, not moved: File too large"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
        signal.signal(signal.SIGXFSZ, ignored)
    assert (root / "a.jpg").read_bytes() == bytes(50_000)
    assert list(elsewhere.iterdir()) == []


def test_a_file_system_without_permissions_gets_the_file_all_the_same(
    root: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object, **__: object) -> None:  # as on FAT, which cannot be mounted here
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(shutil, "copystat", fail)
    assert move(root, elsewhere) == "moved"
    assert (elsewhere / "a.jpg").read_bytes() == bytes(50_000)
    assert not (root / "a.jpg").exists()


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])  # reports of earlier versions have none
def test_a_report_replaces_a_report_and_no_other_file(tmp_path: Path, mark: bytes):
    path = tmp_path / "r.csv"
    path.write_bytes(mark + b"path,reason,detail,action\nx.jpg,grey,,set aside\n")
    refuse_foreign_report(path)
    path.write_bytes(mark + b"path,label\nx.jpg,rose\n")
    with pytest.raises(OutputError, match="no cleaning report; choose --report FILE"):
        refuse_foreign_report(path)


@pytest.mark.parametrize("folder", ["missing", "/proc/self"])
def test_a_report_that_cannot_be_written_is_known_before_the_work(tmp_path: Path, folder: str):
    with pytest.raises(OSError, match=r"r\.csv") as raised:
        refuse_foreign_report(tmp_path / folder / "r.csv")
    assert raised.value.filename == str(tmp_path / folder / "r.csv")
