"""Lossless transcoding and checking, against an independent reader and libjpeg-turbo."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from fastload.errors import CorruptImageError, UnsupportedImageError
from fastload.pixels import native
from fastload.pixels.jpeg import read_header, restart_interval_for
from tests import pictures
from tests.coefficients import read_jpeg
from tests.pictures import encoded, orientation_exif

pytestmark = pytest.mark.skipif(
    not native.is_available(), reason=f"needs the native core: {native.why_unavailable()}"
)

SAMPLINGS = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}
Factors = tuple[tuple[int, int], ...]


def picture(height: int, width: int, *, noise: float = 40.0, mode: str = "RGB") -> Image.Image:
    """Noise, so that coefficients of all frequencies occur."""
    return pictures.picture(height=height, width=width, noise=noise, mode=mode)


def pillow(jpeg: bytes) -> NDArray[np.uint8]:
    """Pixels [H, W] or [H, W, 3] as Pillow reads them."""
    with Image.open(BytesIO(jpeg)) as image:
        return np.asarray(image)


def pillow_or_none(jpeg: bytes) -> NDArray[np.uint8] | None:
    """Pixels, or None where Pillow refuses."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pillow(jpeg)
    except Exception:  # noqa: BLE001  Pillow raises anything on damaged files
        return None


def with_orientation(image: Image.Image, orientation: int, **options: Any) -> bytes:
    return encoded(image, exif=orientation_exif(orientation), **options)


def segments(jpeg: bytes) -> list[tuple[int, int]]:
    """Offset and marker of each header segment up to the scan."""
    found, at = [], 2
    while True:
        found.append((at, jpeg[at + 1]))
        if jpeg[at + 1] == 0xDA:
            return found
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")


def scan_offset(jpeg: bytes) -> int:
    at = segments(jpeg)[-1][0]
    return at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")


SIZES = [(1, 1), (1, 70), (70, 1), (7, 9), (8, 8), (16, 16), (17, 33), (31, 64), (70, 69)]


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("progressive", [False, True], ids=["baseline", "progressive"])
def test_pixels_stay_identical_in_two_decoders(sampling: str, progressive: bool) -> None:
    for (height, width), quality, restart in itertools.product(SIZES, (1, 40, 90, 100), (0, 1, 3)):
        jpeg = encoded(
            picture(height, width),
            quality=quality,
            subsampling=SAMPLINGS[sampling],
            progressive=progressive,
            restart_marker_blocks=restart,
        )
        pixels = (0, 8, 64)[(height + quality) % 3]
        stored = native.transcode_jpeg(jpeg, interval_pixels=pixels).jpeg
        assert np.array_equal(pillow(stored), pillow(jpeg)), (height, width, quality, restart)
        assert np.array_equal(simplejpeg.decode_jpeg(stored), simplejpeg.decode_jpeg(jpeg))


def test_every_small_size_keeps_its_pixels() -> None:
    for height, width in itertools.product(range(1, 71, 6), range(1, 71, 4)):
        jpeg = encoded(
            picture(height, width),
            quality=85,
            subsampling=(height + width) % 3,
            progressive=bool(height % 2),
        )
        assert np.array_equal(pillow(native.transcode_jpeg(jpeg).jpeg), pillow(jpeg))


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("smallest", [False, True])
def test_an_independent_reader_finds_the_same_coefficients(sampling: str, smallest: bool) -> None:
    for (height, width), quality, restart in itertools.product(SIZES, (20, 97), (0, 2)):
        jpeg = encoded(
            picture(height, width),
            quality=quality,
            subsampling=SAMPLINGS[sampling],
            restart_marker_blocks=restart,
        )
        stored = native.transcode_jpeg(jpeg, smallest=smallest)
        before, after = read_jpeg(jpeg), read_jpeg(stored.jpeg)
        assert (after.height, after.width) == (stored.height, stored.width) == (height, width)
        assert after.restart_interval == stored.restart_interval
        assert max(after.code_lengths) <= (16 if smallest else 10)
        for ours, theirs in zip(after.components, before.components, strict=True):
            assert np.array_equal(ours.quantisation, theirs.quantisation)
            assert np.array_equal(ours.blocks, theirs.blocks)


def test_progressive_and_baseline_files_of_one_picture_become_the_same_file() -> None:
    # Blocks outside the picture are free, so the sizes fill whole MCUs.
    for size, subsampling, quality in itertools.product((16, 48, 64), (0, 1, 2), (10, 75, 100)):
        options: dict[str, Any] = {"quality": quality, "subsampling": subsampling}
        baseline = encoded(picture(size, 64), **options)
        progressive = encoded(picture(size, 64), progressive=True, **options)
        assert native.transcode_jpeg(progressive).jpeg == native.transcode_jpeg(baseline).jpeg, (
            options
        )


def test_grey_keeps_its_coefficients_whatever_its_sampling_factors_say() -> None:
    for height, width in SIZES:
        jpeg = encoded(picture(height, width, mode="L"), quality=90)
        doubled = bytearray(jpeg)  # A.2.2: a single component's factors mean nothing
        frame = next(at for at, marker in segments(jpeg) if marker == 0xC0)
        doubled[frame + 11] = 0x22
        stored = native.transcode_jpeg(bytes(doubled)).jpeg
        assert stored == native.transcode_jpeg(jpeg).jpeg
        assert np.array_equal(pillow(stored), pillow(jpeg))
        before, after = read_jpeg(jpeg).components[0], read_jpeg(stored).components[0]
        assert np.array_equal(before.blocks, after.blocks)


def _in_three_scans(height: int, width: int, factors: Factors) -> tuple[bytes, list[bytes]]:
    """A sequential file with a scan for each component, and the grey files it is made of.

    Returns:
        Header with tables, then scan after scan; and the three grey files.
    """
    most = max(h for h, _ in factors), max(v for _, v in factors)
    greys, parts, scans = [], b"", b""
    for number, (h, v) in enumerate(factors):
        size = -(-height * v // most[1]), -(-width * h // most[0])  # A.1.1
        grey = encoded(picture(*size, noise=20 + number, mode="L"), quality=80)
        greys.append(grey)
        parts += bytes([number + 1, h << 4 | v, 0])
        scans += b"\xff\xda\x00\x08\x01" + bytes([number + 1]) + b"\x00\x00\x3f\x00"
        scans += grey[scan_offset(grey) : -2]
    at = next(offset for offset, marker in segments(greys[0]) if marker == 0xC0)
    frame = b"\xff\xc0\x00\x11\x08" + height.to_bytes(2, "big") + width.to_bytes(2, "big")
    tables = greys[0][:at] + frame + b"\x03" + parts
    tables += greys[0][at + 13 : segments(greys[0])[-1][0]]
    return tables + scans + b"\xff\xd9", greys


def test_a_scan_for_each_component_is_read() -> None:
    for height, width in [(16, 16), (37, 50), (64, 9)]:
        jpeg, greys = _in_three_scans(height, width, ((1, 1), (1, 1), (1, 1)))
        stored = native.transcode_jpeg(jpeg).jpeg
        assert np.array_equal(pillow(stored), pillow(jpeg))
        for grey, component in zip(greys, read_jpeg(stored).components, strict=True):
            blocks = read_jpeg(grey).components[0].blocks
            assert np.array_equal(component.blocks, blocks)
        begins = [at for at in range(len(jpeg)) if jpeg[at : at + 2] == b"\xff\xda"]
        with pytest.raises(CorruptImageError, match="ends before its picture is complete"):
            native.transcode_jpeg(jpeg[: begins[2]] + b"\xff\xd9")
        twice = jpeg[: begins[2]] + jpeg[begins[1] :]
        with pytest.raises(CorruptImageError, match="scan header is inconsistent"):
            native.transcode_jpeg(twice)


def test_every_sampling_is_stored_exactly_or_refused() -> None:
    pairs = tuple(itertools.product((1, 2), (1, 2)))
    stored = set()
    for factors, size in itertools.product(itertools.product(pairs, repeat=3), (5, 37)):
        jpeg, _ = _in_three_scans(size, size + 13, factors)
        try:
            done = native.transcode_jpeg(jpeg)
        except UnsupportedImageError as error:
            assert "unusual chroma sampling" in error.reason  # noqa: PT017  one of two outcomes
            continue
        assert np.array_equal(pillow(done.jpeg), pillow(jpeg)), factors
        assert np.array_equal(native.decode_full(done.jpeg), pillow(jpeg)), factors
        header = read_header(done.jpeg)
        assert header.sampling[1:] == ((1, 1), (1, 1))
        stored.add(header.sampling[0])
    assert stored == set(pairs)


def test_what_is_written_is_plain_baseline_without_metadata() -> None:
    image = picture(48, 80)
    jpeg = with_orientation(
        image, 1, comment=b"private", icc_profile=b"profile", progressive=True, dpi=(300, 300)
    )
    stored = native.transcode_jpeg(jpeg).jpeg
    assert [marker for _, marker in segments(stored)] == [0xE0, 0xDB, 0xC0, 0xC4, 0xDD, 0xDA]
    assert stored[:20] == bytes.fromhex("ffd8ffe000104a46494600010100000100010000")
    assert b"private" not in stored
    with Image.open(BytesIO(stored)) as read:
        assert "exif" not in read.info
        assert "icc_profile" not in read.info
        assert not read.info.get("progressive")


def test_without_restart_markers_files_are_as_small_as_libjpegs_optimised_ones() -> None:
    for quality, subsampling in itertools.product((30, 75, 95), (0, 2)):
        jpeg = encoded(picture(240, 320, noise=8), quality=quality, subsampling=subsampling)
        best = encoded(
            picture(240, 320, noise=8), quality=quality, subsampling=subsampling, optimize=True
        )
        stored = native.transcode_jpeg(jpeg, interval_pixels=0, smallest=True).jpeg
        assert len(stored) <= len(best) + 16  # stuffing differs by chance
        assert len(stored) < len(jpeg)


def test_the_core_and_python_choose_the_same_restart_interval() -> None:
    for width, subsampling in itertools.product([*range(1, 1000, 7), 504, 512, 640], (0, 2)):
        stored = native.transcode_jpeg(encoded(picture(8, width), subsampling=subsampling))
        header = read_header(stored.jpeg)
        assert stored.restart_interval == restart_interval_for(width, header.mcu_width)
        assert header.restart_interval == stored.restart_interval


def test_transcoding_twice_changes_nothing() -> None:
    jpeg = encoded(picture(100, 100), progressive=True, quality=88)
    once = native.transcode_jpeg(jpeg).jpeg
    assert native.transcode_jpeg(once).jpeg == once


# ---- orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("progressive", [False, True], ids=["baseline", "progressive"])
def test_turned_coefficients_are_those_of_the_turned_picture(
    orientation: int, progressive: bool
) -> None:
    """Against Pillow's turning of the decoded pixels.

    The coefficients are exact (next test), the pixels nearly: libjpeg's inverse transform takes
    columns before rows and its chroma interpolation rounds left and right differently, so that a
    picture turned before decoding may differ by a level from one turned after. Mirrored top to
    bottom, nothing differs.
    """
    for mode, subsampling, (height, width) in [
        ("L", 0, (40, 24)),
        ("RGB", 0, (40, 24)),
        ("RGB", 1, (48, 32)),
        ("RGB", 2, (48, 32)),
    ]:
        image = picture(height, width, noise=15, mode=mode)
        jpeg = with_orientation(
            image, orientation, subsampling=subsampling, progressive=progressive, quality=90
        )
        stored = native.transcode_jpeg(jpeg)
        with Image.open(BytesIO(jpeg)) as original:
            expected = np.asarray(ImageOps.exif_transpose(original))
        found = pillow(stored.jpeg)
        assert found.shape == expected.shape
        assert (stored.height, stored.width) == found.shape[:2]
        assert stored.orientation == orientation
        assert stored.turned == (orientation != 1)
        difference = np.abs(found.astype(int) - expected)
        if orientation in (1, 4):
            assert difference.max() == 0
        elif mode == "L":
            assert difference.max() <= 1
            assert difference.mean() < (0.05 if orientation > 4 else 0.005)
        else:
            assert difference.max() <= 4  # a level of chroma is up to 1.8 of blue
            assert difference.mean() < 0.5


def test_turning_is_exact_in_coefficients() -> None:
    """Turned four times by a right angle, or mirrored twice, the very same file comes back."""
    jpeg = encoded(picture(64, 48), subsampling=2, quality=92)
    plain = native.transcode_jpeg(jpeg).jpeg
    exif = {n: with_orientation(picture(8, 8), n) for n in range(2, 9)}
    app1 = {}
    for n, tagged in exif.items():
        at = next(offset for offset, marker in segments(tagged) if marker == 0xE1)
        app1[n] = tagged[at : at + 2 + int.from_bytes(tagged[at + 2 : at + 4], "big")]

    def turn(file: bytes, orientation: int) -> bytes:
        return native.transcode_jpeg(file[:2] + app1[orientation] + file[2:]).jpeg

    for orientation in (2, 3, 4, 5, 7):
        assert turn(turn(plain, orientation), orientation) == plain
    turned = plain
    for _ in range(4):
        turned = turn(turned, 6)
    assert turned == plain
    assert turn(turn(plain, 6), 8) == plain
    assert turn(plain, 3) == turn(turn(plain, 2), 4)
    assert turn(plain, 6) == turn(turn(plain, 5), 2)
    assert turn(plain, 6) != plain


def test_a_mirrored_axis_must_fill_its_last_mcu() -> None:
    tall, wide = picture(48, 40), picture(40, 48)  # 40 is no multiple of 16
    possible = {
        "tall": {1, 4, 5, 6},  # rows may be mirrored: they are 48
        "wide": {1, 2, 5, 8},
    }
    for name, image in (("tall", tall), ("wide", wide)):
        for orientation in range(1, 9):
            jpeg = with_orientation(image, orientation, subsampling=2)
            if orientation in possible[name]:
                assert native.transcode_jpeg(jpeg).orientation == orientation
            else:
                with pytest.raises(UnsupportedImageError, match="orientation cannot be applied"):
                    native.transcode_jpeg(jpeg)
            asis = native.transcode_jpeg(jpeg, orient=False)
            assert not asis.turned
            assert np.array_equal(pillow(asis.jpeg), pillow(jpeg))


# ---- damage


@pytest.mark.parametrize("progressive", [False, True], ids=["baseline", "progressive"])
@pytest.mark.parametrize("restart", [0, 2])
def test_every_truncation_is_refused_or_complete(progressive: bool, restart: int) -> None:
    jpeg = encoded(
        picture(33, 40), progressive=progressive, quality=60, restart_marker_blocks=restart
    )
    expected = pillow(jpeg)
    complete = []
    for size in range(len(jpeg)):
        try:
            stored = native.transcode_jpeg(jpeg[:size])
        except CorruptImageError:  # noqa: PERF203  the outcome of each size is wanted
            with pytest.raises(CorruptImageError):
                native.check_jpeg(jpeg[:size])
        else:
            complete.append(size)
            assert np.array_equal(pillow(stored.jpeg), expected)
            native.check_jpeg(jpeg[:size])
    assert set(complete) >= {len(jpeg) - 2, len(jpeg) - 1}  # only EOI is missing
    assert min(complete) >= len(jpeg) - 4  # and perhaps bits that pad the last byte


@pytest.mark.parametrize("kind", ["baseline", "progressive", "restart", "grey", "turned"])
def test_every_changed_byte_gives_libjpegs_picture_or_a_reason(kind: str) -> None:
    image = picture(24, 32, mode="L" if kind == "grey" else "RGB")
    jpeg = with_orientation(
        image,
        6 if kind == "turned" else 1,
        progressive=kind == "progressive",
        quality=50,
        restart_marker_blocks=int(kind == "restart"),
    )
    outcomes = {"picture": 0, "corrupt": 0, "unsupported": 0}
    for at, change in itertools.product(range(len(jpeg)), (0x01, 0x80, 0xFF)):
        damaged = bytearray(jpeg)
        damaged[at] ^= change
        try:
            stored = native.transcode_jpeg(bytes(damaged), orient=False)
        except CorruptImageError:
            outcomes["corrupt"] += 1
        except UnsupportedImageError:
            outcomes["unsupported"] += 1
        else:
            outcomes["picture"] += 1
            reference = pillow_or_none(bytes(damaged))
            if reference is not None:
                assert np.array_equal(pillow(stored.jpeg), reference), (at, change)
    assert min(outcomes.values()) > 0, outcomes


def test_the_reason_says_where_the_scan_ends() -> None:
    jpeg = encoded(picture(64, 64), subsampling=0, quality=75)  # 64 MCUs
    half = jpeg[: (scan_offset(jpeg) + len(jpeg)) // 2]
    with pytest.raises(CorruptImageError, match=r"ends before .* \(at MCU (2|3)\d of 64\)"):
        native.transcode_jpeg(half)
    progressive = encoded(picture(64, 64), subsampling=0, progressive=True)
    with pytest.raises(CorruptImageError, match=r"at MCU \d+ of 64 of scan \d+"):
        native.check_jpeg(progressive[: len(progressive) * 9 // 10])


def test_restart_markers_must_be_there_and_in_sequence() -> None:
    jpeg = encoded(picture(32, 32), subsampling=0, restart_marker_blocks=2)
    begin = scan_offset(jpeg)
    markers = [
        at for at in range(begin, len(jpeg)) if jpeg[at] == 0xFF and 0xD0 <= jpeg[at + 1] <= 0xD7
    ]
    assert len(markers) == 7
    swapped = bytearray(jpeg)
    swapped[markers[3] + 1] = 0xD0
    with pytest.raises(CorruptImageError, match="restart markers are out of sequence"):
        native.transcode_jpeg(bytes(swapped))
    lost = jpeg[: markers[2]] + jpeg[markers[3] :]  # an interval less
    with pytest.raises(CorruptImageError, match="restart markers are out of sequence"):
        native.transcode_jpeg(lost)
    early = jpeg[: markers[4]] + b"\xff\xd9"
    with pytest.raises(CorruptImageError, match=r"ends before .*MCU 10 of 16"):
        native.transcode_jpeg(early)


def test_what_stands_behind_the_picture_is_ignored_unless_it_is_scan_data() -> None:
    jpeg = encoded(picture(32, 32), quality=70)
    expected = native.transcode_jpeg(jpeg).jpeg
    body = jpeg[:-2]
    for tail in (b"", b"\xff\xd9", b"\xff\xd9garbage", b"\0\0\0\xff\xd9", b"\xff\xff\xff\xd9",
                 b"\xff\xd0\xff\xd9", b"\xff\xd9" + jpeg):  # fmt: skip
        assert native.transcode_jpeg(body + tail).jpeg == expected, tail
    for tail in (b"scan data\xff\xd9", b"\xff\xd0scan data\xff\xd9"):
        with pytest.raises(CorruptImageError, match="do not end where"):
            native.transcode_jpeg(body + tail)


def test_a_progressive_file_without_its_last_scans_is_refused() -> None:
    jpeg = encoded(picture(32, 32), progressive=True)
    scans = [at for at in range(len(jpeg) - 1) if jpeg[at : at + 2] == b"\xff\xda"]
    # A table may stand before a scan: cut behind the data of the scan before.
    cut = jpeg.rindex(b"\xff\xc4", 0, scans[-1])
    with pytest.raises(UnsupportedImageError, match="leaves out the last bits"):
        native.transcode_jpeg(jpeg[:cut] + b"\xff\xd9")
    with pytest.raises(CorruptImageError, match="ends before"):
        native.transcode_jpeg(jpeg[:cut])


def test_scans_out_of_order_are_refused() -> None:
    jpeg = encoded(picture(32, 32), progressive=True)
    first = jpeg.index(b"\xff\xda")
    second = jpeg.index(b"\xff\xc4", first)
    doubled = jpeg[:second] + jpeg[first:second] + jpeg[second:]
    with pytest.raises(CorruptImageError, match="out of order"):
        native.transcode_jpeg(doubled)


@pytest.mark.parametrize(
    ("frame", "match"),
    [(0xC3, "lossless"), (0xC5, "hierarchical"), (0xC9, "arithmetic"), (0xCA, "arithmetic")],
)
def test_other_processes_are_refused(frame: int, match: str) -> None:
    jpeg = bytearray(encoded(picture(16, 16)))
    at = next(offset for offset, marker in segments(bytes(jpeg)) if marker == 0xC0)
    jpeg[at + 1] = frame
    for function in (native.transcode_jpeg, native.check_jpeg):
        with pytest.raises(UnsupportedImageError, match=match):
            function(bytes(jpeg))


def test_kinds_that_cannot_be_stored_are_refused_but_checked() -> None:
    cmyk = encoded(picture(24, 24, mode="CMYK"))
    rgb = encoded(picture(24, 24), keep_rgb=True)
    for jpeg, match in ((cmyk, "neither 1 nor 3 components"), (rgb, "stored as RGB")):
        with pytest.raises(UnsupportedImageError, match=match):
            native.transcode_jpeg(jpeg)
        assert native.check_jpeg(jpeg).height == 24
        with pytest.raises(CorruptImageError, match="ends before"):  # damage is said first
            native.transcode_jpeg(jpeg[: len(jpeg) * 3 // 4])
    finer_chroma, _ = _in_three_scans(24, 24, ((1, 1), (2, 1), (1, 1)))
    with pytest.raises(UnsupportedImageError, match="unusual chroma sampling"):
        native.transcode_jpeg(finer_chroma)


def test_a_wide_quantisation_table_is_refused_unless_its_values_are_narrow() -> None:
    jpeg = encoded(picture(16, 16, mode="L"), quality=90)
    at = next(offset for offset, marker in segments(jpeg) if marker == 0xDB)
    assert jpeg[at + 2 : at + 5] == b"\x00\x43\x00"
    values = jpeg[at + 5 : at + 69]

    def widened(numbers: list[int]) -> bytes:
        table = b"".join(number.to_bytes(2, "big") for number in numbers)
        return jpeg[:at] + b"\xff\xdb\x00\x83\x10" + table + jpeg[at + 69 :]

    assert native.transcode_jpeg(widened(list(values))).jpeg == native.transcode_jpeg(jpeg).jpeg
    with pytest.raises(UnsupportedImageError, match="quantisation steps over 255"):
        native.transcode_jpeg(widened([*values[:63], 256]))


def test_bytes_that_are_no_jpeg_are_refused() -> None:
    png = BytesIO()
    picture(8, 8).save(png, "PNG")
    for data in (b"", b"\xff", b"\xff\xd8", b"\xff\xd8\xff", png.getvalue(), bytes(1000)):
        for function in (native.transcode_jpeg, native.check_jpeg):
            with pytest.raises(CorruptImageError, match=r"start marker|ends within its header"):
                function(data)


def test_wrong_arguments_are_refused() -> None:
    jpeg = encoded(picture(8, 8))
    with pytest.raises(ValueError, match="interval_pixels"):
        native.transcode_jpeg(jpeg, interval_pixels=-1)


# ---- time and memory


def test_a_header_cannot_reserve_what_the_file_cannot_fill() -> None:
    jpeg = bytearray(encoded(picture(16, 16), progressive=True))
    at = next(offset for offset, marker in segments(bytes(jpeg)) if marker == 0xC2)
    jpeg[at + 5 : at + 9] = (13000).to_bytes(2, "big") * 2
    begin = time.process_time()
    with pytest.raises(CorruptImageError, match="more pixels than its bytes can hold"):
        native.transcode_jpeg(bytes(jpeg))
    assert time.process_time() - begin < 0.1
    jpeg[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    with pytest.raises(UnsupportedImageError, match="more pixels than"):
        native.check_jpeg(bytes(jpeg))


def _passing_progressive(side: int) -> bytes:
    """A grey file of 883 scans, each passing all blocks in a few bytes, and none changing one."""
    blocks = (side // 8) ** 2
    assert blocks % (1 << 14) == 0
    size = side.to_bytes(2, "big")
    file = [b"\xff\xd8\xff\xdb\x00\x43\x00" + bytes([1] * 64)]
    file += [b"\xff\xc2\x00\x0b\x08" + size + size + b"\x01\x01\x11\x00"]
    for table, symbol in ((0x00, 0x00), (0x10, 0xE0)):  # DC: no difference; AC: end-of-band run
        file += [b"\xff\xc4\x00\x14", bytes([table, 1] + [0] * 15 + [symbol])]
    file += [b"\xff\xda\x00\x08\x01\x01\x00\x00\x00\x00", bytes(blocks // 8)]
    run_bits = 1 + 14  # the code, and 14 bits that add nothing to 2^14 blocks
    runs = bytes(-(-run_bits * (blocks >> 14) // 8))
    for k, low in itertools.product(range(1, 64), range(13, -1, -1)):
        high = 0 if low == 13 else low + 1
        file += [b"\xff\xda\x00\x08\x01\x01\x00", bytes([k, k, high << 4 | low]), runs]
    return b"".join([*file, b"\xff\xd9"])


def test_scans_that_pass_many_blocks_in_few_bytes_are_bounded() -> None:
    small = _passing_progressive(1024)
    assert native.check_jpeg(small).progressive
    assert np.array_equal(pillow(native.transcode_jpeg(small).jpeg), np.full((1024, 1024), 128))
    with pytest.raises(CorruptImageError, match="more scans over its pixels"):
        native.check_jpeg(_passing_progressive(4096))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_lack_of_memory_is_a_reason(tmp_path: Path) -> None:
    """A process that may grow by 40 MB meets coefficients of 72 MB."""
    path = tmp_path / "large.jpg"
    Image.new("L", (6000, 6000)).save(path, progressive=True)
    script = f"""
import resource
from pathlib import Path
from typing import Any
from fastload.pixels import native
from fastload.errors import UnsupportedImageError
jpeg = Path({str(path)!r}).read_bytes()
native.is_available()
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + (40 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for function in (native.check_jpeg, native.transcode_jpeg):
    try:
        function(jpeg)
    except UnsupportedImageError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True
    )
    assert done.stdout.splitlines() == ["not enough memory to decode this JPEG"] * 2


def test_threads_do_not_disturb_each_other() -> None:
    jpegs = [
        encoded(picture(40 + n, 64), progressive=bool(n % 2), quality=50 + n) for n in range(12)
    ]
    expected = [native.transcode_jpeg(jpeg).jpeg for jpeg in jpegs]
    found: dict[int, list[bytes]] = {}

    def work(thread: int) -> None:
        found[thread] = [native.transcode_jpeg(jpeg).jpeg for jpeg in jpegs * 3]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert all(found[n] == expected * 3 for n in range(4))


# ---- facts


def test_check_reads_the_facts() -> None:
    jpeg = with_orientation(
        picture(30, 50), 6, progressive=True, subsampling=1, restart_marker_blocks=3
    )
    facts = native.check_jpeg(jpeg)
    assert (facts.height, facts.width) == (30, 50)
    assert facts.sampling == ((2, 1), (1, 1), (1, 1))
    assert facts.progressive
    assert facts.orientation == 6
    assert facts.restart_interval == 3
    assert native.check_jpeg(encoded(picture(9, 9, mode="L"))).sampling == ((1, 1),)


# ---- shared images


def test_every_awkward_image_gives_libjpegs_picture_or_a_reason(awkward_dir: Path) -> None:
    outcomes = {"picture": 0, "corrupt": 0, "unsupported": 0}
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    for path in sorted(awkward_dir.glob("*.*")):
        data = path.read_bytes()
        try:
            stored = native.transcode_jpeg(data, orient=False)
        except CorruptImageError:
            outcomes["corrupt"] += 1
            continue
        except UnsupportedImageError:
            outcomes["unsupported"] += 1
            continue
        outcomes["picture"] += 1
        reference = pillow_or_none(data)
        assert reference is not None, path.name
        assert np.array_equal(pillow(stored.jpeg), reference), path.name
        native.check_jpeg(data)
    assert outcomes["picture"] > 30, outcomes


@pytest.mark.slow
def test_photographs_are_stored_without_loss(flowers_dir: Path) -> None:
    paths = sorted(flowers_dir.glob("train/*/*.jpg"))[::40]
    before = after = 0
    for path in paths:
        jpeg = path.read_bytes()
        stored = native.transcode_jpeg(jpeg).jpeg
        assert np.array_equal(simplejpeg.decode_jpeg(stored), simplejpeg.decode_jpeg(jpeg))
        before, after = before + len(jpeg), after + len(stored)
    assert after < 1.02 * before
