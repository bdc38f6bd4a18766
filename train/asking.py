"""A trained model is asked about photographs.

photographs -> batches -> logits -> answers, and the figures where the class is known
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastload.console.progress import Progress
from fastload.load.apply import augment_images
from fastload.load.augment import Choices
from fastload.prepare.spelling import one_form
from train.answers import Answer, Answers
from train.evaluation import Examination, judge_scores
from train.head import answer_in_float32
from train.metrics import correct_prior
from train.model import head_names
from train.optimiser import Precision, autocast, precision_for
from train.photographs import Found
from train.ranks import Ranks
from train.trained import Trained
from train.views import Seen, seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """How the model is asked.

    Attributes:
        top: Answers for each photograph.
        set_size: The mean size of the sets; 0 for none.
        corrected: Whether the class frequencies of training are taken out.
    """

    top: int
    set_size: int
    corrected: bool


class Labels:
    """The labels of the classes of a run, by names.

    Args:
        trained: The run.
    """

    def __init__(self, trained: Trained) -> None:
        readable = [one_form(name) for name in trained.class_names]
        times = Counter(readable)
        self._labels = {name: i for i, name in enumerate(readable) if times[name] == 1}
        self._labels.update({one_form(name): i for i, name in enumerate(trained.classes)})

    def of(self, name: str) -> int | None:
        """The label of a class by the name of its folder, or its readable name."""
        return self._labels.get(one_form(name)) if name else None


@torch.inference_mode()
def answer(
    trained: Trained,
    found: Found,
    asked: Asked,
    *,
    ranks: Ranks,
    batch_size: int,
    threads: int,
    thumbnails: int = 0,
) -> Answers:
    """Ask the model about all photographs.

    Args:
        trained: The model, on the device of `ranks`.
        found: The photographs.
        asked: How it is asked.
        ranks: The one process.
        batch_size: Photographs of a batch.
        threads: Threads that read and decode.
        thumbnails: Of how many photographs, from the first on, a thumbnail is made.

    Raises:
        DivergedError: If the model answers with NaN or infinity.
    """
    labels = Labels(trained)
    known = [labels.of(photograph.truth) for photograph in found.photographs]
    answers = Answers(
        model=f"{trained.name} ({trained.path})",
        classes=trained.classes,
        class_names=trained.class_names,
        top=asked.top,
    )
    asker = _Asker(trained, asked, ranks)
    examinations = {
        split: asker.examination(sum(label is not None for label in of_split))
        for split, of_split in _by_split(found, known).items()
        if any(label is not None for label in of_split)
    }
    progress = Progress(len(known), "photographs", what="answering")
    batches = seen(
        found.photographs,
        trained.view,
        batch_size=batch_size,
        threads=threads,
        thumbnails=thumbnails,
    )
    with progress:
        for batch in batches:
            truths = known[len(answers.rows) : len(answers.rows) + len(batch.photographs)]
            answers.rows.extend(asker.rows(batch, truths, examinations))
            progress.add(len(batch.photographs))
    for split, examination in examinations.items():
        if examination.count:
            answers.figures[split] = asker.figures(examination)
    return answers


def _by_split(found: Found, known: Sequence[int | None]) -> dict[str, list[int | None]]:
    parts: dict[str, list[int | None]] = {}
    for photograph, label in zip(found.photographs, known, strict=True):
        parts.setdefault(photograph.split, []).append(label)
    return parts


class _Asker:
    """Asks a model, batch by batch."""

    def __init__(self, trained: Trained, asked: Asked, ranks: Ranks) -> None:
        self._trained, self._asked, self._ranks = trained, asked, ranks
        device = ranks.device
        self._precision: Precision = None
        if device.type == "cuda":  # as the run's own evaluation
            self._precision = precision_for(trained.options.run.amp, device)
        if self._precision is not None:
            answer_in_float32(trained.model, head_names(trained.name, len(trained.classes)))
        prior = torch.zeros(len(trained.classes))
        if asked.corrected or trained.train_counts is not None:
            prior = trained.log_prior()
        self._log_prior = prior.to(device)
        thresholds = trained.corrected_thresholds if asked.corrected else trained.thresholds
        self._threshold = thresholds[asked.set_size] if asked.set_size else None

    def examination(self, samples: int) -> Examination:
        """What gathers the figures of so many photographs."""
        return Examination(
            samples,
            len(self._trained.classes),
            self._log_prior,
            temperature=self._trained.temperature,
            chooses=False,
        )

    def rows(
        self,
        batch: Seen,
        truths: Sequence[int | None],
        examinations: dict[str, Examination],
    ) -> list[Answer]:
        """The answers to a batch; the figures of photographs whose class is known are gathered."""
        places = [place for place in range(len(truths)) if place not in batch.reasons]
        rows = [
            Answer(
                name=photograph.name,
                split=photograph.split,
                truth=truth,
                reason=batch.reasons.get(place, ""),
            )
            for place, (photograph, truth) in enumerate(zip(batch.photographs, truths, strict=True))
        ]
        if not places:
            return rows
        logits = self._logits(batch, places)
        for split, examination in examinations.items():
            self._examine(examination, split, rows, places, logits)
        scores = correct_prior(logits, self._log_prior) if self._asked.corrected else logits
        shares = torch.softmax(scores / self._trained.temperature, 1)
        # Equal scores are ordered by class number, as everywhere.
        order = scores.argsort(stable=True, dim=1, descending=True)
        best = order[:, : self._asked.top]
        found = zip(
            places,
            best.tolist(),
            shares.gather(1, best).tolist(),
            self._sets(scores, order),
            strict=True,
        )
        for place, labels, probabilities, within in found:
            rows[place] = Answer(
                name=rows[place].name,
                split=rows[place].split,
                truth=rows[place].truth,
                labels=labels,
                probabilities=probabilities,
                within=within,
                thumbnail=batch.thumbnails.get(place),
            )
        return rows

    def figures(self, examination: Examination) -> dict[str, float]:
        """The figures of the photographs of a split whose class is known."""
        trained, corrected = self._trained, self._asked.corrected
        scores = examination.finish(self._ranks, 0.0)
        counts = torch.zeros(len(trained.classes), dtype=torch.int64)
        if trained.train_counts is not None:
            counts = torch.from_numpy(trained.train_counts)
        verdict = judge_scores(scores, counts, (trained.thresholds, trained.corrected_thresholds))
        figures = (verdict.corrected if corrected else verdict.plain).figures
        if trained.train_counts is None:
            figures = {name: value for name, value in figures.items() if "_shot" not in name}
        if not corrected:
            figures = {**figures, "calibration_error": scores.calibration().error}
        known = {name: value for name, value in figures.items() if not math.isnan(value)}
        return {"photographs": len(scores.rows), **known}

    def _logits(self, batch: Seen, places: Sequence[int]) -> Tensor:
        device = self._ranks.device
        pixels = batch.pixels if len(places) == len(batch.pixels) else batch.pixels[places]
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device)
        labels = torch.zeros(len(images), dtype=torch.int64, device=device)
        choices = Choices(boxes=_NO_BOXES, flips=_NO_FLIPS)  # applied already
        dtype = self._precision or torch.float32
        images, _ = augment_images(self._trained.view, images, labels, choices, dtype=dtype)
        with autocast(device, self._precision):
            logits: Tensor = self._trained.model(images).float()
        return self._trained.finite(logits)

    def _examine(
        self,
        examination: Examination,
        split: str,
        rows: Sequence[Answer],
        places: Sequence[int],
        logits: Tensor,
    ) -> None:
        chosen = [
            number
            for number, place in enumerate(places)
            if rows[place].truth is not None and rows[place].split == split
        ]
        if not chosen:
            return
        truths = torch.tensor([rows[places[number]].truth for number in chosen])
        first = examination.count
        numbers = torch.arange(first, first + len(chosen))
        device = logits.device
        examination.add(logits[chosen], truths.to(device), numbers.to(device))

    def _sets(self, scores: Tensor, order: Tensor) -> list[list[int] | None]:
        if self._threshold is None:
            return [None] * len(scores)
        sizes = (torch.softmax(scores, 1) >= self._threshold).sum(1).tolist()
        return [row[:size].tolist() for row, size in zip(order.cpu(), sizes, strict=True)]


_NO_BOXES = torch.zeros(0, 4, dtype=torch.int32).numpy()
_NO_FLIPS = torch.zeros(0, dtype=torch.bool).numpy()
