"""Do the first batch, the memory and the plan of an image cost more for a billion samples?

    python -m benchmarks.bench_scale FOLDER [--rounds N] [--output FILE]

Method: shard directories of 10^6 and 10^9 samples whose index and tars are mostly holes (`sparse`;
the rows that are read are written first), both mapped, as an index of 2^24 samples and more is.
Each measurement is a process of its own, the sizes take turns: seconds from `Loader(...)` to the
first batch, also after `load_state_dict` in the middle of an epoch; memory that belongs to no file
(RssAnon) behind 20 batches, above that before the Loader; CPU time of the rows of 4,096 positions,
which is what the order costs. FOLDER takes some 9 GB: a table of the rows by class of a billion
samples, for `reweight`, is 4 GB, and stands ready when the clock starts, as in every run but the
first.

Answer: docs/scale.md, the rows are in rows/scale.jsonl.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import ROWS, Row, append_rows, summarise
from benchmarks.sparse import fill, sparse_shards
from fastload.advise.examples import made_examples
from fastload.console.command import run_command
from fastload.console.parser import CommandParser, whole_number
from fastload.load.draws import ByGroup
from fastload.load.order import Order, OrderKind, Windowed
from fastload.load.sampling import order_of
from fastload.load.selection import SampleTable, Select
from fastload.store import collection
from fastload.store.collection import open_collection

SIZES = (10**6, 10**9)
FILLED = 8192  # positions from the first on: more than what is planned and read ahead
KINDS: tuple[tuple[OrderKind, str], ...] = (
    ("shuffled", ""),
    ("shuffled", "sqrt"),
    ("sequential", ""),
)

PROGRAM = """
import json, sys, time
import numpy as np
from fastload import Augment, Loader
from fastload.store import collection

collection.MAPPED_FROM = 1

def anonymous():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) / 1024

options = json.loads(sys.argv[2])
position = int(sys.argv[3])
before, began = anonymous(), time.perf_counter()
loader = Loader(sys.argv[1], batch_size=64, augment=Augment.train(64), num_threads=1, **options)
if position:
    loader.load_state_dict({**loader.state_dict(), "position": position})
batches = iter(loader)
next(batches)
seconds = time.perf_counter() - began
for _ in range(20):
    next(batches)
mib = anonymous() - before
order, draws = loader._order.epoch(0), []
positions = np.arange(position, position + 4096)
order.rows(positions)
for _ in range(9):
    began = time.process_time()
    order.rows(positions)
    draws.append((time.process_time() - began) / len(positions) * 1e6)
loader.close()
print(json.dumps({"seconds": seconds, "mib": mib, "cpu_us_per_row": sorted(draws)[4]}))
"""


def prepared(folder: Path, samples: int) -> Path:
    """Shards of so many samples, with all that the measurements read."""
    jpeg = made_examples().jpegs[0]
    out = sparse_shards(folder / f"{samples}", samples, jpeg)
    data = open_collection(out, "train")
    write_rows_by_class(out, samples)
    for kind, rule in KINDS:
        epoch = unchecked(ordered(SampleTable.of(data), kind, rule), out).epoch(0)
        for first in (0, samples // 2):
            rows = epoch.rows(np.arange(first, first + FILLED))
            if isinstance(epoch, Windowed):
                ahead = epoch.stream(max(0, first - epoch.window), first + 2 * FILLED)
                rows = np.append(rows, ahead)
            fill(out, samples, rows, jpeg)
    return out


def ordered(table: SampleTable, kind: OrderKind, rule: str) -> Order:
    """The order of a table."""
    return order_of(
        table, kind=kind, select=Select(), reweight=rule or None, epoch_size=None, seed=0
    )


def unchecked(order: Order, out: Path) -> Order:
    """The same order, of rows that are holes still: their labels do not fit their classes yet."""
    if not isinstance(order.sampling, ByGroup):
        return order
    (table,) = out.glob("*.by-class")
    members = np.memmap(table, np.uint32, "r")
    return replace(order, sampling=replace(order.sampling, members=members))


def write_rows_by_class(out: Path, samples: int) -> None:
    """The rows by class: as they are, since the classes lie one behind another."""
    listing = open_collection(out, "train").listing
    assert listing is not None
    with listing.beside.with_name(f"{listing.beside.name}.by-class").open("wb") as file:
        for first in range(0, samples, 1 << 24):
            file.write(np.arange(first, min(samples, first + (1 << 24)), dtype=np.uint32).data)


def measure(shards: Path, kind: OrderKind, rule: str, position: int) -> dict[str, Any]:
    """One measurement, in a process of its own."""
    options = {"order": kind, **({"reweight": rule} if rule else {})}
    command = [sys.executable, "-c", PROGRAM, str(shards), json.dumps(options), str(position)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and append rows."""
    parser = CommandParser(description="What a billion samples cost.")
    parser.add_argument("folder", type=Path, help="where the sparse shards are made, and removed")
    parser.add_argument("--rounds", type=whole_number(1), default=5)
    parser.add_argument("--output", type=Path, default=ROWS / "scale.jsonl")
    options = parser.read(argv)
    vars(collection)["MAPPED_FROM"] = 1  # as the program's processes do
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="scale-") as folder:
        shards = {samples: prepared(Path(folder), samples) for samples in SIZES}
        rows: list[Row] = []
        for number in range(options.rounds):
            for kind, rule in KINDS:
                for samples in SIZES:
                    for where, position in (("first", 0), ("resumed", samples // 2)):
                        facts = measure(shards[samples], kind, rule, position)
                        name = f"{kind} {rule}".strip()
                        rows.append(
                            {
                                "benchmark": "scale",
                                "name": name,
                                "samples": samples,
                                "batch": where,
                                "round": number,
                                **facts,
                            }
                        )
    append_rows(options.output, rows)
    for kind, rule in KINDS:
        for samples in SIZES:
            for where in ("first", "resumed"):
                name = f"{kind} {rule}".strip()
                key = (name, samples, where)
                found = [row for row in rows if (row["name"], row["samples"], row["batch"]) == key]
                print(
                    f"{name:16} {samples:>13,} {where:8}"
                    f" {summarise([row['seconds'] for row in found])} s,"
                    f" {summarise([row['mib'] for row in found])} MiB,"
                    f" {summarise([row['cpu_us_per_row'] for row in found])} us a row"
                )
    return 0


if __name__ == "__main__":
    raise SystemExit(run_command("benchmarks.bench_scale", main))
