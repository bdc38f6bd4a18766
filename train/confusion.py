"""The classes that are mistaken for each other most often, with an image of each."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor

from fastload import TarDataset
from fastload.errors import ImageError, ShardError
from train.assembly import Run
from train.evaluation import Scores
from train.metrics import confused_pairs

_PAIRS_SHOWN = 12
_THUMBNAIL = 112  # pixels of the longer side


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """Two classes, the second of which was taken for the first.

    Attributes:
        truth: Readable name of the true class.
        answer: Readable name of the class that the model answered.
        count: How many samples of the true class got this answer.
        of: Samples of the true class.
        mistaken: JPEG of a sample that got this answer, or None.
        typical: JPEG of a sample of the class that was answered, or None.
    """

    truth: str
    answer: str
    count: int
    of: int
    mistaken: bytes | None
    typical: bytes | None


def find_confusions(run: Run, scores: Scores) -> list[Confusion]:
    """The most frequent confusions of the validation split, most frequent first."""
    answers = scores.answers
    names = run.loaders.class_names
    images = _validation_images(run.options.data.val_data or run.options.data.data)

    def picture(where: Tensor) -> bytes | None:
        rows = scores.rows[where]
        return thumbnail(images, int(rows[0])) if images is not None and len(rows) else None

    return [
        Confusion(
            truth=names[truth],
            answer=names[answer],
            count=count,
            of=int((scores.labels == truth).sum()),
            mistaken=picture((scores.labels == truth) & (answers == answer)),
            typical=picture(scores.labels == answer),
        )
        for truth, answer, count in confused_pairs(answers, scores.labels, most=_PAIRS_SHOWN)
    ]


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


def _validation_images(directory: str | Path) -> TarDataset | None:
    try:
        return TarDataset(directory, "val")
    except ShardError:  # a report without pictures is better than a run without a report
        return None
