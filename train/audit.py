"""A second look at the training images by the model they trained: which labels may be wrong?

Each image is looked at once, as evaluation sees it. Who learned from a thousand roses is not sure
of a tulip among them, unless the network knows its training images by heart.

Images that were answered wrong are ranked by their loss, so those come first whose label the model
holds to be impossible. An image is *doubtful* where the answer is confident, too: its probability
is at least 1/2, and at least the mean that images labelled with that class get for it. The mean is
the threshold of confident learning (Northcutt, Jiang and Chuang, "Confident learning: estimating
uncertainty in dataset labels", JAIR 2021, section 3.1). The others are hard.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastload import Loader, TarDataset
from fastload.console.page import Picture
from fastload.console.terminal import say
from fastload.errors import FastloadError
from fastload.files import write_spreadsheet
from fastload.load.selection import Select
from fastload.store.collection import open_collection
from train.assembly import Run
from train.data import DataError
from train.evaluation import Scores, score
from train.interrupt import Interrupt
from train.pictures import Pictures
from train.readings import DivergedError

COLUMNS = (
    "rank",
    "doubtful",
    "file",
    "key",
    "class",
    "answer",
    "probability",
    "loss",
)
_LISTED = 1000  # more than anybody looks at
_CONFIDENT = 0.5
_DOUBTFUL_SHOWN, _HARD_SHOWN = 24, 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """The training images that deserve a look, those first whose label is most likely wrong.

    Attributes:
        rows: int64 [M], rows of the split's index: of the images that were answered wrong, by rank.
        labels: int64 [M].
        answers: int64 [M].
        confidences: float [M] in [0, 1], the probability of each answer.
        losses: float [M].
        doubtful: bool [M].
        images: How many images were looked at.
        total: Training images in all.
    """

    rows: Tensor
    labels: Tensor
    answers: Tensor
    confidences: Tensor
    losses: Tensor
    doubtful: Tensor
    images: int
    total: int

    @property
    def counts(self) -> dict[str, int]:
        """How many images were looked at, were answered wrong, and are doubtful among those."""
        return {
            "images": self.images,
            "wrong": len(self.rows),
            "doubtful": int(self.doubtful.sum()),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A training image that was answered wrong.

    Attributes:
        picture: What it looks like, and where it is.
        truth: Readable name of its class.
        answer: Readable name of the class that was answered.
        probability: Of the answer.
    """

    picture: Picture
    truth: str
    answer: str
    probability: float


def look_again(run: Run, interrupt: Interrupt, *, temperature: float) -> Audit | None:
    """Look at the training images again. Every rank must call this.

    Args:
        run: The run; its evaluated model has the weights to judge by.
        interrupt: Asked after each batch.
        temperature: Of the probabilities.

    Returns:
        None where --audit is 0, and where the images cannot be looked at, as they are gone, or have
        no finite answer; which is said: the figures on val and test are no worse for that.

    Raises:
        InterruptedRunError: If a signal came.
        FastloadError: If one of several processes fails, for which the others wait.
    """
    most, total = run.options.record.audit, int(run.loaders.train_counts.sum())
    if not most:
        return None
    try:
        scores = _scores(run, interrupt, temperature, _chosen(total, most, run.options.run.seed))
    except FastloadError as error:
        if run.ranks.world.size > 1 and not isinstance(error, DivergedError):  # that is everywhere
            raise
        if run.ranks.writes:
            say(f"warning: there is no audit.csv: training images, {error}", error=True)
        return None
    return rank_answers(scores, total=total)


def _scores(
    run: Run, interrupt: Interrupt, temperature: float, chosen: slice | np.ndarray
) -> Scores:
    data, train, val = run.options.data, run.loaders.train, run.loaders.val
    if open_collection(data.data, "train").fingerprint != train.state_dict()["data"]:
        raise DataError(f"{data.data}: was indexed or sharded anew while the run trained")
    with Loader(
        data.data,
        split="train",
        order="index",
        select=Select(indices=chosen),
        batch_size=data.batch_size,
        augment=val.augment,
        device=run.ranks.device,
        backend=val.backend,
        dtype=run.precision or torch.float32,
        num_threads=data.threads or None,
        max_corrupt_fraction=1.0,  # training has said which are bad; they are left out
        world=run.ranks.world,
        cache=data.cache or None,
    ) as loader:
        what = "looking at the training images"
        return score(run, loader, interrupt, temperature=temperature, chooses=False, what=what)


def _chosen(total: int, most: int, seed: int) -> slice | np.ndarray:
    """All rows, or so many at most, drawn evenly."""
    if total <= most:
        return slice(None)
    return np.sort(np.random.default_rng((seed, total)).choice(total, most, replace=False))


def rank_answers(scores: Scores, *, total: int) -> Audit:
    """Put the images that were answered wrong in order.

    Args:
        scores: The answers on the images that were looked at.
        total: Training images in all.
    """
    own, losses = scores.plain.own.double(), scores.plain.losses
    num_classes = int(torch.cat([scores.labels, scores.answers]).max()) + 1 if len(own) else 0
    counts = torch.bincount(scores.labels, minlength=num_classes)
    sums = torch.zeros(num_classes, dtype=own.dtype, device=own.device)
    usual = sums.index_add(0, scores.labels, own) / counts
    usual = torch.nan_to_num(usual, nan=1.0)  # nobody is sure of a class without images
    order = torch.argsort(losses, descending=True, stable=True)
    wrong = order[scores.answers[order] != scores.labels[order]]
    answers = scores.answers[wrong]
    sure = scores.confidences[wrong] >= _CONFIDENT
    sure &= scores.raw_confidences[wrong] >= usual[answers]  # both at temperature 1
    return Audit(
        rows=scores.rows[wrong].cpu(),
        labels=scores.labels[wrong].cpu(),
        answers=answers.cpu(),
        confidences=scores.confidences[wrong].cpu(),
        losses=losses[wrong].cpu(),
        doubtful=sure.cpu(),
        images=len(own),
        total=total,
    )


def write_audit(path: Path, audit: Audit, images: TarDataset) -> None:
    """Write audit.csv: the first thousand images that were answered wrong.

    Args:
        path: The file.
        audit: What was found.
        images: The training images.
    """
    rows = []
    for place in range(min(len(audit.rows), _LISTED)):
        file, key, _ = images.locate(int(audit.rows[place]))
        rows.append(
            [
                str(place + 1),
                "yes" if audit.doubtful[place] else "no",
                file,
                key,
                images.classes[int(audit.labels[place])],
                images.classes[int(audit.answers[place])],
                f"{float(audit.confidences[place]):.6g}",
                f"{float(audit.losses[place]):.6g}",
            ]
        )
    write_spreadsheet(path, COLUMNS, rows)


def find_doubtful(audit: Audit, pictures: Pictures) -> list[Finding]:
    """The first of the doubtful images, for a page."""
    return _findings(audit, torch.nonzero(audit.doubtful)[:_DOUBTFUL_SHOWN, 0], pictures)


def find_hard(audit: Audit, pictures: Pictures) -> list[Finding]:
    """The first of the images that are hard and not doubtful, for a page."""
    return _findings(audit, torch.nonzero(~audit.doubtful)[:_HARD_SHOWN, 0], pictures)


def _findings(audit: Audit, places: Tensor, pictures: Pictures) -> list[Finding]:
    names = pictures.images.class_names
    return [
        Finding(
            picture=pictures.picture(int(audit.rows[place])),
            truth=names[int(audit.labels[place])],
            answer=names[int(audit.answers[place])],
            probability=float(audit.confidences[place]),
        )
        for place in places.tolist()
    ]
