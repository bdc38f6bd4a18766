"""Whether an exported model answers as the model that it was made from, on photographs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastload import Loader
from fastload.cores import usable_cores
from fastload.errors import FastloadError
from fastload.load.selection import Select
from fastload.store.collection import open_collection
from train.exported import Ask, ExportError
from train.photographs import find_photographs
from train.trained import Trained
from train.views import seen

PHOTOGRAPHS = 64  # looked at, at most
TOLERANCE = 1e-3  # of a probability
_BATCH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How far two models agree.

    Attributes:
        images: Photographs that both were asked about.
        deviation: The largest difference of two probabilities.
        different: Answers that differ though the model holds one of the two for more probable, by
            more than the tolerance.
    """

    images: int
    deviation: float
    different: int

    @property
    def holds(self) -> bool:
        """Whether one may stand for the other."""
        return self.deviation <= TOLERANCE and not self.different


@torch.no_grad()
def compare(trained: Trained, images: Tensor, ask: Ask) -> Agreement:
    """Ask the model and an exported file about the same pixels, in batches of several sizes.

    Args:
        trained: The model, on the CPU.
        images: uint8 [N, 3, S, S].
        ask: The file.

    Raises:
        DivergedError: If the model answers with NaN or infinity.
    """
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in trained.normalise)
    deviation, different = 0.0, 0
    for batch in (images[:1], *torch.split(images[1:], _BATCH)):
        if not len(batch):
            continue
        logits = trained.finite(trained.model((batch / 255 - mean) / std).float())
        expected = torch.softmax(logits / trained.temperature, 1)
        found = ask(batch.contiguous())[0]
        gap = float((found - expected).abs().max())
        deviation = math.nan if math.isnan(gap) else max(deviation, gap)
        other = expected.gather(1, found.argmax(1, keepdim=True))[:, 0]
        different += int((expected.amax(1) - other > TOLERANCE).sum())
        if math.isnan(deviation):
            break
    return Agreement(images=len(images), deviation=deviation, different=different)


def photographs_of(trained: Trained, named: Sequence[Path]) -> Tensor:
    """Photographs to compare on, as the model sees them: uint8 [N, 3, S, S].

    Args:
        trained: The model.
        named: Files and folders of photographs; none for the run's own val split.

    Raises:
        ExportError: If there are none.
    """
    if named:
        return _of_files(named, trained)
    place = trained.options.data.val_data or trained.options.data.data
    try:
        count = len(open_collection(place, "val").index)
        rows = np.unique(np.linspace(0, count - 1, min(count, PHOTOGRAPHS)).astype(np.int64))
        with Loader(
            place,
            split="val",
            select=Select(indices=rows),
            augment=trained.view,
            batch_size=_BATCH,
            max_corrupt_fraction=1.0,
        ) as loader:
            images = torch.cat([images for images, _ in loader])
    except (FastloadError, OSError, ValueError) as error:
        raise ExportError(
            f"the photographs that the run was validated on cannot be read ({error}); name others "
            "to check the file on: --check FOLDER"
        ) from error
    if not len(images):
        raise ExportError(f"{place}: no photograph of val can be read; give --check FOLDER")
    return images


def _of_files(named: Sequence[Path], trained: Trained) -> Tensor:
    photographs = find_photographs([str(path) for path in named]).photographs
    found: list[Tensor] = []
    count = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Pillow thinks of a file is not the matter
        for batch in seen(photographs, trained.view, batch_size=_BATCH, threads=usable_cores()):
            read = [place for place in range(len(batch.photographs)) if place not in batch.reasons]
            found.append(torch.from_numpy(batch.pixels[read]))
            count += len(read)
            if count >= PHOTOGRAPHS:
                break
    if not count:
        where = ", ".join(map(str, named))
        raise ExportError(f"{where}: holds no photograph that can be read; give another --check")
    return torch.cat(found)[:PHOTOGRAPHS].permute(0, 3, 1, 2)
