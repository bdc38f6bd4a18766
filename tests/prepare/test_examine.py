"""One file, read once: the JPEG that is stored and its facts, or the reason to set it aside."""

from __future__ import annotations

import hashlib
import os
import zlib
from pathlib import Path

import pytest

from fastload.errors import LayoutError
from fastload.prepare.examine import CHUNK_BYTES, CHUNK_FILES, chunks_of, examine_file
from fastload.prepare.reasons import Reason, Rules
from fastload.prepare.source import File
from fastload.prepare.transcode import MAX_FILE_BYTES
from fastload.prepare.verdict import Dropped, Kept
from tests.pictures import jpeg, write_tree

SMALL = Rules(min_side=16)


def file(path: str, size: int = 1) -> File:
    return File(path, "train", 0, size, 0)


def test_a_file_is_read_once_and_its_facts_are_those_of_its_stored_bytes(tmp_path: Path):
    data = jpeg(1)
    (tmp_path / "1.jpg").write_bytes(data)
    kept, stored = examine_file(file("1.jpg"), root=tmp_path, rules=SMALL, with_jpeg=True)
    assert isinstance(kept, Kept)
    assert kept.size == len(stored)
    assert kept.crc32 == zlib.crc32(stored)
    assert kept.digest == hashlib.blake2b(stored, digest_size=16).hexdigest()
    without = examine_file(file("1.jpg"), root=tmp_path, rules=SMALL, with_jpeg=False)
    assert without == (kept, b"")


def test_the_same_picture_with_other_metadata_is_the_same(tmp_path: Path):
    write_tree(tmp_path, {"a.jpg": jpeg(1), "b.jpg": jpeg(1, comment=b"mine")})
    digests = set()
    for name in ("a.jpg", "b.jpg"):
        kept, _ = examine_file(file(name), root=tmp_path, rules=SMALL, with_jpeg=False)
        assert isinstance(kept, Kept)
        digests.add(kept.digest)
    assert len(digests) == 1


def test_a_pipe_put_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "x.jpg")
    verdict, _ = examine_file(file("x.jpg"), root=tmp_path, rules=SMALL, with_jpeg=False)
    assert verdict == Dropped(Reason.UNREADABLE, "cannot be read: is no regular file")


def test_a_file_that_vanishes_ends_the_run(tmp_path: Path):
    with pytest.raises(LayoutError, match=r"gone.jpg has vanished; run again"):
        examine_file(file("gone.jpg"), root=tmp_path, rules=SMALL, with_jpeg=False)


def test_a_file_of_gigabytes_is_not_read(tmp_path: Path):
    big = file("big.jpg", size=MAX_FILE_BYTES + 1)  # it is not even there
    verdict, _ = examine_file(big, root=tmp_path, rules=SMALL, with_jpeg=False)
    assert isinstance(verdict, Dropped)
    assert verdict.reason is Reason.LARGE


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything; run as another user")
def test_an_unreadable_file_is_set_aside(tmp_path: Path):
    write_tree(tmp_path, {"x.jpg": jpeg(1)})
    (tmp_path / "x.jpg").chmod(0)
    verdict, _ = examine_file(file("x.jpg"), root=tmp_path, rules=SMALL, with_jpeg=False)
    assert verdict == Dropped(Reason.UNREADABLE, "cannot be read: Permission denied")


def test_chunks_are_bounded_in_files_and_bytes():
    files = [file(str(n), size=1000) for n in range(40)]
    assert [len(chunk) for chunk in chunks_of(files)] == [CHUNK_FILES, CHUNK_FILES, 8]
    large = [file(str(n), size=CHUNK_BYTES // 2 + 1) for n in range(3)]
    assert [len(chunk) for chunk in chunks_of(large)] == [1, 1, 1]
