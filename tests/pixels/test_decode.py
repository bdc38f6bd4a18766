"""Whatever decodes, the pixels are those of libjpeg-turbo or Pillow, or there is a reason."""

from __future__ import annotations

import io
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms.v2 import functional

from fastload.errors import CorruptImageError, ImageError
from fastload.pixels import native
from fastload.pixels.decode import (
    CpuRenderer,
    Renderer,
    cpu_renderer,
    decode_image,
    decode_jpeg,
    render_upright,
    resize_image,
)
from fastload.pixels.jpeg import Encoded, Upright
from fastload.pixels.orientation import turned_upright
from tests.pictures import encode, photograph, picture
from tests.pixels.test_jpeg import boxes_of

RENDERERS = ["libjpeg", *(["native"] if native.is_available() else [])]


def save(image: Image.Image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def slow_crop(
    pixels: NDArray[np.uint8], box: NDArray[np.int32], size: int, flip: bool
) -> NDArray[np.uint8]:
    """The obvious reference: crop, torchvision's antialiased resize, flip."""
    top, left, height, width = box.tolist()
    crop = torch.from_numpy(pixels[top : top + height, left : left + width].copy()).permute(2, 0, 1)
    resized = functional.resize(crop, [size, size], antialias=True)
    square: NDArray[np.uint8] = (resized.flip(-1) if flip else resized).permute(1, 2, 0).numpy()
    return square


@pytest.mark.parametrize("name", RENDERERS)
@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0", "grey"])
def test_a_rendered_crop_is_the_box_resized_and_flipped(name: str, sampling: str):
    height, width, size = 150, 210, 64
    boxes = np.array([box for box in boxes_of(height, width, seed=1) if min(box[2:]) > 8], np.int32)
    flips = np.arange(len(boxes)) % 2 == 1
    for interval in (0, 1):
        jpeg = encode(photograph(height, width), sampling, interval)
        whole = simplejpeg.decode_jpeg(jpeg, "RGB")
        out = np.zeros((len(boxes), size, size, 3), np.uint8)
        failures = cpu_renderer(name).render(Encoded.join([jpeg] * len(boxes)), boxes, flips, out)
        assert failures == {}
        for got, box, flip in zip(out, boxes, flips, strict=True):
            difference = got.astype(int) - slow_crop(whole, box, size, bool(flip))
            assert abs(difference).mean() <= 0.5
            assert abs(difference.mean()) <= 0.25


def windows_in(
    height: int, width: int, size: int, count: int
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Random windows of a picture, and boxes that hold what a filter reads around them."""
    random = np.random.default_rng((height, width, size))
    sides = random.uniform(0.05, 1, (count, 2)) * (height, width)
    corners = random.uniform(0, 1, (count, 2)) * ((height, width) - sides)
    reach = np.maximum(sides / size, 1) + 1
    first = np.maximum(np.floor(corners - reach), 0)
    end = np.minimum(np.ceil(corners + sides + reach), (height, width))
    windows = np.concatenate([corners, sides], axis=1)
    return windows, np.concatenate([first, end - first], axis=1).astype(np.int32)


@pytest.mark.parametrize("name", RENDERERS)
@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0", "grey"])
def test_a_window_is_what_pillow_resizes_of_the_whole_picture(name: str, sampling: str):
    height, width, size = 170, 230, 48
    windows, boxes = windows_in(height, width, size, 24)
    jpeg = encode(photograph(height, width), sampling, 1)
    whole = Image.fromarray(simplejpeg.decode_jpeg(jpeg, "RGB"))
    out = np.zeros((24, size, size, 3), np.uint8)
    flips, images = np.arange(24) % 2 == 1, Encoded.join([jpeg] * 24)
    within = windows - np.pad(boxes[:, :2], ((0, 0), (0, 2)))
    assert cpu_renderer(name).render(images, boxes, flips, out, None, within) == {}
    for got, (top, left, tall, wide), flip in zip(out, windows.tolist(), flips, strict=True):
        edges = (left, top, min(left + wide, width), min(top + tall, height))
        want = np.asarray(whole.resize((size, size), Image.Resampling.BILINEAR, box=edges))
        difference = got.astype(int) - (want[:, ::-1] if flip else want)
        assert abs(difference).max() <= 2
        assert abs(difference).mean() <= 0.25


@pytest.mark.parametrize("name", RENDERERS)
def test_a_window_that_is_the_box_changes_nothing(name: str):
    images = [encode(photograph(90, 120), "4:2:0", 1), save(picture(3), "PNG")]
    boxes = np.array([[5, 7, 60, 80], [0, 0, 48, 64]], np.int32)
    windows = np.array([[0, 0, 60, 80], [0, 0, 48, 64]], np.float64)
    plain, windowed = np.zeros((2, 2, 33, 33, 3), np.uint8)
    for out, given in ((plain, None), (windowed, windows)):
        arguments = (Encoded.join(images), boxes, np.array([False, True]), out, None, given)
        assert cpu_renderer(name).render(*arguments) == {}
    assert np.array_equal(plain, windowed)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("name", RENDERERS)
def test_a_window_of_a_turned_picture_is_that_of_the_upright_one(name: str, kind: str):
    height, width, size = 70, 110, 24
    pixels = photograph(height, width)
    options = {"subsampling": "4:4:4", "quality": 95} if kind == "JPEG" else {}
    image = save(Image.fromarray(pixels), kind, **options)
    pixels = np.asarray(Image.open(io.BytesIO(image)))
    for orientation in range(1, 9):
        upright = turned_upright(pixels, orientation)
        sides = upright.shape[0], upright.shape[1]
        windows, boxes = windows_in(*sides, size, 6)
        encoded = replace(
            Encoded.join([image] * 6),
            upright=Upright(
                np.full(6, orientation, np.uint8), np.tile(np.array(sides, np.int32), (6, 1))
            ),
        )
        out, flips = np.zeros((6, size, size, 3), np.uint8), np.arange(6) % 2 == 1
        within = windows - np.pad(boxes[:, :2], ((0, 0), (0, 2)))
        assert render_upright(cpu_renderer(name), encoded, boxes, flips, out, None, within) == {}
        for got, (top, left, tall, wide), flip in zip(out, windows.tolist(), flips, strict=True):
            edges = (left, top, left + wide, top + tall)
            want = np.asarray(
                Image.fromarray(upright).resize((size, size), Image.Resampling.BILINEAR, box=edges)
            )
            assert abs(got.astype(int) - (want[:, ::-1] if flip else want)).max() <= 2, orientation


@pytest.mark.parametrize("name", RENDERERS)
def test_a_bad_image_fails_alone_and_with_a_reason(name: str):
    good = encode(photograph(60, 80), "4:2:0", 1)
    images = [good, good[: len(good) // 2], b"", b"garbage", good]
    out = np.zeros((5, 32, 32, 3), np.uint8)
    boxes = np.tile(np.array([0, 0, 60, 80], np.int32), (5, 1))
    failures = cpu_renderer(name).render(Encoded.join(images), boxes, np.zeros(5, bool), out)
    assert sorted(failures) == [1, 2, 3]
    assert all(failures.values())
    np.testing.assert_array_equal(out[0], out[4])


@pytest.mark.parametrize("name", RENDERERS)
def test_a_box_outside_the_image_is_a_reason_not_a_crash(name: str):
    jpeg = encode(photograph(60, 80))
    png = save(Image.fromarray(photograph(60, 80)), "PNG")
    boxes = np.tile(np.array([10, 10, 60, 80], np.int32), (2, 1))
    out = np.zeros((2, 32, 32, 3), np.uint8)
    failures = cpu_renderer(name).render(Encoded.join([jpeg, png]), boxes, np.zeros(2, bool), out)
    assert sorted(failures) == [0, 1]


@pytest.mark.parametrize("name", RENDERERS)
def test_what_one_decoder_refuses_goes_to_the_next(name: str):
    image = Image.fromarray(photograph(40, 56))
    images = [
        save(image, "JPEG", progressive=True, quality=95),
        save(image.convert("CMYK"), "JPEG", quality=95),
        save(image.convert("L"), "JPEG", quality=95),
        save(image, "PNG"),
        save(image, "WEBP", lossless=True),
    ]
    box = np.array([4, 6, 32, 40], np.int32)
    out = np.zeros((len(images), 24, 24, 3), np.uint8)
    failures = cpu_renderer(name).render(
        Encoded.join(images), np.tile(box, (len(images), 1)), np.zeros(len(images), bool), out
    )
    assert failures == {}
    for data, got in zip(images, out, strict=True):
        pixels = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
        assert abs(got.astype(int) - slow_crop(pixels, box, 24, False)).mean() <= 0.5


def test_decoding_a_box_gives_the_box_of_the_whole():
    jpeg = encode(photograph(90, 130), "4:2:0", 1)
    whole = decode_jpeg(jpeg)
    np.testing.assert_array_equal(whole, np.array(Image.open(io.BytesIO(jpeg))))
    for top, left, height, width in boxes_of(90, 130, seed=2):
        got = decode_jpeg(jpeg, box=(top, left, height, width))
        np.testing.assert_array_equal(got, whole[top : top + height, left : left + width])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_every_kind_of_image_decodes_as_pillow_does(kind: str):
    data = save(Image.fromarray(photograph(30, 40)), kind)
    want = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(decode_image(data), want)


def test_awkward_files_give_pixels_or_a_reason(awkward_dir):
    decoded: list[str] = []
    refused: dict[str, str] = {}
    for path in sorted(awkward_dir.iterdir()):
        if path.suffix == ".tsv":
            continue
        try:
            pixels = decode_image(path.read_bytes())
        except ImageError as error:
            refused[path.name] = error.reason
        else:
            assert pixels.dtype == np.uint8
            assert pixels.shape[2] == 3
            decoded.append(path.name)
    assert len(decoded) > 100
    assert all(refused.values())


def test_a_header_that_claims_too_many_pixels_is_refused():
    jpeg = bytearray(encode(photograph(24, 24)))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = b"\xff\xff\xff\xff"
    with pytest.raises(CorruptImageError, match="65535 x 65535"):
        decode_jpeg(bytes(jpeg))


def test_resizing_is_torchvisions_antialiased_resize():
    pixels = photograph(123, 77)
    for size in (1, 16, 77, 224):
        for flip in (False, True):
            want = slow_crop(pixels, np.array([0, 0, 123, 77]), size, flip)
            # torchvision rounds otherwise where the processor has no AVX2: by one grey at most.
            difference = resize_image(pixels, size, flip=flip).astype(int) - want
            assert abs(difference).max() <= 1
            assert abs(difference).mean() <= 0.5


def test_the_renderer_is_chosen_by_name():
    assert cpu_renderer("libjpeg").name == "libjpeg"
    with pytest.raises(ValueError, match="name must be auto, native or libjpeg, got 'fast'"):
        cpu_renderer("fast")


def test_without_the_core_the_choice_says_once_that_it_is_slower():
    program = (
        "import warnings; warnings.simplefilter('error')\n"
        "from fastload import errors\n"
        "from fastload.pixels import decode\n"
        "try: decode.cpu_renderer('native')\n"
        "except errors.BackendUnavailableError as error: print(error)\n"
        "try: decode.cpu_renderer('auto')\n"
        "except RuntimeWarning as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"FASTLOAD_NATIVE": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    native_error, slower = done.stdout.splitlines()
    assert "FASTLOAD_NATIVE" in native_error
    assert "several times slower" in slower


def test_both_renderers_keep_the_protocol():
    renderers: list[Renderer] = [CpuRenderer(core=False), CpuRenderer(core=True)]
    assert [renderer.name for renderer in renderers] == ["libjpeg", "native"]


def test_what_pillow_warns_of_is_no_error_in_any_of_several_threads():
    file = io.BytesIO()
    picture = Image.new("P", (300, 300))
    picture.save(file, "PNG", transparency=bytes(range(256)))  # Pillow warns when it converts it
    with warnings.catch_warnings(), ThreadPoolExecutor(8) as pool:
        warnings.simplefilter("error")
        shapes = {pixels.shape for pixels in pool.map(decode_image, [file.getvalue()] * 400)}
        assert warnings.filters[0][0] == "error"
    assert shapes == {(300, 300, 3)}
