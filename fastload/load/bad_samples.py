"""Bad samples: each is logged once, and an epoch with too many of them is an error."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable

from fastload.console.shell import program
from fastload.console.terminal import counted
from fastload.errors import TooManyCorruptError
from fastload.load.policy import Policy
from fastload.load.replacement import BadSample
from fastload.store.reader import Reader

_log = logging.getLogger(__name__)


class BadSamples:
    """Counts the bad samples of this rank, epoch by epoch. For the thread that iterates.

    Args:
        reader: Says where a sample is stored.
        policy: Whether bad samples are replaced, and which share of an epoch may be bad.
        epoch_samples: Samples of an epoch over all ranks.
    """

    def __init__(self, reader: Reader, policy: Policy, *, epoch_samples: int) -> None:
        self._reader, self._policy = reader, policy
        self._allowed = policy.max_corrupt_fraction * epoch_samples / policy.world.size
        if policy.max_corrupt_fraction == 1:
            self._allowed = math.inf  # the parts of ranks are not all of one size
        self._epoch = self._count = 0
        self._logged: set[int] = set()  # rows

    def begin(self, epoch: int) -> None:
        """Count from 0 for this epoch."""
        self._epoch, self._count = epoch, 0

    def add(self, samples: Iterable[BadSample]) -> None:
        """Count the bad samples of one batch; log those that were never logged.

        Raises:
            TooManyCorruptError: If the epoch has more than `max_corrupt_fraction` allows.
        """
        for sample in samples:
            place = self._reader.locate(sample.row)
            if sample.row not in self._logged:
                self._logged.add(sample.row)
                what = "replaced" if self._policy.replaces_bad else "left out"
                _log.warning("%s: %s; %s", place, sample.reason, what)
            self._count += 1
            if self._count > self._allowed:
                raise TooManyCorruptError(
                    f"{counted(self._count, 'bad sample')} in epoch {self._epoch},"
                    f" max_corrupt_fraction {self._policy.max_corrupt_fraction:g} allows"
                    f" {int(self._allowed)};"
                    f" the last is {place}: {sample.reason};"
                    f" check with `{program('fastload.verify')}`"
                )
