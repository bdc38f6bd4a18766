"""Shards of a source whose storage fails: nothing is dropped for it, and the next run goes on."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

from fastload.store.manifest import read_manifest
from tests.pictures import flower_tree
from tests.prepare.test_examine import FAILING


def shard(root: Path, out: Path, site: Path) -> tuple[int, str]:
    """Exit status and errors of the command; `site` holds a `sitecustomize`."""
    paths = [str(site), str(Path(__file__).parents[2])]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "fastload.shard", str(root), "--out", str(out)),
            *("--workers", "1", "--min-side", "2", "--shard-size", "15kB"),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


def test_after_the_storage_is_back_the_same_command_goes_on(tmp_path: Path):
    root = flower_tree(tmp_path / "data")
    failing, sound = tmp_path / "failing", tmp_path / "sound"
    sound.mkdir()
    failing.mkdir()
    site = FAILING.format(names=("/rose 中文/1.jpg",), number=errno.ESTALE)
    (failing / "sitecustomize.py").write_text(site, encoding="utf-8")
    status, errors = shard(root, tmp_path / "out", failing)
    assert status == 1
    assert "Stale file handle; the storage is away, so run the same command again" in errors
    assert "Traceback" not in errors
    assert shard(root, tmp_path / "out", sound)[0] == 0
    assert shard(root, tmp_path / "whole", sound)[0] == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_file_that_could_not_be_read_is_tried_again_by_the_next_run(tmp_path: Path):
    root = flower_tree(tmp_path / "data")
    failing, sound = tmp_path / "failing", tmp_path / "sound"
    sound.mkdir()
    failing.mkdir()
    bad = FAILING.format(names=("train/daisy/1.jpg", "train/daisy/2.jpg"), number=errno.EIO)
    # The test folder's last file ends the run, so that finished shards wait for another one.
    away = FAILING.format(names=("test/st. john/1.jpg",), number=errno.ESTALE)
    (failing / "sitecustomize.py").write_text(bad + away, encoding="utf-8")
    assert shard(root, tmp_path / "out", failing)[0] == 1
    assert list((tmp_path / "out").glob("*.tar.partial"))
    assert shard(root, tmp_path / "out", sound)[0] == 0
    assert read_manifest(tmp_path / "out").cleaning == {}
    assert shard(root, tmp_path / "whole", sound)[0] == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
