"""When is DALI worth it? The same batches from each back-end, and from DALI's own reader.

    python -m benchmarks.bench_dali SHARDS [--rounds 7] [--device cuda:0]

Method: `Loader` with RandomResizedCrop 224 and flip, batches of 128 in uint8, one thread for each
core. Each round is one epoch of --images samples in a fresh order, the page cache warm; the
contestants take turns. "dali-cpu, whole files" decodes the box from the file as it is stored:
against "dali-cpu" it says what slicing saves DALI. "DALI's own" is examples/dali_native.py: its
webdataset reader, `image_random_crop`, float32. With a GPU, "dali" is measured too.

Wall-clock seconds suffer where other processes disturb the machine; CPU seconds for each image hold
better, and ratios are taken within each round.

Answer: see docs/dali.md, the rows are in rows/dali.jsonl.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.harness import ROWS, Row, append_rows, interleave, summarise
from fastload.console.command import run_command
from fastload.console.parser import CommandParser, whole_number
from fastload.cores import usable_cores
from fastload.load.augment import Augment
from fastload.load.loader import Loader
from fastload.load.selection import Select
from fastload.pixels import dali
from fastload.pixels.jpeg import Box

BATCH = 128
Epoch = Callable[[], tuple[float, float]]


def timed(work: Callable[[], int]) -> tuple[float, float]:
    """Wall-clock and CPU seconds for each of the images that `work` counts."""
    wall, processor = time.perf_counter(), time.process_time()
    count = work()
    return (time.perf_counter() - wall) / count, (time.process_time() - processor) / count


def through_loader(loader: Loader) -> Epoch:
    """An epoch of a loader."""
    return lambda: timed(lambda: sum(len(images) for images, _ in loader))


def without_slices(loader: Loader) -> Epoch:
    """An epoch of a loader whose files are handed to DALI whole."""

    def whole(jpeg: bytes | memoryview, box: Box) -> tuple[bytes | memoryview, Box]:
        return jpeg, box

    def epoch() -> tuple[float, float]:
        with mock.patch.object(dali, "slice_jpeg", whole):
            return through_loader(loader)()

    return epoch


def own_reader(shards: Path, images: int) -> Epoch:
    """DALI's own reader; its epoch is the whole split, of which the first batches are taken."""
    path = Path(__file__).parents[1] / "examples" / "dali_native.py"
    spec = importlib.util.spec_from_file_location("dali_native", path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    example: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)

    def read() -> int:
        count = 0
        for batch, _ in example.batches(
            shards, "train", batch_size=BATCH, num_threads=usable_cores()
        ):
            count += len(batch)
            if count >= images:
                break
        return count

    return lambda: timed(read)


def contestants(shards: Path, images: int, device: str) -> dict[str, Epoch]:
    """Everything that runs here."""

    def loader(backend: str, where: str = "cpu") -> Loader:
        return Loader(
            shards,
            batch_size=BATCH,
            augment=Augment.train(224),
            select=Select(first=images),
            backend=backend,
            device=where,
        )

    found = {
        "native": through_loader(loader("native")),
        "libjpeg": through_loader(loader("libjpeg")),
        "dali-cpu": through_loader(loader("dali-cpu")),
        "dali-cpu, whole files": without_slices(loader("dali-cpu")),
        "DALI's own": own_reader(shards, images),
    }
    if not dali.why_unavailable(device=0):
        found["dali"] = through_loader(loader("dali", device))
    return found


def report(results: dict[str, list[tuple[float, float]]]) -> None:
    """One line for each: images per second, CPU milliseconds, and times native's CPU."""
    native = results["native"]
    for name, values in results.items():
        speed = summarise(1 / wall for wall, _ in values)
        processor = summarise(cpu * 1e3 for _, cpu in values)
        ratio = summarise(cpu / base for (_, cpu), (_, base) in zip(values, native, strict=True))
        slower = summarise(wall / base for (wall, _), (base, _) in zip(values, native, strict=True))
        print(f"{name:22s} {speed} images/s, {processor} CPU ms an image")
        print(f"{'':22s} native's CPU times {ratio}, native's time times {slower}")


def main() -> int:
    """Measure, print and append to rows/dali.jsonl."""
    parser = CommandParser(description=__doc__.splitlines()[0])
    parser.add_argument("shards", type=Path)
    parser.add_argument("--rounds", type=whole_number(1), default=7)
    parser.add_argument("--images", type=whole_number(1), default=2048)
    parser.add_argument("--device", default="cuda:0")
    options = parser.read()
    epochs = contestants(options.shards, options.images, options.device)
    results = interleave(epochs, rounds=options.rounds + 1)
    kept = {name: values[1:] for name, values in results.items()}
    report(kept)
    rows: list[Row] = [
        {
            "benchmark": "dali",
            "name": name,
            "round": number,
            "num_threads": usable_cores(),
            "images_per_second": 1 / wall,
            "cpu_ms_per_image": cpu * 1e3,
        }
        for name, values in kept.items()
        for number, (wall, cpu) in enumerate(values)
    ]
    append_rows(ROWS / "dali.jsonl", rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(run_command("benchmarks.bench_dali", main))
