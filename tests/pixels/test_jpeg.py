"""Slices decode to the very pixels of the whole; headers are read or refused, never guessed."""

from __future__ import annotations

import io
import struct
from contextlib import suppress

import numpy as np
import pytest
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from fastload.errors import CorruptImageError, ImageError, UnsupportedImageError
from fastload.pixels import native
from fastload.pixels.jpeg import (
    Encoded,
    frame_size,
    read_header,
    restart_interval_for,
    slice_jpeg,
)
from tests.odd import odd_files
from tests.pictures import encode, encoded, photograph, picture

SAMPLINGS = {"4:4:4": (1, 1), "4:2:2": (2, 1), "4:2:0": (2, 2), "grey": (1, 1)}


def decode(jpeg: bytes | memoryview) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(jpeg, "RGB")
    return pixels


def boxes_of(height: int, width: int, *, seed: int) -> list[tuple[int, int, int, int]]:
    """The whole, every corner, every edge, single pixels, and some inside."""
    boxes = [(0, 0, height, width)]
    for top in (0, height - 1):
        boxes += [(top, left, 1, 1) for left in (0, width - 1)]
    half_height, half_width = max(height // 2, 1), max(width // 2, 1)
    for top in (0, height - half_height):
        boxes += [(top, left, half_height, half_width) for left in (0, width - half_width)]
    rng = np.random.default_rng((seed, height, width))
    for _ in range(12):
        tall, wide = int(rng.integers(1, height + 1)), int(rng.integers(1, width + 1))
        top, left = int(rng.integers(0, height - tall + 1)), int(rng.integers(0, width - wide + 1))
        boxes.append((top, left, tall, wide))
    return boxes


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("size", [(33, 47), (64, 128), (97, 200), (160, 97)])
def test_a_slice_decodes_to_the_pixels_of_the_whole(sampling: str, size: tuple[int, int]):
    height, width = size
    mcu_width = 8 * SAMPLINGS[sampling][0]
    row = -(-width // mcu_width)
    divisors = [n for n in range(1, row + 1) if row % n == 0]
    sliced = 0
    for interval in divisors:
        jpeg = encode(photograph(height, width), sampling, interval)
        whole = decode(jpeg)
        for box in boxes_of(height, width, seed=interval):
            part, (top, left, tall, wide) = slice_jpeg(jpeg, box)
            sliced += part is not jpeg
            got = decode(part)[top : top + tall, left : left + wide]
            want = whole[box[0] : box[0] + tall, box[1] : box[1] + wide]
            np.testing.assert_array_equal(got, want)
            assert len(part) <= len(jpeg)
    assert sliced, "nothing was sliced: the test would pass on a function that does nothing"


@pytest.mark.skipif(not native.is_available(), reason="only the core writes 4:4:0 with restarts")
def test_a_slice_of_a_4_4_0_file_decodes_to_the_pixels_of_the_whole():
    pixels = photograph(97, 200)
    plain = simplejpeg.encode_jpeg(pixels, 90, "RGB", "440")
    jpeg = native.transcode_jpeg(plain, interval_pixels=40).jpeg
    header = read_header(jpeg)
    assert (header.sampling[0], header.restart_interval) == ((1, 2), 5)
    whole = decode(plain)
    for box in boxes_of(97, 200, seed=3):
        part, (top, left, tall, wide) = slice_jpeg(jpeg, box)
        got = decode(part)[top : top + tall, left : left + wide]
        want = whole[box[0] : box[0] + tall, box[1] : box[1] + wide]
        np.testing.assert_array_equal(got, want)


def test_a_slice_holds_only_what_covers_the_box():
    jpeg = encode(photograph(400, 640), "4:4:4", 8)
    part, box = slice_jpeg(jpeg, (200, 320, 8, 8))
    header = read_header(part)
    assert (header.height, header.width) == (8, 64)
    assert box == (0, 0, 8, 8)
    assert len(part) < len(jpeg) / 30


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_jpeg_without_fitting_intervals_stays_whole(sampling: str):
    pixels = photograph(80, 112)
    row = -(-112 // (8 * SAMPLINGS[sampling][0]))
    for interval in (0, row + 1, row - 1):
        jpeg = encode(pixels, sampling, interval)
        assert slice_jpeg(jpeg, (0, 0, 8, 8)) == (jpeg, (0, 0, 8, 8))


def test_a_progressive_jpeg_stays_whole():
    out = io.BytesIO()
    Image.fromarray(photograph(64, 64)).save(out, "JPEG", progressive=True, restart_marker_blocks=2)
    part, box = slice_jpeg(out.getvalue(), (0, 0, 8, 8))
    assert bytes(part) == out.getvalue()
    assert box == (0, 0, 8, 8)


def test_restart_markers_out_of_sequence_stay_whole():
    jpeg = bytearray(encode(photograph(64, 128), "4:4:4", 8))
    jpeg[jpeg.index(b"\xff\xd1") + 1] = 0xD5
    part, _ = slice_jpeg(bytes(jpeg), (0, 0, 8, 8))
    assert bytes(part) == bytes(jpeg)


def test_a_box_outside_the_image_is_refused():
    jpeg = encode(photograph(40, 60))
    for box in [(-1, 0, 4, 4), (0, 0, 41, 4), (0, 57, 4, 4), (0, 0, 0, 4)]:
        with pytest.raises(ValueError, match="box must lie inside 40 x 60"):
            slice_jpeg(jpeg, box)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_header_agrees_with_pillow(sampling: str):
    jpeg = encode(photograph(50, 70), sampling, 3)
    header = read_header(jpeg)
    opened = Image.open(io.BytesIO(jpeg))
    assert (header.width, header.height) == opened.size
    assert header.sampling[0] == SAMPLINGS[sampling]
    assert len(header.sampling) == len(opened.getbands())
    assert header.restart_interval == 3
    assert (header.frame, header.precision, header.interleaved) == (0xC0, 8, True)


def test_every_truncation_of_a_header_is_refused():
    jpeg = encode(photograph(24, 24))
    for length in range(read_header(jpeg).scan_offset):
        said = "does not begin with FF D8" if length < 2 else "is cut off"
        with pytest.raises(CorruptImageError, match=said):
            read_header(jpeg[:length])


def test_every_byte_corruption_gives_a_slice_or_a_reason():
    jpeg = encode(photograph(24, 32), "4:2:0", 1)
    for offset in range(len(jpeg)):
        for value in (0x00, 0xFF, jpeg[offset] ^ 0x10):
            broken = jpeg[:offset] + bytes([value]) + jpeg[offset + 1 :]
            try:
                part, _ = slice_jpeg(broken, (0, 0, 8, 8))
            except (ImageError, ValueError):
                continue
            assert len(part) <= len(broken)


def test_a_height_left_open_is_unsupported():
    jpeg = bytearray(encode(photograph(24, 24)))
    struct.pack_into(">H", jpeg, read_header(bytes(jpeg)).size_offset, 0)
    with pytest.raises(UnsupportedImageError, match="DNL"):
        read_header(bytes(jpeg))


@pytest.mark.parametrize(("mcu_width", "usual"), [(8, 64), (16, 96)])
def test_the_interval_is_the_widest_divisor_near_the_usual_width(mcu_width: int, usual: int):
    for width in range(1, 2000):
        row = -(-width // mcu_width)
        interval = restart_interval_for(width, mcu_width)
        spans = [n for n in range(1, row + 1) if usual <= 2 * n * mcu_width <= 3 * usual]
        fitting = [n for n in spans if row % n == 0]
        if row * mcu_width <= usual:
            assert interval == row
        else:
            assert interval == (max(fitting) if fitting else usual // mcu_width)


def test_encoded_images_are_views_of_one_buffer():
    images = [b"one", b"", b"three"]
    encoded = Encoded.join(images)
    assert [bytes(encoded[index]) for index in range(len(encoded))] == images


def test_the_size_alone_is_that_of_the_header_for_every_odd_file_and_wherever_it_is_cut():
    """Pillow is asked too: it reads the same frame header."""
    sizes = 0
    for odd in odd_files():
        found = frame_size(odd.data)
        try:
            header = read_header(odd.data)
        except (CorruptImageError, UnsupportedImageError):
            continue
        assert found == (header.height, header.width), odd.name
        refused = suppress(UnidentifiedImageError, Image.DecompressionBombError)
        with refused, Image.open(io.BytesIO(odd.data)) as image:
            if image.format == "JPEG":
                assert found == (image.height, image.width), odd.name
        sizes += 1
    assert sizes > 20
    sound = encoded(picture(1, height=40, width=56))
    begin = read_header(sound).size_offset
    for length in range(len(sound)):
        expected = (40, 56) if length >= begin + 4 else None
        assert frame_size(sound[:length]) == expected, length
    assert frame_size(b"") is frame_size(b"\xff\xd8") is frame_size(bytes(100)) is None
