"""Boxes lie inside the image and have torchvision's distributions; windows are its crops."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision import transforms
from torchvision.transforms import RandomResizedCrop

from fastload import randomness
from fastload.load.augment import Augment, RandomCrop
from fastload.load.box import (
    center_windows,
    random_resized_boxes,
    random_windows,
    resized_shorter_side,
)
from fastload.pixels import native
from fastload.pixels.decode import cpu_renderer
from fastload.pixels.jpeg import Encoded
from tests.distributions import ks_distance, ks_limit, same_distribution
from tests.pictures import encode, encoded, photograph

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


def assert_views(views: tuple[np.ndarray, np.ndarray], sizes: np.ndarray) -> None:
    boxes, windows = views
    assert_inside(boxes, sizes)
    assert windows.dtype == np.float64
    assert (windows[:, 2:] > 0).all()
    assert (windows[:, :2] >= -1e-6).all()  # what the core takes for rounding
    assert (windows[:, :2] + windows[:, 2:] <= boxes[:, 2:] + 1e-6).all()


def test_a_view_is_the_same_for_any_type_of_integer():
    sizes = np.array([[65_535, 40_000], [30_000, 65_535]])
    small = sizes.astype(np.int32)
    for one, two in zip(
        center_windows(sizes, size=224, fraction=0.001),
        center_windows(small, size=224, fraction=0.001),
        strict=True,
    ):
        np.testing.assert_array_equal(one, two)


def test_every_box_lies_inside_any_image():
    random = np.random.default_rng(0)
    sizes = np.exp(random.uniform(0, np.log(65535), (50_000, 2))).astype(np.int64)
    assert_inside(random_resized_boxes(sizes, uniforms(50_000, 22)), sizes)
    slots = uniforms(50_000, 2)
    for size in (16, 224):
        assert_views(random_windows(sizes, slots, size=size, fraction=224 / 256), sizes)
        assert_views(center_windows(sizes, size=size, fraction=224 / 256), sizes)


@pytest.mark.parametrize("value", [0.0, 1 - 2**-53])
@pytest.mark.parametrize("size", [(1, 1), (1, 65535), (65535, 1), (2, 3), (500, 375)])
def test_the_extremes_of_the_draws_stay_inside(size, value):
    sizes = repeated(size, 1)
    extreme = np.full((1, 22), value)
    assert_inside(random_resized_boxes(sizes, extreme), sizes)
    views = random_windows(sizes, extreme[:, :2], size=224, fraction=224 / 256)
    assert_views(views, sizes)


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


def test_an_image_of_the_resized_size_is_cropped_at_its_pixels():
    boxes, windows = center_windows(np.array([[256, 512]]), size=224, fraction=224 / 256)
    assert boxes.tolist() == [[16, 144, 224, 224]]
    assert windows.tolist() == [[0, 0, 224, 224]]
    boxes, windows = center_windows(np.array([[100, 100]]), size=100, fraction=1)
    assert boxes.tolist() == [[0, 0, 100, 100]]
    assert windows.tolist() == [[0, 0, 100, 100]]


def test_a_window_is_the_crop_of_the_resized_image_and_the_box_what_a_filter_reads():
    # 500 x 375 become 341 (rounded down) x 256; the crop begins at 58 (58.5, to even) and 16.
    boxes, windows = center_windows(np.array([[500, 375]]), size=224, fraction=224 / 256)
    scale = np.array([500 / 341, 375 / 256])
    absolute = windows[0] + [*boxes[0, :2], 0, 0]
    assert absolute == pytest.approx([*(np.array([58, 16]) * scale), *(224 * scale)], abs=1e-9)
    reach = 1.5 * scale  # beyond the window: one pixel of the output, less half, plus rounding
    assert (windows[0, :2] >= 0).all()
    assert (windows[0, :2] <= reach).all()
    assert (windows[0, :2] + windows[0, 2:] <= boxes[0, 2:]).all()
    assert (boxes[0, 2:] - windows[0, :2] - windows[0, 2:] <= reach).all()


def test_the_shorter_side_is_the_nearest_whole_number_at_each_size():
    sides = {size: resized_shorter_side(size, 224 / 256) for size in (32, 64, 96, 160, 224, 288)}
    assert sides == {32: 37, 64: 73, 96: 110, 160: 183, 224: 256, 288: 329}


def test_random_windows_reach_every_place_of_the_resized_image_equally_often():
    # 20 x 16 become 25 x 20; a crop of 10 has 16 x 11 places.
    boxes, windows = random_windows(
        repeated((20, 16), 8000), uniforms(8000, 2), size=10, fraction=0.5
    )
    places = (windows[:, :2] + boxes[:, :2]) * 1.25
    assert np.abs(places - np.rint(places)).max() < 1e-9
    tops, lefts = (np.bincount(np.rint(places[:, axis]).astype(int)) for axis in (0, 1))
    assert (len(tops), len(lefts)) == (16, 11)
    assert np.abs(tops / 8000 - 1 / 16).max() < 0.015
    assert np.abs(lefts / 8000 - 1 / 11).max() < 0.015


@pytest.mark.parametrize("fraction", [0, -0.5, 256 / 224, np.nan])
def test_a_crop_larger_than_the_image_is_refused(fraction):
    with pytest.raises(ValueError, match=rf"fraction must be in \(0, 1\], got {fraction}"):
        center_windows(np.array([[10, 10]]), size=8, fraction=fraction)


# Whole views against torchvision's transforms of PIL images.

VIEWED = [
    *((375, 500), (500, 333), (299, 301), (256, 256), (257, 256), (224, 224), (341, 256)),
    *((100, 100), (97, 61), (40, 300), (300, 40), (3, 7), (2, 2)),
    *((1, 1), (1, 50), (50, 1), (700, 701)),
]


def rendered(image: bytes, size: tuple[int, int], augment: Augment, name: str) -> NDArray[np.int16]:
    """One view of an image, as the loader renders it; int16."""
    choices = augment.draw(0, 0, np.arange(3, 4), np.array([size]))
    out = np.zeros((1, augment.size, augment.size, 3), np.uint8)
    arguments = (Encoded.join([image]), choices.boxes, choices.flips, out)
    assert cpu_renderer(name).render(*arguments, windows=choices.windows) == {}
    pixels: NDArray[np.int16] = out[0].astype(np.int16)
    return pixels


def torchvisions(image: bytes, size: int) -> np.ndarray:
    """Resize(256) and CenterCrop(224) of what Pillow decodes, and the like at other sizes."""
    shorter = {224: 256, 96: 110, 64: 73, 288: 329}[size]
    view = transforms.Compose([transforms.Resize(shorter), transforms.CenterCrop(size)])
    return np.asarray(view(Image.open(io.BytesIO(image)).convert("RGB")))


@pytest.mark.parametrize("size", [224, 96, 64, 288])
@pytest.mark.parametrize("kind", ["PNG", "4:4:4", "4:2:0"])
def test_the_evaluation_view_is_torchvisions(size: int, kind: str):
    for shape in VIEWED:
        pixels = photograph(*shape, spacing=5)  # strong edges
        image = (
            encoded(Image.fromarray(pixels), "PNG")
            if kind == "PNG"
            else encode(pixels, kind, shape[0] % 3)
        )
        difference = rendered(image, shape, Augment.eval(size), "libjpeg")
        difference -= torchvisions(image, size)
        assert np.abs(difference).max() <= 2, shape
        assert np.abs(difference).mean() <= 0.1, shape


@pytest.mark.skipif(not native.is_available(), reason=native.why_unavailable())
@pytest.mark.parametrize("size", [224, 288])
@pytest.mark.parametrize("kind", ["4:4:4", "4:2:2", "4:2:0", "grey"])
def test_the_evaluation_view_of_the_core_is_torchvisions(size: int, kind: str):
    for shape in VIEWED:
        image = encode(photograph(*shape, spacing=5), kind, shape[0] % 3)
        difference = rendered(image, shape, Augment.eval(size), "native")
        difference -= torchvisions(image, size)
        assert np.abs(difference).max() <= 2, shape
        assert np.abs(difference).mean() <= 0.3, shape


@pytest.mark.skipif(not native.is_available(), reason=native.why_unavailable())
def test_photographs_are_seen_as_torchvision_sees_them(flowers_dir):
    for path in sorted(flowers_dir.rglob("*.jpg"))[::200]:
        image = path.read_bytes()
        width, height = Image.open(io.BytesIO(image)).size
        for name in ("libjpeg", "native"):
            difference = rendered(image, (height, width), Augment.eval(224), name)
            difference -= torchvisions(image, 224)
            assert np.abs(difference).max() <= 1, (path, name)
            assert np.abs(difference).mean() <= 0.2, (path, name)


def test_a_random_crop_is_a_crop_of_torchvisions_resized_image():
    for shape in ((375, 500), (61, 97), (300, 300)):
        pixels = photograph(*shape)
        image = encoded(Image.fromarray(pixels), "PNG")
        found = rendered(image, shape, Augment(size=96, crop=RandomCrop(), flip=0.0), "libjpeg")
        resized = np.asarray(transforms.Resize(110)(Image.fromarray(pixels)))
        places = np.lib.stride_tricks.sliding_window_view(resized, (96, 96), axis=(0, 1))
        apart = np.abs(places.transpose(0, 1, 3, 4, 2).astype(np.int16) - found).max((2, 3, 4))
        assert apart.min() <= 1, shape
