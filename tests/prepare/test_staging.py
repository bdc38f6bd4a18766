"""Folders for what is being written: those of processes that were killed go, no others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from fastload.prepare.staging import part_folder, staged

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from pathlib import Path
from fastload.prepare.staging import part_folder
with part_folder(Path(sys.argv[1])) as folder:
    (folder / "shard").write_bytes(b"half")
    print(folder, flush=True)
    sys.stdin.read()
"""


def holding(staging: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that writes a part, and its folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(staging)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    return process, Path(process.stdout.readline().strip())


def test_the_folder_of_a_killed_part_goes_and_that_of_a_living_one_stays(tmp_path: Path):
    staging = tmp_path / "made" / "staging"
    killed, left = holding(staging)
    with killed:
        killed.kill()
    assert (left / "shard").exists()
    living, used = holding(staging)
    with living:
        assert not left.exists()
        with part_folder(staging) as own:
            assert sorted(staging.iterdir()) == sorted([used, own])
            assert not list(own.iterdir())
        living.communicate("", timeout=30)
    assert living.returncode == 0
    assert not list(staging.iterdir())


def test_a_link_of_such_a_name_is_not_followed(tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_bytes(b"x")
    link = tmp_path / f"fastload-{os.getuid()}-part-1"
    link.symlink_to(tmp_path / "mine")
    with part_folder(tmp_path):
        pass
    assert (tmp_path / "mine" / "file").exists()


def test_folders_that_were_made_for_a_run_go_with_it(tmp_path: Path):
    (tmp_path / "there").mkdir()
    with staged("s3://bucket/one", tmp_path / "there" / "a" / "b") as files:
        (files / "shard").write_bytes(b"x")
        with staged("s3://bucket/two", tmp_path / "there" / "a"):
            pass
        assert (files / "shard").exists()
    assert list(tmp_path.rglob("*")) == [tmp_path / "there"]
