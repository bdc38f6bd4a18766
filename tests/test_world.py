"""A world knows its rank; only `detect` asks the environment."""

from __future__ import annotations

import pytest

from fastload.world import World, detect


def test_alone_by_default(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert detect() == World(rank=0, size=1)


def test_torchruns_environment_is_read(monkeypatch):
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert detect() == World(rank=2, size=4)


def test_a_rank_outside_its_world_is_refused():
    with pytest.raises(ValueError, match=r"rank must be in \[0, 1\], got 2"):
        World(rank=2, size=2)
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        World(size=0)
    with pytest.raises(ValueError, match=r"rank must be in \[0, \d\], got -1"):
        World(rank=-1, size=2)


@pytest.mark.parametrize(("rank", "size"), [("2", "2"), ("-1", "2"), ("x", "2"), ("0", "0")])
def test_a_wrong_environment_is_named(monkeypatch, rank, size):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(ValueError, match=f"got RANK={rank} and WORLD_SIZE={size}"):
        detect()


@pytest.mark.parametrize("value", ["1", 1.0, True, None])
def test_a_world_of_no_integers_is_refused(value):
    with pytest.raises(TypeError, match=f"size must be an integer at least 1, got {value!r}"):
        World(size=value)
    with pytest.raises(TypeError, match=rf"rank must be an integer in \[0, \d\], got {value!r}"):
        World(rank=value, size=4)
