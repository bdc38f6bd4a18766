"""What becomes of the order with photographs as small as ImageNet's, and of 12 megapixels?

    python -m benchmarks.bench_photographs [--images DIR]
    pytest benchmarks/bench_photographs.py

Method: photographs made from the given ones, see `images.photographs`, each 16 times an epoch;
RandomResizedCrop to 224 pixels, batches of 16, since a 12-megapixel image takes as long as many
small ones.

Answer: rows/photographs.jsonl. The larger the image, the more of it a decoder need not look at:
fastload's lead grows with size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import images
from benchmarks.compare import DATA, Comparison, chosen, measure, prepare
from benchmarks.conftest import CLOCK, require_result
from benchmarks.contenders.contract import Work
from benchmarks.harness import ROWS
from benchmarks.images import Kind
from benchmarks.peers import named
from fastload.console.command import run_command
from fastload.console.parser import CommandParser, positive_number, whole_number

KINDS = {
    "500 x 375 pixels, 4:2:0": Kind(megapixels=0.1875, count=256),
    # Near ImageNet's: a median of 500 x 375 pixels and 107 kB, mostly 4:4:4.
    "500 x 375 pixels, 4:4:4": Kind(megapixels=0.1875, count=256, subsampling="4:4:4"),
    "12 megapixels": Kind(megapixels=12.0, count=12),
}
REPEATED = 16  # so that an epoch of the few large ones has some batches
ASKED = ("fastload native", "torchvision ImageFolder, v2 tensors", "DALI webdataset reader, CPU")
ALL = ("fastload native", "v2 tensors", "DALI webdataset", "tf.data", "TurboLoader")
BATCH = 16


def made(kind: str, source: Path, data: Path) -> Path:
    """Photographs of that kind, each several times."""
    once = images.photographs(source, data / f"{kind}, once", KINDS[kind])
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
    parser = CommandParser(description="Small and large photographs.")
    parser.add_argument("--images", type=Path, default=images.SAMPLE_DATA)
    parser.add_argument("--only", nargs="+", default=ALL, metavar="NAME", help="or a part of one")
    parser.add_argument("--without", nargs="+", default=["PIL"], metavar="NAME", help="nor these")
    parser.add_argument("--rounds", type=whole_number(1), default=3)
    parser.add_argument("--seconds", type=positive_number, default=3.0)
    parser.add_argument("--prepare", action="store_true", help="prepare the data, do not measure")
    parser.add_argument("--output", type=Path, default=ROWS / "photographs.jsonl")
    options = parser.read(argv)
    for kind in KINDS:
        asked = Comparison(
            contenders=chosen(options.only, options.without),
            images=made(kind, options.images, DATA / "photographs"),
            data=DATA / "photographs" / "prepared" / kind,
            output=options.output,
            rounds=options.rounds,
            work=Work(cores=2, seconds=options.seconds, batch_size=BATCH),
            source=kind,
        )
        prepare(replace(asked, output=None))
        if not options.prepare:
            measure(asked, part="photographs")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_command("benchmarks.bench_photographs", main))
