"""`python -m fastload.doctor`: what is printed, the exit status, what is said of mistakes."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from fastload import doctor
from fastload.advise import versions
from fastload.advise.backends import Finding, examine
from tests.shards import flip_bit, noisy_picture, write_shards

pytestmark = pytest.mark.filterwarnings("ignore:fastload's native core")


def class_folders(folder: Path) -> Path:
    for number in range(12):
        path = folder / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(noisy_picture(number, 0, height=90, width=120).jpeg)
    return folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pictures = [noisy_picture(seed, 0, height=90, width=120 + seed) for seed in range(30)]
    return write_shards(tmp_path_factory.mktemp("doctor"), {"val": pictures}, classes=["a"])


@pytest.mark.parametrize("stored", [False, True], ids=["made", "from shards"])
def test_the_command_prints_versions_and_a_table(
    shards: Path,
    stored: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(doctor, "BACKENDS", ("libjpeg",))
    if not stored:  # one other process is enough, and slow to start
        monkeypatch.setattr(doctor, "examine_apart", lambda _, *rest: [examine("libjpeg", *rest)])
    assert doctor.main([str(shards)] if stored else []) == 0
    out = capsys.readouterr().out
    for name in ("fastload", "Python", "processor", "PyTorch", "DALI", "driver", "GPU", "images"):
        assert f"\n{name} " in f"\n{out}"
    assert ("split val" in out) == stored
    assert 'fastest here: Loader(..., backend="libjpeg")' in out


def test_what_limits_the_cores_is_a_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(versions, "explain_cores", lambda: "2 of 64 cores: the container's quota")
    assert ("cores", "2 of 64 cores: the container's quota") in versions.installed_versions()
    monkeypatch.setattr(versions, "explain_cores", lambda: "")
    assert "cores" not in dict(versions.installed_versions())


def test_images_without_an_index_are_taken_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    folder = class_folders(tmp_path / "data")
    with tarfile.open(tmp_path / "data.tar", "w") as tar:
        tar.add(folder, "data")
    monkeypatch.setattr(doctor, "examine_apart", lambda _, *rest: [examine("libjpeg", *rest)])
    for data in (folder, tmp_path / "data.tar"):
        assert doctor.main([str(data)]) == 0
        said = capsys.readouterr()
        assert f"10, {data}, split train" in said.out
        assert "has no index yet" in said.err
        assert "\nnext " not in said.err


def test_a_fault_makes_the_exit_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    found = Finding(name="libjpeg", fault="its pixels are 9.0 greys from Pillow's, 1 is allowed")
    monkeypatch.setattr(doctor, "examine_apart", lambda *_: [found])
    assert doctor.main([]) == 1
    assert "libjpeg: its pixels are 9.0 greys" in capsys.readouterr().out


def test_a_folder_without_shards_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert doctor.main([str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("fastload.doctor: ")
    assert "python -m fastload.shard" in error
    assert error.count("\n") == 1


def test_shards_without_images_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    empty = write_shards(tmp_path / "empty", {"train": []}, classes=["a"])
    assert doctor.main([str(empty)]) == 1
    assert "empty: split 'train' has no images to try\n" in capsys.readouterr().err


def test_damaged_shards_are_named(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for path in shards.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    flip_bit(tmp_path / "val-000000.tar", 700)
    assert doctor.main([str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "val-000000.tar, sample 000000, offset 512: its CRC-32 is" in error


def test_a_device_that_is_no_gpu_is_an_argument_error(capsys: pytest.CaptureFixture[str]):
    for device in ("cpu", "quantum"):
        with pytest.raises(SystemExit) as raised:
            doctor.main(["--device", device])
        assert raised.value.code == 2
        assert f"--device must be a GPU such as cuda:0, got '{device}'" in capsys.readouterr().err
