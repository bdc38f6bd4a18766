"""Seek points: a baseline JPEG entered in its middle gives what it gives from its beginning."""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from fastload.errors import CorruptImageError, UnsupportedImageError
from fastload.pixels import native
from fastload.pixels.jpeg import Box, Encoded, read_header
from tests import pictures, seek_tables
from tests.coefficients import read_jpeg

pytestmark = pytest.mark.skipif(
    not native.is_available(), reason=f"needs the native core: {native.why_unavailable()}"
)

SAMPLINGS = ("4:4:4", "4:2:2", "4:2:0", "4:4:0", "grey")
SIZES = ((8, 8), (61, 83), (96, 96), (47, 211), (130, 9), (1, 100), (17, 17))


@pytest.fixture(params=native.SIMD_LEVELS)
def simd(request: pytest.FixtureRequest) -> Iterator[None]:
    native.set_simd(request.param)
    yield
    native.set_simd()


def jpeg_of(height: int, width: int, sampling: str = "4:2:0", interval: int = 0) -> bytes:
    """Strong edges and noise; `interval` MCUs between restart markers."""
    pixels = pictures.photograph(height, width, 3, spacing=5, noise=20)
    if sampling != "4:4:0":
        return pictures.encode(pixels, sampling, interval)
    # Pillow writes no 4:4:0: what simplejpeg writes is given its restart markers by the core.
    plain: bytes = simplejpeg.encode_jpeg(pixels, quality=90, colorsubsampling="440")
    if interval == 0:
        return plain
    return native.transcode_jpeg(plain, interval_pixels=8 * interval).jpeg


def crops(
    jpeg: bytes, boxes: list[Box], size: int, table: bytes | None = None
) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Statuses, and the crops of one file with its table or without."""
    out = np.full((len(boxes), size, size, 3), 77, np.uint8)
    count = len(boxes)
    tables = None if table is None else Encoded.join([table] * count)
    statuses = native.decode_boxes(
        *(Encoded.join([jpeg] * count), np.array(boxes, np.int32), np.arange(count) % 2 == 1, out),
        tables=tables,
    )
    return statuses, out


def libjpeg(jpeg: bytes) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(jpeg, "RGB")
    return pixels


def boxes_of(height: int, width: int, count: int = 12) -> list[Box]:
    """Every corner and edge, the whole, and some at random."""
    random = np.random.default_rng((height, width))
    found = [
        (0, 0, height, width),
        *((y, x, 1, 1) for y in (0, height - 1) for x in (0, width - 1)),
        *((y, 0, 1, width) for y in (0, height // 2, height - 1)),
        *((0, x, height, 1) for x in (0, width // 2, width - 1)),
    ]
    for _ in range(count):
        top, left = int(random.integers(height)), int(random.integers(width))
        found.append(
            (
                top,
                left,
                int(random.integers(1, height - top + 1)),
                int(random.integers(1, width - left + 1)),
            )
        )
    return found


def agrees(jpeg: bytes, interval_pixels: int) -> bytes:
    """Compares crops by the table and without, and regions cut out; the table."""
    header = read_header(jpeg)
    table = native.seek_points(jpeg, interval_pixels).table
    boxes = boxes_of(header.height, header.width)
    for size in (1, 8, 33):
        statuses, expected = crops(jpeg, boxes, size)
        assert not statuses.any()
        statuses, found = crops(jpeg, boxes, size, table)
        assert not statuses.any(), native.reason(int(statuses.max()))
        assert np.array_equal(found, expected)
    whole = libjpeg(jpeg)
    for box in boxes:
        for seek in {table, b""}:
            region, (top, left, height, width) = native.cut_region(jpeg, seek, box)
            cut = libjpeg(region)[top : top + height, left : left + width]
            y, x, *_ = box
            assert np.array_equal(cut, whole[y : y + height, x : x + width]), box
    return table


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_every_box_is_the_same_by_a_table(sampling: str, simd: None) -> None:
    for height, width in SIZES:
        jpeg = jpeg_of(height, width, sampling)
        for interval_pixels in (1, 24, 64, 500):
            assert agrees(jpeg, interval_pixels)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("interval", [1, 3, 7, 13, 31, "a row", "two rows"])
def test_restart_markers_and_points_go_together(
    sampling: str, interval: int | str, simd: None
) -> None:
    for height, width in ((61, 83), (47, 211), (130, 9)):
        row = -(-width // read_header(jpeg_of(height, width, sampling)).mcu_width)
        mcus = {"a row": row, "two rows": 2 * row}.get(str(interval), interval)
        assert isinstance(mcus, int)
        jpeg = jpeg_of(height, width, sampling, mcus)
        for interval_pixels in (8, 24, 64):
            agrees(jpeg, interval_pixels)


def test_restart_markers_as_close_as_the_points_need_no_table() -> None:
    jpeg = jpeg_of(96, 320, "4:4:4", 8)
    assert native.seek_points(jpeg, 64).table == b""
    assert native.seek_points(jpeg, 32).table != b""
    assert agrees(jpeg, 64) == b""


def test_points_are_as_far_apart_as_pays_best_unless_the_caller_says() -> None:
    for sampling, pixels in (("4:4:4", 32), ("4:2:0", 96), ("4:2:2", 96)):
        jpeg = jpeg_of(96, 400, sampling)
        assert native.seek_points(jpeg).table == native.seek_points(jpeg, pixels).table


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_table_of_a_smooth_picture_has_fewer_points(sampling: str) -> None:
    """At most 2.5 % of the file, whatever lies between the points."""
    pixels = pictures.photograph(500, 900, 3, spacing=90, noise=0)
    jpeg = (
        pictures.encode(pixels, sampling)
        if sampling != "4:4:0"
        else simplejpeg.encode_jpeg(pixels, quality=90, colorsubsampling="440")
    )
    table = native.seek_points(jpeg).table
    assert 0 < len(table) <= 0.025 * len(jpeg) < len(native.seek_points(jpeg, 64).table)
    boxes = boxes_of(500, 900)
    assert np.array_equal(crops(jpeg, boxes, 24)[1], crops(jpeg, boxes, 24, table)[1])


def test_codes_of_each_file_are_their_own(simd: None) -> None:
    """Optimised tables, and several files in one batch whose codes differ."""
    image = pictures.picture(5, height=90, width=120, noise=25)
    files = [pictures.encoded(image, quality=quality, optimize=True) for quality in (5, 50, 97)]
    for jpeg in files:
        agrees(jpeg, 32)
    boxes = np.array([[10, 20, 60, 70]] * 3, np.int32)
    flips, out = np.zeros(3, np.bool_), [np.zeros((3, 32, 32, 3), np.uint8) for _ in range(2)]
    tables = Encoded.join([native.seek_points(jpeg, 32).table for jpeg in files])
    assert not native.decode_boxes(Encoded.join(files), boxes, flips, out[0]).any()
    assert not native.decode_boxes(Encoded.join(files), boxes, flips, out[1], tables=tables).any()
    assert np.array_equal(out[0], out[1])


def test_large_reductions_are_the_same_by_a_table() -> None:
    """Blocks of 4 samples a side read one more MCU around the box."""
    jpeg = jpeg_of(400, 420)
    table = native.seek_points(jpeg, 64).table
    boxes = [(0, 0, 400, 420), (3, 5, 390, 400), (17, 33, 300, 301)]
    for size in (2, 5, 9, 20, 50):
        assert np.array_equal(crops(jpeg, boxes, size)[1], crops(jpeg, boxes, size, table)[1])


def test_photographs_are_the_same_by_a_table(flowers_dir: Path) -> None:
    seek, image = 0, 0
    for path in sorted(flowers_dir.rglob("*.jpg"))[::140]:
        jpeg = path.read_bytes()
        table = agrees(jpeg, 96)
        seek, image = seek + len(table), image + len(jpeg)
    assert seek <= 0.02 * image


def test_a_region_holds_the_coefficients_and_no_more() -> None:
    """Read by the independent reader: every block of the region, and a marker after each row."""
    jpeg = jpeg_of(130, 170)
    region, box = native.cut_region(jpeg, native.seek_points(jpeg, 48).table, (40, 70, 50, 33))
    whole, part = read_jpeg(jpeg), read_jpeg(region)
    assert (part.height, part.width, part.restart_interval) == (64, 48, 3)
    assert box == (8, 6, 50, 33)
    for ours, theirs in zip(part.components, whole.components, strict=True):
        top, left = 2 * ours.vertical, 4 * ours.horizontal
        rows, columns = ours.blocks.shape[:2]
        assert np.array_equal(ours.blocks, theirs.blocks[top : top + rows, left : left + columns])
        assert np.array_equal(ours.quantisation, theirs.quantisation)


def test_a_region_at_the_right_edge_is_wide_enough_for_libjpeg_to_interpolate() -> None:
    """libjpeg repeats chroma where it is at most two samples wide; see `region_of`."""
    for width in range(33, 49):
        jpeg = jpeg_of(40, width, "4:2:2")
        whole = libjpeg(jpeg)
        region, (top, left, *_) = native.cut_region(jpeg, b"", (0, width - 1, 40, 1))
        assert np.array_equal(libjpeg(region)[top : top + 40, left], whole[:, width - 1]), width


def test_codes_that_a_region_needs_are_added() -> None:
    """A flat picture has a code for few DC differences; in its middle a region begins at zero."""
    pixels = np.full((64, 96, 3), 128, np.uint8)
    pixels[:, 8:] = 250
    for sampling in ("4:4:4", "4:2:0", "grey"):
        image = Image.fromarray(pixels)
        options = {} if sampling == "grey" else {"subsampling": sampling}
        jpeg = pictures.encoded(
            image.convert("L") if sampling == "grey" else image, optimize=True, **options
        )
        agrees(jpeg, 16)


def test_a_pass_says_what_a_check_says(awkward_dir: Path) -> None:
    files = [path.read_bytes() for path in sorted(awkward_dir.iterdir()) if path.is_file()]
    progressive = pictures.jpeg(1, progressive=True)
    cmyk = pictures.encoded(pictures.picture(1).convert("CMYK"))
    turned = pictures.with_orientation(6)
    for jpeg in [*files, progressive, cmyk, turned, pictures.jpeg(2), b"", b"\xff\xd8\xff"]:
        assert verdict_of_pass(jpeg) == verdict_of_check(jpeg)
    assert native.seek_points(progressive, 64).table == b""
    assert native.seek_points(turned, 64).facts.orientation == 6
    assert native.seek_points(turned, 64).table != b""


def verdict_of_check(jpeg: bytes) -> object:
    try:
        return native.check_jpeg(jpeg)
    except (CorruptImageError, UnsupportedImageError) as error:
        return type(error), str(error)


def verdict_of_pass(jpeg: bytes) -> object:
    try:
        return native.seek_points(jpeg, 24).facts
    except (CorruptImageError, UnsupportedImageError) as error:
        return type(error), str(error)


@pytest.mark.parametrize("last", [-2049, -2048, -2047, -2046, 2046, 2047, 2048, 2049])
def test_a_pass_and_a_check_know_the_same_range_of_dc(last: int) -> None:
    """A grey picture of three blocks whose second DC value is the greatest or the least."""
    step = 2047 if last > 0 else -2047
    bits = "".join(dc_code(change) + "0" for change in (step, last - step, -last // 2))
    jpeg = grey_jpeg(8, 24, {4: [*range(12)]}, {1: [0]}, bits)
    assert verdict_of_pass(jpeg) == verdict_of_check(jpeg)
    if abs(last) <= 2047:
        assert native.seek_points(jpeg, 8).table
        agrees(jpeg, 8)
    else:
        assert verdict_of_check(jpeg) == (
            UnsupportedImageError,
            "JPEG has coefficients outside the range of baseline JPEG",
        )


def grey_jpeg(
    height: int, width: int, dc: dict[int, list[int]], ac: dict[int, list[int]], bits: str
) -> bytes:
    """A grey file of these bits; the codes are given as symbols by length."""
    bits += "1" * (-len(bits) % 8)
    data = bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8))
    codes = [
        bytes([kind, *(len(spec.get(length, [])) for length in range(1, 17))])
        + bytes(symbol for length in sorted(spec) for symbol in spec[length])
        for kind, spec in ((0x00, dc), (0x10, ac))
    ]
    return (
        b"\xff\xd8\xff\xdb\x00\x43\x00" + b"\x01" * 64
        + b"\xff\xc0\x00\x0b\x08" + struct.pack(">HH", height, width) + b"\x01\x01\x11\x00"
        + b"".join(b"\xff\xc4" + struct.pack(">H", 2 + len(body)) + body for body in codes)
        + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00"
        + data.replace(b"\xff", b"\xff\x00") + b"\xff\xd9"
    )  # fmt: skip


def additional_bits(value: int) -> str:
    """T.81, F.1.2.1."""
    size = abs(value).bit_length()
    return f"{value if value > 0 else value + (1 << size) - 1:0{size}b}" if size else ""


def dc_code(change: int) -> str:
    """Twelve codes of four bits, one for each size, and the additional bits."""
    return f"{abs(change).bit_length():04b}" + additional_bits(change)


def test_coefficients_of_many_bits_are_stepped_over(simd: None) -> None:
    """Three look-ups that take more bits than a window is sure to hold: 21 each."""
    random = np.random.default_rng(11)
    small, large, end = "100", "10100000000", "0"
    for _ in range(40):
        bits = ""
        for _ in range(64):
            bits += dc_code(int(random.integers(-3, 4)))
            for size in random.choice([1, 10], int(random.integers(8)), p=[0.3, 0.7]):
                value = int(random.integers(1 << (size - 1), 1 << size) * random.choice([-1, 1]))
                bits += (small if size == 1 else large) + additional_bits(value)
            bits += end
        jpeg = grey_jpeg(64, 64, {4: [*range(12)]}, {1: [0], 3: [1], 11: [10]}, bits)
        whole = libjpeg(jpeg)
        assert agrees(jpeg, 24)
        for top, left in ((8, 40), (32, 24), (47, 0)):
            statuses, found = crops(jpeg, [(top, left, 16, 16)], 16)
            assert not statuses.any()
            assert np.array_equal(found[0], whole[top : top + 16, left : left + 16])


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("interval", [0, 11])
def test_a_table_is_what_the_format_says(sampling: str, interval: int) -> None:
    """Read by another reader, its predictors are those of the coefficients."""
    jpeg = jpeg_of(61, 211, sampling, interval)
    whole, table = read_jpeg(jpeg), native.seek_points(jpeg, 40).table
    luma = whole.components[0]
    rows = len(luma.blocks) // luma.vertical
    columns = luma.blocks.shape[1] // luma.horizontal
    layout = seek_tables.Layout(columns, rows, len(whole.components), whole.restart_interval)
    found = seek_tables.read(table, layout)
    assert (found.file_bytes, found.crc32) == (len(jpeg), zlib.crc32(jpeg))
    assert found.per_row == (211 + 20) // 40
    assert found.written(layout) == table
    for point in found.points:
        row, column = divmod(point.mcu - 1, columns)
        if point.predictors:
            assert point.predictors == tuple(
                part.blocks[(row + 1) * part.vertical - 1, (column + 1) * part.horizontal - 1, 0]
                for part in whole.components
            )


@pytest.mark.parametrize(("sampling", "interval"), [("4:2:0", 0), ("4:4:4", 7), ("grey", 3)])
def test_a_pass_says_what_a_check_says_of_every_damage(sampling: str, interval: int) -> None:
    random = np.random.default_rng(8)
    jpeg = jpeg_of(33, 45, sampling, interval)
    mutants = [jpeg[:size] for size in range(0, len(jpeg), 3)]
    for index, byte in enumerate(jpeg):
        bits = byte ^ (1 << int(random.integers(8)))
        mutants += [jpeg[:index] + bytes([v]) + jpeg[index + 1 :] for v in (0, 255, bits)]
        mutants.append(jpeg[:index] + jpeg[index + 1 :])
        mutants.append(jpeg[:index] + bytes([int(random.integers(256))]) + jpeg[index:])
    verdicts = [verdict_of_check(mutant) for mutant in mutants]
    assert [verdict_of_pass(mutant) for mutant in mutants] == verdicts
    assert len({str(verdict) for verdict in verdicts}) > 20


def test_a_damaged_file_gives_the_pixels_of_a_whole_decode_or_none(simd: None) -> None:
    """A table that was right before a byte of the file changed."""
    random = np.random.default_rng(9)
    jpeg = jpeg_of(64, 96)
    table = native.seek_points(jpeg, 32).table
    whole = [(0, 0, 64, 96)]
    noticed = 0
    for index in range(0, len(jpeg), 2):
        damaged = jpeg[:index] + bytes([int(random.integers(256))]) + jpeg[index + 1 :]
        statuses, found = crops(damaged, whole, 40, table)
        if statuses[0]:
            noticed += damaged != jpeg
            continue
        expected_statuses, expected = crops(damaged, whole, 40)
        assert expected_statuses[0] == 0
        assert np.array_equal(found, expected)
    assert noticed > len(jpeg) / 4


def sealed(body: bytes) -> bytes:
    """The table with its CRC made right, as a hostile one would have it."""
    return body + struct.pack("<I", zlib.crc32(body))


def test_a_changed_table_is_refused() -> None:
    jpeg = jpeg_of(64, 96)
    table = native.seek_points(jpeg, 32).table
    changed = [table[:size] for size in range(1, len(table))]
    changed += [
        table[:index] + bytes([byte ^ 0x10]) + table[index + 1 :]
        for index, byte in enumerate(table)
    ]
    for other in changed:
        statuses, _ = crops(jpeg, [(20, 20, 30, 30)], 16, other)
        assert native.reason(int(statuses[0])) == (
            "seek table is damaged or belongs to another JPEG"
        )


def test_a_hostile_table_gives_the_pixels_of_a_whole_decode_or_none(simd: None) -> None:
    random = np.random.default_rng(10)
    jpeg = jpeg_of(64, 96, "4:2:0", 13)
    table = native.seek_points(jpeg, 32).table
    whole = [(0, 0, 64, 96)]
    _, expected = crops(jpeg, whole, 40)
    bodies = [table[:size] for size in range(len(table) - 4)]
    for index in range(len(table) - 4):
        values = (0, 255, *random.integers(0, 256, 6).tolist())
        bodies += [table[:index] + bytes([value]) + table[index + 1 : -4] for value in values]
    reasons = set()
    for body in bodies:  # points within a row are not needed for the whole picture
        statuses, found = crops(jpeg, whole, 40, sealed(body))
        reasons.add(native.reason(int(statuses[0])))
        if statuses[0] == 0:
            assert np.array_equal(found, expected)
        crops(jpeg, [(20, 20, 30, 30)], 16, sealed(body))
        with contextlib.suppress(CorruptImageError):
            native.cut_region(jpeg, sealed(body), (20, 20, 30, 30))
    assert "JPEG scan data do not reach the next point of their seek table" in reasons
    assert "unknown status" not in reasons


def test_a_point_between_an_ff_and_its_stuffed_zero_is_refused() -> None:
    """There a block of as many bits, which differs by 255, seems to begin."""
    dc = {1: [8], 2: [3], 3: [1], 4: [2], 5: [4], 6: [5], 7: [6], 8: [7], 9: [0]}
    rows = ("11111110" + "1100100" + "0", "111111110" + "0", "10" + "101" + "0")
    jpeg = grey_jpeg(24, 8, dc, {1: [0]}, "".join(rows))
    layout = seek_tables.Layout(1, 3, 1)
    table = seek_tables.read(native.seek_points(jpeg, 8).table, layout)
    assert [point[1:] for point in table.points] == [(16, (100,)), (34, (100,))]
    wrong = seek_tables.moved(table, 0, position=24)
    wrong = seek_tables.moved(wrong, 1, predictors=(100 - 255,))
    statuses, _ = crops(jpeg, [(0, 0, 24, 8)], 8, wrong.written(layout))
    assert native.reason(int(statuses[0])) == (
        "JPEG scan data do not reach the next point of their seek table"
    )


@pytest.mark.parametrize("order", [7, 15])
def test_a_code_that_is_longer_than_any_value_is_refused(order: int) -> None:
    """Its 32 lower bits would be right; and it may have more bits than a reader holds."""
    jpeg = jpeg_of(16, 16, "4:4:4", 2)
    position = 8 * (jpeg.index(b"\xff\xd0") + 2 - read_header(jpeg).scan_offset)
    for beyond, sentence in (
        (0, ""),
        (1 << 32, "seek table is damaged or belongs to another JPEG"),
    ):
        folded = 2 * position + beyond
        prefix = f"{(folded >> order) + 1:b}"
        code = "0" * (len(prefix) - 1) + prefix + f"{folded & (1 << order) - 1:0{order}b}"
        table = seek_tables.Table(len(jpeg), zlib.crc32(jpeg), 1, (order, 0, 0, 0), ())
        statuses, _ = crops(jpeg, [(0, 0, 16, 16)], 8, seek_tables.sealed(table, code))
        assert (native.reason(int(statuses[0])) if statuses[0] else "") == sentence


def test_the_table_of_another_file_is_refused() -> None:
    first, second = (
        pictures.encoded(pictures.picture(seed, height=96, width=128, noise=25), quality=90)
        for seed in (1, 2)
    )
    longer = first + b"\0" * max(0, len(second) - len(first))  # of the same size
    second += b"\0" * max(0, len(longer) - len(second))
    table = native.seek_points(second, 32).table
    boxes = boxes_of(96, 128, 60)
    statuses, found = crops(longer, boxes, 24, table)
    _, expected = crops(longer, boxes, 24)
    assert (statuses != 0).sum() > 0.9 * len(boxes)
    assert np.array_equal(found[statuses == 0], expected[statuses == 0])
    statuses, _ = crops(first[:-2], boxes, 24, native.seek_points(first, 32).table)
    assert (statuses != 0).all()
    with pytest.raises(CorruptImageError):
        native.cut_region(longer, table, (40, 40, 30, 30))


def test_the_table_names_its_file() -> None:
    jpeg = jpeg_of(64, 96)
    points = native.seek_points(jpeg, 64)
    assert points.crc32 == zlib.crc32(jpeg)
    assert native.table_crc32(points.table) == zlib.crc32(jpeg)
    assert points.table[0] == 1
    assert struct.unpack_from("<I", points.table, 2) == (len(jpeg),)
    assert points.table == native.seek_points(memoryview(jpeg), 64).table


def test_images_with_and_without_a_table_stand_in_one_batch() -> None:
    files = [jpeg_of(64, 96), jpeg_of(80, 64, "4:4:4"), pictures.jpeg(3)]
    tables = [native.seek_points(files[0], 32).table, b"", native.seek_points(files[2], 32).table]
    boxes = np.array([[5, 6, 40, 41]] * 3, np.int32)
    flips, out = np.array([True, False, True]), np.zeros((2, 3, 16, 16, 3), np.uint8)
    encoded = Encoded.join(files)
    assert not native.decode_boxes(encoded, boxes, flips, out[0]).any()
    assert not native.decode_boxes(encoded, boxes, flips, out[1], tables=Encoded.join(tables)).any()
    assert np.array_equal(out[0], out[1])


def test_arguments_are_checked() -> None:
    jpeg = jpeg_of(16, 16)
    out, flips = np.zeros((1, 8, 8, 3), np.uint8), np.zeros(1, np.bool_)
    boxes = np.array([[0, 0, 16, 16]], np.int32)
    with pytest.raises(ValueError, match="tables must be 1, one for each image, got 2"):
        native.decode_boxes(
            Encoded.join([jpeg]), boxes, flips, out, tables=Encoded.join([b"", b""])
        )
    outside = Encoded(np.zeros(4, np.uint8), np.array([0]), np.array([5]))
    with pytest.raises(ValueError, match="must lie inside their buffer"):
        native.decode_boxes(Encoded.join([jpeg]), boxes, flips, out, tables=outside)
    for wrong in (0, -1, 65536):
        with pytest.raises(ValueError, match="interval_pixels must be in"):
            native.seek_points(jpeg, wrong)
    for box in ((0, 0, 17, 16), (-1, 0, 4, 4), (0, 0, 0, 4), (16, 0, 1, 1)):
        with pytest.raises(ValueError, match="box must lie inside the image"):
            native.cut_region(jpeg, b"", box)
    with pytest.raises(UnsupportedImageError, match="progressive"):
        native.cut_region(pictures.jpeg(1, progressive=True), b"", (0, 0, 8, 8))
    with pytest.raises(CorruptImageError, match="ends"):
        native.cut_region(jpeg_of(64, 64)[:-300], b"", (0, 0, 64, 64))
