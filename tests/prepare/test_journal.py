"""Journals: read back as they were written, and taken for none where they have another form."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from fastload.prepare.journal import Journal, StateFolder
from fastload.prepare.reasons import Reason
from fastload.prepare.verdict import Dropped, Kept

JOURNAL = Journal(
    sha256="0" * 64,
    tar_bytes=5,
    verdicts=(
        Kept(100, 48, 64, 2**32 - 1, "f" * 32, "lossless", ""),
        Dropped(Reason.TRUNCATED, "ends before \udcff 中"),
        Kept(200, 48, 64, 0, "0" * 32, "re-encoded", "PNG made a JPEG"),
    ),
)


def test_what_is_written_is_read_back():
    assert Journal.from_json(JOURNAL.to_json()) == JOURNAL


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    state = StateFolder(tmp_path)
    state.folder.mkdir()
    state.partial_path("a.tar").write_bytes(b"12345")
    return state


def test_a_journal_counts_while_the_bytes_of_its_shard_are_there(state: StateFolder):
    assert state.read_journal("a.tar") is None
    state.journal_path("a.tar").write_bytes(JOURNAL.to_json())
    assert state.read_journal("a.tar") == JOURNAL
    state.partial_path("a.tar").write_bytes(b"1234")
    assert state.read_journal("a.tar") is None
    state.partial_path("a.tar").rename(state.out / "a.tar")
    assert state.read_journal("a.tar") == JOURNAL


@pytest.mark.parametrize(
    "text",
    [
        b'["00", 5, {"0": [512, 9, 48, 64, 1, "ff", "lossless", ""]}, {"1": ["grey", ""]}]',
        b'["00", 5, [[1, 2, 3]]]',
        b'["00", 5, [["no-such-reason", ""]]]',
        b"{",
        b"7",
    ],
)
def test_a_journal_of_another_form_counts_as_none(state: StateFolder, text: bytes):
    state.journal_path("a.tar").write_bytes(text)
    assert state.read_journal("a.tar") is None


@pytest.mark.parametrize(
    "code", [errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.EACCES, errno.EIO]
)
def test_a_folder_without_locks_is_written_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int
):
    def fail(*_: object) -> None:  # no file system here lacks locks
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", fail)
    with StateFolder(tmp_path).locked():
        assert (tmp_path / ".fastload").is_dir()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"{tmp_path} cannot be locked ({os.strerror(code)}): see that no")


def test_the_state_is_gone_even_where_an_open_file_keeps_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    state, unlink = StateFolder(tmp_path), os.unlink
    held = state.folder / ".nfs0001"

    def unlink_as_nfs(path: str, *, dir_fd: int | None = None) -> None:
        if path == "lock":  # removed while it is open: NFS gives the file another name
            os.rename(path, held.name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        else:
            unlink(path, dir_fd=dir_fd)

    with state.locked():
        (state.folder / "run.json").write_bytes(b"{}")
        monkeypatch.setattr(os, "unlink", unlink_as_nfs)
        state.remove()
        assert held.exists()
        held.unlink()  # as NFS does when the file is closed
    assert not state.folder.exists()
