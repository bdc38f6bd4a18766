"""Journals: read back as they were written, and taken for none where they have another form."""

from __future__ import annotations

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
