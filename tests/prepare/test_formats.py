"""Formats of image files, by their first bytes and by their names."""

from __future__ import annotations

from fastload.prepare.formats import format_named, sniff_format
from tests.pictures import encoded, picture


def test_formats_are_told_by_their_first_bytes():
    for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "ICO"):
        assert sniff_format(encoded(picture(0), kind)) == kind
    assert sniff_format(encoded(picture(0), "JPEG2000")) == "JPEG2000"
    assert sniff_format(b"\0\0\0\x1cftypavif") == "AVIF"
    assert sniff_format(b"hello") == ""


def test_formats_are_told_by_their_extensions():
    assert [format_named(name) for name in (".JPG", ".mpo", "png", ".txt", "")] == [
        "JPEG",
        "JPEG",
        "PNG",
        "",
        "",
    ]
