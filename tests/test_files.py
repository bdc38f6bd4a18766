"""Files: written whole or not at all, hashed, placed within folders."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from fastload.files import (
    READ_BYTES,
    expect_writable,
    lies_within,
    replacing,
    sha256_of,
    sync_directory,
    sync_file,
    text_of_cell,
    write_atomically,
    write_csv,
    write_spreadsheet,
)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    (tmp_path / ".file.partial").mkdir()  # so that the temporary file cannot be opened
    with pytest.raises(OSError, match="Is a directory") as raised:
        write_atomically(path, b"new")
    assert raised.value.filename == str(path)
    assert path.read_bytes() == b"old"


def test_the_new_content_has_its_name_only_when_it_is_complete(tmp_path: Path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with replacing(path) as file:
        file.write(b"ne")
        assert path.read_bytes() == b"old"
        file.write(b"w")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, OSError])
def test_any_exception_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def write_half() -> None:
        with replacing(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        write_half()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_file_is_not_replaced_by_one(tmp_path: Path):
    pipe, folder, link = tmp_path / "pipe", tmp_path / "folder", tmp_path / "link"
    os.mkfifo(pipe)
    folder.mkdir()
    link.symlink_to(os.devnull)  # a superuser could replace the device itself
    for place, what in ((pipe, "a pipe"), (folder, "a folder"), (link, "a device")):
        before = place.lstat()
        for write in (expect_writable, lambda path: write_atomically(path, b"new")):
            with pytest.raises(OSError, match=f"is {what}, expected a regular file") as raised:
                write(place)
            assert raised.value.filename == str(place)
        assert place.lstat() == before
    assert sorted(tmp_path.iterdir()) == [folder, link, pipe]


def test_a_file_that_cannot_be_written_is_found_out_before_it_is_made(tmp_path: Path):
    for place in (tmp_path / "new", tmp_path / "old"):
        (tmp_path / "old").write_bytes(b"old")
        expect_writable(place)
    assert (tmp_path / "old").read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [tmp_path / "old"]
    for place, reason in (
        (tmp_path / "no" / "file", errno.ENOENT),
        (tmp_path / "old" / "file", errno.ENOTDIR),
        (tmp_path / ("x" * 250), errno.ENAMETOOLONG),  # too long with the ending of a part
    ):
        with pytest.raises(OSError, match=r"\[Errno") as raised:
            expect_writable(place)
        assert raised.value.errno == reason


def test_an_error_without_a_name_gets_that_of_the_file(tmp_path: Path):
    def fail() -> None:
        with replacing(tmp_path / "file"):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space") as caught:
        fail()
    assert caught.value.filename == str(tmp_path / "file")


def test_the_hash_is_that_of_the_whole_file(tmp_path: Path):
    data = b"x" * (READ_BYTES + 1)
    (tmp_path / "file").write_bytes(data)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("write", "encoding"), [(write_csv, "utf-8"), (write_spreadsheet, "utf-8-sig")]
)
def test_a_table_keeps_any_name(
    tmp_path: Path, write: Callable[[Path, Sequence[str], list[list[str]]], None], encoding: str
):
    rows = [['with "quotes", commas', "new\nline"], ["中文", os.fsdecode(b"caf\xe9")]]
    rows += [["carriage\rreturn", "c\r"], ["c\r\n", " "]]
    write(tmp_path / "t.csv", ("a", "b"), rows)
    text = (tmp_path / "t.csv").read_bytes().decode(encoding, "surrogateescape")
    assert list(csv.reader(io.StringIO(text, newline=""))) == [["a", "b"], *rows]


def test_a_table_for_people_begins_with_the_mark_that_spreadsheets_look_for(tmp_path: Path):
    write_csv(tmp_path / "programs.csv", ("name",), [["玫瑰"]])
    write_spreadsheet(tmp_path / "people.csv", ("name",), [["玫瑰"]])
    plain = (tmp_path / "programs.csv").read_bytes()
    assert plain == "name\n玫瑰\n".encode()
    assert (tmp_path / "people.csv").read_bytes() == b"\xef\xbb\xbf" + plain


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"])
def test_no_spreadsheet_computes_a_name_and_each_name_can_be_had_back(tmp_path: Path, sign: str):
    names = [f"{sign}cmd|' /C calc'!A0", f"'{sign}1", f"''{sign}", sign, "'quoted'", "'", "a=b"]
    write_spreadsheet(tmp_path / "t.csv", ("name",), [[name] for name in names])
    with (tmp_path / "t.csv").open(encoding="utf-8-sig", newline="") as file:
        cells = [row["name"] for row in csv.DictReader(file)]
    assert not [cell for cell in cells if cell.startswith(sign)]
    assert cells[4:] == names[4:]
    assert [text_of_cell(cell) for cell in cells] == names
    pandas = pytest.importorskip("pandas")
    assert pandas.read_csv(tmp_path / "t.csv")["name"].tolist() == cells


def test_a_path_lies_within_a_folder_wherever_links_lead(tmp_path: Path):
    folder, outside = tmp_path / "folder", tmp_path / "folder-too"
    folder.mkdir()
    outside.mkdir()
    (folder / "link").symlink_to(outside)
    assert lies_within(folder, folder)
    assert lies_within(folder / "a" / "b", folder)
    assert lies_within(outside / ".." / "folder", folder)
    assert not lies_within(outside, folder)
    assert not lies_within(folder / "link" / "a", folder)
    assert not lies_within(tmp_path, folder)


LACKING = [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP]


def fail_to_sync(monkeypatch: pytest.MonkeyPatch, code: int, *, directories: bool) -> None:
    """Let fsync fail as on file systems that lack it, which cannot be mounted here."""
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) == directories:
            raise OSError(code, os.strerror(code))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("code", [*LACKING, errno.EIO, errno.EBADF, errno.EACCES, errno.EPERM])
def test_a_file_system_need_not_sync_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
):
    fail_to_sync(monkeypatch, code, directories=True)
    write_atomically(tmp_path / "file", b"old")
    write_atomically(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_folder_that_cannot_be_opened_is_not_synced(tmp_path: Path):
    sync_directory(tmp_path / "gone")


@pytest.mark.parametrize("code", LACKING)
def test_a_file_system_need_not_sync_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
):
    fail_to_sync(monkeypatch, code, directories=False)
    write_atomically(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_content_that_cannot_be_stored_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
):
    write_atomically(tmp_path / "file", b"old")
    fail_to_sync(monkeypatch, code, directories=False)
    with pytest.raises(OSError, match=os.strerror(code)) as raised:
        write_atomically(tmp_path / "file", b"new")
    assert raised.value.filename == str(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_pipe_is_a_file_without_sync():
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb"), os.fdopen(writing, "wb") as file:
        sync_file(file)
