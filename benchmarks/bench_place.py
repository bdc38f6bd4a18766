"""What does reading images where they lie cost, against the same images as shards?

    python -m benchmarks.bench_place [--images DIR] [--parts PART ...]
    pytest benchmarks/bench_place.py               (fewer images, one round)

Method, each a part:

    prepare     `fastload.index` and `fastload.shard` of the same folder, each a process that may
                use 2 cores, in turns: seconds from its start to its end, CPU seconds, bytes written
    read        the native core's loader over the folder, over WebDataset tars and over shards, with
                2 threads in one process, an epoch of each in turn; RandomResizedCrop to 224 pixels,
                batches of 128

Answer: see docs/data.md, the rows are in rows/place.jsonl.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from benchmarks import images
from benchmarks.bench_loader import loader_of, measured
from benchmarks.compare import DATA, Comparison, chosen
from benchmarks.compare import prepare as prepare_contenders
from benchmarks.conftest import Keep
from benchmarks.contenders.contract import Work, list_images
from benchmarks.harness import ROWS, Row, append_rows, interleave, summarise
from benchmarks.images import Kind
from fastload.console.command import run_command
from fastload.console.parser import CommandParser, whole_number

CORES = 2
SAMPLE = "as they are"
KINDS: dict[str, Callable[[Path, Path], Path]] = {
    SAMPLE: lambda source, _: source,
    # Near ImageNet's: a median of 500 x 375 pixels and 107 kB, mostly 4:4:4.
    "500 x 375 pixels, 4:4:4": partial(
        images.photographs,
        kind=Kind(megapixels=0.1875, count=1000, quality=95, subsampling="4:4:4"),
    ),
    "progressive": partial(
        images.saved_anew, count=500, extension=".jpg", quality="keep", progressive=True
    ),
    "PNG": partial(images.saved_anew, count=200, extension=".png"),
}
EPOCH_IMAGES = 9000
FEWER = {"progressive": 4000, "PNG": 2000}  # since they take long
CONTENDERS = ("fastload native",)


def made(kind: str, source: Path, data: Path, *, about: int | None = None) -> Path:
    """Photographs of that kind, each as often as gives about so many, or an epoch's."""
    once = KINDS[kind](source, data / f"{kind}, once")
    about = about or FEWER.get(kind, EPOCH_IMAGES)
    times = max(1, round(about / len(list_images(once))))
    return images.repeated(once, data / "made" / kind, times=times)


def prepare(folder: Path, scratch: Path, rounds: int) -> list[Row]:
    """Seconds and bytes of the two ways to make a folder of class folders readable."""
    count = len(list_images(folder))
    scratch.mkdir(parents=True, exist_ok=True)
    train = scratch / "data" / "train"
    train.parent.mkdir(exist_ok=True)
    train.unlink(missing_ok=True)
    train.symlink_to(folder.resolve())

    def run(command: str) -> Row:
        out = scratch / command
        shutil.rmtree(out, ignore_errors=True)
        before, began = _cpu_of_children(), time.perf_counter()
        subprocess.run(
            [
                *(sys.executable, "-m", f"fastload.{command}", str(train.parent)),
                *("--out", str(out), "--workers", str(CORES)),
            ],
            check=True,
            capture_output=True,
        )
        seconds, cpu = time.perf_counter() - began, _cpu_of_children() - before
        written = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
        shutil.rmtree(out)
        return {
            "images": count,
            "seconds": seconds,
            "images_per_second": count / seconds,
            "cpu_milliseconds_per_image": cpu / count * 1e3,
            "bytes_written_per_image": written / count,
        }

    commands = ("index", "shard")
    measured = interleave({name: partial(run, name) for name in commands}, rounds=rounds)
    for name, rows in measured.items():
        rate = summarise(row["images_per_second"] for row in rows)
        cpu = summarise(row["cpu_milliseconds_per_image"] for row in rows)
        print(f"fastload.{name}: {rate} images/s, CPU {cpu} ms an image")
    source = sum(path.stat().st_size for path, _ in list_images(folder)) / count
    return [
        {
            "benchmark": "place-prepare",
            "name": f"fastload.{name}",
            "images_from": folder.name,
            "bytes_per_image": source,
            "used_cores": CORES,
            "round": number,
            **row,
        }
        for name, rows in measured.items()
        for number, row in enumerate(rows)
    ]


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def read(folder: Path, scratch: Path, rounds: int) -> list[Row]:
    """Images per second of the loader over folder, tars and shards, an epoch of each in turn."""
    asked = Comparison(
        contenders=chosen(CONTENDERS, ()),
        images=folder,
        data=scratch / "prepared",
        output=None,
        rounds=rounds,
        work=Work(cores=CORES),
        source=folder.name,
    )
    prepare_contenders(asked)
    places = {each.name: asked.data / each.data_name for each in asked.contenders}
    with ExitStack() as stack:
        loaders = {
            name: stack.enter_context(loader_of(place, num_threads=CORES))
            for name, place in places.items()
        }

        def epoch(name: str) -> tuple[float, float]:
            return measured(lambda: sum(len(images) for images, _ in loaders[name]))

        results = interleave({name: partial(epoch, name) for name in loaders}, rounds=rounds + 1)
    kept = {name: values[1:] for name, values in results.items()}
    shards = next(iter(kept.values()))
    for name, values in kept.items():
        rate = summarise(1 / wall for wall, _ in values)
        ratio = summarise(own / other for (_, own), (_, other) in zip(values, shards, strict=True))
        print(f"{name}: {rate} images/s, CPU / that of shards {ratio}")
    return [
        {
            "benchmark": "place-read",
            "name": name,
            "images_from": folder.name,
            "used_cores": CORES,
            "round": number,
            "images_per_second": 1 / wall,
            "cpu_milliseconds_per_image": cpu * 1e3,
        }
        for name, values in kept.items()
        for number, (wall, cpu) in enumerate(values)
    ]


PARTS: dict[str, Callable[[Path, Path, int], list[Row]]] = {"prepare": prepare, "read": read}


@pytest.mark.parametrize("part", PARTS)
def test_data_in_place(part: str, photographs: Path, tmp_path: Path, keep: Keep) -> None:
    """Folder, tars and shards are prepared and read."""
    folder = made(SAMPLE, photographs, tmp_path, about=1)
    rows = PARTS[part](folder, tmp_path / "x", 1)
    keep(rows)
    assert len(rows) == (2 if part == "prepare" else 3)
    assert min(row["images_per_second"] for row in rows) > 0


def main(argv: Sequence[str] | None = None) -> int:
    """Measure some parts on some kinds, print, and append rows."""
    parser = CommandParser(description="What reading images where they lie costs.")
    parser.add_argument("--images", type=Path, default=images.SAMPLE_DATA)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--rounds", type=whole_number(1), default=7)
    parser.add_argument("--output", type=Path, default=ROWS / "place.jsonl")
    options = parser.read(argv)
    for kind in options.kinds:
        folder = made(kind, options.images, DATA / "place")
        print(f"{kind}: {len(list_images(folder)):,} images")
        for part in options.parts:
            rows = PARTS[part](folder, DATA / "place" / kind, options.rounds)
            append_rows(options.output, rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(run_command("benchmarks.bench_place", main))
