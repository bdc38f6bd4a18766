"""Pictures that are not stored upright: the crop is that of the picture which Pillow turns."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from fastload.pixels import dali, native
from fastload.pixels.dali import DaliRenderer
from fastload.pixels.decode import Renderer, cpu_renderer, decode_image, render_upright
from fastload.pixels.jpeg import Encoded, Upright
from fastload.pixels.orientation import Turning, turned_upright
from tests.pictures import orientation_exif, photograph
from tests.pixels.test_decode import slow_crop
from tests.pixels.test_jpeg import boxes_of

SIZE = 48


def renderer_of(name: str) -> Renderer:
    if name == "native" and not native.is_available():
        pytest.skip(f"needs the native core: {native.why_unavailable()}")
    if name != "dali-cpu":
        return cpu_renderer(name)
    if dali.why_unavailable(device=None):
        pytest.skip(f"needs DALI: {dali.why_unavailable(device=None)}")
    return DaliRenderer()


BACKENDS = ["native", "libjpeg", pytest.param("dali-cpu", marks=pytest.mark.dali)]


def stored(orientation: int, kind: str = "JPEG", **options: Any) -> bytes:
    out = io.BytesIO()
    image = Image.fromarray(photograph(90, 130))
    image.save(out, kind, exif=orientation_exif(orientation), **options)
    return out.getvalue()


def upright_of(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 92, "subsampling": 0}),
        ("JPEG", {"quality": 92, "subsampling": 2, "restart_marker_blocks": 2}),
        ("JPEG", {"quality": 92, "progressive": True}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_every_orientation_gives_the_crop_of_the_upright_picture(name, kind, options):
    renderer = renderer_of(name)
    images, boxes, sizes, orientations, wholes = [], [], [], [], []
    for orientation in range(1, 9):
        data = stored(orientation, kind, **options)
        whole = upright_of(data)
        for box in boxes_of(*whole.shape[:2], seed=orientation):
            if min(box[2:]) > 8:
                images.append(data)
                boxes.append(box)
                sizes.append(whole.shape[:2])
                orientations.append(orientation)
                wholes.append(whole)
    flips = np.random.default_rng(0).random(len(images)) < 0.5
    upright = Upright(np.array(orientations, np.uint8), np.array(sizes, np.int32))
    joined = Encoded.join(images)
    encoded = Encoded(joined.buffer, joined.starts, joined.sizes, upright=upright)
    out = np.zeros((len(images), SIZE, SIZE, 3), np.uint8)
    assert render_upright(renderer, encoded, np.array(boxes, np.int32), flips, out) == {}
    for got, whole, box, flip, orientation in zip(
        out, wholes, boxes, flips, orientations, strict=True
    ):
        expected = slow_crop(whole, np.array(box), SIZE, bool(flip))
        assert abs(got.astype(int) - expected).mean() <= 0.6, (orientation, box, flip)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_whole_picture_is_turned_as_pillow_turns_it(orientation):
    data = stored(orientation, quality=92)
    pixels = turned_upright(decode_image(data), orientation)
    np.testing.assert_array_equal(pixels, upright_of(data))
    assert pixels.flags.c_contiguous


def test_a_tensor_is_turned_as_an_array_is():
    random = np.random.default_rng(1)
    pixels = random.integers(0, 256, (16, 5, 5, 3), dtype=np.uint8)
    overs, swaps = random.random(16) < 0.5, random.random(16) < 0.5
    turning = Turning(np.zeros((16, 4), np.int32), overs, overs, swaps)
    tensor = torch.from_numpy(pixels.copy())
    turning.finish(tensor)
    expected = pixels.copy()
    for i in range(16):
        square = pixels[i][::-1] if overs[i] else pixels[i]
        expected[i] = square.swapaxes(0, 1) if swaps[i] else square
    np.testing.assert_array_equal(tensor.numpy(), expected)
    turning.finish(pixels)
    np.testing.assert_array_equal(pixels, expected)
