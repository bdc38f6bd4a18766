"""Thousands of damaged directories: the right samples or one sentence, nothing else, no memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.shards import noisy_picture, write_shards

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_whatever_is_changed_the_samples_are_right_or_the_change_is_named(tmp_path):
    """The child has little memory, and ends soon: nothing is allocated or waited for in vain."""
    splits = {
        split: [noisy_picture(i + first, i % 2, height=24 + i, width=32) for i in range(count)]
        for split, first, count in (("train", 0, 6), ("val", 10, 2))
    }
    classes = ["class 0", "class 1"]
    write_shards(tmp_path / "shards", splits, classes=classes, samples_per_shard=3)
    (tmp_path / "scratch").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "tests.store.mutations", tmp_path / "shards", tmp_path / "scratch"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert int(done.stdout.split()[-4]) > 2000
