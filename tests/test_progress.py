"""Progress: a line now and then where there is no terminal, and nothing that fails."""

from __future__ import annotations

import time

import pytest

from fastload import progress
from fastload.progress import Progress


def test_it_says_how_far_it_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    with Progress(1000, "images", done=100) as bar:
        time.sleep(0.01)
        bar.add(400, note="3 set aside")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("500 of 1,000 images, ")
    assert "/s, " in line
    assert line.endswith(" s left, 3 set aside")


def test_it_is_quiet_for_ten_seconds(capsys: pytest.CaptureFixture[str]):
    with Progress(10, "images") as bar:
        for _ in range(10):
            bar.add()
    assert capsys.readouterr().err == ""
