"""The format of an image file: what its first bytes tell, and what its name tells."""

from __future__ import annotations

_MAGIC = (
    (b"\xff\xd8", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"8BPS", "PSD"),
    (b"\0\0\1\0", "ICO"),
    (b"qoif", "QOI"),
    (b"P1", "PNM"),
    (b"P2", "PNM"),
    (b"P3", "PNM"),
    (b"P4", "PNM"),
    (b"P5", "PNM"),
    (b"P6", "PNM"),
    (b"%PDF", "PDF"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
)
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC"}
TAKEN = frozenset({"JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000"})
_EXTENSIONS = {
    **dict.fromkeys(("jpg", "jpeg", "jpe", "jfif", "mpo"), "JPEG"),
    **dict.fromkeys(("png", "apng"), "PNG"),
    **dict.fromkeys(("bmp", "dib"), "BMP"),
    **dict.fromkeys(("tif", "tiff"), "TIFF"),
    **dict.fromkeys(("jp2", "j2k", "jpx", "jpf"), "JPEG2000"),
    "webp": "WEBP",
    "gif": "GIF",
    "avif": "AVIF",
}


def sniff_format(data: bytes) -> str:
    """The format that the first bytes tell; "" where they tell none."""
    for magic, kind in _MAGIC:
        if data.startswith(magic):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12], "")
    return ""


def format_named(extension: str) -> str:
    """The format that an extension such as ".jpg" stands for; "" where it stands for none."""
    return _EXTENSIONS.get(extension.lower().removeprefix("."), "")
