"""What became of an image file: it is kept, or it is dropped."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

from fastload.prepare.reasons import Reason


class Kept(NamedTuple):
    """The facts of an image that is stored; all are values of JSON.

    Attributes:
        size: Bytes of the JPEG as stored.
        height: Pixels of the upright image.
        width: Pixels of the upright image.
        crc32: CRC-32 of the JPEG as stored.
        digest: 128 bits of the JPEG as stored by default, hexadecimal: equal digests, equal
            images, whatever metadata a file that is stored as it is keeps.
        how: One of `transcode.HOW`, or of `places.KINDS` where the image stays where it lies.
        change: What the owner of the image may want to know, such as "turned upright"; or "".
        orientation: EXIF's, in [1, 8], by which the stored picture becomes upright.
    """

    size: int
    height: int
    width: int
    crc32: int
    digest: str
    how: str
    change: str
    orientation: int = 1


class Dropped(NamedTuple):
    """Why a file is set aside.

    Attributes:
        reason: The kind of reason.
        detail: The particulars.
    """

    reason: Reason
    detail: str


class Doubtful(Dropped):
    """Dropped for what may be the machine's fault: the storage or the memory failed."""

    __slots__ = ()


Verdict: TypeAlias = Kept | Dropped


def kept_among(verdicts: Iterable[Verdict]) -> dict[int, Kept]:
    """Position -> facts, of those that are kept, in their order."""
    return {place: one for place, one in enumerate(verdicts) if isinstance(one, Kept)}
