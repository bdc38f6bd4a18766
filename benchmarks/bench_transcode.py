"""What does storing JPEGs losslessly, with restart markers, cost, and what does it bring?

    python -m benchmarks.bench_transcode [FOLDER] [--limit N] [--rounds N] [--photographs]

Method: every JPEG of FOLDER (default: the flowers of ../shared/data) in memory, one thread, CPU
seconds of whole passes, interleaved. With --photographs the pictures are first made into 500 x 375,
4:4:4, quality 95: about 82 kB, nearer to ImageNet's than flowers of 42 kB. Parts:

    time    transcode_jpeg; check_jpeg; decoding all pixels with libjpeg-turbo (simplejpeg), which
            finding damage costs otherwise; optimising with Pillow, as a writer that re-encodes does
    bytes   files before and after: as stored, with the smallest tables, without restart markers
    crops   decode_boxes for RandomResizedCrop 224 of the files as they were and as they are stored

Every stored file is decoded by libjpeg-turbo and must give the pixels of its original.

Answer (rows/transcode.jsonl; one core of an AMD EPYC of family 26, other programs running;
medians): transcoding takes less time than decoding the file once, and every crop afterwards takes
59 to 76 % of what it took.

    milliseconds an image       flowers, 43 kB, 4:2:0    photographs, 80 kB, 4:4:4
    transcode_jpeg                      0.463                     0.669
    check_jpeg                          0.333                     0.460
    simplejpeg, all pixels              0.660                     0.779
    Pillow optimize=True                2.52                      3.15
    crop of the original                0.337                     0.521
    crop of the stored file             0.257                     0.309
    crop, smallest tables               0.263                     0.328
    crop, no restart markers            0.336                     0.448
    bytes as stored                     1.007                     0.979
    bytes, smallest tables              1.006                     0.977
    bytes, no restart markers           0.982                     0.964

The loss: restart markers cost 2.6 % of the bytes of small 4:2:0 files, more than better tables
save, so flowers grow by 0.7 %.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from benchmarks.harness import ROWS, append_rows, interleave, rows_of, summarise
from fastload.console.command import run_command
from fastload.console.parser import CommandParser, whole_number
from fastload.errors import ImageError
from fastload.load.box import random_resized_boxes
from fastload.pixels import native
from fastload.pixels.jpeg import Encoded

FLOWERS = Path(__file__).resolve().parents[2] / "shared" / "data" / "flowers-longtail"
SIZE = 224
CHUNK = 16  # images in one call, as the loader makes them


def read_images(folder: Path, limit: int | None) -> list[bytes]:
    """The JPEGs of a folder tree, evenly thinned to `limit`."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})
    if not paths:
        raise SystemExit(f"{folder} holds no JPEG; name a folder of photographs")
    step = max(1, len(paths) // limit) if limit else 1
    return [path.read_bytes() for path in paths[::step][:limit]]


def as_photographs(images: Sequence[bytes]) -> list[bytes]:
    """The same pictures, 500 x 375, 4:4:4, quality 95."""
    made = []
    for jpeg in images:
        stream = io.BytesIO()
        with Image.open(io.BytesIO(jpeg)) as image:
            image.convert("RGB").resize((500, 375)).save(stream, "JPEG", quality=95, subsampling=0)
        made.append(stream.getvalue())
    return made


def optimised_by_pillow(jpeg: bytes) -> bytes:
    """Decoded and encoded again with the tables it had; not lossless."""
    stream = io.BytesIO()
    with Image.open(io.BytesIO(jpeg)) as image:
        image.save(stream, "JPEG", quality="keep", optimize=True)
    return stream.getvalue()


def per_image(function: Callable[[bytes], object], images: Sequence[bytes]) -> Callable[[], float]:
    """One pass over all images: CPU milliseconds for each."""

    def once() -> float:
        began = time.thread_time()
        for jpeg in images:
            function(jpeg)
        return (time.thread_time() - began) / len(images) * 1e3

    return once


def crops(
    images: Sequence[bytes], boxes: NDArray[np.int32], tables: Sequence[bytes] | None = None
) -> Callable[[], float]:
    """One crop of each image, in chunks: CPU milliseconds for each."""
    encoded = Encoded.join(images)
    seek = Encoded.join([b""] * len(images) if tables is None else tables)
    out = np.empty((CHUNK, SIZE, SIZE, 3), np.uint8)
    flips = np.arange(len(images)) % 2 == 0

    def once() -> float:
        began = time.thread_time()
        for begin in range(0, len(images), CHUNK):
            part = slice(begin, begin + CHUNK)
            chunk, points = (
                Encoded(each.buffer, each.starts[part], each.sizes[part])
                for each in (encoded, seek)
            )
            statuses = native.decode_boxes(
                chunk, boxes[part], flips[part], out[: len(chunk)], tables=points
            )
            assert not statuses.any(), native.reason(int(statuses.max()))
        return (time.thread_time() - began) / len(images) * 1e3

    return once


def storable(images: Sequence[bytes]) -> list[bytes]:
    """Those that are stored losslessly; the others are counted aloud with their reasons."""
    taken: list[bytes] = []
    refused: dict[str, int] = {}
    for jpeg in images:
        try:
            stored = native.transcode_jpeg(jpeg).jpeg
        except ImageError as error:
            refused[error.reason] = refused.get(error.reason, 0) + 1
            continue
        before, after = simplejpeg.decode_jpeg(jpeg), simplejpeg.decode_jpeg(stored)
        if not np.array_equal(before, after):
            raise SystemExit("a stored file has other pixels than its original")
        taken.append(jpeg)
    print(f"{len(taken)} of {len(images)} images are stored losslessly, pixels identical")
    for reason, count in refused.items():
        print(f"  {count}: {reason}")
    return taken


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and append to rows/transcode.jsonl."""
    parser = CommandParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=FLOWERS)
    parser.add_argument("--limit", type=whole_number(1), help="images to take, evenly spread")
    parser.add_argument("--rounds", type=whole_number(1), default=7)
    parser.add_argument("--photographs", action="store_true", help="500 x 375, 4:4:4, quality 95")
    options = parser.read(argv)
    images = read_images(options.folder, options.limit)
    if options.photographs:
        images = as_photographs(images)
    images = storable(images)
    name = "photographs 4:4:4" if options.photographs else options.folder.name

    stored = [native.transcode_jpeg(jpeg).jpeg for jpeg in images]
    smallest = [native.transcode_jpeg(jpeg, smallest=True).jpeg for jpeg in images]
    without = [native.transcode_jpeg(jpeg, interval_pixels=0).jpeg for jpeg in images]
    total = sum(map(len, images))
    print(
        f"bytes: {total / len(images):,.0f} an image; stored {sum(map(len, stored)) / total:.4f},"
    )
    print(f"  with the smallest tables {sum(map(len, smallest)) / total:.4f},")
    print(f"  without restart markers {sum(map(len, without)) / total:.4f} of that")

    sizes = np.array([Image.open(io.BytesIO(jpeg)).size[::-1] for jpeg in images], np.int32)
    boxes = random_resized_boxes(sizes, np.random.default_rng(0).random((len(images), 22)))
    measured = interleave(
        {
            "transcode_jpeg": per_image(native.transcode_jpeg, images),
            "check_jpeg": per_image(native.check_jpeg, images),
            "simplejpeg decode": per_image(simplejpeg.decode_jpeg, images),
            "Pillow optimize": per_image(optimised_by_pillow, images),
            "crop of the original": crops(images, boxes),
            "crop of the stored file": crops(stored, boxes),
            "crop, smallest tables": crops(smallest, boxes),
            "crop, no restart markers": crops(without, boxes),
        },
        rounds=options.rounds + 1,
    )
    measured = {name: values[1:] for name, values in measured.items()}
    for contestant, values in measured.items():
        print(f"  {contestant:26} {summarise(values)} ms an image, least {min(values):.4f}")
    facts = {
        "images": len(images),
        "images_from": name,
        "bytes_per_image": total / len(images),
        "stored_share": sum(map(len, stored)) / total,
        "smallest_share": sum(map(len, smallest)) / total,
        "unmarked_share": sum(map(len, without)) / total,
    }
    rows = rows_of("transcode", measured, unit="cpu_milliseconds_per_image")
    append_rows(ROWS / "transcode.jsonl", [{**row, **facts} for row in rows])
    return 0


if __name__ == "__main__":
    raise SystemExit(run_command("benchmarks.bench_transcode", main))
