"""Images of the classes that are mistaken for each other."""

from __future__ import annotations

import io

import pytest
import torch
from PIL import Image

from fastload import TarDataset
from tests.train.pictures import striped_shards
from train.confusion import find_confusions
from train.pictures import Pictures, thumbnail


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


def test_a_pair_has_pictures_of_both_classes_and_says_where_they_are(tmp_path):
    images = TarDataset(striped_shards(tmp_path / "shards"), "val")
    labels = torch.tensor(images.targets)
    answers = labels.clone()
    first, second = (torch.nonzero(labels == label)[:, 0] for label in (0, 1))
    answers[first[:3]] = 1
    answers[second[0]] = 2

    top, other = find_confusions(
        torch.arange(len(images)), answers, labels, Pictures(images, tmp_path)
    )

    assert (top.truth, top.answer) == (images.class_names[0], images.class_names[1])
    assert (top.count, top.of) == (3, 4)
    places = [picture.place for picture in top.mistaken]
    assert places == ["{}, sample {}".format(*images.locate(int(row))) for row in first[:3]]
    # Those that are answered right stand before those that are not.
    rows = [*second[1:], second[0]]
    assert [picture.place.split()[-1] for picture in top.typical] == [
        images.locate(int(row))[1] for row in rows
    ]
    assert len(other.mistaken) == 1
    assert all(picture.jpeg and not picture.link for picture in (*top.mistaken, *top.typical))
