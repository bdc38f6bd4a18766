"""Pictures of samples for a page: a thumbnail, and where the image is stored."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from fastload import TarDataset
from fastload.console.page import Picture, link_to
from fastload.errors import ImageError, ShardError

_THUMBNAIL = 112  # pixels of the longer side


@dataclass(frozen=True, slots=True)
class Pictures:
    """The samples of a split, to be looked at.

    Attributes:
        images: The samples.
        page: The folder of the page, which its links begin at.
    """

    images: TarDataset
    page: Path

    def picture(self, row: int) -> Picture:
        """A sample as a page shows it."""
        file, key, _ = self.images.locate(row)
        place = file if file == key else f"{file}, sample {key}"
        own = self.images.file_of(row)
        link = "" if own is None else link_to(own, self.page)
        return Picture(jpeg=thumbnail(self.images, row), place=place, link=link)


def thumbnail(images: TarDataset, row: int) -> bytes | None:
    """A small JPEG of a sample; None if the sample cannot be read."""
    try:
        image, _ = images[row]
    except (ShardError, ImageError, OSError):
        return None
    small: Image.Image = image
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    jpeg = io.BytesIO()
    small.save(jpeg, "JPEG", quality=80)
    return jpeg.getvalue()
