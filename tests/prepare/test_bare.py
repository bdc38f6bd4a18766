"""What libjpeg-turbo warns of, and whether pixels are lost: with the native core and without it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from fastload.errors import CorruptImageError
from fastload.pixels.jpeg import read_header
from fastload.prepare.bare import bare_jpeg
from fastload.prepare.reasons import Reason, Rules, SetAsideError
from fastload.prepare.transcode import store_image
from tests.odd import (
    DQT,
    in_three_scans,
    patched,
    place_of,
    scan_of,
    sound,
    with_flipped_byte,
    with_jfif_2,
    without_order,
)
from tests.pictures import pixels_of

SOS = b"\xff\xda"
PLAIN = sound(50)
FLIPPED = with_flipped_byte(PLAIN)
PROGRESSIVE = sound(51, progressive=True)


def warning_of(data: bytes) -> str:
    try:
        simplejpeg.decode_jpeg(data, strict=True)
    except ValueError as error:
        return str(error)
    return ""


def with_segment(data: bytes, segment: bytes) -> bytes:
    return data[:20] + segment + data[20:]  # behind JFIF's


def with_adobe(data: bytes) -> bytes:
    """Adobe's segment, with a transform that is not there, instead of JFIF's."""
    return data[:2] + b"\xff\xee\0\x0eAdobe\0d\0\0\0\0\7" + data[20:]


def with_progression(data: bytes) -> bytes:
    """A scan that refines what no scan has begun."""
    second = data.index(SOS, scan_of(data))
    length = int.from_bytes(data[second + 2 : second + 4], "big")
    return patched(data, second + 2 + length - 1, b"\x32")


def with_scan_parameters(data: bytes) -> bytes:
    """Spectral selection in a sequential file."""
    return patched(data, scan_of(data) - 3, b"\x01\x3f\x00")


def left_over(data: bytes, rest: bytes) -> bytes:
    return data[:-2] + rest + data[-2:]


RESTARTS = sound(52, restart_marker_blocks=1)
HALF = PLAIN[: (scan_of(PLAIN) + len(PLAIN)) // 2]
PROFILE = b"\xff\xe2\0\x12ICC_PROFILE\0\7\1ab"

# The warnings of libjpeg-turbo 3 (jerror.h) about a decoder's input, but that of arithmetic codes,
# which no encoder here writes: name, file, what it says of it, reason or "" where it is stored.
WARNINGS: list[tuple[str, bytes, str, str]] = [
    ("adobe transform", with_adobe(PLAIN), "Unknown Adobe color", ""),
    ("jfif version", with_jfif_2(PLAIN), "unknown JFIF revision", ""),
    ("profile", with_segment(PLAIN, PROFILE), "", ""),
    ("scan parameters", with_scan_parameters(PLAIN), "Invalid SOS parameters", ""),
    ("stray bytes in the header", with_segment(PLAIN, b"stray"), "5 extraneous bytes", ""),
    ("padding", left_over(PLAIN, bytes(60)), r"\d\d extraneous bytes before marker 0xd9", ""),
    ("no end marker", PLAIN[:-2], "Premature end of JPEG file", ""),
    ("end marker cut", PLAIN[:-1], "Premature end of JPEG file", ""),
    ("left over", left_over(PLAIN, b"x" * 60), r"\d\d extraneous bytes", "corrupt"),
    ("cut", HALF, "Premature end of JPEG file", "truncated"),
    ("cut and ended", HALF + b"\xff\xd9", "premature end of data", "truncated"),
    ("bad code", FLIPPED, "bad Huffman code", "corrupt"),
    ("restart markers", without_order(RESTARTS), "instead of RST", "corrupt"),
    ("progression", with_progression(PROGRESSIVE), "Inconsistent progression", "corrupt"),
    (
        "bad code behind a warning",
        with_jfif_2(FLIPPED),
        "unknown JFIF revision",
        "corrupt",
    ),
    (
        "bad code behind stray bytes",
        with_segment(FLIPPED, b"stray"),
        "5 extraneous bytes",
        "corrupt",
    ),
    ("bad code behind Adobe's", with_adobe(FLIPPED), "Unknown Adobe color", "corrupt"),
]


def outcome_of(data: bytes) -> str:
    try:
        stored = store_image(data, extension=".jpg", rules=Rules())
    except SetAsideError as error:
        return error.kind.slug
    assert np.abs(pixels_of(stored.jpeg) - pixels_of(bare_jpeg(data))).mean() < 4
    return ""


@pytest.mark.parametrize(
    ("data", "warning", "reason"), [row[1:] for row in WARNINGS], ids=[row[0] for row in WARNINGS]
)
def test_a_warning_counts_if_pixels_are_lost(core: str, data: bytes, warning: str, reason: str):
    assert re.search(warning, warning_of(data))
    assert outcome_of(data) == reason


def test_missing_scans_are_truncated_though_libjpeg_is_silent(core: str):
    scans = in_three_scans()
    assert outcome_of(scans) == ""
    for behind in (b"", b"\xff\xd9", scans[scans.rindex(SOS) :][:12]):
        assert outcome_of(scans[: scans.rindex(SOS)] + behind) == "truncated"


def test_a_progressive_file_is_complete_without_its_end_marker_only_after_its_last_scan(core: str):
    assert outcome_of(PROGRESSIVE[:-2]) == ""
    for at in [found.start() for found in re.finditer(SOS, PROGRESSIVE)][1:]:
        assert outcome_of(PROGRESSIVE[:at]) == "truncated"


def test_arithmetic_codes_need_their_end_marker(core: str, awkward_dir: Path):
    """Their decoder never misses a bit: it takes zeros, and warns of nothing."""
    data = (awkward_dir / "libjpeg-turbo__testimgari.jpg").read_bytes()
    assert outcome_of(data) == ""
    for cut in (data[:-2], data[: len(data) // 2]):
        assert outcome_of(cut) == "truncated"


def test_what_follows_the_last_scan_says_nothing(core: str):
    for behind in (b"\xff\xd9\xff\x02", b"\xff\xd8" + PLAIN, b"\xff\x02\xff", b"\xff\xd9" * 9):
        assert outcome_of(PLAIN[:-2] + behind) == ""


def test_a_bare_jpeg_has_the_pixels_and_no_metadata():
    data = PLAIN[:2] + b"\xff\xe1\0\x08Exif\0\0" + b"\xff\xfe\0\7hello" + PLAIN[2:]
    bare = bare_jpeg(with_segment(data, b""))
    assert bare == PLAIN
    assert np.array_equal(pixels_of(bare), pixels_of(data))
    assert read_header(bare).scan_offset == scan_of(PLAIN)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (PLAIN[:2], "the JPEG header is cut off"),
        (PLAIN[: place_of(PLAIN, DQT) + 9], "segment is cut off"),
        (PLAIN[:20] + b"\xff\xd9", "ends before its first scan"),
        (patched(PLAIN, scan_of(PLAIN) - 9, b"\7"), "scan header contradicts the frame header"),
        (in_three_scans()[: in_three_scans().rindex(SOS)], "ends before its picture is complete"),
    ],
)
def test_what_is_no_whole_jpeg_has_its_sentence(data: bytes, message: str):
    with pytest.raises(CorruptImageError, match=message):
        bare_jpeg(data)


def test_heights_processes_and_components_that_are_not_taken_are_unsupported(core: str):
    def reason_of(data: bytes) -> Reason:
        with pytest.raises(SetAsideError) as caught:
            store_image(data, extension=".jpg", rules=Rules(convert=True))
        return caught.value.kind

    frame = place_of(PLAIN, 0xC0)
    assert reason_of(patched(PLAIN, frame + 5, b"\0\0")) is Reason.UNSUPPORTED
    for marker in (0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF):
        assert reason_of(patched(PLAIN, frame + 1, bytes([marker]))) is Reason.UNSUPPORTED
    two = PLAIN[: frame + 2] + b"\0\x0e" + PLAIN[frame + 4 : frame + 9] + b"\2"
    two += PLAIN[frame + 10 : frame + 16] + PLAIN[frame + 19 :]
    assert reason_of(two) is Reason.COLOUR_SPACE
