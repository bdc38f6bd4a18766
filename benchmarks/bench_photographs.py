"""What becomes of small and of large photographs: 500 x 375 pixels, and 12 megapixels?

    python -m benchmarks.bench_photographs [--images DIR]
    pytest benchmarks/bench_photographs.py

Method: photographs made from the given ones, see `images.photographs`; RandomResizedCrop to 224
pixels, batches of 16, since one 12-megapixel image takes as long as a batch of small ones.

Answer: results/photographs.jsonl. The larger the image, the more of it a decoder need not look at:
fastload's lead grows with size.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import images
from benchmarks.compare import DATA, Comparison, measure, prepare
from benchmarks.conftest import CLOCK, require_result
from benchmarks.contenders.contract import Work
from benchmarks.harness import RESULTS
from benchmarks.peers import CONTENDERS, named

KINDS = {"500 x 375 pixels": (0.1875, 192), "12 megapixels": (12.0, 12)}
REPEATED = 16  # so that an epoch of the few large ones has some batches
ASKED = ("fastload native", "torchvision ImageFolder, v2 tensors", "DALI webdataset reader, CPU")
BATCH = 16


def made(kind: str, source: Path, data: Path) -> Path:
    """Photographs of that kind, each several times."""
    megapixels, count = KINDS[kind]
    once = images.photographs(source, data / f"{kind}, once", megapixels=megapixels, count=count)
    return images.repeated(once, data / "made" / kind, times=REPEATED)


@pytest.mark.benchmark(group="photographs: 1,000 images", timer=CLOCK)
@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize("kind", KINDS)
def test_photographs(kind: str, name: str, comparison: Comparison, benchmark: Any) -> None:
    """Small and large photographs are delivered."""
    contender = named(name)
    folder = made(kind, comparison.images, comparison.data.parent)
    asked = replace(
        comparison,
        contenders=(contender,),
        images=folder,
        data=comparison.data.parent / "prepared" / kind,
        rounds=1,
        work=replace(comparison.work, batch_size=BATCH),
    )
    prepare(replace(asked, output=None))
    (row,) = require_result(contender, measure(asked, part="photographs"))
    CLOCK.replay(benchmark, [1000 / row["images_per_second"]])
    assert row["images_per_second"] > 0


def main(argv: Sequence[str] | None = None) -> int:
    """Measure every contender on both kinds in a few rounds and append rows."""
    parser = argparse.ArgumentParser(description="Small and large photographs.")
    parser.add_argument("--images", type=Path, default=images.SAMPLE_DATA)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--output", type=Path, default=RESULTS / "photographs.jsonl")
    options = parser.parse_args(argv)
    for kind in KINDS:
        asked = Comparison(
            contenders=tuple(each for each in CONTENDERS if "PIL" not in each.name),
            images=made(kind, options.images, DATA / "photographs"),
            data=DATA / "photographs" / "prepared" / kind,
            output=options.output,
            rounds=options.rounds,
            work=Work(cores=2, seconds=options.seconds, batch_size=BATCH),
        )
        prepare(replace(asked, output=None))
        measure(asked, part="photographs")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
