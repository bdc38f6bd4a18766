"""Tars of samples: byte for byte what tarfile writes, and read back by it."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from fastload.files import sha256_of
from fastload.store.tar import TarWriter, key_of, label_bytes, offsets_of, read_key, tar_header


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 123_456_789])
def test_a_header_is_the_one_tarfile_writes(size: int):
    info = tarfile.TarInfo("00000042.jpg")
    info.size = size
    assert tar_header("00000042.jpg", size) == info.tobuf(tarfile.USTAR_FORMAT)


def test_a_whole_tar_is_the_one_tarfile_writes(tmp_path: Path):
    samples = [(key_of(n), bytes([n]) * (n * 300), label_bytes(n, 120)) for n in range(1, 20)]
    writer = TarWriter(tmp_path / "a.tar")
    for key, jpeg, label in samples:
        writer.add_sample(key, jpeg, label)
    sha256 = writer.finish()
    writer.sync()

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for key, jpeg, label in samples:
            for name, data in ((f"{key}.jpg", jpeg), (f"{key}.cls", label)):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    assert (tmp_path / "a.tar").read_bytes() == buffer.getvalue()
    assert sha256 == hashlib.sha256(buffer.getvalue()).hexdigest()
    assert sha256 == sha256_of(tmp_path / "a.tar")
    assert writer.bytes == len(buffer.getvalue())


def test_offsets_follow_from_sizes(tmp_path: Path):
    writer = TarWriter(tmp_path / "a.tar")
    sizes = (1, 511, 512, 513, 4000)
    added = [writer.add_sample(key_of(size), b"x" * size, b"7") for size in sizes]
    assert added == offsets_of(sizes)
    writer.discard()
    assert not (tmp_path / "a.tar").exists()


def test_labels_have_one_width_and_read_as_integers():
    assert label_bytes(0, 1) == b"0"
    assert label_bytes(7, 10) == b"7"
    assert label_bytes(7, 11) == b"07"
    assert {len(label_bytes(label, 1081)) for label in range(1081)} == {4}
    assert int(label_bytes(80, 1081)) == 80


def test_a_key_is_read_from_the_tar(tmp_path: Path):
    writer = TarWriter(tmp_path / "a.tar")
    offsets = [writer.add_sample(key, b"jpeg", b"1") for key in ("00000003", "00000007")]
    writer.finish()
    writer.sync()
    assert [read_key(tmp_path / "a.tar", offset) for offset in offsets] == ["00000003", "00000007"]
    assert read_key(tmp_path / "a.tar", 3) == "?"
    assert read_key(tmp_path / "missing.tar", 512) == "?"
