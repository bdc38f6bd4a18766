"""Thumbnails of files that were set aside: of what is there and whole, and of nothing else."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from fastload.prepare.thumbnails import SIDE, draw_thumbnails
from tests.odd import odd_files
from tests.pictures import encoded, jpeg, picture

pytestmark = pytest.mark.filterwarnings("ignore:fastload's native core")


def test_files_and_members_of_tars_become_small_jpegs(tmp_path: Path):
    (tmp_path / "rose").mkdir()
    (tmp_path / "rose" / "a.png").write_bytes(encoded(picture(1, height=300, width=150), "PNG"))
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for name, data in (("x/1.jpg", jpeg(1)), ("x/1.jpg", jpeg(2)), ("2.jpg", b"")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    made = draw_thumbnails(tmp_path, ["rose/a.png", "t.tar/x/1.jpg", "t.tar/2.jpg", "gone.jpg"])
    assert list(made) == ["rose/a.png", "t.tar/x/1.jpg"]
    sizes = [Image.open(io.BytesIO(each)).size for each in made.values()]
    assert sizes == [(SIDE // 2, SIDE), (64, 48)]


def test_paths_that_lead_elsewhere_are_not_followed(tmp_path: Path):
    root = tmp_path / "data"
    root.mkdir()
    (tmp_path / "secret.jpg").write_bytes(jpeg(1))
    os.mkfifo(root / "pipe.jpg")
    paths = ["../secret.jpg", str(tmp_path / "secret.jpg"), "a/../../secret.jpg", "pipe.jpg"]
    assert draw_thumbnails(root, [*paths, "", "\0", "x" * 5000, "./pipe.jpg", "."]) == {}


@pytest.mark.slow
def test_odd_files_end_nothing(tmp_path: Path):
    files = odd_files()
    for odd in files:
        (tmp_path / odd.name).write_bytes(odd.data)
    made = draw_thumbnails(tmp_path, [odd.name for odd in files])
    assert {odd.name for odd in files if not odd.reason} <= set(made)
    for data in made.values():
        assert max(Image.open(io.BytesIO(data)).size) <= SIDE
