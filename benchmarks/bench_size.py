"""Does an image cost more where the data set is larger?

    python -m benchmarks.bench_size SHARDS [--output FILE]
    pytest benchmarks/bench_size.py

Method: shard directories of 1,000 to 1,000,000 samples. The large ones are the same tars again and
again under other names (hard links) with an index of their own, so that everything that grows with
the number of samples grows (index, order, manifest, open files), and the photographs stay in the
page cache. Seconds to the first batch, images/s and resident memory of a process of its own.

Answer: rows/size.jsonl; from 1,000 to 1,000,000 samples the rate stays the same.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import peers
from benchmarks.conftest import CLOCK, Keep, require_result
from benchmarks.contenders.contract import Work
from benchmarks.harness import ROWS, Row, append_rows
from fastload.console.command import run_command
from fastload.console.parser import CommandParser, whole_number
from fastload.cores import usable_cores
from fastload.store.index import read_index, write_index
from fastload.store.manifest import Split, fingerprint, read_manifest, shard_name, write_manifest

SIZES = (1_000, 10_000, 100_000, 1_000_000)


def sized(shards: Path, out: Path, samples: int) -> Path:
    """A shard directory of so many samples, all of them in the tars of `shards`.

    Args:
        shards: Where the tars are; its split train is repeated, or cut.
        out: Made; on the same file system, for hard links.
        samples: At least 1.
    """
    manifest, index = read_manifest(shards), read_index(shards, "train")
    split = manifest.splits["train"]
    copies = -(-samples // len(index))
    tiled = np.tile(index, copies)[:samples]
    tiled["shard"] += np.repeat(np.arange(copies) * len(split.shards), len(index))[:samples].astype(
        np.uint32
    )
    out.mkdir(parents=True)
    counts = np.bincount(tiled["shard"], minlength=copies * len(split.shards))
    listed = []
    for number in range(copies):
        for place, shard in enumerate(split.shards):
            position = number * len(split.shards) + place
            name = shard_name("train", position)
            os.link(shards / shard.name, out / name)
            listed.append(replace(shard, name=name, samples=int(counts[position])))
    labels = np.bincount(tiled["label"], minlength=len(manifest.classes))
    whole = Split(samples=samples, class_counts=tuple(labels.tolist()), shards=tuple(listed))
    _write(out, replace(manifest, splits={"train": whole}), tiled)
    return out


def _write(out: Path, manifest: Any, index: NDArray[np.void]) -> None:
    write_index(out, "train", index)
    made = fingerprint(manifest.classes, manifest.splits)
    write_manifest(out, replace(manifest, fingerprint=made))


def measure(shards: Path, samples: int, *, seconds: float) -> Row:
    """One measurement of one size, in a process of its own."""
    with tempfile.TemporaryDirectory(dir=shards.parent, prefix="size-") as folder:
        contender = replace(peers.named("fastload native"), data="sized")
        sized(shards, Path(folder) / "sized", samples)
        work = Work(cores=min(2, usable_cores()), seconds=seconds, warm_up_seconds=1.0)
        row = peers.measure(contender, Path(folder), Path(folder), work)
    facts = {"benchmark": "size", "name": contender.name, "kind": "ours", "samples": samples}
    return {**facts, "used_cores": work.cores, "images_from": f"{shards.name}, repeated", **row}


@pytest.mark.benchmark(group="size of the data set: 1,000 images", timer=CLOCK)
@pytest.mark.parametrize("samples", SIZES)
def test_size(samples: int, shards: Path, keep: Keep, benchmark: Any) -> None:
    """A million samples are opened within seconds, and every size delivers."""
    row = measure(shards, samples, seconds=1.5)
    keep([row])
    require_result(peers.named("fastload native"), [row])
    benchmark.extra_info.update(first_batch_seconds=row["first_batch_seconds"])
    CLOCK.replay(benchmark, [1000 / row["images_per_second"]])
    assert row["first_batch_seconds"] < 30


def main(argv: Sequence[str] | None = None) -> int:
    """Measure every size in a few rounds and append rows."""
    parser = CommandParser(description="The cost of an image by size of the data set.")
    parser.add_argument("shards", type=Path)
    parser.add_argument("--rounds", type=whole_number(1), default=3)
    parser.add_argument("--output", type=Path, default=ROWS / "size.jsonl")
    options = parser.read(argv)
    for number in range(options.rounds):
        for samples in SIZES:
            row = measure(options.shards, samples, seconds=2.0)
            append_rows(options.output, [{**row, "round": number}])
            print(f"{samples:9,} {row.get('images_per_second', row.get('failed'))}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(run_command("benchmarks.bench_size", main))
