"""The commands as a user types them, one after another, each in a process of its own."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fastload.installation import python_name
from tests.shards import numbered

ROOT = Path(__file__).parents[1]


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`python -m ...` in `folder`."""
    command = [sys.executable, "-m", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def next_words(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The command that it says to type next, as a shell takes it."""
    (line,) = re.findall(r"^next:? +(.*)$", done.stdout, re.MULTILINE)
    return shlex.split(line)


@pytest.mark.slow
def test_from_drawn_photographs_to_a_look_at_the_shards(tmp_path):
    drawn = run(tmp_path, "fastload.sample", "my data/", "--images", "100")
    assert drawn.returncode == 0, drawn.stderr
    assert next_words(drawn) == [python_name(tmp_path), "-m", "fastload.inspect", "my data"]
    assert "100 images of 10 species" in drawn.stdout + drawn.stderr

    sharded = run(tmp_path, "fastload.shard", "my data/", "--out", "my shards/")
    assert sharded.returncode == 0, sharded.stderr
    assert next_words(sharded)[-2:] == ["--data", "my shards"]
    manifest = json.loads((tmp_path / "my shards" / "manifest.json").read_text())
    assert sum(manifest["stored"].values()) == 102
    assert sum(manifest["cleaning"].values()) == 10

    cleaned = run(tmp_path, "fastload.clean", "my data/")
    assert cleaned.returncode == 0, cleaned.stderr
    assert next_words(cleaned) == [python_name(tmp_path), "-m", "fastload.shard", "my data"]
    assert "102 are fit to train on, 10 are not" in cleaned.stdout

    assert run(tmp_path, "fastload.verify", "my shards/").returncode == 0
    assert run(tmp_path, "fastload.inspect", "my shards/", "--size", "32").returncode == 0
    assert list(tmp_path.glob("*-inspect.html"))

    again = run(tmp_path, "fastload.shard", "my data/", "--out", "my shards/")
    assert again.returncode == 0
    assert "already holds these shards, complete" in again.stdout

    shard = next((tmp_path / "my shards").glob("train-*.tar"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    broken = run(tmp_path, "fastload.verify", "my shards/")
    assert broken.returncode == 1
    assert shard.name in broken.stdout + broken.stderr


@pytest.mark.parametrize("words", [["shard", "nowhere/"], ["verify", "."], ["inspect", "."]])
def test_a_wrong_folder_is_one_sentence(tmp_path, words: list[str]):
    done = run(tmp_path, f"fastload.{words[0]}", words[1])
    assert done.returncode == 1
    assert done.stderr.startswith(f"fastload.{words[0]}: ")
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_closed_output_ends_no_work(tmp_path):
    """As `command >&- 2>&-` in a shell, or a daemon without a terminal."""
    shards = numbered(tmp_path / "shards", {"train": 20}, classes=2)
    inspect = ["inspect", str(shards), "--size", "16"]
    for words in (["verify", str(shards)], inspect, ["clean", "nowhere/"]):
        command = shlex.join([sys.executable, "-m", f"fastload.{words[0]}", *words[1:]])
        for closed in (">&-", "2>&-", ">&- 2>&-"):
            done = subprocess.run(
                ["sh", "-c", f"{command} {closed}"], cwd=tmp_path, capture_output=True, text=True
            )
            assert done.returncode == (1 if words[0] == "clean" else 0), (words, closed, done)
            assert "Traceback" not in done.stdout + done.stderr
