"""What does one random crop cost, against decoding the whole image and resizing a part of it?

    python -m benchmarks.bench_decode [FOLDER] [--limit N] [--rounds N]

Method: RandomResizedCrop 224 and flip, the same boxes for all, images in memory, one thread, CPU
milliseconds of whole passes over all images, interleaved. Contestants: the native core; and
simplejpeg's full decode (libjpeg-turbo) with torchvision's antialiased resize of the crop. Images:

    flowers as stored          4:2:0, some 500 x 600 pixels, 43 kB, as fastload.shard stores them
    flowers as they were       the same 4:2:0 files without restart markers
    photographs as stored      500 x 375, 4:4:4, about 110 kB: as ImageNet's (DESIGN.md)
    photographs as they were   the same 4:4:4 files without restart markers

Every crop is compared with torchvision's. The stages are timed in a core built for the purpose
(-DFL_STAGES; needs a C++ compiler, else they are left out).

Answer (rows/decode.jsonl, whose last rows are of an older processor, where everything takes 1.5
times as long and "times faster" is 3.5 to 4.2; here one core of an AMD EPYC of family 26, medians
of 11 rounds over 400 images, CPU milliseconds a crop, intervals of the medians within 5 %):

                               flowers, 43 kB, 4:2:0     photographs, 115 kB, 4:4:4
                               stored    as they were    stored    as they were
    native                     0.231     0.313           0.321     0.577
    simplejpeg + torchvision   0.971     0.971           1.311     1.290
    times faster               4.24      3.11            4.09      2.24
    of which, stages timed (the clock itself takes some 0.01):
      header and unstuffing    0.016     0.004           0.023     0.011
      Huffman                  0.066     0.144           0.158     0.395
      IDCT                     0.065     0.074           0.081     0.086
      resize and colour        0.083     0.083           0.052     0.052

Against torchvision no sample differs by more than 1, the mean difference is 0.14 to 0.17
(bias -0.004), and no crop has less than 55 dB: both round twice, in other places.

The loss: without restart markers a scan is read from its beginning, by one chain of look-ups
instead of two, and images that were never transcoded gain only half as much.
"""

from __future__ import annotations

import ctypes
import io
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms.v2 import functional

from benchmarks.environment import ROOT
from benchmarks.harness import ROWS, Row, append_rows, interleave, rows_of, summarise
from fastload.console.command import run_command
from fastload.console.parser import CommandParser, whole_number
from fastload.load.box import random_resized_boxes
from fastload.pixels import native
from fastload.pixels.jpeg import Encoded

FLOWERS = ROOT.parent / "shared" / "data" / "flowers-longtail"
SIZE = 224
CHUNK = 16  # images in one call, as the loader makes them
PHOTOGRAPH_BYTES = 105_000
STAGES = ("header and unstuffing", "Huffman", "IDCT", "resize and colour")


@dataclass(frozen=True)
class Crops:
    """Images of one kind and what is cut from each.

    Attributes:
        images: JPEG files.
        encoded: The same in one buffer, as a reader leaves them.
        boxes: int32 [N, 4].
        flips: bool [N].
    """

    images: list[bytes]
    encoded: Encoded
    boxes: NDArray[np.int32]
    flips: NDArray[np.bool_]

    @staticmethod
    def of(images: list[bytes]) -> Crops:
        """Random boxes, always the same ones."""
        sizes = np.array([simplejpeg.decode_jpeg_header(jpeg)[:2] for jpeg in images], np.int32)
        random = np.random.default_rng(0)
        boxes = random_resized_boxes(sizes, random.random((len(images), 22)))
        return Crops(images, Encoded.join(images), boxes, random.random(len(images)) < 0.5)


def photographs(images: Sequence[bytes]) -> list[bytes]:
    """The same pictures 500 x 375, 4:4:4, with grain, at the quality that takes some 110 kB."""
    random = np.random.default_rng(0)
    made = []
    for jpeg in images:
        with Image.open(io.BytesIO(jpeg)) as opened:
            small = opened.convert("RGB").resize((500, 375), Image.Resampling.BICUBIC)
        grain = random.normal(0, 4, (375, 500, 1))
        noisy = Image.fromarray((np.asarray(small) + grain).clip(0, 255).astype(np.uint8))
        for quality in range(70, 100, 2):
            file = io.BytesIO()
            noisy.save(file, "JPEG", quality=quality, subsampling="4:4:4")
            if file.tell() >= PHOTOGRAPH_BYTES:
                break
        made.append(file.getvalue())
    return made


def with_core(crops: Crops, out: NDArray[np.uint8]) -> None:
    """Render all crops with the native core."""
    encoded = crops.encoded
    for begin in range(0, len(crops.images), CHUNK):
        part = slice(begin, begin + CHUNK)
        chunk = Encoded(encoded.buffer, encoded.starts[part], encoded.sizes[part])
        statuses = native.decode_boxes(chunk, crops.boxes[part], crops.flips[part], out[part])
        assert not statuses.any(), native.reason(int(statuses.max()))


def with_libjpeg(crops: Crops, out: NDArray[np.uint8]) -> None:
    """Render all crops with simplejpeg's full decode and torchvision's resize."""
    for index, jpeg in enumerate(crops.images):
        top, left, height, width = crops.boxes[index].tolist()
        planes = torch.from_numpy(simplejpeg.decode_jpeg(jpeg)).permute(2, 0, 1)
        crop = planes[:, top : top + height, left : left + width]
        square = functional.resize(crop, [SIZE, SIZE], antialias=True)
        if crops.flips[index]:
            square = square.flip(2)
        out[index] = square.permute(1, 2, 0).numpy()


def timed(
    render: Callable[[Crops, NDArray[np.uint8]], None], crops: Crops, out: NDArray[np.uint8]
) -> Callable[[], float]:
    """One pass: CPU milliseconds a crop."""

    def once() -> float:
        began = time.thread_time()
        render(crops, out)
        return (time.thread_time() - began) / len(crops.images) * 1e3

    return once


def accuracy(ours: NDArray[np.uint8], theirs: NDArray[np.uint8]) -> Row:
    """How far the two are apart; decibels of each crop."""
    difference = ours.astype(np.int16) - theirs
    squares = np.square(difference.astype(np.float32)).reshape(len(ours), -1).mean(1)
    decibels = 10 * np.log10(255**2 / np.maximum(squares, 1e-9))
    return {
        "mean_difference": float(np.abs(difference).mean()),
        "bias": float(difference.mean()),
        "largest_difference": int(np.abs(difference).max()),
        "median_decibels": float(np.median(decibels)),
        "least_decibels": float(decibels.min()),
    }


def stages_of(crops: Crops, rounds: int) -> Row:
    """Milliseconds a crop in each stage, mean of undisturbed runs; empty without a compiler."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "core.so"
        flags = ["-std=c++17", "-O3", "-fPIC", "-shared", "-fno-exceptions", "-fno-rtti"]
        source, include = str(ROOT / "native" / "abi.cpp"), f"-I{ROOT / 'native'}"
        command = [compiler, *flags, include, "-DFL_STAGES", source, "-o", str(library)]
        subprocess.run(command, check=True)
        core = ctypes.CDLL(str(library))
    runs = np.array([_stage_pass(core, crops) for _ in range(rounds)])
    fastest = runs.sum(2).argmin(0)  # for each image, the pass in which nothing interrupted it
    least = runs[fastest, np.arange(len(crops.images))].mean(0)
    return dict(zip(STAGES, map(float, least / 1e6), strict=True))


def _stage_pass(core: ctypes.CDLL, crops: Crops) -> NDArray[np.int64]:
    """Nanoseconds [image, stage]. One image after the other: a predictor learns a repeated one."""
    count = len(crops.images)
    flips, status = crops.flips.astype(np.uint8), np.empty(1, np.int32)
    out, spent = np.empty((SIZE, SIZE, 3), np.uint8), np.empty((count, len(STAGES)), np.int64)
    coarse = np.zeros(2, np.int64)
    for index in range(count):
        part = slice(index, index + 1)
        starts, sizes = crops.encoded.starts[part], crops.encoded.sizes[part]
        arrays = (starts, sizes, crops.boxes[part], flips[part], out, status, coarse, spent[index])
        start, size, box, flip, pixels, result, both, stages = (
            ctypes.c_void_p(array.ctypes.data) for array in arrays
        )
        buffer = ctypes.c_void_p(crops.encoded.buffer.ctypes.data)
        core.fl_decode_boxes(
            *(buffer, start, size, ctypes.c_int64(1), None, None, None),
            *(box, None, flip, SIZE, pixels, result, both),
        )
        core.fl_stages(stages)
    return spent


def measure(name: str, crops: Crops, rounds: int) -> list[Row]:
    """Time, accuracy and stages of one kind of image, printed and as rows."""
    count = len(crops.images)
    ours, theirs = (np.empty((count, SIZE, SIZE, 3), np.uint8) for _ in range(2))
    contestants = {
        "native": timed(with_core, crops, ours),
        "simplejpeg + torchvision": timed(with_libjpeg, crops, theirs),
    }
    measured = interleave(contestants, rounds=rounds + 1)
    measured = {contestant: values[1:] for contestant, values in measured.items()}
    size = sum(map(len, crops.images)) / count
    print(f"{name}: {count} images of {size / 1e3:.0f} kB, CPU milliseconds a crop")
    for contestant, values in measured.items():
        print(f"  {contestant:26} {summarise(values)}, least {min(values):.4f}")
    native_times, libjpeg_times = measured.values()
    faster = summarise([b / a for a, b in zip(native_times, libjpeg_times, strict=True)])
    print(f"  {'times faster':26} {faster}")
    facts = accuracy(ours, theirs)
    print("  " + ", ".join(f"{key} {value:.4g}" for key, value in facts.items()))
    stages = stages_of(crops, 15)
    print("  " + ", ".join(f"{key} {value:.3f}" for key, value in stages.items()))
    rows = rows_of("decode", measured, unit="cpu_milliseconds_per_crop")
    shared = {"images": count, "images_from": name, "bytes_per_image": size}
    return [{**row, **shared, **facts, "stage_milliseconds": stages} for row in rows]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and append to rows/decode.jsonl."""
    parser = CommandParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=FLOWERS)
    parser.add_argument(
        "--limit", type=whole_number(1), default=200, help="images to take, evenly spread"
    )
    parser.add_argument("--rounds", type=whole_number(1), default=7)
    options = parser.read(argv)
    torch.set_num_threads(1)
    paths = sorted(options.folder.rglob("*.jpg"))
    if not paths:
        raise SystemExit(f"{options.folder} holds no .jpg; name a folder of photographs")
    flowers = [path.read_bytes() for path in paths[:: max(1, len(paths) // options.limit)]]
    made = photographs(flowers)
    kinds = {
        f"{options.folder.name} as stored": [native.transcode_jpeg(j).jpeg for j in flowers],
        f"{options.folder.name} as they were": flowers,
        "photographs as stored": [native.transcode_jpeg(jpeg).jpeg for jpeg in made],
        "photographs as they were": made,
    }
    for name, images in kinds.items():
        append_rows(ROWS / "decode.jsonl", measure(name, Crops.of(images), options.rounds))
    return 0


if __name__ == "__main__":
    raise SystemExit(run_command("benchmarks.bench_decode", main))
