"""Progress: a line now and then where there is no terminal, and nothing that fails."""

from __future__ import annotations

from itertools import pairwise

import pytest

from fastload.console import progress
from fastload.console.progress import Progress


class Clock:
    """A time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_it_says_how_far_it_is(capsys: pytest.CaptureFixture[str]):
    with Progress(1000, "images", done=100, quiet_seconds=0) as bar:
        bar.add(400, note="3 set aside")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("500 of 1,000 images, ")
    assert "/s, " in line
    assert line.endswith(" s left, 3 set aside")


def test_it_is_quiet_for_eight_seconds(capsys: pytest.CaptureFixture[str], clock: Clock):
    with Progress(100, "images") as bar:
        for _ in range(30):
            clock.now += 0.25
            bar.add()
        assert capsys.readouterr().err == ""
        clock.now += 0.25
        bar.add()
    assert capsys.readouterr().err == "31 of 100 images, 4/s, 17 s left\n"


@pytest.mark.parametrize("between", [0.25, 3.0, 4.0, 9.0, 10.0])
def test_no_ten_seconds_pass_without_a_word(
    capsys: pytest.CaptureFixture[str], clock: Clock, between: float
):
    said = [clock.now]
    with Progress(100, "batches") as bar:
        for _ in range(100):
            clock.now += between
            bar.add()
            if capsys.readouterr().err:
                said.append(clock.now)
    assert max(later - former for former, later in pairwise(said)) <= 10.0


def test_it_names_what_is_under_way(capsys: pytest.CaptureFixture[str], clock: Clock):
    with Progress(30, "batches", what="epoch 3", quiet_seconds=0) as bar:
        clock.now += 2.0
        bar.add(note="loss 1.5")
    assert capsys.readouterr().err == "epoch 3: 1 of 30 batches, 0.5/s, 58 s left, loss 1.5\n"


def test_it_can_be_silent(capsys: pytest.CaptureFixture[str]):
    with Progress(10, "images", quiet_seconds=0, silent=True) as bar:
        bar.add()
    assert capsys.readouterr().err == ""
