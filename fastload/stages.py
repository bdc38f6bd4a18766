"""Stages: seconds by stage, added up by the threads that spend them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields


@dataclass(slots=True)
class Stages:
    """Seconds by stage: wall-clock time, so waiting for the disk or for a core counts.

    The first five are the loader's threads', added up over them; a stage may have fewer seconds
    than happened while a thread is at it. `wait` and `finish` are the caller's; `copy` is the
    device's own time where it has a clock (CUDA), else the caller's.

    Attributes:
        plan: Which samples, which box of each, flipped or not; asking for later ones.
        read: From the shards into memory, and the check of the CRC-32.
        decode: Encoded bytes to pixels; with DALI the resize too, which is part of its graph.
        resize: To the size of the batch, with the flip.
        idle: Without work: as many batches as may be are ready or being made.
        wait: For a batch that was not ready.
        copy: Of batches to the device; 0 where they stay in the CPU's memory.
        finish: Colours, normalisation, MixUp and `transform`, called from the caller's thread.
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
        """The loader's threads' stages."""
        return {name: getattr(self, name) for name in ("plan", "read", "decode", "resize", "idle")}

    @property
    def of_caller(self) -> dict[str, float]:
        """The stages in which the caller waits, or may."""
        return {name: getattr(self, name) for name in ("wait", "copy", "finish")}

    def __sub__(self, other: Stages) -> Stages:
        return Stages(
            *(getattr(self, part.name) - getattr(other, part.name) for part in fields(self))
        )

    @staticmethod
    def total(parts: Iterable[Stages]) -> Stages:
        """The sum of all."""
        every = list(parts)
        return Stages(*(sum(getattr(s, part.name) for s in every) for part in fields(Stages)))
