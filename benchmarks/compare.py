"""All loaders side by side: `python -m benchmarks.compare`, or `scripts/bench --full`.

Question: who gives most images a second from the same photographs on the same cores, at which cost?
Method: for every contender one process for each round, bound to the given cores; rounds are
interleaved; the same images, RandomResizedCrop to 224 pixels and flip, batches of 128. Everything
else (settings, what is and is not antialiased) stands in `peers.py` and in the rows.

Parts, each a set of rows: `prepare` (time and bytes, from the images as they are), `loaders` (warm
page cache, for each number of cores), `cold` (one epoch, page cache dropped), `consumer` (a
simulated training step takes 400, 1,000 or 2,500 images a second).
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from benchmarks import images, peers
from benchmarks.contenders.contract import Work, list_images
from benchmarks.environment import ROOT
from benchmarks.harness import ROWS, Row, append_rows, interleave
from benchmarks.peers import CONTENDERS, Contender
from fastload.console.command import run_command
from fastload.console.parser import CommandParser, positive_number, whole_number

DATA = ROOT / "benchmarks" / ".data"
EPOCH_IMAGES = 9000  # an epoch of the fastest loader then takes 2 s or more
PARTS = ("prepare", "loaders", "cold", "consumer")
CONSUMERS = (400.0, 1000.0, 2500.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What is compared, and where the rows go.

    Attributes:
        contenders: Who.
        images: A folder of class folders.
        source: What they are, for the rows and the README; the folder's name where it is "".
        data: Where prepared data is kept; reused by a later run on the same images.
        output: JSONL file that rows are appended to; None for nowhere.
        rounds: For each contender and setting.
        work: Cores, batch size and duration of one measurement.
    """

    contenders: tuple[Contender, ...]
    images: Path
    data: Path
    output: Path | None
    rounds: int
    work: Work
    source: str = ""

    def keep(self, rows: list[Row]) -> list[Row]:
        """Write rows at once, so that a run that is stopped has results."""
        if self.output:
            append_rows(self.output, rows)
        return rows

    def describe(self, contender: Contender, part: str) -> Row:
        """What every row says of its contender and setting."""
        return {
            "benchmark": part,
            "name": contender.name,
            "kind": contender.kind,
            "package": contender.package,
            "version": peers.version(contender),
            "antialiased": contender.antialiased,
            "note": contender.note,
            "images_from": self.source or self.images.name,
            "used_cores": self.work.cores,
            "batch_size": self.work.batch_size,
            "size": self.work.size,
            "command": "python -m benchmarks.compare " + " ".join(sys.argv[1:]),
        }


def prepare(comparison: Comparison, *, again: bool = False) -> list[Row]:
    """Prepare the data of every contender that is installed; one row each.

    Args:
        comparison: Who, and from which images.
        again: Do it anew, for the time that it takes.
    """
    rows = []
    for contender in comparison.contenders:
        if again:
            (comparison.data / f"{contender.data_name}.json").unlink(missing_ok=True)
            shutil.rmtree(comparison.data / contender.data_name, ignore_errors=True)
    comparison.data.mkdir(parents=True, exist_ok=True)
    for contender in comparison.contenders:
        row = peers.prepare(
            contender, comparison.images, comparison.data, cores=comparison.work.cores
        )
        rows.append({**comparison.describe(contender, "prepare"), **row})
        _say(rows[-1], "prepare_seconds", "s")
    return comparison.keep(rows)


def measure(comparison: Comparison, *, part: str = "loaders", first_round: int = 0) -> list[Row]:
    """Interleaved rounds of all contenders; one row for each measurement.

    Args:
        comparison: Who, on what, how often.
        part: "loaders", "cold" or "consumer"; names the rows, and "cold" drops the page cache.
        first_round: Number of the first round; the first contender of a round turns with it.
    """
    done = Counter[str]()

    def once(contender: Contender) -> Row:
        row = peers.measure(
            contender, comparison.images, comparison.data, comparison.work, cold=part == "cold"
        )
        described = comparison.describe(contender, part)
        if comparison.work.consumer:
            described["consumer"] = comparison.work.consumer
        row = {**described, "round": first_round + done[contender.name], **row}
        done[contender.name] += 1
        _say(row, "images_per_second", "images/s")
        comparison.keep([row])
        return row

    calls: dict[str, Callable[[], Row]] = {
        contender.name: partial(once, contender)
        for contender in _turned(comparison.contenders, first_round)
    }
    measured = interleave(calls, rounds=comparison.rounds)
    return [row for rows in measured.values() for row in rows]


def _turned(contenders: tuple[Contender, ...], turns: int) -> tuple[Contender, ...]:
    turn = 5 * turns % max(1, len(contenders))
    return contenders[turn:] + contenders[:turn]


def _say(row: Row, key: str, unit: str) -> None:
    said = f"{row[key]:10,.1f} {unit}" if key in row else f"  {row.get('failed', 'no result')}"
    print(f"{row['benchmark']:9} {row['name']:34} {row['used_cores']} cores {said}", flush=True)


def chosen(only: Sequence[str], without: Sequence[str]) -> tuple[Contender, ...]:
    """Contenders whose name contains one of `only`, or all, and none of `without`."""
    return tuple(
        contender
        for contender in CONTENDERS
        if (not only or any(part in contender.name for part in only))
        and not any(part in contender.name for part in without)
    )


Value = TypeVar("Value")


def _each(kind: Callable[[str], Value]) -> Callable[[str], list[Value]]:
    """The type of an option that takes values of a type, with commas between them."""
    return lambda text: [kind(part) for part in text.split(",")]


def _part(text: str) -> str:
    if text not in PARTS:
        raise argparse.ArgumentTypeError(f"must be of {', '.join(PARTS)}, got {text!r}")
    return text


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = CommandParser(
        prog="python -m benchmarks.compare", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--images", type=Path, default=images.SAMPLE_DATA, metavar="DIR")
    parser.add_argument("--data", type=Path, default=DATA, help="keeps what was prepared")
    parser.add_argument("--output", type=Path, default=ROWS / "latest.jsonl")
    parser.add_argument("--parts", type=_each(_part), default=list(PARTS), metavar="PART,PART")
    parser.add_argument("--only", nargs="+", default=(), metavar="NAME", help="or a part of one")
    parser.add_argument("--without", nargs="+", default=(), metavar="NAME", help="nor these")
    parser.add_argument(
        "--cores", type=_each(whole_number(1)), metavar="N,N", help="such as 1,2 (default: 1 and 2)"
    )
    parser.add_argument(
        "--rounds", type=whole_number(1), default=3, help="of each part (default 3)"
    )
    parser.add_argument("--seconds", type=positive_number, default=4.0)
    parser.add_argument("--warm-up-seconds", type=float, default=1.5)
    parser.add_argument("--batch-size", type=whole_number(1), default=128)
    parser.add_argument(
        "--consumers", type=_each(positive_number), default=list(CONSUMERS), metavar="RATE,RATE"
    )
    return parser.read(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts that were asked for."""
    arguments = parse(argv)
    parts = arguments.parts
    folder = arguments.images.resolve()
    count = len(list_images(folder))
    if not count:
        raise SystemExit(f"{folder} holds no JPEG in class folders; name a folder of class folders")
    data = arguments.data / f"{folder.parent.name}-{folder.name}"
    data.mkdir(parents=True, exist_ok=True)
    base = Comparison(
        contenders=chosen(arguments.only, arguments.without),
        images=folder,
        data=data / "once",
        output=arguments.output,
        rounds=arguments.rounds,
        work=Work(
            cores=max(arguments.cores or [2]),
            batch_size=arguments.batch_size,
            seconds=arguments.seconds,
            warm_up_seconds=arguments.warm_up_seconds,
        ),
    )
    began = time.monotonic()
    times = max(1, round(EPOCH_IMAGES / count))
    name = f"{folder.parent.name}/{folder.name}, {count:,} photographs"
    base = replace(base, source=name)
    if "prepare" in parts:
        prepare(base, again=True)
    long = replace(
        base,
        source=f"{name}, each {times} times an epoch",
        images=images.repeated(folder, data / f"{folder.name}-x{times}", times=times),
        data=data / f"x{times}",
    )
    prepare(replace(long, output=None))
    if "loaders" in parts:
        for number in range(arguments.rounds):
            for cores in arguments.cores or [1, 2]:
                work = replace(long.work, cores=cores)
                measure(replace(long, rounds=1, work=work), first_round=number)
    if "cold" in parts:
        measure(long, part="cold")
    if "consumer" in parts:
        for rate in arguments.consumers:
            work = replace(long.work, consumer=rate)
            measure(replace(long, work=work), part="consumer")
    print(f"{time.monotonic() - began:.0f} s in all; rows are in {arguments.output.name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_command("benchmarks.compare", main))
