"""Stages: the seconds that go into each stage of loading."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields


@dataclass(slots=True)
class Stages:
    """Seconds by stage: wall-clock time, so waiting for the disk or for a core counts.

    The first five are sums over the loader's threads; a stage is added when a thread has done it.
    `wait` and `finish` are seconds of the caller's thread. `copy` is the device's own time where
    the device has a clock (CUDA), else the time of the caller's thread.

    Attributes:
        plan: To choose samples, boxes and flips, and to ask for the bytes of later samples.
        read: To read bytes from the shards, and to check their CRC-32.
        decode: To decode bytes to pixels; with DALI to resize them too, within its graph.
        resize: To resize pixels to the size of the batch, and to flip them.
        idle: Without work, because as many batches as may be are ready or in work.
        wait: To wait for a batch that was not ready.
        copy: To copy batches to the device; 0 where they stay in the CPU's memory.
        finish: To change colours, normalise, mix, and call `transform`, from the caller's thread.
    """

    plan: float = 0.0
    read: float = 0.0
    decode: float = 0.0
    resize: float = 0.0
    idle: float = 0.0
    wait: float = 0.0
    copy: float = 0.0
    finish: float = 0.0

    @property
    def of_threads(self) -> dict[str, float]:
        """The stages of the loader's threads."""
        return {name: getattr(self, name) for name in ("plan", "read", "decode", "resize", "idle")}

    @property
    def of_caller(self) -> dict[str, float]:
        """The stages in which the caller waits, or may wait."""
        return {name: getattr(self, name) for name in ("wait", "copy", "finish")}

    def __sub__(self, other: Stages) -> Stages:
        return Stages(
            *(getattr(self, part.name) - getattr(other, part.name) for part in fields(self))
        )

    @staticmethod
    def total(parts: Iterable[Stages]) -> Stages:
        """The sum of all parts, stage by stage."""
        every = list(parts)
        return Stages(*(sum(getattr(s, part.name) for s in every) for part in fields(Stages)))
