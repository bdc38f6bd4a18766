"""Images of the classes that are mistaken for each other."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from fastload import TarDataset
from tests.train.pictures import striped_shards
from train.confusion import thumbnail


def test_a_thumbnail_is_a_small_jpeg_of_its_sample(tmp_path):
    images = TarDataset(striped_shards(tmp_path / "shards"), "val")

    jpeg = thumbnail(images, 3)

    assert jpeg is not None
    small = Image.open(io.BytesIO(jpeg))
    assert (small.format, small.size) == ("JPEG", (48, 48))
    large, _ = images[3]
    assert small.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0)) == pytest.approx(
        large.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0)), abs=4
    )


def test_a_sample_that_cannot_be_read_has_no_thumbnail(tmp_path):
    images = TarDataset(striped_shards(tmp_path / "shards"), "val")
    (tmp_path / "shards" / "val-000000.tar").unlink()

    assert thumbnail(images, 3) is None
