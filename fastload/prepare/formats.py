"""The format of an image file: what its first bytes tell, and what its name tells."""

from __future__ import annotations

import struct

_MAGIC = (
    (b"\xff\xd8\xff\xf7", "JPEG-LS"),
    (b"\xff\xd8", "JPEG"),
    (b"\x89PNG\r\n\x1a\n\0\0\0\4CgBI", "Apple CgBI"),  # of its apps: no PNG for others
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"BA", "OS/2 bitmap array"),
    (b"II*\0\x10\0\0\0CR", "camera raw"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II\0*", "TIFF"),  # the number in the wrong order: Pillow reads these two all the same
    (b"MM*\0", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "big-endian BigTIFF"),  # Pillow 13 takes it for another file
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"8BPS", "PSD"),
    (b"\0\0\1\0", "ICO"),
    (b"\0\0\2\0\1\0", "CUR"),
    (b"icns", "ICNS"),
    (b"qoif", "QOI"),
    *((b"P%d" % number, "PNM") for number in range(1, 8)),
    (b"PF\n", "PFM"),
    (b"Pf\n", "PFM"),
    (b"%PDF", "PDF"),
    (b"%!PS", "PostScript"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"II\xbc\1", "JPEG XR"),
    (b"IIU\0", "camera raw"),
    (b"IIRO", "camera raw"),
    (b"II\x1a\0\0\0HEAPCCDR", "camera raw"),
    (b"FUJIFILMCCD-RAW", "camera raw"),
    (b"DDS ", "DDS"),
    (b"\x01\xda\0\1", "SGI"),
    (b"\x01\xda\1\1", "SGI"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"SIMPLE  =", "FITS"),
    (b"\x8aMNG\r\n\x1a\n", "MNG"),
    (b"\x8bJNG\r\n\x1a\n", "JNG"),
    (b"BPG\xfb", "BPG"),
    (b"FLIF", "FLIF"),
    (b"\xd7\xcd\xc6\x9a", "WMF"),
)
# Brands of ISO/IEC 14496-12 files. Where the major one tells only the container, as mif1 does, the
# compatible brands behind it tell the coding.
_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm"), "HEIC"),
    b"crx ": "camera raw",
}
_CONTAINERS = frozenset((b"mif1", b"mif2", b"msf1", b"miaf"))
_DIB_SIZES = frozenset((40, 52, 56, 64, 108, 124))  # of the header of a BMP without "BM"
_VALUE_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}  # by type; of others 1
TAKEN = frozenset({"JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000"})
_EXTENSIONS = {
    **dict.fromkeys(("jpg", "jpeg", "jpe", "jfif", "mpo"), "JPEG"),
    **dict.fromkeys(("png", "apng"), "PNG"),
    **dict.fromkeys(("bmp", "dib"), "BMP"),
    **dict.fromkeys(("tif", "tiff"), "TIFF"),
    **dict.fromkeys(("jp2", "j2k", "j2c", "jpc", "jpx", "jpf", "jpm"), "JPEG2000"),
    **dict.fromkeys(("avif", "avifs"), "AVIF"),
    "webp": "WEBP",
    "gif": "GIF",
}


def sniff_format(data: bytes) -> str:
    """The format that the first bytes tell; "" where they tell none."""
    for magic, kind in _MAGIC:
        if data.startswith(magic):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        return _coding_of(data)
    planes = data[12:14] == b"\1\0"
    return "BMP" if planes and int.from_bytes(data[:4], "little") in _DIB_SIZES else ""


def _coding_of(data: bytes) -> str:
    """The format of a file of ISO boxes, by the brands in its first box."""
    box = data[: min(int.from_bytes(data[:4], "big"), 1024)]
    major, others = data[8:12], [box[at : at + 4] for at in range(16, len(box), 4)]
    told = next((_BRANDS[brand] for brand in (major, *others) if brand in _BRANDS), "")
    return told or ("HEIF" if major in _CONTAINERS else "")


def is_cut_off(data: bytes, kind: str) -> bool:
    """Whether a file, PNG and JPEG apart, has fewer bytes than its own header says."""
    if kind == "WEBP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if kind == "TIFF":
        return _first_directory_is_cut_off(data)
    if kind == "JPEG2000" and data.startswith(b"\xff\x4f"):
        return not data.endswith(b"\xff\xd9")
    return kind in {"AVIF", "JPEG2000"} and _last_box_is_cut_off(data)


def _first_directory_is_cut_off(data: bytes) -> bool:
    """Whether the first directory of a TIFF, often behind the pixels, or a value of it is missing.

    Of a BigTIFF only whether the directory begins (TIFF 6.0, section 2).
    """
    order = "<" if data.startswith(b"II") else ">"
    if data[2:4] == b"+\0":
        return len(data) < 16 or struct.unpack_from("<Q", data, 8)[0] + 8 > len(data)
    try:
        (at,) = struct.unpack_from(f"{order}L", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            _, kind, number, place = struct.unpack_from(f"{order}HHLL", data, entry)
            size = number * _VALUE_BYTES.get(kind, 1)
            if size > 4 and place + size > len(data):
                return True
    except struct.error:
        return True
    return False


def _last_box_is_cut_off(data: bytes) -> bool:
    """Whether a box of ISO/IEC 14496-12, 4.2, is longer than what is left of the file."""
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size == 0:  # to the end of the file: a codestream, which has an end marker
            return not data.endswith(b"\xff\xd9")
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        if size < 8 or at + size > len(data):
            return at + max(size, 8) > len(data)
        at += size
    return False


def format_named(extension: str) -> str:
    """The format that an extension such as ".jpg" stands for; "" where it stands for none."""
    return _EXTENSIONS.get(extension.lower().removeprefix("."), "")
