"""How far apart should seek points stand?

    python -m benchmarks.bench_points [FOLDER] [--limit N] [--rounds N] [--photographs]

Method: JPEGs of FOLDER (default: the flowers of ../shared/data) in memory, one thread. At each
distance: the share of the tables in the bytes of the files, and CPU seconds of decode_boxes for the
same RandomResizedCrop 224 of the untouched files by these tables, interleaved with the files as
fastload.shard stores them, and with the files alone. With --photographs the pictures are first made
into 500 x 375, 4:4:4, with grain, as `bench_decode` does.

Answer (rows/points.jsonl; 320 of the images, one core of an Intel Xeon, family 6 model 207; medians
of ratios, which lie within 0.05 of one another between runs):

    pixels apart                     32     48     64     96    128    192   a row  chosen  no table
    flowers, 43 kB, 4:2:0, table   4.98   3.35   2.55   1.74   1.33   0.92   0.30    1.62      0 %
      a crop, of the stored file   0.94   0.96   0.95   0.95   0.99   0.95   1.00    0.99   1.18
    photographs, 117 kB, 4:4:4     2.68   1.70   1.37   0.88   0.71   0.54   0.19    2.51      0 %
      a crop, of the stored file   1.11   1.13   1.18   1.18   1.23   1.25   1.36    1.09   1.67

The stored files of the second kind have Huffman tables made for them, the untouched ones have not.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.bench_decode import photographs
from benchmarks.bench_transcode import FLOWERS, crops, read_images, storable
from benchmarks.harness import ROWS, append_rows, interleave, rows_of, summarise
from fastload.console.command import run_command
from fastload.console.parser import CommandParser, whole_number
from fastload.load.box import random_resized_boxes
from fastload.pixels import native

DISTANCES = (32, 48, 64, 96, 128, 192)
ROW = 65535  # wider than any row: a point at each row's beginning


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and append to rows/points.jsonl."""
    parser = CommandParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=FLOWERS)
    parser.add_argument("--limit", type=whole_number(1), help="images to take, evenly spread")
    parser.add_argument("--rounds", type=whole_number(1), default=7)
    parser.add_argument("--photographs", action="store_true", help="500 x 375, 4:4:4, with grain")
    options = parser.read(argv)
    images = read_images(options.folder, options.limit)
    images = storable(photographs(images) if options.photographs else images)
    sizes = np.array([Image.open(io.BytesIO(jpeg)).size[::-1] for jpeg in images], np.int32)
    boxes = random_resized_boxes(sizes, np.random.default_rng(0).random((len(images), 22)))
    tables = {
        **{f"{pixels} pixels": [native.seek_points(j, pixels).table for j in images]
           for pixels in DISTANCES},
        "a row": [native.seek_points(jpeg, ROW).table for jpeg in images],
        "chosen": [native.seek_points(jpeg).table for jpeg in images],
    }  # fmt: skip
    total = sum(map(len, images))
    shares = {name: sum(map(len, each)) / total for name, each in tables.items()}
    measured = interleave(
        {
            "stored": crops([native.transcode_jpeg(jpeg).jpeg for jpeg in images], boxes),
            "no table": crops(images, boxes),
            **{name: crops(images, boxes, each) for name, each in tables.items()},
        },
        rounds=options.rounds + 1,
    )
    measured = {name: values[1:] for name, values in measured.items()}
    print(f"{len(images)} images of {total / len(images):,.0f} bytes")
    for name, values in measured.items():
        against = summarise(
            ours / stored for ours, stored in zip(values, measured["stored"], strict=True)
        )
        print(
            f"  {name:10} table {shares.get(name, 0):7.2%}, {summarise(values)} ms a crop, "
            f"{against.median:.3f} of stored"
        )
    facts = {
        "images": len(images),
        "images_from": "photographs 4:4:4" if options.photographs else options.folder.name,
        "bytes_per_image": total / len(images),
    }
    rows = rows_of("points", measured, unit="cpu_milliseconds_per_image")
    append_rows(
        ROWS / "points.jsonl",
        [{**row, **facts, "table_share": shares.get(row["name"], 0.0)} for row in rows],
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(run_command("benchmarks.bench_points", main))
