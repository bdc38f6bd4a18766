"""How a picture is turned: what Pillow's `exif_transpose` does, for thousands of odd headers."""

from __future__ import annotations

import io
import random
import struct
import warnings

import pytest
from PIL import Image, ImageOps

from fastload.pixels.orientation import orientation_of_jpeg
from tests.pictures import PILLOW, TURNS_BY_XMP, jpeg

XMP_NAME = b"http://ns.adobe.com/xap/1.0/\0"
SOUND = jpeg(0, height=8, width=16)
TAG = 0x0112


def app1(body: bytes) -> bytes:
    return b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body


def with_blocks(*bodies: bytes) -> bytes:
    return SOUND[:2] + b"".join(app1(body) for body in bodies) + SOUND[2:]


def exif(order: str, entries: list[bytes], *, at: int = 8, magic: int = 42) -> bytes:
    mark = b"II" if order == "<" else b"MM"
    head = b"Exif\0\0" + mark + struct.pack(f"{order}HL", magic, at)
    directory = struct.pack(f"{order}H", len(entries)) + b"".join(entries) + bytes(4)
    return head + bytes(at - 8) + directory


def entry(order: str, tag: int, kind: int, count: int, value: bytes) -> bytes:
    return struct.pack(f"{order}HHL", tag, kind, count) + value


NUMBERS = {1: "B3x", 3: "H2x", 4: "L", 6: "b3x", 8: "h2x", 9: "l", 11: "f", 13: "L"}


def random_exif(draw: random.Random) -> bytes:
    order = draw.choice("<>")
    entries = []
    for tag in (0x010F, 0x0110):  # texts before the tag, some of them beyond the block
        if draw.random() < 0.4:
            place = struct.pack(f"{order}L", draw.choice((8, 60, 70_000)))
            entries.append(entry(order, tag, 2, draw.choice((3, 40, 400_000)), place))
    for _ in range(draw.choice((0, 1, 1, 1, 2))):
        kind = draw.choice((3, 3, 3, 3, 0, 2, 99, *NUMBERS))
        value = draw.randrange(10)
        number = struct.pack(order + NUMBERS[kind], value) if kind in NUMBERS else b"6\0\0\0"
        entries.append(entry(order, TAG, kind, draw.choice((1, 1, 1, 0, 2, 5)), number))
    draw.shuffle(entries)
    block = exif(
        order,
        entries,
        at=draw.choice((8, 8, 8, 20, 4000)),
        magic=draw.choice((42, 42, 42, 42, 43, 0x55)),
    )
    if draw.random() < 0.1:
        return block[: draw.randrange(6, len(block))]
    if draw.random() < 0.1:
        at = draw.randrange(6, len(block))
        return block[:at] + bytes([draw.randrange(256)]) + block[at + 1 :]
    return block


XMP_SPELLINGS = (
    'tiff:Orientation="{}"',
    "<tiff:Orientation>{}</tiff:Orientation>",
    "tiff:Orientation='{}'",
    'tiff:Orientation = "{}"',
    'exif:Orientation="{}"',
)


def random_xmp(draw: random.Random) -> bytes:
    name = draw.choice((XMP_NAME, XMP_NAME, b"http://ns.adobe.com/xmp/extension/\0" + bytes(40)))
    text = draw.choice(XMP_SPELLINGS).format(draw.randrange(10))
    return name + f"<x>{text}</x>".encode()


def pillows_orientation(data: bytes) -> int | None:
    """What Pillow makes of it; None where its reading fails."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(io.BytesIO(data))
            value = image.getexif().get(TAG, 1)
            turned = ImageOps.exif_transpose(image)
        except (SyntaxError, struct.error):
            return None
    assert (turned.size != image.size) == (value in (5, 6, 7, 8))
    return next((known for known in range(2, 9) if known == value), 1)


@pytest.mark.skipif(not TURNS_BY_XMP, reason="needs Pillow 11.3, which turns by XMP")
@pytest.mark.parametrize("seed", range(4))
def test_a_jpeg_is_turned_as_pillow_turns_it(seed: int):
    draw = random.Random(seed)
    turned = 0
    for _ in range(1000):
        blocks = [random_exif(draw) for _ in range(draw.choice((0, 1, 1, 2)))]
        blocks += [random_xmp(draw) for _ in range(draw.choice((0, 0, 1, 2)))]
        draw.shuffle(blocks)
        data = with_blocks(*blocks)
        expected = pillows_orientation(data)
        if expected is not None:
            assert orientation_of_jpeg(data) == expected, blocks
            turned += expected != 1
    assert turned > 100


def test_exif_that_goes_on_in_another_segment_is_read_whole():
    """The directory stands behind 64 kB of other data, as beside a thumbnail."""
    order = "<"
    block = exif(order, [entry(order, TAG, 3, 1, struct.pack("<HH", 8, 0))], at=70_000)
    first, second = block[:60_000], b"Exif\0\0" + block[60_000:]
    data = with_blocks(first, second)
    assert orientation_of_jpeg(data) == 8
    if PILLOW >= (10, 4):  # before, it read the first segment only
        assert pillows_orientation(data) == 8


def test_what_is_no_jpeg_is_not_turned():
    for data in (b"", b"\xff\xd8", SOUND[:30], b"\xff\xd8\xff\xe1\xff\xff", b"GIF89a"):
        assert orientation_of_jpeg(data) == 1
