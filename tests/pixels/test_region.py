"""What is cut out of a JPEG for other decoders has the pixels of the whole file, or is not used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastload import Augment, Loader, index
from fastload.pixels import dali, native, region
from fastload.pixels.dali import DaliRenderer, slice_batch
from fastload.pixels.decode import Renderer, cpu_renderer, decode_jpeg, render_upright
from fastload.pixels.jpeg import Box, Encoded, Upright, read_header
from fastload.pixels.region import region_of
from tests.pictures import flower_tree, jpeg, orientation_exif
from tests.pixels.test_seek import boxes_of, jpeg_of

pytestmark = pytest.mark.skipif(
    not native.is_available(), reason=f"needs the native core: {native.why_unavailable()}"
)

WHY_NOT = dali.why_unavailable()
BACKENDS = [
    "libjpeg",
    pytest.param(
        "dali-cpu", marks=[pytest.mark.dali, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)]
    ),
]
SIZE = 40


def renderer_of(name: str) -> Renderer:
    libjpeg = cpu_renderer("libjpeg")
    return DaliRenderer(fallback=libjpeg) if name == "dali-cpu" else libjpeg


def with_tables(
    images: list[bytes], tables: list[bytes], upright: Upright | None = None
) -> Encoded:
    """The images as a reader of data in place leaves them: tables behind them in one buffer."""
    joined = Encoded.join([*images, *tables])
    count = len(images)
    seek = Encoded(joined.buffer, joined.starts[count:], joined.sizes[count:])
    return Encoded(joined.buffer, joined.starts[:count], joined.sizes[:count], seek, upright)


def rendered(
    name: str, images: list[bytes], tables: list[bytes] | None, boxes: list[Box], **options: Any
) -> tuple[NDArray[np.uint8], dict[int, str]]:
    """The crops, every other one mirrored, and what failed."""
    encoded = with_tables(images, tables or [b""] * len(images), **options)
    out = np.zeros((len(images), SIZE, SIZE, 3), np.uint8)
    flips = np.arange(len(images)) % 2 == 1
    failures = render_upright(renderer_of(name), encoded, np.array(boxes, np.int32), flips, out)
    return out, failures


def turned(image: bytes, orientation: int) -> bytes:
    """The file with EXIF that says how to turn it."""
    exif = orientation_exif(orientation).tobytes()
    return image[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + image[2:]


@pytest.fixture
def cuts(monkeypatch: pytest.MonkeyPatch) -> list[Box]:
    """The boxes of the regions that the core cuts out."""
    cut: list[Box] = []
    cut_region = native.cut_region

    def noted(image: Any, table: Any, box: Box) -> tuple[bytes, Box]:
        found = cut_region(image, table, box)
        cut.append(box)
        return found

    monkeypatch.setattr(native, "cut_region", noted)
    return cut


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0", "4:4:0", "grey"])
@pytest.mark.parametrize("interval", [0, 1, 3, 7])
def test_a_crop_is_the_same_from_a_region_as_from_the_whole_file(
    name: str, sampling: str, interval: int, cuts: list[Box], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(region, "CUT_BELOW", 2.0)
    for height, width in ((90, 131), (47, 211)):
        plain = jpeg_of(height, width, sampling, interval)
        images, boxes, orientations, sizes = [], [], [], []
        for orientation in range(1, 9):
            size = (height, width) if orientation < 5 else (width, height)
            for box in boxes_of(*size, 6):
                images.append(turned(plain, orientation))
                boxes.append(box)
                orientations.append(orientation)
                sizes.append(size)
        tables = [native.seek_points(image, 24).table for image in images]
        upright = Upright(np.array(orientations, np.uint8), np.array(sizes, np.int32))
        whole, failures = rendered(name, images, None, boxes, upright=upright)
        assert failures == {}
        assert cuts == []
        found, failures = rendered(name, images, tables, boxes, upright=upright)
        assert failures == {}
        assert len(cuts) == sum(map(bool, tables))
        np.testing.assert_array_equal(found, whole)
        cuts.clear()


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:0", "grey"])
def test_a_region_is_a_jpeg_that_stands_alone(sampling: str):
    image = jpeg_of(200, 300, sampling)
    table = native.seek_points(image).table
    part, (top, left, height, width) = region_of(image, (60, 100, 50, 40), table)
    header = read_header(part)
    assert len(part) < len(image) / 4
    assert (header.frame, header.interleaved, header.precision) == (0xC0, True, 8)
    assert header.sampling == read_header(image).sampling
    assert header.restart_interval == -(-header.width // header.mcu_width)
    # Each table is written once, as in any file: nvJPEG reads these too.
    tables = [
        bytes(part[at : at + 5]) for at in range(len(part)) if part[at : at + 2] == b"\xff\xc4"
    ]
    assert len(tables) == len(set(tables)) == (2 if sampling == "grey" else 4)
    assert bytes(part[-2:]) == b"\xff\xd9"
    got = decode_jpeg(part)[top : top + height, left : left + width]
    np.testing.assert_array_equal(got, decode_jpeg(image)[60:110, 100:140])


def test_what_is_not_worth_cutting_or_cannot_be_cut_stays_whole(monkeypatch: pytest.MonkeyPatch):
    image = jpeg_of(100, 200)
    table, small = native.seek_points(image).table, (10, 20, 40, 60)
    nearly_all = (0, 0, 90, 190)
    assert region_of(image, small, table)[0] is not image
    assert region_of(image, nearly_all, table) == (image, nearly_all)
    assert region_of(image, small, table, whole_below=100 * 200 + 1) == (image, small)
    assert region_of(image, small, table, whole_below=100 * 200)[0] is not image
    assert region_of(image, small) == (image, small)
    progressive = jpeg(1, height=100, width=200, progressive=True)
    assert region_of(progressive, small, table) == (progressive, small)
    for box in ((-1, 0, 4, 4), (70, 0, 40, 4), (0, 0, 0, 4)):
        for seek in (table, b""):
            with pytest.raises(ValueError, match="box must lie inside 100 x 200"):
                region_of(image, box, seek, whole_below=1 << 20)
    monkeypatch.setenv("FASTLOAD_NATIVE", "0")
    native._load.cache_clear()
    try:
        assert region_of(image, small, table) == (image, small)
    finally:
        monkeypatch.undo()
        native._load.cache_clear()


def cut_off(image: bytes) -> bytes:
    return image[: len(image) // 2]


def without_its_end(image: bytes) -> bytes:
    return image[:-2]


def other_bits(image: bytes) -> bytes:
    at = len(image) * 2 // 3
    return image[:at] + bytes(byte ^ 0x5A for byte in image[at : at + 40]) + image[at + 40 :]


def without_huffman_tables(image: bytes) -> bytes:
    at = image.index(b"\xff\xc4")
    return image[: at + 5] + bytes(20) + image[at + 25 :]


def larger(image: bytes) -> bytes:
    at = image.index(b"\xff\xc0") + 5
    return image[:at] + b"\xff\xf0\xff\xf0" + image[at + 4 :]


def nothing(image: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("interval", [0, 20])
@pytest.mark.parametrize(
    "damage",
    [cut_off, without_its_end, other_bits, without_huffman_tables, larger, nothing, bytes],
)
def test_damage_has_the_reasons_that_it_has_in_a_whole_file(
    name: str, interval: int, damage: Callable[[bytes], bytes], cuts: list[Box]
):
    sound = jpeg_of(160, 320, interval=interval)
    table = native.seek_points(sound).table
    # The first two cover what is damaged; the last lies outside the picture.
    boxes = [(90, 0, 60, 300), (60, 10, 99, 250), (100, 200, 61, 30)]
    images = [damage(sound), damage(sound), sound]
    wholes, reasons = rendered(name, images, None, boxes)
    found, failures = rendered(name, images, [table] * 3, boxes)
    assert failures == reasons
    assert 2 in failures
    sane = [i for i in range(3) if i not in failures]
    np.testing.assert_array_equal(found[sane], wholes[sane])
    assert bool(cuts) == (damage is bytes)  # which changes nothing


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("kind", ["of another file", "other bytes", "cut off", "zeros"])
def test_a_wrong_table_changes_no_pixel(name: str, kind: str):
    image = jpeg_of(160, 320)
    table = native.seek_points(image).table
    other = jpeg_of(160, 328)
    wrong = {
        "of another file": native.seek_points(other).table,
        "other bytes": table[:30] + bytes(byte ^ 0xFF for byte in table[30:]),
        "cut off": table[: len(table) // 2],
        "zeros": bytes(len(table)),
    }[kind]
    boxes = boxes_of(160, 320)
    images = [image] * len(boxes)
    whole, _ = rendered(name, images, None, boxes)
    found, failures = rendered(name, images, [wrong] * len(boxes), boxes)
    assert failures == {}
    np.testing.assert_array_equal(found, whole)


@pytest.mark.dali
@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
def test_dali_is_sent_less_of_a_file_with_a_seek_table():
    image = jpeg_of(160, 320)
    table = native.seek_points(image).table
    boxes = np.array([(40, 60, 50, 70)] * 2, np.int32)
    slices = slice_batch(with_tables([image] * 2, [table, b""]), boxes, np.zeros(2, np.bool_))
    assert slices is not None
    assert slices.images[1].tobytes() == image
    assert len(slices.images[0]) < len(image) / 3
    header = read_header(slices.images[0].data)
    assert slices.decoded_bytes[0] == 3 * (header.height * header.width + 50 * 70)
    assert slices.decoded_bytes[1] == 3 * (160 * 320 + 50 * 70)


@pytest.mark.parametrize("name", BACKENDS)
def test_data_in_place_are_cut_and_every_batch_is_the_same(
    name: str, tmp_path: Path, cuts: list[Box], monkeypatch: pytest.MonkeyPatch
):
    flower_tree(tmp_path)
    for number, path in enumerate(sorted((tmp_path / "train").rglob("*.jpg"))):
        path.write_bytes(turned(jpeg(number, height=150, width=230), 1 + number % 8))
    assert index.main([str(tmp_path)]) == 0

    def epoch() -> list[tuple[Any, Any]]:
        augment = Augment.train(48)
        with Loader(tmp_path, batch_size=5, backend=name, augment=augment, seed=3) as loader:
            return [(images.numpy().copy(), labels.tolist()) for images, labels in loader]

    found = epoch()
    assert len(cuts) > 3
    cuts.clear()
    monkeypatch.setattr(region, "CUT_BELOW", 0.0)
    for (images, labels), (whole, same) in zip(found, epoch(), strict=True):
        np.testing.assert_array_equal(images, whole)
        assert labels == same
    assert cuts == []
