"""What does the loader cost besides decoding, and does its cost grow with the data set?

    python -m benchmarks.bench_loader SHARDS [--parts PART ...]
    pytest benchmarks/bench_loader.py             (all but first and cold, one round)

Method, each a part:

    overhead    the loader against the renderer alone: the same images, boxes and flips, the images
                in memory, threads that take chunks of 16. Seconds and CPU seconds for each image;
                the CPU seconds hold where other processes disturb the machine.
    threads     images per second with 1, 2, ... threads
    orders      seconds and megabytes until the first 128 rows of an epoch are known, and the CPU
                time of a row, 10^3 to 10^6 samples
    first       seconds from `Loader(...)` to its first batch with an index of 300,000 samples, and
                from `Loader(...)` and `load_state_dict` in the middle of an epoch
    memory      resident memory after many small batches, beyond the batches in flight
    transform   CPU time of an image with a transform of the user's own, called with each image:
                none, one that returns what it is given, torchvision's RandAugment, and beside it
                the RandAugment of `Augment`; one thread of torch
    cold        how long reading a sample takes after the page cache was dropped, with read-ahead or
                without, at 5,000 images a second (needs a file system that honours posix_fadvise
                DONTNEED; the disk's own cache, or a host's, stays)

Answer: see docs/loader.md, the rows are in rows/loader.jsonl.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision.transforms import v2

from benchmarks.bench_size import sized
from benchmarks.conftest import Keep
from benchmarks.harness import ROWS, Row, append_rows, interleave, summarise
from fastload.console.command import run_command
from fastload.console.parser import CommandParser, whole_number
from fastload.cores import usable_cores
from fastload.load.augment import Augment
from fastload.load.auto_augment import RandAugment
from fastload.load.loader import Loader
from fastload.load.order import Order, OrderKind
from fastload.load.plan import ORDERED, EpochPlan
from fastload.load.ranks import Batches
from fastload.load.rendering import CHUNK
from fastload.load.sampling import order_of
from fastload.load.selection import SampleTable, Select
from fastload.pixels.decode import Renderer, cpu_renderer
from fastload.store.collection import Collection, open_collection
from fastload.store.index import SAMPLE
from fastload.store.mapped import Index
from fastload.store.reader import FileReader, Scratch
from fastload.world import World

BATCH = 128
ORDER_SIZES = (10**3, 10**4, 10**5, 10**6)
LARGE = 300_000


def loader_of(shards: Path, **options: object) -> Loader:
    """The loader as in training: RandomResizedCrop 224, flip, uint8."""
    return Loader(shards, batch_size=BATCH, augment=Augment.train(224), **options)  # type: ignore[arg-type]  # passed on


def measured(work: Callable[[], int]) -> tuple[float, float]:
    """Wall-clock and CPU seconds for each of the images that `work` counts."""
    wall, processor = time.perf_counter(), time.process_time()
    count = work()
    return (time.perf_counter() - wall) / count, (time.process_time() - processor) / count


def ordered(index: Index, kind: OrderKind, *, shard: str = "file", rule: str = "") -> Order:
    """The order of an index whose column `shard` says where a sample lies."""
    classes = int(index["label"].max()) + 1
    table = SampleTable(
        labels=index["label"],
        shards=index[shard],
        offsets=index["offset"],
        sources=np.zeros(len(index), np.int64),
        classes=[str(label) for label in range(classes)],
    )
    return order_of(
        table, kind=kind, select=Select(), reweight=rule or None, epoch_size=None, seed=0
    )


def plan_of(collection: Collection, kind: OrderKind) -> EpochPlan:
    """The plan of the first epoch of one rank, in batches of a chunk."""
    order = ordered(collection.index, kind).epoch(0)
    return EpochPlan(
        number=0,
        order=order,
        batches=Batches(length=order.length, global_batch=CHUNK, world_size=1, drop_last=True),
        world=World(),
        augment=Augment.train(224),
        seed=0,
        index=collection.index,
    )


class Bare:
    """The renderer alone: everything that comes before it is done once, outside the clock."""

    def __init__(self, shards: Path, renderer: Renderer, num_threads: int) -> None:
        collection = open_collection([shards], "train")
        plan = plan_of(collection, "shuffled")
        reader = FileReader(collection)
        parts = [plan.batch(step) for step in range(plan.steps)]
        self._chunks = [
            (reader.read(part.rows, Scratch())[0], part.choices.boxes, part.choices.flips)
            for part in parts
        ]
        self._renderer, self._num_threads = renderer, num_threads
        self._out = [np.zeros((BATCH, 224, 224, 3), np.uint8) for _ in range(4)]

    def epoch(self) -> int:
        """Render all chunks; how many images they hold."""
        numbers = iter(range(len(self._chunks)))
        threads = [
            threading.Thread(target=self._work, args=(numbers,)) for _ in range(self._num_threads)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len(self._chunks) * CHUNK

    def _work(self, numbers: object) -> None:
        for number in numbers:  # type: ignore[attr-defined]  # an iterator, shared by the threads
            encoded, boxes, flips = self._chunks[number]
            place = number % 32
            out = self._out[place // 8][place % 8 * CHUNK : (place % 8 + 1) * CHUNK]
            failed = self._renderer.render(encoded, boxes, flips, out)
            assert not failed, failed


def overhead(shards: Path, rounds: int) -> list[Row]:
    """The loader against its renderer alone."""
    num_threads = usable_cores()
    bare = Bare(shards, cpu_renderer("auto"), num_threads)
    rows: list[Row] = []
    with loader_of(shards, num_threads=num_threads) as loader:

        def epoch() -> int:
            return sum(len(images) for images, _ in loader)

        contestants = {
            "renderer": lambda: measured(bare.epoch),
            "loader": lambda: measured(epoch),
        }
        results = interleave(contestants, rounds=rounds + 1)
        kept = {name: values[1:] for name, values in results.items()}
        for kind, column in (("wall", 0), ("cpu", 1)):
            ratios = [
                b[column] / a[column] for a, b in zip(kept["renderer"], kept["loader"], strict=True)
            ]
            print(f"overhead {kind}: loader / renderer {summarise(ratios)}")
        for name, values in kept.items():
            microseconds = summarise(wall * 1e6 for wall, _ in values)
            print(
                f"  {name}: {microseconds} us an image, {1e6 / microseconds.median:,.0f} images/s"
            )
            rows += [
                {
                    "benchmark": "loader-overhead",
                    "name": name,
                    "round": number,
                    "backend": loader.backend,
                    "num_threads": num_threads,
                    "wall_us": wall * 1e6,
                    "cpu_us": processor * 1e6,
                }
                for number, (wall, processor) in enumerate(values)
            ]
        print(f"  {loader.stats()}")
    return rows


def threads(shards: Path, rounds: int) -> list[Row]:
    """Images per second by number of threads."""
    counts = sorted({1, 2, usable_cores()})

    def epoch_with(count: int) -> Callable[[], float]:
        def epoch() -> float:
            with loader_of(shards, num_threads=count) as loader:
                return 1 / measured(lambda: sum(len(images) for images, _ in loader))[0]

        return epoch

    results = interleave({str(count): epoch_with(count) for count in counts}, rounds=rounds + 1)
    for name, values in results.items():
        print(f"threads {name}: {summarise(values[1:])} images/s")
    return [
        {"benchmark": "loader-threads", "num_threads": int(name), "images_per_second": value}
        for name, values in results.items()
        for value in values[1:]
    ]


def synthetic_index(count: int, classes: int = 1000) -> NDArray[np.void]:
    """A long-tailed index in shards of 2,000, of images that do not exist."""
    index = np.zeros(count, SAMPLE)
    draws = np.random.default_rng(0)
    index["label"] = np.minimum(classes - 1, draws.pareto(0.8, count) * 5).astype(np.int32)
    index["size"], index["height"], index["width"] = 100_000, 375, 500
    index["shard"] = np.arange(count) // 2000
    index["offset"] = np.arange(count) % 2000 * 101_376 + 512
    return index


def orders(_: Path, rounds: int) -> list[Row]:
    """Time and memory until an epoch's first rows are known, and what each row costs."""
    rows: list[Row] = []
    kinds: tuple[tuple[OrderKind, str], ...] = (
        ("shuffled", ""),
        ("shuffled", "sqrt"),
        ("sequential", ""),
    )
    for kind, rule in kinds:
        for count in ORDER_SIZES:
            order = ordered(synthetic_index(count), kind, shard="shard", rule=rule)
            few = np.arange(min(count, BATCH))
            many = np.arange(min(count, ORDERED))
            seconds, processor = [], []
            for number in range(rounds):
                began = time.perf_counter()
                epoch = order.epoch(number)
                epoch.rows(few)
                seconds.append(time.perf_counter() - began)
                began = time.process_time()
                epoch.rows(many)
                processor.append((time.process_time() - began) / len(many))
            tracemalloc.start()
            order.epoch(0).rows(many)
            megabytes = tracemalloc.get_traced_memory()[1] / 1e6
            tracemalloc.stop()
            name = f"{kind} {rule}".strip()
            microseconds = sorted(processor)[len(processor) // 2] * 1e6
            print(
                f"orders {name} {count:>9,}: first rows after {summarise(seconds)} s, peak"
                f" {megabytes:.1f} MB, {microseconds:.2f} us a row"
            )
            rows.append(
                {
                    "benchmark": "loader-orders",
                    "name": name,
                    "samples": count,
                    "seconds": sorted(seconds)[len(seconds) // 2],
                    "peak_mb": megabytes,
                    "cpu_us_per_row": microseconds,
                }
            )
    return rows


def first(shards: Path, rounds: int) -> list[Row]:
    """Seconds to the first batch, fresh and resumed, with a large index."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=shards.parent, prefix="first-") as folder:
        directory = sized(shards, Path(folder) / "sized", LARGE)

        def fresh(reweight: str | None, state: dict[str, object] | None = None) -> float:
            began = time.perf_counter()
            with loader_of(directory, reweight=reweight) as loader:
                if state:
                    loader.load_state_dict(state)
                next(iter(loader))
                return time.perf_counter() - began

        for reweight in (None, "sqrt"):
            with loader_of(directory, reweight=reweight) as loader:
                state = loader.state_dict()
            state = {**state, "epoch": 3, "position": LARGE // 2 // BATCH * BATCH}
            contestants = {
                "first": partial(fresh, reweight),
                "resumed": partial(fresh, reweight, state),
            }
            for name, values in interleave(contestants, rounds=rounds).items():
                print(f"{name} batch of {LARGE:,}, reweight {reweight}: {summarise(values)} s")
                rows += [
                    {
                        "benchmark": f"loader-{name}",
                        "reweight": reweight,
                        "samples": LARGE,
                        "seconds": value,
                    }
                    for value in values
                ]
    return rows


MEMORY_PROGRAM = """
import json, resource, sys
from fastload.load.augment import Augment
from fastload.load.loader import Loader
def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6
loader = Loader(sys.argv[1], batch_size=int(sys.argv[3]), augment=Augment.train(int(sys.argv[4])))
before, taken, rows = rss(), 0, []
while taken < int(sys.argv[2]):
    for batch in loader:
        taken += 1
        if taken in (10, 100, 1000, 2000, 5000, 10000, 20000):
            rows.append([taken, rss()])
        if taken == int(sys.argv[2]):
            break
print(json.dumps({"before": before, "after": rows}))
"""


def memory(shards: Path, _: int) -> list[Row]:
    """Resident memory by number of batches, in a process of its own."""
    rows: list[Row] = []
    for batches, batch_size, size in ((300, 128, 224), (10_000, 16, 64)):
        arguments = [str(shards), str(batches), str(batch_size), str(size)]
        done = subprocess.run(
            [sys.executable, "-c", MEMORY_PROGRAM, *arguments],
            check=True,
            capture_output=True,
            text=True,
        )
        facts = json.loads(done.stdout)
        print(f"memory, batches of {batch_size} at {size}: before {facts['before']:.0f} MB, then")
        for taken, megabytes in facts["after"]:
            print(f"  after {taken:>6,} batches {megabytes:.0f} MB")
            rows.append(
                {
                    "benchmark": "loader-memory",
                    "batch_size": batch_size,
                    "size": size,
                    "batches": taken,
                    "before_mb": facts["before"],
                    "resident_mb": megabytes,
                }
            )
    return rows


def drop_cache(shards: Path) -> None:
    """Ask the kernel to forget the shards."""
    for path in shards.glob("*.tar"):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def cold(shards: Path, rounds: int) -> list[Row]:
    """Milliseconds that one thread waits for the bytes of a sample, by order and read-ahead."""
    collection = open_collection([shards], "train")

    def epoch(kind: OrderKind, *, ahead: bool, warm: bool = False) -> float:
        plan = plan_of(collection, kind)
        if not warm:
            drop_cache(shards)
        reader, scratch, waited = FileReader(collection), Scratch(), 0.0
        for step in range(plan.steps):
            if ahead:
                reader.read_ahead(plan.ahead(step))
            rows = plan.batch(step).rows
            began = time.perf_counter()
            reader.read(rows, scratch)
            waited += time.perf_counter() - began
            time.sleep(CHUNK * 0.0002)  # as long as two threads decode
        reader.close()
        return waited / (plan.steps * CHUNK) * 1e3

    contestants = {
        "warm": partial(epoch, "shuffled", ahead=False, warm=True),
        "cold, shuffled, read ahead": partial(epoch, "shuffled", ahead=True),
        "cold, shuffled, not read ahead": partial(epoch, "shuffled", ahead=False),
        "cold, sequential, read ahead": partial(epoch, "sequential", ahead=True),
    }
    results = interleave(contestants, rounds=rounds)
    for name, values in results.items():
        print(f"{name}: {summarise(values)} ms a sample")
    return [
        {"benchmark": "loader-cold", "name": name, "milliseconds": value}
        for name, values in results.items()
        for value in values
    ]


def transform(shards: Path, rounds: int) -> list[Row]:
    """What a transform on each image costs, by the CPU time of all threads."""
    options: dict[str, dict[str, Any]] = {
        "none": {},
        "identity": {"transform": lambda image: image},
        "v2.RandAugment": {"transform": v2.RandAugment()},
        "auto=RandAugment": {"augment": Augment.train(224, auto=RandAugment())},
    }

    def epoch_with(chosen: dict[str, Any]) -> Callable[[], float]:
        settings: dict[str, Any] = {"augment": Augment.train(224), "batch_size": BATCH} | chosen

        def epoch() -> float:
            with Loader(shards, select=Select(first=4 * BATCH), **settings) as loader:
                loader.set_epoch(0)  # all do the same
                return measured(lambda: sum(len(images) for images, _ in loader))[1]

        return epoch

    before = torch.get_num_threads()
    torch.set_num_threads(1)  # others would only wait for each other, and their waiting is CPU time
    contestants = {name: epoch_with(chosen) for name, chosen in options.items()}
    results = interleave(contestants, rounds=rounds + 1)
    torch.set_num_threads(before)
    kept = {name: values[1:] for name, values in results.items()}
    for name, values in kept.items():
        ratios = [value / least for value, least in zip(values, kept["none"], strict=True)]
        microseconds = summarise(value * 1e6 for value in values)
        print(f"transform {name}: {microseconds} us of CPU an image, {summarise(ratios)} of none")
    return [
        {"benchmark": "loader-transform", "name": name, "round": number, "cpu_us": value * 1e6}
        for name, values in kept.items()
        for number, value in enumerate(values)
    ]


PARTS: dict[str, Callable[[Path, int], list[Row]]] = {
    "overhead": overhead,
    "threads": threads,
    "orders": orders,
    "first": first,
    "memory": memory,
    "transform": transform,
    "cold": cold,
}


@pytest.mark.parametrize("part", ["overhead", "threads", "orders", "memory", "transform"])
def test_part_of_the_loader(part: str, shards: Path, keep: Keep) -> None:
    """Every part gives rows, and whatever is measured in them is above zero."""
    rows = PARTS[part](shards, 1)
    keep(rows)
    assert rows
    for row in rows:
        measurements = [value for value in row.values() if isinstance(value, float)]
        assert measurements
        assert min(measurements) > 0


def main(argv: Sequence[str] | None = None) -> int:
    """Measure some parts, print, and append rows."""
    parser = CommandParser(description="What the loader costs besides decoding.")
    parser.add_argument("shards", type=Path, help="a shard directory with a split train")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--rounds", type=whole_number(1), default=7)
    parser.add_argument("--output", type=Path, default=ROWS / "loader.jsonl")
    options = parser.read(argv)
    for part in options.parts:
        append_rows(options.output, PARTS[part](options.shards, options.rounds))
    return 0


if __name__ == "__main__":
    raise SystemExit(run_command("benchmarks.bench_loader", main))
