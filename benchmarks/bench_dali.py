"""When is DALI worth it? The same batches from each back-end, and from DALI's own reader.

    python -m benchmarks.bench_dali DATA [--rounds 7] [--device cuda:0] [--share 0.5]

Method: `Loader` with RandomResizedCrop 224 and flip, batches of 128 in uint8, one thread for each
core. Each round is one epoch of --images samples in a fresh order, the page cache warm; the
contestants take turns. "dali-cpu, whole files" decodes the box from the file as it is stored:
against "dali-cpu" it says what `pixels/region` saves DALI, by slicing the files of shards, by
cutting data in place with their seek tables; likewise "libjpeg, whole files". "DALI's own" is
examples/dali_native.py: its webdataset reader, `image_random_crop`, float32; it reads shards alone.
With a GPU, "dali" is measured too. --share takes crops of one share of the picture, and cuts
whatever the share is: where cutting begins to cost more than it saves, `CUT_BELOW` stands.

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
from fastload.load.augment import Augment, RandomResizedCrop
from fastload.load.loader import Loader
from fastload.load.selection import Select
from fastload.pixels import dali, decode, region
from fastload.pixels.jpeg import Box

BATCH = 128
WHOLE = ", whole files"
Epoch = Callable[[], tuple[float, float]]


def timed(work: Callable[[], int]) -> tuple[float, float]:
    """Wall-clock and CPU seconds for each of the images that `work` counts."""
    wall, processor = time.perf_counter(), time.process_time()
    count = work()
    return (time.perf_counter() - wall) / count, (time.process_time() - processor) / count


def through_loader(loader: Loader) -> Epoch:
    """An epoch of a loader."""
    return lambda: timed(lambda: sum(len(images) for images, _ in loader))


def with_whole_files(loader: Loader) -> Epoch:
    """An epoch of a loader whose files are handed to the decoder whole."""

    def whole(jpeg: bytes | memoryview, box: Box, *_: object, **__: object) -> tuple[Any, Box]:
        return jpeg, box

    def epoch() -> tuple[float, float]:
        with (
            mock.patch.object(dali, "region_of", whole),
            mock.patch.object(decode, "region_of", whole),
        ):
            return through_loader(loader)()

    return epoch


def is_shards(data: Path) -> bool:
    """Whether a directory holds shards, not data in place."""
    return (data / "manifest.json").exists()


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


def contestants(data: Path, images: int, device: str, crop: RandomResizedCrop) -> dict[str, Epoch]:
    """Everything that runs here."""

    def loader(backend: str, where: str = "cpu") -> Loader:
        return Loader(
            data,
            batch_size=BATCH,
            augment=Augment.train(224, crop=crop),
            select=Select(first=images),
            backend=backend,
            device=where,
        )

    found = {
        "native": through_loader(loader("native")),
        "libjpeg": through_loader(loader("libjpeg")),
        f"libjpeg{WHOLE}": with_whole_files(loader("libjpeg")),
        "dali-cpu": through_loader(loader("dali-cpu")),
        f"dali-cpu{WHOLE}": with_whole_files(loader("dali-cpu")),
    }
    if is_shards(data):
        found["DALI's own"] = own_reader(data, images)
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
        if whole := results.get(name + WHOLE):
            saved = summarise(
                cpu / other for (_, cpu), (_, other) in zip(values, whole, strict=True)
            )
            print(f"{'':22s} CPU of whole files times {saved}")


def main() -> int:
    """Measure, print and append to rows/dali.jsonl."""
    parser = CommandParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="shards, or photographs in place")
    parser.add_argument("--rounds", type=whole_number(1), default=7)
    parser.add_argument("--images", type=whole_number(1), default=2048)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--share", type=float, metavar="S", help="of a picture in each crop")
    options = parser.read()
    crop = RandomResizedCrop()
    if options.share is not None:
        crop = RandomResizedCrop(area=(options.share, options.share))
        region.CUT_BELOW = 2.0
    epochs = contestants(options.data, options.images, options.device, crop)
    results = interleave(epochs, rounds=options.rounds + 1)
    kept = {name: values[1:] for name, values in results.items()}
    report(kept)
    rows: list[Row] = [
        {
            "benchmark": "dali",
            "name": name,
            "round": number,
            "in_place": not is_shards(options.data),
            "share": options.share,
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
