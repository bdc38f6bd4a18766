"""Why a file is set aside, and the rules that decide it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from fastload.errors import ImageError

NEW_QUALITY = 95  # where an image must be encoded anew: no loss that a network would see


class Reason(Enum):
    """Why a file is set aside: a slug for tables, which is the value, and the words for people."""

    EMPTY = "empty", "has no bytes"
    NOT_IMAGE = "not-an-image", "holds no image of a known format"
    UNSUPPORTED = "unsupported", "is of a format or process that is not taken"
    GIF = "gif", "is a GIF"
    ANIMATED = "animated", "holds several frames or pages"
    MISLABELLED = "mislabelled", "has the extension of another format"
    GREY = "grey", "has one channel"
    PALETTE = "palette", "has a palette"
    ALPHA = "alpha", "has an alpha channel"
    CMYK = "cmyk", "has four channels, for print"
    DEEP = "deep", "has 16 or more bits in its one channel"
    COLOUR_SPACE = "colour-space", "has a colour space that is not taken"
    SMALL = "small", "is smaller than --min-side"
    BOMB = "bomb", "has more pixels than any photograph"
    LARGE = "too-large", "is larger than what is read or stored"
    TRUNCATED = "truncated", "ends before its last row"
    CORRUPT = "corrupt", "is damaged"
    CRASH = "crash", "crashes its decoder"
    SLOW = "slow", "takes its decoder too long"
    MEMORY = "memory", "needs more memory than there is"
    UNREADABLE = "unreadable", "cannot be read"
    NOT_FILE = "not-a-file", "is no regular file, or is not there"
    NO_CLASS = "no-class", "lies outside any class folder, or has no label"
    TWO_CLASSES = "two-classes", "is the same image as one of another class"
    TWO_SPLITS = "two-splits", "is the same image as one of another split"

    slug: str
    words: str

    def __new__(cls, slug: str, words: str = "") -> Reason:
        """Make the slug the value, so that `Reason(slug)` finds the reason."""
        reason = object.__new__(cls)
        reason._value_ = reason.slug = slug
        reason.words = words
        return reason


class SetAsideError(ImageError):
    """The image must not be trained on.

    Attributes:
        kind: The kind of reason; `reason` holds the particulars.
    """

    def __init__(self, kind: Reason, detail: str = "") -> None:
        super().__init__(detail or kind.words)
        self.kind = kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What is taken and how it is stored.

    Attributes:
        store: "seekable" (same picture, restart intervals), "original" (the bytes as they are,
            where they are an upright three-channel JPEG), or "in place" (nothing is stored).
        max_side: Images with a longer side are resized to it; None resizes none.
        quality: Quality of JPEGs that must be encoded anew, in [1, 100].
        convert: Turn grey, palette, alpha and CMYK images, and sound images with a wrong
            extension, into RGB JPEGs instead of setting them aside.
        min_side: Images with a shorter side are set aside; pixels, at least 1.
    """

    store: str = "seekable"
    max_side: int | None = None
    quality: int = NEW_QUALITY
    convert: bool = False
    min_side: int = 32

    def __post_init__(self) -> None:
        if self.store not in {"seekable", "original", "in place"}:
            raise ValueError(f"store must be seekable, original or in place, got {self.store!r}")
        if self.store != "seekable" and self.max_side is not None:
            raise ValueError(f"max_side must be None when store is {self.store}, got both")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality must be in [1, 100], got {self.quality}")
        if self.min_side < 1:
            raise ValueError(f"min_side must be at least 1, got {self.min_side}")
        if self.max_side is not None and self.max_side < self.min_side:
            raise ValueError(f"max_side must be at least min_side, got {self.max_side}")
