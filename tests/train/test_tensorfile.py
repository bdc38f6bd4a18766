"""Checkpoints on a disk that is full, and files that are none."""

from __future__ import annotations

import io
import os
import resource
import signal
import zipfile
from pathlib import Path

import pytest
import torch

from fastload.errors import OutputError
from train.tensorfile import CheckpointError, read_tensors, write_tensors


def test_what_is_saved_is_read_again(tmp_path):
    path = tmp_path / "last.pt"

    write_tensors(path, {"model": {"w": torch.arange(3)}, "epoch": 2, "list": [1.5, None]})

    found = read_tensors(path)
    assert torch.equal(found["model"]["w"], torch.arange(3))
    assert (found["epoch"], found["list"]) == (2, [1.5, None])
    assert [item.name for item in tmp_path.iterdir()] == ["last.pt"]


@pytest.fixture
def small_disk():
    """No file may grow beyond 100 kB: the kernel refuses the write, as on a full disk."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, former[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, former)
    signal.signal(signal.SIGXFSZ, ignored)


def test_a_full_disk_is_one_sentence_and_the_former_checkpoint_intact(tmp_path, small_disk):
    path = tmp_path / "last.pt"
    write_tensors(path, {"step": 1})

    with pytest.raises(OutputError, match=r"last\.pt: .*; the former checkpoint is intact"):
        write_tensors(path, {"step": 2, "w": torch.zeros(100_000)})

    assert read_tensors(path)["step"] == 1
    assert [item.name for item in tmp_path.iterdir()] == ["last.pt"]


def test_no_space_is_said(tmp_path):
    # The temporary file leads to a device that is always full.
    (tmp_path / ".last.pt.partial").symlink_to("/dev/full")

    with pytest.raises(OutputError, match=r"last\.pt: no space is left on the device; free some"):
        write_tensors(tmp_path / "last.pt", {"w": torch.zeros(1_000_000)})

    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_gone_is_one_sentence(tmp_path):
    with pytest.raises(OutputError, match="there is no such file or folder"):
        write_tensors(tmp_path / "gone" / "last.pt", {"step": 1})


def test_an_interrupted_write_leaves_nothing_behind(tmp_path):
    class Interrupting:
        def __reduce__(self):
            raise KeyboardInterrupt

    write_tensors(tmp_path / "last.pt", {"step": 1})

    with pytest.raises(KeyboardInterrupt):
        write_tensors(tmp_path / "last.pt", {"step": Interrupting()})

    assert [item.name for item in tmp_path.iterdir()] == ["last.pt"]
    assert read_tensors(tmp_path / "last.pt")["step"] == 1


def test_a_flipped_bit_anywhere_is_noticed(tmp_path):
    path = tmp_path / "best.pt"
    write_tensors(path, {"model": {"w": torch.arange(9.0)}, "name": "net", "epoch": 2})
    sound = path.read_bytes()

    for place in range(len(sound)):
        path.write_bytes(
            sound[:place] + bytes([sound[place] ^ 1 << place % 8]) + sound[place + 1 :]
        )
        with pytest.raises(
            CheckpointError, match=r"best\.pt: is damaged: .*; put back a sound copy"
        ):
            read_tensors(path)
    path.write_bytes(sound)
    assert read_tensors(path)["epoch"] == 2


def test_torch_reads_a_file_as_its_own(tmp_path):
    path = tmp_path / "best.pt"
    write_tensors(path, {"model": {"w": torch.arange(9.0)}})

    for content in (
        torch.load(path, weights_only=True),
        torch.load(path, weights_only=True, mmap=True),
        torch.load(io.BytesIO(path.read_bytes()), weights_only=True),
    ):
        assert torch.equal(content["model"]["w"], torch.arange(9.0))
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None


def test_a_checkpoint_from_before_there_were_checksums_is_read(tmp_path):
    torch.save({"format": 1, "step": 3}, tmp_path / "last.pt")

    assert read_tensors(tmp_path / "last.pt")["step"] == 3


def test_what_was_read_and_saved_again_by_others_is_read(tmp_path):
    write_tensors(tmp_path / "best.pt", {"model": {"w": torch.arange(9.0)}})
    torch.save(torch.load(tmp_path / "best.pt", weights_only=True), tmp_path / "again.pt")

    assert torch.equal(read_tensors(tmp_path / "again.pt")["model"]["w"], torch.arange(9.0))


def test_a_checkpoint_of_a_later_version_is_refused(tmp_path):
    write_tensors(tmp_path / "last.pt", {"format": "fastload 3"})

    with pytest.raises(CheckpointError, match=r"\(format fastload 3, not fastload 2\)"):
        read_tensors(tmp_path / "last.pt")


def harmful(folder: Path) -> object:
    class Harmful:
        def __reduce__(self):
            return os.mkdir, (str(folder / "made"),)

    return Harmful()


def test_reading_runs_no_code(tmp_path):
    torch.save({"format": 1, "step": harmful(tmp_path)}, tmp_path / "last.pt")

    with pytest.raises(CheckpointError, match=r"holds an object of (posix|nt).mkdir, which could"):
        read_tensors(tmp_path / "last.pt")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("keep", [0, 10, 700, -24, -1])
def test_a_truncated_checkpoint_is_one_sentence(tmp_path, keep):
    path = tmp_path / "last.pt"
    write_tensors(path, {"w": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:keep])

    with pytest.raises(CheckpointError, match=r"is (empty|damaged.*); put back a sound") as raised:
        read_tensors(path)
    assert "\n" not in str(raised.value)


def test_a_checkpoint_of_others_and_none_at_all_are_told_apart(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "other.pt")

    with pytest.raises(CheckpointError, match=r"not a checkpoint of this trainer \(format None"):
        read_tensors(tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="there is no such checkpoint"):
        read_tensors(tmp_path / "none.pt")
