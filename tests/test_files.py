"""Files: written whole or not at all, hashed, placed within folders."""

from __future__ import annotations

import csv
import hashlib
import os
from pathlib import Path

import pytest

from fastload.files import (
    READ_BYTES,
    lies_within,
    replacing,
    sha256_of,
    write_atomically,
    write_csv,
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


def test_a_table_keeps_any_name(tmp_path: Path):
    rows = [['with "quotes", commas', "new\nline"], ["中文", os.fsdecode(b"caf\xe9")]]
    write_csv(tmp_path / "t.csv", ("a", "b"), rows)
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as lines:
        assert list(csv.reader(lines)) == [["a", "b"], *rows]


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
