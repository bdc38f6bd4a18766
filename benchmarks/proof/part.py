"""What the parts share: where they are, and how they end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch

from benchmarks.harness import append_rows

SKIPPED = 77  # the exit status of automake's skipped tests


@dataclass(frozen=True, slots=True)
class Place:
    """Where a proof runs.

    Attributes:
        out: The folder of its results.
        images: Photographs in class folders; None has some drawn.
        dry: On the CPU, to try the script itself.
    """

    out: Path
    images: Path | None = None
    dry: bool = False

    def log(self, part: str) -> Path:
        """The file that holds what a part printed."""
        return self.out / f"log-{part.replace(' ', '-')}.txt"

    @property
    def shards(self) -> Path:
        """The shard directory that all parts read."""
        return self.out / "shards"

    @property
    def pictures(self) -> Path:
        """The photographs that the shards were made of, in {train,val}/CLASS/."""
        return self.images or self.out / "pictures"

    @property
    def device(self) -> torch.device:
        """Where batches go."""
        return torch.device("cpu" if self.dry else "cuda:0")

    @property
    def patience(self) -> float:
        """By how much all limits of time are longer: they are for a GPU, or for a busy CPU."""
        return 10.0 if self.dry else 1.0

    @property
    def arguments(self) -> list[str]:
        """The place, as a part's command line."""
        images = ["--images", str(self.images)] if self.images else []
        return [str(self.out), *images, *(["--dry-run"] if self.dry else [])]

    def keep(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append measurements to the rows of the proof."""
        append_rows(self.out / "rows.jsonl", rows)


def skip(reason: str) -> NoReturn:
    """End the part: what it asks about is not there."""
    print(reason)
    raise SystemExit(SKIPPED)


def fail(figure: str) -> NoReturn:
    """End the part: what it asks about does not hold."""
    print(figure)
    raise SystemExit(1)


def run_part(body: Callable[[Place], str]) -> NoReturn:
    """Run a part by its command line, and print its figure in the last line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args()
    place = Place(out=options.out, images=options.images, dry=options.dry_run)
    figure = body(place)
    sys.stderr.flush()
    print(figure, flush=True)
    raise SystemExit(0)
