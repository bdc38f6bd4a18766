"""The losses of the latest batches, read from the device some at a time."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastload import Loader
from fastload.errors import FastloadError
from train.losses import Total
from train.position import Position
from train.ranks import Ranks

READ_EVERY = 50  # batches on a GPU: some seconds of ResNet-50 on a consumer card


class DivergedError(FastloadError):
    """A loss, a weight or an answer of the model is NaN or infinite."""


def read_every(device: torch.device) -> int:
    """Batches whose numbers are read from a device at a time."""
    return READ_EVERY if device.type == "cuda" else 1


class Readings:
    """Loss, weight and hits of the latest batches, on the device until they are read together.

    Reading one number makes the host wait for all the work of a GPU. So the numbers of some batches
    are read together, and all of them before a checkpoint is written. The sums in the meter do not
    depend on when the numbers are read.

    Args:
        position: Has the meter, and says which batch of the epoch is the latest.
        loader: The loader that gives the batches.
        ranks: The processes of the run; they read after the same batches.
        every: The number of batches that are read at a time.
    """

    def __init__(self, position: Position, loader: Loader, ranks: Ranks, *, every: int) -> None:
        self._position, self._loader, self._ranks, self._every = position, loader, ranks, every
        self._values: list[Tensor] = []
        self._rows: list[NDArray[np.int64]] = []

    def add(self, total: Total, hits: Tensor) -> None:
        """Keep the numbers of the batch that was received last."""
        self._values.append(torch.stack([total.loss.detach(), total.weight, hits]))
        self._rows.append(self._loader.last_indices())
        if len(self._values) >= self._every:
            self.read()

    def read(self) -> None:
        """Add all numbers to the meter. Every rank must call this.

        Raises:
            DivergedError: If a loss is NaN or infinite on any rank, so that no rank waits for
                another one; on the rank of the batch the message has its keys.
        """
        if not self._values:
            return
        try:
            self._add_up()
        except DivergedError:
            self._ranks.any(True)
            raise
        if self._ranks.any(False):
            raise DivergedError(
                f"the loss became NaN or infinite on another process in epoch "
                f"{self._position.epoch + 1}; the message there names the images"
            )

    def _add_up(self) -> None:
        meter, rows = self._position.meter, self._rows
        numbers = torch.stack(self._values).tolist()
        self._values, self._rows = [], []
        for place, (loss, weight, hits) in enumerate(numbers):
            if not math.isfinite(loss):
                batch = self._position.batch - len(numbers) + place + 1
                raise _diverged(loss, self._position.epoch, batch, self._loader.keys(rows[place]))
            meter.loss += loss
            meter.weight += weight
            meter.hits += int(hits)
            meter.images += len(rows[place])


def _diverged(loss: float, epoch: int, batch: int, keys: list[str]) -> DivergedError:
    more = f" and {len(keys) - 8} more" if len(keys) > 8 else ""
    return DivergedError(
        f"the loss became {loss} in epoch {epoch + 1}, batch {batch}; "
        f"lower --lr, set --clip 1, or look at its images: {', '.join(keys[:8])}{more}"
    )
