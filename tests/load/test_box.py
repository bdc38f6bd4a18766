"""Boxes lie inside the image and have torchvision's distributions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import RandomResizedCrop

from fastload import randomness
from fastload.load.box import center_boxes, random_boxes, random_resized_boxes
from tests.distributions import ks_distance, ks_limit, same_distribution

SIZES = [(375, 500), (500, 333), (64, 640), (640, 64), (224, 224), (7, 5)]


def uniforms(count: int, slots: int, seed: int = 0) -> np.ndarray:
    return randomness.uniforms(seed, 0, np.arange(count), slots, stream=randomness.CROP)


def repeated(size: tuple[int, int], count: int) -> np.ndarray:
    return np.tile(np.array(size, np.int64), (count, 1))


def assert_inside(boxes: np.ndarray, sizes: np.ndarray) -> None:
    assert boxes.dtype == np.int32
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] >= 1).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= sizes).all()


def test_every_box_lies_inside_any_image():
    random = np.random.default_rng(0)
    sizes = np.exp(random.uniform(0, np.log(65535), (50_000, 2))).astype(np.int64)
    assert_inside(random_resized_boxes(sizes, uniforms(50_000, 22)), sizes)
    assert_inside(random_boxes(sizes, uniforms(50_000, 2), fraction=224 / 256), sizes)
    assert_inside(center_boxes(sizes, fraction=224 / 256), sizes)


@pytest.mark.parametrize("value", [0.0, 1 - 2**-53])
@pytest.mark.parametrize("size", [(1, 1), (1, 65535), (65535, 1), (2, 3), (500, 375)])
def test_the_extremes_of_the_draws_stay_inside(size, value):
    sizes = repeated(size, 1)
    extreme = np.full((1, 22), value)
    assert_inside(random_resized_boxes(sizes, extreme), sizes)
    assert_inside(random_boxes(sizes, extreme[:, :2], fraction=224 / 256), sizes)


@pytest.mark.parametrize("size", SIZES)
def test_random_resized_boxes_have_torchvisions_distribution(size):
    count = 3000
    torch.manual_seed(1)
    image = torch.empty(3, *size)
    theirs = np.array(
        [RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(count)]
    )
    ours = random_resized_boxes(repeated(size, 2 * count), uniforms(2 * count, 22))
    for column in range(4):
        assert same_distribution(ours[:, column], theirs[:, column])
    assert same_distribution(ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3])
    assert same_distribution(ours[:, 3] / ours[:, 2], theirs[:, 3] / theirs[:, 2])


def test_the_statistical_test_notices_a_wrong_distribution():
    sizes = repeated((375, 500), 3000)
    right = random_resized_boxes(sizes, uniforms(3000, 22))
    wrong = random_resized_boxes(sizes, uniforms(3000, 22, seed=1), area=(0.12, 1.0))
    areas = [boxes[:, 2] * boxes[:, 3] for boxes in (right, wrong)]
    assert ks_distance(*areas) > ks_limit(3000, 3000)


@pytest.mark.parametrize("size", [(10, 1000), (1000, 10)])
def test_where_no_attempt_fits_the_box_is_torchvisions_fallback(size):
    image = torch.empty(3, *size)
    theirs = RandomResizedCrop.get_params(image, [1.0, 1.0], [3 / 4, 4 / 3])
    ours = random_resized_boxes(repeated(size, 1), uniforms(1, 22), area=(1.0, 1.0))
    assert ours[0].tolist() == list(theirs)


def test_a_center_box_is_the_middle():
    assert center_boxes(np.array([[256, 512]]), fraction=224 / 256).tolist() == [
        [16, 144, 224, 224]
    ]
    assert center_boxes(np.array([[100, 100]]), fraction=1).tolist() == [[0, 0, 100, 100]]


def test_random_boxes_reach_every_place_equally_often():
    boxes = random_boxes(repeated((20, 16), 8000), uniforms(8000, 2), fraction=0.5)
    assert set(boxes[:, 2]) == set(boxes[:, 3]) == {8}
    tops, lefts = (np.bincount(boxes[:, axis]) for axis in (0, 1))
    assert (len(tops), len(lefts)) == (13, 9)
    assert np.abs(tops / 8000 - 1 / 13).max() < 0.015
    assert np.abs(lefts / 8000 - 1 / 9).max() < 0.015


@pytest.mark.parametrize("fraction", [0, -0.5, 256 / 224, np.nan])
def test_a_crop_larger_than_the_image_is_refused(fraction):
    with pytest.raises(ValueError, match=rf"fraction must be in \(0, 1\], got {fraction}"):
        center_boxes(np.array([[10, 10]]), fraction=fraction)
