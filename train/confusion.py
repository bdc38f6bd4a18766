"""The classes that are mistaken for each other most often, with images of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from fastload.console.page import Picture
from train.metrics import confused_pairs
from train.pictures import Pictures

_PAIRS_SHOWN = 12
_PICTURES_SHOWN = 3  # of each class of a pair


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """Two classes, the second of which was taken for the first.

    Attributes:
        truth: Readable name of the true class.
        answer: Readable name of the class that the model answered.
        count: How many samples of the true class got this answer.
        of: Samples of the true class.
        mistaken: Samples that got this answer.
        typical: Samples of the class that was answered, those first that are answered right.
    """

    truth: str
    answer: str
    count: int
    of: int
    mistaken: Sequence[Picture]
    typical: Sequence[Picture]


def find_confusions(
    rows: Tensor, answers: Tensor, labels: Tensor, pictures: Pictures
) -> list[Confusion]:
    """The most frequent confusions of a split, most frequent first.

    Args:
        rows: int64 [N], rows of the split's index.
        answers: int64 [N], the classes that were answered.
        labels: int64 [N].
        pictures: The samples of the split.
    """
    names = pictures.images.class_names

    def shown(*kinds: Tensor) -> list[Picture]:
        found = [row for kind in kinds for row in rows[kind][:_PICTURES_SHOWN].tolist()]
        return [pictures.picture(row) for row in found[:_PICTURES_SHOWN]]

    return [
        Confusion(
            truth=names[truth],
            answer=names[answer],
            count=count,
            of=int((labels == truth).sum()),
            mistaken=shown((labels == truth) & (answers == answer)),
            typical=shown(
                (labels == answer) & (answers == answer), (labels == answer) & (answers != answer)
            ),
        )
        for truth, answer, count in confused_pairs(answers, labels, most=_PAIRS_SHOWN)
    ]
