"""The parts of the proof, in their order: what must be right first, then what is measured."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.proof.part import Place


@dataclass(frozen=True, slots=True)
class Part:
    """One question.

    Attributes:
        name: Name in the table.
        command: What asks it, given the place.
        limit_seconds: How long it may take.
        needs_gpu: Whether a dry run leaves it out.
        alone: Whether others beside it would disturb what it measures.
    """

    name: str
    command: Callable[[Place], list[str]]
    limit_seconds: float
    needs_gpu: bool = False
    alone: bool = False


def _module(name: str) -> Callable[[Place], list[str]]:
    return lambda place: [sys.executable, "-m", f"benchmarks.proof.{name}", *place.arguments]


def _doctor(place: Place) -> list[str]:
    return [sys.executable, "-m", "fastload.doctor", str(place.shards)]


def _tests(_: Place) -> list[str]:
    # A torch that is newer than ours may warn of what it will drop: that is no fault of the GPU.
    warnings = ["-W", "default"]
    return [sys.executable, "-m", "pytest", "-m", "gpu", "-v", "--tb=short", *warnings, "tests"]


def _benchmarks(place: Place) -> list[str]:
    images = ["--images", str(place.images)] if place.images else []
    rows = ["--bench-rows", str(place.out / "rows.jsonl")]
    return [sys.executable, "-m", "pytest", "-q", "benchmarks/bench_gpu.py", *images, *rows]


PARTS = (
    Part("doctor", _doctor, 150.0, alone=True),
    Part("parity", _module("parity"), 240.0),
    Part("damage", _module("damage"), 60.0),
    Part("first steps", _module("steps"), 60.0),
    Part("training", _module("training"), 360.0),
    Part("memory", _module("memory"), 60.0, needs_gpu=True, alone=True),
    Part("tests", _tests, 240.0, needs_gpu=True, alone=True),
    Part("compile", _module("compiling"), 90.0, alone=True),
    Part("overlap", _module("overlap"), 60.0, needs_gpu=True, alone=True),
    Part("decoders", _module("decoders"), 60.0, needs_gpu=True, alone=True),
    Part("benchmarks", _benchmarks, 200.0, needs_gpu=True, alone=True),
)
