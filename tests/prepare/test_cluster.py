"""Clusters that cannot be joined: one sentence each, within a limit."""

from __future__ import annotations

import socket
import subprocess
import sys
from importlib import util
from pathlib import Path

import pytest

from fastload import index, shard
from fastload.errors import BackendUnavailableError, FastloadError
from fastload.prepare import cluster
from fastload.prepare.cluster import is_address, joined
from tests.pictures import flower_tree

needs_ray = pytest.mark.skipif(
    util.find_spec("ray") is None, reason="needs ray: pip install -e '.[ray]' in the checkout"
)


@pytest.mark.parametrize("text", ["auto", "10.0.0.1:6379", "head:6379", "[::1]:6379"])
def test_what_is_an_address(text: str):
    assert is_address(text)


@pytest.mark.parametrize("text", ["", "head", "head:", ":6379", "ray://head:10001", "head:port"])
def test_what_is_no_address(text: str):
    assert not is_address(text)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--address", "auto"], "--address is of a cluster; add --engine ray, or leave it out"),
        (["--engine", "ray", "--address", "ray://a:1"], "--address must be HOST:PORT or auto"),
        (["--engine", "ray", "--workers", "2"], "--workers is of one machine"),
        (["--engine", "spark"], "--engine must be one of local, ray, got 'spark'"),
    ],
)
@pytest.mark.parametrize("door", [shard, index], ids=["shard", "index"])
def test_options_that_make_no_sense_are_one_sentence(door, options, words, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        door.main([str(tmp_path), *options])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_without_ray_the_sentence_names_the_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # as `import` has what is not there
    monkeypatch.setattr(cluster, "find_spec", lambda _: None)
    with (
        pytest.raises(BackendUnavailableError, match=r"ray is not installed.* pip install .*ray"),
        joined("auto"),
    ):
        pass


@needs_ray
def test_nothing_is_written_where_no_cluster_answers(tmp_path: Path, capsys):
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        root, out = flower_tree(tmp_path / "data"), tmp_path / "shards"
        words = [str(root), "--out", str(out), "--engine", "ray", "--address", address]
        assert shard.main(words) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"no Ray cluster answers at {address} (Connection refused); start one with" in last
    assert not out.exists()


@needs_ray
def test_the_address_in_the_environment_is_tried(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with (
        pytest.raises(FastloadError, match=r"no Ray cluster answers at 127\.0\.0\.1:1"),
        joined("auto"),
    ):
        pass


@needs_ray
@pytest.mark.slow
def test_a_server_that_is_no_cluster_is_given_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", 3.0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with (
            pytest.raises(FastloadError, match=f"answers at {address} within 3 seconds; start"),
            joined(address),
        ):
            pass


def test_the_import_of_the_commands_does_not_import_ray():
    program = "import sys, fastload.shard, fastload.index; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
