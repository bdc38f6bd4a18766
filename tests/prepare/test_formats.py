"""Formats of image files, by their first bytes and by their names."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from fastload.prepare.formats import TAKEN, format_named, sniff_format
from fastload.prepare.reasons import Reason, Rules, SetAsideError
from fastload.prepare.transcode import store_image
from tests.pictures import HAS_AVIF, encoded, orientation_exif, picture, pixels_of


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


def boxes(major: bytes, *compatible: bytes) -> bytes:
    """The first box of a file of ISO boxes."""
    body = b"ftyp" + major + bytes(4) + b"".join(compatible)
    return (len(body) + 4).to_bytes(4, "big") + body + b"\0\0\0\x20meta" + b"avif" * 9


@pytest.mark.parametrize(
    ("major", "compatible", "kind"),
    [
        (b"avif", (), "AVIF"),
        (b"avis", (b"msf1",), "AVIF"),
        (b"mif1", (b"mif1", b"avif", b"miaf"), "AVIF"),
        (b"msf1", (b"avis",), "AVIF"),
        (b"miaf", (b"MA1B", b"avif"), "AVIF"),
        (b"MA1B", (b"avif",), "AVIF"),
        (b"mif1", (b"mif1", b"heic"), "HEIC"),
        (b"mif1", (b"heic", b"avif"), "HEIC"),
        (b"heic", (b"mif1",), "HEIC"),
        (b"heix", (), "HEIC"),
        (b"hevc", (), "HEIC"),
        (b"msf1", (b"hevc",), "HEIC"),
        (b"mif1", (), "HEIF"),
        (b"crx ", (), "camera raw"),
        (b"isom", (b"avc1",), ""),
    ],
)
def test_the_brands_of_a_file_of_boxes_tell_its_coding(
    major: bytes, compatible: tuple[bytes, ...], kind: str
):
    assert sniff_format(boxes(major, *compatible)) == kind


def test_every_extension_that_pillow_gives_a_format_that_is_taken_stands_for_it():
    Image.init()
    taken = TAKEN | {"GIF"}
    for extension, kind in Image.registered_extensions().items():
        if kind in taken:
            assert format_named(extension) == kind
    assert format_named(".mpo") == "JPEG"


@pytest.mark.parametrize(
    ("beginning", "kind"),
    [
        (b"\xff\xd8\xff\xf7\0\x0b", "JPEG-LS"),
        (b"DDS |\0\0\0", "DDS"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "PostScript"),
        (b"II*\0\x10\0\0\0CR\2\0", "camera raw"),
        (b"IIU\0\x18\0\0\0", "camera raw"),
        (b"II\xbc\1 ", "JPEG XR"),
        (b"\x76\x2f\x31\x01\2", "OpenEXR"),
        (b"P7\nWIDTH 3", "PNM"),
        (b"BA\x0e\0\0\0", "OS/2 bitmap array"),
        (b"MM\0+\0\x08\0\0", "big-endian BigTIFF"),
        (b"\xff\x0a\0", "JPEG XL"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\4CgBIP\0 \2", "Apple CgBI"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    ],
)
def test_what_is_not_taken_is_named(beginning: bytes, kind: str):
    assert sniff_format(beginning + bytes(60)) == kind
    with pytest.raises(SetAsideError, match=f"is an? {kind} file, which is not taken") as caught:
        store_image(beginning + bytes(60), extension=".jpg", rules=Rules())
    assert caught.value.kind is Reason.UNSUPPORTED


def bitmap(header: bytes, pixels: bytes) -> bytes:
    offset = 14 + len(header)
    return b"BM" + struct.pack("<IHHI", offset + len(pixels), 0, 0, offset) + header + pixels


def avif_brands(avif: bytes) -> dict[str, tuple[str, bytes]]:
    box = int.from_bytes(avif[:4], "big")
    assert b"avif" in avif[16:box]
    return {
        f"avif, {brand}": (".avif", avif[:8] + brand.encode() + avif[12:])
        for brand in ("mif1", "msf1", "miaf")
    }


def odd_headers() -> dict[str, tuple[str, bytes]]:
    """Files of the same picture, with headers that Pillow reads and few others."""
    image = picture(1)
    rows = np.asarray(image)
    upside_down = rows[::-1, :, ::-1].tobytes()
    sizes = struct.pack("<iiHHIIiiII", 64, 48, 1, 24, 0, 0, 0, 0, 0, 0)
    tiff, jp2 = (encoded(image, kind) for kind in ("TIFF", "JPEG2000"))
    big = encoded(image, "TIFF", big_tiff=True)
    return {
        **(avif_brands(encoded(image, "AVIF")) if HAS_AVIF else {}),
        "bmp of os/2": (".bmp", bitmap(struct.pack("<IHHHH", 12, 64, 48, 1, 24), upside_down)),
        "bmp of os/2, 2": (".bmp", bitmap(b"\x40\0\0\0" + sizes + bytes(24), upside_down)),
        "bmp without BM": (".dib", bitmap(b"\x28\0\0\0" + sizes, upside_down)[14:]),
        "tiff, II 00 2a": (".tif", tiff[:2] + b"\0*" + tiff[4:]),
        "bigtiff": (".tiff", big),
        "jp2, jpx": (".jpx", jp2.replace(b"ftypjp2 ", b"ftypjpx ", 1)),
        "jp2, jpm": (".jpm", jp2.replace(b"ftypjp2 ", b"ftypjpm ", 1)),
        "codestream": (".j2c", encoded(image, "JPEG2000", no_jp2=True)),
        "webp, lossless": (".webp", encoded(image, "WEBP", lossless=True)),
        "webp, extended": (".webp", encoded(image, "WEBP", exif=orientation_exif(1))),
    }


@pytest.mark.parametrize("name", list(odd_headers()))
def test_what_pillow_reads_is_stored(name: str):
    extension, data = odd_headers()[name]
    stored = store_image(data, extension=extension, rules=Rules())
    difference = np.abs(pixels_of(stored.jpeg) - np.asarray(picture(1)).astype(np.int16))
    assert difference.mean() < 8


def test_what_the_decoder_does_not_take_is_not_called_damaged():
    odd = bitmap(struct.pack("<IiiHH", 16, 64, 48, 1, 24), bytes(64 * 48 * 3))
    with pytest.raises(SetAsideError, match="Unsupported BMP header type") as caught:
        store_image(odd, extension=".bmp", rules=Rules())
    assert caught.value.kind is Reason.UNSUPPORTED
    tiff = encoded(picture(1), "TIFF")
    before, after = struct.pack("<HHLL", 259, 3, 1, 1), struct.pack("<HHLL", 259, 3, 1, 34712)
    assert tiff.count(before) == 1
    with pytest.raises(SetAsideError, match="has the compression 34712, which is not") as caught:
        store_image(tiff.replace(before, after), extension=".tif", rules=Rules())
    assert caught.value.kind is Reason.UNSUPPORTED


@pytest.mark.skipif(HAS_AVIF, reason="needs a Pillow that reads no AVIF, such as 10.2")
def test_a_format_that_pillow_was_built_without_is_said():
    with pytest.raises(SetAsideError, match="is an AVIF file, which this Pillow was") as caught:
        store_image(b"\0\0\0\x1cftypavif" + bytes(99), extension=".avif", rules=Rules())
    assert caught.value.kind is Reason.UNSUPPORTED


CUT = {
    "png": (".png", encoded(picture(1), "PNG")),
    "webp": (".webp", encoded(picture(1), "WEBP")),
    **({"avif": (".avif", encoded(picture(1), "AVIF"))} if HAS_AVIF else {}),
    "jp2": (".jp2", encoded(picture(1), "JPEG2000")),
    "j2k": (".j2k", encoded(picture(1), "JPEG2000", no_jp2=True)),
    "bmp": (".bmp", encoded(picture(1), "BMP")),
    "tiff": (".tif", encoded(picture(1), "TIFF")),
    "tiff, lzw": (".tif", encoded(picture(1), "TIFF", compression="tiff_lzw")),
    "tiff, jpeg": (".tif", encoded(picture(1), "TIFF", compression="jpeg")),
    "bigtiff": (".tif", encoded(picture(1), "TIFF", big_tiff=True)),
}


@pytest.mark.parametrize("name", list(CUT))
def test_a_file_that_ends_too_early_is_truncated(name: str):
    extension, data = CUT[name]
    for size in range(len(data) // 4, len(data) - 20, len(data) // 7):
        with pytest.raises(SetAsideError) as caught:
            store_image(data[:size], extension=extension, rules=Rules())
        assert caught.value.kind is Reason.TRUNCATED, (size, caught.value.reason)
        assert "0x" not in caught.value.reason  # the address of a buffer differs each time
