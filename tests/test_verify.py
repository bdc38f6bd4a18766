"""verify: an intact directory passes; any damage is found and named."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fastload import shard, verify
from fastload.store.faults import find_faults
from fastload.store.index import read_index, write_index
from fastload.store.manifest import read_manifest
from tests.pictures import flower_tree


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify")
    root = flower_tree(folder / "data")
    arguments = [str(root), "--out", str(folder / "out"), "--min-side", "16"]
    assert shard.main([*arguments, "--shard-size", "16kB"]) == 0
    return folder / "out"


def test_an_intact_directory_passes(intact: Path, capsys: pytest.CaptureFixture[str]):
    assert verify.main([str(intact)]) == 0
    assert "29 samples are as the manifest says" in capsys.readouterr().out


def change_byte(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def in_a_jpeg(out: Path) -> None:
    row = read_index(out, "train")[3]
    names = sorted(path.name for path in out.glob("train-*.tar"))
    change_byte(out / names[row["shard"]], int(row["offset"]) + int(row["size"]) // 2)


def in_a_label(out: Path) -> None:
    row = read_index(out, "val")[0]
    behind = int(row["offset"]) + -(-int(row["size"]) // 512) * 512 + 512
    change_byte(out / "val-000000.tar", behind)


def in_a_header(out: Path) -> None:
    change_byte(out / "train-000001.tar", 5)


def beyond_ascii(out: Path) -> None:
    path = out / "train-000001.tar"
    path.write_bytes(b"\xff" + path.read_bytes()[1:])


def a_long_key(out: Path) -> None:
    path = out / "train-000001.tar"
    path.write_bytes(b"x" * 100 + path.read_bytes()[100:])


def a_pipe(out: Path) -> None:
    (out / "val-000000.tar").unlink()
    os.mkfifo(out / "val-000000.tar")


def in_padding(out: Path) -> None:
    change_byte(out / "test-000000.tar", (out / "test-000000.tar").stat().st_size - 3)


def cut_off(out: Path) -> None:
    data = (out / "train-000000.tar").read_bytes()
    (out / "train-000000.tar").write_bytes(data[:-512])


def swap_shards(out: Path) -> None:
    first, second = out / "train-000000.tar", out / "train-000001.tar"
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)


def exchange_labels(out: Path) -> None:
    """The index still fits the manifest: as many of each class, but not where they were."""
    samples = read_index(out, "train")
    other = int(np.flatnonzero(samples["label"] != samples["label"][0])[0])
    samples["label"][[0, other]] = samples["label"][[other, 0]]
    write_index(out, "train", samples)


def other_size(out: Path) -> None:
    samples = read_index(out, "val")
    samples["height"][0] += 1
    write_index(out, "val", samples)


DAMAGE: list[tuple[Callable[[Path], None], str]] = [
    (in_a_jpeg, r"train-00000\d.tar: sample 0000\d+, offset \d+: has another CRC-32"),
    (in_a_label, r"val-000000.tar: sample 0000\d+, offset 512: its label in the tar is not \d"),
    (in_a_header, r"train-000001.tar: sample .*: no header of a JPEG of \d+ bytes"),
    (beyond_ascii, r"train-000001.tar: sample \?, offset 512: no header of a JPEG of \d+ bytes"),
    (a_long_key, r"train-000001.tar: sample x+, offset 512: no header of a JPEG of \d+ bytes"),
    (a_pipe, r"val-000000.tar: .*is a pipe, expected a regular file"),
    (in_padding, r"test-000000.tar: holds more than its index lists, or does not end"),
    (cut_off, r"train-000000.tar: has [\d,]+ bytes, the manifest says"),
    (swap_shards, r"train-00000\d.tar: "),
    (exchange_labels, r"train-00000\d.tar: sample .*: its label in the tar is not \d"),
    (other_size, r"val-000000.tar: sample .*: is 48 x 64 pixels, the index says otherwise"),
    (lambda out: (out / "train-000000.tar").unlink(), r"train-000000.tar: .*no such file"),
    (lambda out: (out / "val.index.npy").unlink(), r"val.index.npy: there is no such file"),
    (lambda out: (out / "train-000099.tar").touch(), r"train-000099.tar: is not in the"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE, ids=range(len(DAMAGE)))
def test_damage_is_found_and_named(
    intact: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    message: str,
):
    out = tmp_path / "out"
    shutil.copytree(intact, out)
    damage(out)
    assert verify.main([str(out)]) == 1
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert "rebuild it with `python -m fastload.shard`" in error


def test_all_bytes_count_as_done_where_a_shard_is_wrong(intact: Path, tmp_path: Path):
    """So the bar reaches its end."""
    out = tmp_path / "out"
    shutil.copytree(intact, out)
    in_a_jpeg(out)
    (out / "val-000000.tar").unlink()
    manifest = read_manifest(out)
    shards = [shard for split in manifest.splits.values() for shard in split.shards]
    checked = list(find_faults(out, manifest))
    assert sum(size for size, _ in checked) == sum(shard.bytes for shard in shards)
    assert sum(bool(fault) for _, fault in checked) == 2


def test_what_other_systems_leave_in_a_copy_is_no_shard(intact: Path, tmp_path: Path):
    """macOS writes ._NAME beside each file on a foreign disk; rsync leaves temporary names."""
    out = tmp_path / "out"
    shutil.copytree(intact, out)
    for name in ("._train-000000.tar", ".train-000000.tar.Xy12ab", ".DS_Store"):
        (out / name).write_bytes(b"x")
    shutil.copytree(intact, out / "out")  # copied into itself
    assert verify.main([str(out)]) == 0


def test_every_single_byte_counts(intact: Path, tmp_path: Path):
    shutil.copytree(intact, tmp_path / "out")
    path = tmp_path / "out" / "val-000000.tar"
    size = path.stat().st_size
    for offset in range(0, size, size // 60):
        change_byte(path, offset)
        assert verify.main([str(tmp_path / "out")]) == 1, offset
        change_byte(path, offset)
    assert verify.main([str(tmp_path / "out")]) == 0


def test_a_directory_without_shards_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert verify.main([str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "there is no complete set of shards" in error
    assert len(error.splitlines()) == 1
