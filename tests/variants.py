"""JPEGs that are unusual in one way each, sound or not, made at run time from ordinary ones.

What a reader makes of them differs from library to library. Paragraph numbers are those of T.81.
"""

from __future__ import annotations

import struct

from tests.odd import (
    DHT,
    DQT,
    HEIGHT,
    SOF0,
    SOS,
    WIDTH,
    in_three_scans,
    patched,
    place_of,
    scan_of,
    segments,
    sound,
    with_fill_bytes,
    with_frame,
    with_luma_factors,
    with_open_height,
    with_size,
    without_order,
)
from tests.pictures import encoded, orientation_exif, picture

APP0, APP1, APP14, COM, DRI, DNL, TEM = 0xE0, 0xE1, 0xEE, 0xFE, 0xDD, 0xDC, 0x01


def variants() -> dict[str, bytes]:
    """Name -> file. Every picture is another one."""
    made = {
        **_markers(),
        **_headers(),
        **_colours(),
        **_samplings(),
        **_restarts(),
        **_scans(),
        **_ends(),
    }
    return {f"{name}.jpg": data for name, data in made.items()}


def segment(marker: int, body: bytes) -> bytes:
    """A segment with its length."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def inserted(data: bytes, at: int, new: bytes) -> bytes:
    """The bytes with others before position `at`."""
    return data[:at] + new + data[at:]


def without(data: bytes, *markers: int) -> bytes:
    """The file without the segments of those markers."""
    for marker, begin, end in reversed(list(segments(data))):
        if marker in markers:
            data = data[:begin] + data[end:]
    return data


def with_ids(data: bytes, *ids: int) -> bytes:
    """The components have other numbers, in the frame header and in the one scan."""
    frame, scan = place_of(data, SOF0), place_of(data, SOS)
    for place, number in enumerate(ids):
        data = patched(data, frame + 10 + 3 * place, bytes([number]))
        data = patched(data, scan + 5 + 2 * place, bytes([number]))
    return data


def with_adobe(data: bytes, transform: int) -> bytes:
    """Adobe's segment in the place of JFIF's (TN 5116, 18)."""
    return inserted(
        without(data, APP0), 2, segment(APP14, b"Adobe\0\x64" + bytes(4) + bytes([transform]))
    )


def with_wide_tables(data: bytes, factor: int = 1) -> bytes:
    """Quantisation tables of 16 bits an entry (B.2.4.1)."""
    for marker, begin, end in reversed(list(segments(data))):
        if marker == DQT:
            body, wide = data[begin + 4 : end], b""
            for at in range(0, len(body), 65):
                steps = [step * factor for step in body[at + 1 : at + 65]]
                wide += bytes([0x10 | body[at]]) + struct.pack(">64H", *steps)
            data = data[:begin] + segment(DQT, wide) + data[end:]
    return with_frame(data, marker=0xC1)


def sampled(seed: int, *factors: tuple[int, int]) -> bytes:
    """Any sampling factors: each component has a scan of its own."""
    most = max(h for h, _ in factors), max(v for _, v in factors)
    greys = [
        encoded(
            picture(
                seed + place, mode="L", height=HEIGHT * v // most[1], width=WIDTH * h // most[0]
            ),
            quality=90,
        )
        for place, (h, v) in enumerate(factors)
    ]
    tables = b"".join(
        greys[0][begin:end] for marker, begin, end in segments(greys[0]) if marker in {DQT, DHT}
    )
    parts = b"".join(bytes([place, h << 4 | v, 0]) for place, (h, v) in enumerate(factors, 1))
    frame = segment(SOF0, struct.pack(">BHHB", 8, HEIGHT, WIDTH, len(factors)) + parts)
    scans = b"".join(
        segment(SOS, bytes([1, place, 0, 0, 63, 0])) + grey[scan_of(grey) : -2]
        for place, grey in enumerate(greys, 1)
    )
    return b"\xff\xd8" + tables + frame + scans + b"\xff\xd9"


def without_last_scans(data: bytes, number: int) -> bytes:
    """A progressive file without its last scans, ended all the same."""
    for _ in range(number):
        data = data[: data.rindex(b"\xff\xda")]
    while data[-4:-2] != b"\xff\xc4" and data[-2:] != b"\xff\xc4" and _table_at_end(data):
        data = data[: _table_at_end(data)]
    return data + b"\xff\xd9"


def _table_at_end(data: bytes) -> int:
    """Where a Huffman table begins that ends with the data; 0 where none does."""
    at = data.rindex(b"\xff\xc4")
    return at if at + 2 + struct.unpack_from(">H", data, at + 2)[0] == len(data) else 0


def _markers() -> dict[str, bytes]:
    one = sound(200)
    thumbnail = orientation_exif(1).tobytes() + encoded(picture(1, height=16, width=16))
    apps = b"".join(segment(0xE0 + number % 16, bytes([number]) * 40) for number in range(2, 80, 3))
    huge = b"".join(segment(0xE5, bytes([number]) * 65_533) for number in range(9))
    return {
        "two-soi": b"\xff\xd8" + one,
        "fill-before-soi-segment": inserted(sound(201), 2, b"\xff" * 3),
        "fill-before-tables": with_fill_bytes(sound(202)),
        "fill-before-scan": inserted(sound(203), place_of(sound(203), SOS), b"\xff" * 7),
        "stray-byte": inserted(sound(204), place_of(sound(204), DQT), b"\x00"),
        "stray-bytes": inserted(sound(205), place_of(sound(205), SOS), b"junk"),
        "length-0": inserted(sound(206), 2, b"\xff\xe3\x00\x00"),
        "length-1": inserted(sound(207), 2, b"\xff\xe3\x00\x01"),
        "length-2": inserted(sound(208), 2, segment(0xE3, b"")),
        "length-too-long": inserted(sound(209), 2, b"\xff\xe3\xff\xff"),
        "segment-too-short": inserted(sound(210), 2, b"\xff\xe3\x00\x04abcd"),
        "tem": inserted(sound(211), place_of(sound(211), DQT), bytes([0xFF, TEM])),
        "restart-in-header": inserted(sound(212), place_of(sound(212), DQT), b"\xff\xd0"),
        "reserved-marker": inserted(sound(213), place_of(sound(213), DQT), segment(0x02, b"ab")),
        "jpg-marker": inserted(sound(214), place_of(sound(214), DQT), segment(0xF0, b"ab")),
        "many-segments": inserted(sound(215), 2, apps),
        "huge-segments": inserted(sound(216), 2, huge),
        "thumbnail": inserted(sound(217), 2, segment(APP1, thumbnail)),
        "exif-too-short": inserted(sound(218), 2, segment(APP1, b"Exif\0\0MM")),
        "comment-behind-scan": inserted(sound(219), len(sound(219)) - 2, segment(COM, b"late")),
        "tables-behind-scan": inserted(sound(220), len(sound(220)) - 2, segment(DQT, bytes(65))),
        "dnl": inserted(sound(221), len(sound(221)) - 2, segment(DNL, struct.pack(">H", HEIGHT))),
        "dnl-alone": with_open_height(sound(222)),
        "dnl-other": inserted(sound(223), len(sound(223)) - 2, segment(DNL, b"\x00\x08")),
        "jfif-thumbnail": inserted(
            without(sound(224), APP0), 2, segment(APP0, b"JFIF\0\1\1\0\0\1\0\1\4\4" + bytes(48))
        ),
        "two-frames": inserted(
            sound(225), place_of(sound(225), SOS), sound(225)[slice(*_bounds(sound(225), SOF0))]
        ),
    }


def _bounds(data: bytes, wanted: int) -> tuple[int, int]:
    return next((begin, end) for marker, begin, end in segments(data) if marker == wanted)


def _headers() -> dict[str, bytes]:
    return {
        "16-bit-tables": with_wide_tables(sound(230)),
        "16-bit-steps": with_wide_tables(sound(231, subsampling=0), 40),
        "extended": with_frame(sound(232), marker=0xC1),
        "12-bit": with_frame(sound(233), marker=0xC1, precision=12),
        "lossless": with_frame(sound(234), marker=0xC3),
        "arithmetic": with_frame(sound(235), marker=0xC9),
        "hierarchical": with_frame(sound(236), marker=0xC5),
        "no-huffman-tables": without(sound(237), DHT),
        "no-quantisation": without(sound(238), DQT),
        "no-frame": without(sound(239), SOF0),
        "claims-a-row-more": with_size(sound(240), HEIGHT + 1, WIDTH),
        "claims-a-row-less": with_size(sound(241), HEIGHT - 1, WIDTH),
        "claims-an-mcu-less": with_size(sound(242), HEIGHT - 16, WIDTH),
        "claims-half-the-width": with_size(sound(243), 2 * HEIGHT, WIDTH // 2),
        "zero-wide": with_size(sound(244), HEIGHT, 0),
        "spectral-band": patched(sound(245), scan_of(sound(245)) - 3, bytes([0, 0, 0])),
        "successive-bits": patched(sound(246), scan_of(sound(246)) - 3, bytes([0, 63, 0x10])),
        "tables-twice": inserted(
            sound(247), place_of(sound(247), SOS), sound(247)[slice(*_bounds(sound(247), DHT))]
        ),
        "progressive-claimed": with_frame(sound(248), marker=0xC2),
    }


def _colours() -> dict[str, bytes]:
    made = {
        f"adobe-{value}": with_adobe(sound(250 + value, subsampling=0), value) for value in range(4)
    }
    for place, ids in enumerate(
        (b"RGB", b"rgb", b"\0\1\2", b"\1\x22\x23", b"YCc", b"\3\2\1", b"\1\1\2", b"\1\2\2", b"BGR")
    ):
        data = with_ids(sound(255 + place, subsampling=0), *ids)
        made[f"ids-{ids.hex()}"] = without(data, APP0)
        made[f"ids-{ids.hex()}-jfif"] = with_ids(sound(265 + place, subsampling=0), *ids)
    jfif_adobe = inserted(sound(275), 2, segment(APP14, b"Adobe\0\x64" + bytes(5)))
    return made | {
        "jfif-and-adobe-0": jfif_adobe,
        "adobe-short": inserted(sound(276), 2, segment(APP14, b"Adobe\0\x64")),
        "no-app": without(sound(277), APP0),
        "rgb-by-pillow": sound(278, keep_rgb=True),
        "grey": encoded(picture(279, mode="L")),
        "grey-2x2": with_luma_factors(encoded(picture(280, mode="L")), 0x22),
        "cmyk": encoded(picture(281, mode="CMYK")),
        "icc": sound(282, icc_profile=b"no profile" * 9_000),
    }


def _samplings() -> dict[str, bytes]:
    made = {
        "4-1-1": with_luma_factors(sound(300, subsampling=2), 0x41),
        "1-by-4": with_luma_factors(sound(301, subsampling=2), 0x14),
        "4-4-0": with_luma_factors(sound(302, subsampling=1), 0x12),
    }
    for place, factors in enumerate(
        (
            ((1, 1), (2, 1), (1, 1)),
            ((1, 1), (2, 2), (2, 2)),
            ((2, 2), (2, 1), (1, 2)),
            ((2, 2), (2, 2), (2, 2)),
            ((2, 1), (2, 1), (1, 1)),
            ((2, 2), (2, 1), (2, 1)),
            ((4, 4), (1, 1), (2, 2)),
            ((4, 2), (1, 1), (1, 1)),
            ((2, 1), (1, 1), (1, 1)),
            ((1, 2), (1, 1), (1, 1)),
            ((2, 2), (1, 1), (1, 1)),
        )
    ):
        name = "-".join(f"{h}{v}" for h, v in factors)
        made[f"factors-{name}"] = sampled(310 + 3 * place, *factors)
    return made


def _restarts() -> dict[str, bytes]:
    def restarts(seed: int, interval: int = 1) -> bytes:
        return sound(seed, restart_marker_blocks=interval)

    def at(data: bytes, number: int) -> int:
        return data.index(bytes([0xFF, 0xD0 + number]), scan_of(data))

    a, b, c, d, e, f, g = (restarts(seed) for seed in range(360, 367))
    h = sound(367)
    progressive = encoded(
        picture(368, height=HEIGHT, width=WIDTH), progressive=True, restart_marker_blocks=2
    )
    return {
        "restarts": restarts(369, 4),
        "restarts-out-of-order": without_order(a),
        "restart-missing": b[: at(b, 2)] + b[at(b, 2) + 2 :],
        "restart-twice": inserted(c, at(c, 2), c[at(c, 2) : at(c, 2) + 2]),
        "restart-behind-junk": inserted(d, at(d, 2), b"\x12\x34"),
        "restart-behind-fill": inserted(e, at(e, 2), b"\xff\xff"),
        "restart-behind-zero": inserted(f, at(f, 2), b"\x00"),
        "restart-before-eoi": inserted(g, len(g) - 2, b"\xff\xd7"),
        "interval-0": inserted(h, place_of(h, SOS), segment(DRI, b"\0\0")),
        "interval-65535": inserted(
            sound(370), place_of(sound(370), SOS), segment(DRI, b"\xff\xff")
        ),
        "interval-twice": inserted(
            restarts(371), place_of(restarts(371), SOS), segment(DRI, b"\0\1")
        ),
        "interval-without-markers": inserted(
            sound(372), place_of(sound(372), SOS), segment(DRI, b"\0\1")
        ),
        "markers-without-interval": without(restarts(373), DRI),
        "progressive-restarts": progressive,
    }


def _scans() -> dict[str, bytes]:
    def progressive(seed: int) -> bytes:
        return sound(seed, progressive=True)

    three = in_three_scans()
    return {
        "three-scans": three,
        "two-of-three-scans": three[: three.rindex(b"\xff\xda")] + b"\xff\xd9",
        "progressive": progressive(380),
        **{
            f"progressive-less-{number}": without_last_scans(progressive(380 + number), number)
            for number in range(1, 9)
        },
        "progressive-cut": progressive(390)[:-30],
        "progressive-cut-ended": progressive(391)[:-30] + b"\xff\xd9",
        "bits-behind": inserted(sound(392), len(sound(392)) - 2, b"\x55" * 5),
        "bytes-behind": inserted(sound(393), len(sound(393)) - 2, b"\x55" * 50),
        "stuffed-behind": inserted(sound(394), len(sound(394)) - 2, b"\xff\x00"),
        "cut-ended": sound(395)[:-30] + b"\xff\xd9",
        "a-byte-cut-ended": sound(396)[:-3] + b"\xff\xd9",
    }


def _ends() -> dict[str, bytes]:
    mpo = encoded(
        picture(400, height=HEIGHT, width=WIDTH),
        "MPO",
        save_all=True,
        append_images=[picture(401, height=HEIGHT, width=WIDTH)],
    )
    return {
        "no-eoi": sound(402)[:-2],
        "half-eoi": sound(403)[:-1],
        "fill-before-eoi": inserted(sound(404), len(sound(404)) - 2, b"\xff" * 4),
        "two-eoi": sound(405) + b"\xff\xd9",
        "zeros-behind": sound(406) + bytes(5000),
        "text-behind": sound(407) + b"SEFT trailer of a camera",
        "another-behind": sound(408) + sound(409),
        "bad-one-behind": sound(410) + sound(411)[:200],
        "mpo": mpo,
        "video-behind": sound(412) + b"\0\0\0\x18ftypmp42" + bytes(3000) + b"\xff\xd9",
        "no-eoi-zeros": sound(413)[:-2] + bytes(700),
    }
