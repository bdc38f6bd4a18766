"""Odd and broken image files, made at run time, with the reason that each must get.

A file that is wrong in the middle of a segment is made by hand from a sound one: a JPEG is a row of
segments (marker, length, body), then the entropy-coded scan, then EOI (ITU-T T.81, B.2.1).
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import simplejpeg
from PIL import Image

from tests.pictures import encoded, jpeg, orientation_exif, picture

HEIGHT, WIDTH = 64, 64
SOF0, DHT, SOI, EOI, SOS, DQT, APP1 = 0xC0, 0xC4, 0xD8, 0xD9, 0xDA, 0xDB, 0xE1


@dataclass(frozen=True, slots=True, kw_only=True)
class Odd:
    """One file.

    Attributes:
        name: File name, extension included.
        data: All bytes of the file.
        reason: Slug of the reason for which it must be set aside; "" where it must be stored. It
            is the same with the native core and without it.
        exact: Whether the native core must store the very pixels of this file.
    """

    name: str
    data: bytes
    reason: str = ""
    exact: bool = False


def odd_files() -> list[Odd]:
    """All of them; the names differ, and so do the pictures of those that are stored."""
    return [
        *_sound_jpegs(),
        *_turned_jpegs(),
        *_other_jpegs(),
        *_broken_jpegs(),
        *_claims(),
        *_other_formats(),
        *_misnamed(),
        *_no_images(),
    ]


def sound(seed: int, **options: object) -> bytes:
    """A JPEG of 64 x 64 pixels, a picture of its own for each seed."""
    return jpeg(seed, height=HEIGHT, width=WIDTH, **options)


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, begin and end of each segment of a JPEG, up to the header of the first scan."""
    at, marker = 2, SOI
    while marker != SOS:
        assert data[at] == 0xFF
        marker = data[at + 1]
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        yield marker, at, end
        at = end


def place_of(data: bytes, wanted: int) -> int:
    """Where the first segment of that marker begins."""
    return next(begin for marker, begin, _ in segments(data) if marker == wanted)


def scan_of(data: bytes) -> int:
    """Where the entropy-coded bytes begin."""
    return next(end for marker, _, end in segments(data) if marker == SOS)


def patched(data: bytes, at: int, new: bytes) -> bytes:
    """The bytes with some of them replaced."""
    return data[:at] + new + data[at + len(new) :]


def with_frame(data: bytes, *, marker: int = SOF0, precision: int = 8) -> bytes:
    """The frame header claims another process or precision."""
    at = place_of(data, SOF0)
    return patched(patched(data, at + 1, bytes([marker])), at + 4, bytes([precision]))


def with_size(data: bytes, height: int, width: int) -> bytes:
    """The frame header claims another size."""
    return patched(data, place_of(data, SOF0) + 5, struct.pack(">HH", height, width))


def with_luma_factors(data: bytes, factors: int) -> bytes:
    """The frame header claims other sampling factors: the same blocks, put elsewhere."""
    return patched(data, place_of(data, SOF0) + 11, bytes([factors]))


def with_orientations(data: bytes, *values: int) -> bytes:
    """An EXIF block for each of the values."""
    blocks = b""
    for value in values:
        body = orientation_exif(value).tobytes()
        blocks += bytes([0xFF, APP1]) + (len(body) + 2).to_bytes(2, "big") + body
    return data[:2] + blocks + data[2:]


def xmp_orientation(value: int) -> bytes:
    """XMP that says how to turn the picture."""
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description '
        'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
        f'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="{value}"/></x:xmpmeta>'
    ).encode()


def with_jfif_2(data: bytes) -> bytes:
    """JFIF of a version that is not there: libjpeg-turbo warns of it, and of nothing after it."""
    return patched(data, data.index(b"JFIF\0") + 5, b"\2")


def without_order(data: bytes) -> bytes:
    """The second restart marker has the number of another one."""
    return patched(data, data.index(b"\xff\xd1", scan_of(data)) + 1, b"\xd5")


def with_fill_bytes(data: bytes) -> bytes:
    """Fill bytes stand before a marker, as B.1.1.2 allows."""
    at = place_of(data, DQT)
    return data[:at] + b"\xff" * 5 + data[at:]


def with_flipped_byte(data: bytes) -> bytes:
    """One byte of the scan is another one, and libjpeg-turbo notices."""
    middle = (scan_of(data) + len(data)) // 2
    for at in range(middle, len(data) - 2):
        flipped = patched(data, at, bytes([data[at] ^ 0x5A]))
        try:
            simplejpeg.decode_jpeg(flipped, strict=True)
        except ValueError as error:
            if "bad Huffman code" in str(error):
                return flipped
    raise AssertionError("no flipped byte of the scan is noticed")


def with_open_height(data: bytes) -> bytes:
    """The height is 0 in the frame header and stands in a DNL segment after the scan (B.2.5)."""
    return (
        with_size(data, 0, WIDTH)[:-2] + b"\xff\xdc\x00\x04" + struct.pack(">H", HEIGHT) + data[-2:]
    )


def in_three_scans() -> bytes:
    """Each component has a scan of its own, as some cameras write."""
    greys = [encoded(picture(seed, height=HEIGHT, width=WIDTH, mode="L")) for seed in (90, 91, 92)]
    first = greys[0]
    tables = b"".join(
        first[begin:end] for marker, begin, end in segments(first) if marker in {DQT, DHT}
    )
    parts = b"".join(bytes([number, 0x11, 0]) for number in (1, 2, 3))
    frame = b"\xff\xc0\x00\x11\x08" + struct.pack(">HH", HEIGHT, WIDTH) + b"\x03" + parts
    scans = b"".join(
        b"\xff\xda\x00\x08\x01" + bytes([number, 0, 0, 63, 0]) + grey[scan_of(grey) : -2]
        for number, grey in enumerate(greys, 1)
    )
    return first[:2] + tables + frame + scans + b"\xff\xd9"


def png_of_16_bits() -> bytes:
    """A PNG of three channels with 16 bits each, which Pillow reads and does not write."""
    pixels = np.asarray(picture(80, height=HEIGHT, width=WIDTH), ">u2") * 257
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    size = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", size), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(png_chunk, chunks))


def png_chunk(chunk: tuple[bytes, bytes]) -> bytes:
    kind, body = chunk
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("photograph.jpg", sound(0))
    return file.getvalue()


def _sound_jpegs() -> Iterator[Odd]:
    files = {
        "plain": sound(1),
        "odd-size": jpeg(2, height=37, width=53),
        "two-by-three": jpeg(3, height=2, width=3),
        "progressive": sound(4, progressive=True),
        "optimised": sound(5, optimize=True),
        "restart-markers": sound(6, restart_marker_blocks=1),
        "4-4-4": sound(7, subsampling=0),
        "4-2-2": sound(8, subsampling=1),
        "4-4-0": with_luma_factors(sound(9, subsampling=1), 0x12),
        "three-scans": in_three_scans(),
        "icc-profile": sound(11, icc_profile=b"no profile" * 30),
        "comment": sound(12, comment=b"\xff\xd8\xff\xd9 is no end"),
        "fill-bytes": with_fill_bytes(sound(13)),
        "padded-end": sound(34)[:-2] + bytes(500) + b"\xff\xd9",
        "extended-sequential": with_frame(sound(14), marker=0xC1),
        "garbage-behind": sound(16) + bytes(range(256)) * 4,
        "another-behind": sound(17) + sound(18),
        "mpo": encoded(
            picture(19, height=HEIGHT, width=WIDTH),
            "MPO",
            quality=90,
            save_all=True,
            append_images=[picture(20, height=HEIGHT, width=WIDTH)],
        ),
    }
    yield from (Odd(name=f"{name}.jpg", data=data, exact=True) for name, data in files.items())
    yield Odd(name="no-eoi.jpg", data=sound(15)[:-2], exact=True)  # every pixel is there


def _turned_jpegs() -> Iterator[Odd]:
    for value in range(2, 9):
        data = with_orientations(sound(20 + value), value)
        yield Odd(name=f"orientation-{value}.jpg", data=data)
    yield Odd(name="orientation-twice.jpg", data=with_orientations(sound(30), 6, 3))
    yield Odd(name="orientation-in-xmp.jpg", data=sound(32, xmp=xmp_orientation(6)))
    both = sound(33, xmp=xmp_orientation(6), exif=orientation_exif(3))
    yield Odd(name="orientation-in-exif-and-xmp.jpg", data=both)
    yield Odd(name="orientation-9.jpg", data=with_orientations(sound(31), 9), exact=True)


def _other_jpegs() -> Iterator[Odd]:
    yield Odd(name="4-1-1.jpg", data=with_luma_factors(sound(10, subsampling=2), 0x41))
    yield Odd(name="rgb.jpg", data=sound(40, keep_rgb=True))
    at = place_of(sound(45), DQT)
    yield Odd(name="stray-bytes.jpg", data=sound(45)[:at] + b"stray" + sound(45)[at:])
    comment = b"\xff\xfe\0\1 is longer than its length says"
    yield Odd(name="segment-too-short.jpg", data=sound(46)[:2] + comment + sound(46)[2:])
    grey = encoded(picture(41, mode="L"))
    yield Odd(name="grey.jpg", data=grey, reason="grey")
    cmyk = encoded(picture(42, mode="CMYK"))
    yield Odd(name="cmyk.jpg", data=cmyk, reason="cmyk")
    yield Odd(name="one-pixel.jpg", data=jpeg(43, height=1, width=1), reason="small")
    yield Odd(name="12-bit.jpg", data=with_frame(sound(44), precision=12), reason="unsupported")


def _broken_jpegs() -> Iterator[Odd]:
    whole, progressive = sound(50), sound(51, progressive=True)
    restarts = sound(52, restart_marker_blocks=1)
    scan = scan_of(whole)
    yield Odd(name="cut-after-soi.jpg", data=whole[:2], reason="truncated")
    yield Odd(name="cut-in-tables.jpg", data=whole[: place_of(whole, SOF0) - 9], reason="truncated")
    yield Odd(name="cut-at-scan.jpg", data=whole[:scan], reason="truncated")
    half = whole[: (scan + len(whole)) // 2]
    yield Odd(name="cut-in-half.jpg", data=half, reason="truncated")
    ended = half + b"\xff\xd9"
    yield Odd(name="cut-and-ended.jpg", data=ended, reason="truncated")
    yield Odd(name="cut-near-the-end.jpg", data=whole[:-40], reason="truncated")
    short = progressive[: progressive.rindex(b"\xff\xda") + 12]
    yield Odd(name="progressive-cut.jpg", data=short, reason="truncated")
    flipped = with_flipped_byte(whole)
    yield Odd(name="flipped-byte.jpg", data=flipped, reason="corrupt")
    yield Odd(name="flipped-byte-and-jfif-2.jpg", data=with_jfif_2(flipped), reason="corrupt")
    scans = in_three_scans()
    two = scans[: scans.rindex(b"\xff\xda")]
    yield Odd(name="two-of-three-scans.jpg", data=two, reason="truncated")
    yield Odd(name="two-of-three-scans-ended.jpg", data=two + b"\xff\xd9", reason="truncated")
    at = progressive.index(b"\xff\xda", scan_of(progressive))
    at = progressive.rindex(b"\xff\xc4", 0, at)  # the tables of the second scan
    left_over = progressive[:at] + b"left over" * 50 + progressive[at:]
    yield Odd(name="progressive-left-over.jpg", data=left_over, reason="corrupt")
    yield Odd(name="restarts-out-of-order.jpg", data=without_order(restarts), reason="corrupt")
    at = place_of(whole, DHT)
    tables = patched(whole, at + 5, b"\xff" * 16)
    yield Odd(name="no-huffman-code.jpg", data=tables, reason="corrupt")
    yield Odd(name="open-height.jpg", data=with_open_height(whole), reason="unsupported")
    yield Odd(name="lossless-process.jpg", data=with_frame(whole, marker=0xC3), reason="corrupt")
    yield Odd(name="arithmetic.jpg", data=with_frame(whole, marker=0xC9), reason="corrupt")


def _claims() -> Iterator[Odd]:
    bomb = with_size(sound(60), 65_000, 65_000)
    yield Odd(name="bomb.jpg", data=bomb, reason="bomb")
    long = with_size(sound(61), 65_501, 64)
    yield Odd(name="too-long.jpg", data=long, reason="too-large")
    high = with_size(sound(62), 4 * HEIGHT, WIDTH)
    yield Odd(name="too-few-rows.jpg", data=high, reason="truncated")
    size = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", size), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    data = b"\x89PNG\r\n\x1a\n" + b"".join(map(png_chunk, chunks))
    yield Odd(name="bomb.png", data=data, reason="bomb")


def _other_formats() -> Iterator[Odd]:
    image = picture(70, height=HEIGHT, width=WIDTH)
    frames = [picture(seed, height=HEIGHT, width=WIDTH) for seed in (71, 72)]
    several = {"save_all": True, "append_images": frames}
    alpha = image.copy()
    alpha.putalpha(128)
    deep = Image.fromarray(np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH))
    png = encoded(picture(73), "PNG")
    yield Odd(name="plain.png", data=encoded(picture(74), "PNG"))
    yield Odd(name="plain.bmp", data=encoded(picture(75), "BMP"))
    yield Odd(name="plain.tiff", data=encoded(picture(76), "TIFF"))
    yield Odd(name="plain.webp", data=encoded(picture(77), "WEBP", quality=90))
    yield Odd(name="16-bit-colours.png", data=png_of_16_bits())
    yield Odd(name="palette.png", data=encoded(image.quantize(16), "PNG"), reason="palette")
    yield Odd(name="alpha.png", data=encoded(alpha, "PNG"), reason="alpha")
    yield Odd(name="alpha.webp", data=encoded(alpha, "WEBP"), reason="alpha")
    yield Odd(name="16-bit.png", data=encoded(deep, "PNG"), reason="deep")
    yield Odd(name="two-colours.png", data=encoded(image.convert("1"), "PNG"), reason="grey")
    yield Odd(name="animated.png", data=encoded(image, "PNG", **several), reason="animated")
    yield Odd(name="animated.webp", data=encoded(image, "WEBP", **several), reason="animated")
    yield Odd(name="pages.tiff", data=encoded(image, "TIFF", **several), reason="animated")
    yield Odd(name="animated.gif", data=encoded(image, "GIF", **several), reason="gif")
    yield Odd(name="still.gif", data=encoded(image, "GIF"), reason="gif")
    yield Odd(name="icon.ico", data=encoded(image, "ICO"), reason="unsupported")
    yield Odd(name="cut.png", data=png[: len(png) // 2], reason="truncated")
    middle = len(png) // 2
    flipped = patched(png, middle, bytes([png[middle] ^ 0xFF]))
    yield Odd(name="flipped-byte.png", data=flipped, reason="corrupt")


def _misnamed() -> Iterator[Odd]:
    yield Odd(name="png-named.jpg", data=encoded(picture(85), "PNG"), reason="mislabelled")
    yield Odd(name="jpeg-named.png", data=sound(86), reason="mislabelled")
    yield Odd(name="without-extension", data=sound(87), reason="mislabelled")


def _no_images() -> Iterator[Odd]:
    page = b"<!doctype html><html><body>404 Not Found</body></html>"
    yield Odd(name="empty.jpg", data=b"", reason="empty")
    yield Odd(name="text.jpg", data=b"This photograph was removed.\n", reason="not-an-image")
    yield Odd(name="page.jpg", data=page, reason="not-an-image")
    yield Odd(name="archive.jpg", data=zipped(), reason="not-an-image")
    yield Odd(name="zeros.jpg", data=bytes(5000), reason="not-an-image")
    yield Odd(name="notes.txt", data=b"daisies, 2019\n", reason="not-an-image")
