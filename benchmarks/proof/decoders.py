"""Which of NVIDIA's decoders take our files, how right, and at which cost?

Each decoder of nvImageCodec by itself: the JPEG engine (`HW_GPU_ONLY`), nvJPEG with the host's
Huffman decoding (as it comes), and with its own (`hybrid_huffman_threshold=0`); on files as they
are stored, on slices of them, on the same without restart markers, and on large photographs. Then
regions, in processes of their own, which once crashed (NVIDIA/nvImageCodec#55).
"""

from __future__ import annotations

import io
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.proof.part import Place, run_part, skip
from fastload.advise.examples import stored_examples
from fastload.pixels.decode import decode_jpeg
from fastload.pixels.jpeg import restart_interval_for, slice_jpeg

COUNT = 64
LARGE = (3000, 4000)
DECODERS = {
    "engine": ("HW_GPU_ONLY", ":fancy_upsampling=1"),
    "host Huffman": ("HYBRID_CPU_GPU", ":fancy_upsampling=1"),
    "GPU Huffman": (
        "HYBRID_CPU_GPU",
        ":fancy_upsampling=1 nvjpeg_cuda_decoder:hybrid_huffman_threshold=0",
    ),
}


@dataclass(frozen=True, slots=True)
class Files:
    """Files of one kind."""

    name: str
    jpegs: tuple[bytes, ...]


def encode(pixels: NDArray[np.uint8], interval: int) -> bytes:
    """4:2:0 at quality 90, with a restart marker after so many MCUs; 0 is none."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(
        file, "JPEG", quality=90, subsampling="4:2:0", restart_marker_blocks=interval
    )
    return file.getvalue()


def kinds(place: Place) -> list[Files]:
    """The files that are tried."""
    examples = stored_examples(place.shards)
    pairs = zip(examples.jpegs, examples.boxes.tolist(), strict=True)
    slices = [bytes(slice_jpeg(jpeg, tuple(box))[0]) for jpeg, box in pairs]
    pixels = [decode_jpeg(jpeg) for jpeg in examples.jpegs]
    large = [np.asarray(Image.fromarray(each).resize(LARGE[::-1])) for each in pixels[:4]]
    interval = restart_interval_for(LARGE[1], 16)
    return [
        Files("stored", examples.jpegs),
        Files("slices", tuple(slices)),
        Files("without restarts", tuple(encode(each, 0) for each in pixels)),
        Files("12 MP, restarts", tuple(encode(each, interval) for each in large)),
        Files("12 MP, none", tuple(encode(each, 0) for each in large)),
    ]


def decode_with(kind: str, options: str, jpegs: list[bytes]) -> tuple[list[Any], float, float]:
    """Images or None; wall-clock and CPU milliseconds an image, of the third time."""
    nvimgcodec: Any = import_module("nvidia.nvimgcodec")
    decoder = nvimgcodec.Decoder(
        device_id=0,
        max_num_cpu_threads=1,
        backends=[nvimgcodec.Backend(getattr(nvimgcodec.BackendKind, kind))],
        options=options,
    )
    params = nvimgcodec.DecodeParams(apply_exif_orientation=False)
    streams = [nvimgcodec.CodeStream(jpeg) for jpeg in jpegs]
    images: list[Any] = []
    wall = processor = 0.0
    for _ in range(3):
        wall, processor = -time.perf_counter(), -time.process_time()
        images = decoder.decode(streams, params=params)
        last = next((image for image in reversed(images) if image is not None), None)
        if last is not None:
            last.cpu()
        wall, processor = wall + time.perf_counter(), processor + time.process_time()
    return images, wall / len(jpegs) * 1e3, processor / len(jpegs) * 1e3


def try_kind(place: Place, files: Files) -> list[dict[str, Any]]:
    """One kind of files with each decoder."""
    count = COUNT if len(files.jpegs) > 4 else 8
    jpegs = [files.jpegs[index % len(files.jpegs)] for index in range(count)]
    rows = []
    for name, (kind, options) in DECODERS.items():
        images, wall, processor = decode_with(kind, options, jpegs)
        apart = [
            float(np.abs(np.asarray(image.cpu()).astype(np.int16) - decode_jpeg(jpeg)).mean())
            for image, jpeg in list(zip(images, jpegs, strict=True))[: len(files.jpegs)]
            if image is not None
        ]
        rows.append(
            {
                "benchmark": "gpu-decoders",
                "name": name,
                "files": files.name,
                "images": count,
                "decoded": sum(image is not None for image in images),
                "wall_ms_per_image": wall,
                "cpu_ms_per_image": processor,
                "worst_mean_difference": max(apart, default=None),
            }
        )
        place.keep(rows[-1:])
        print(rows[-1], flush=True)
    return rows


REGION = """
import sys
import numpy as np
from nvidia import nvimgcodec
jpeg = sys.stdin.buffer.read()
kind, fancy = sys.argv[1:]
decoder = nvimgcodec.Decoder(
    device_id=0,
    backends=[nvimgcodec.Backend(getattr(nvimgcodec.BackendKind, kind))],
    options=f":fancy_upsampling={fancy}",
)
stream = nvimgcodec.CodeStream(jpeg)
whole = decoder.decode(stream)
height, width = stream.height, stream.width
box = (height // 4 + 1, width // 4 + 3, height // 2 + 5, width // 2 + 7)
part = decoder.decode(stream.get_sub_code_stream(region=nvimgcodec.Region(*box)))
if whole is None or part is None:
    print("not taken")
else:
    whole, part = np.asarray(whole.cpu()).astype(int), np.asarray(part.cpu()).astype(int)
    apart = np.abs(part - whole[box[0] : box[2], box[1] : box[3]])
    print(f"decoded, {apart.mean():.3f} greys apart, {apart.max()} at most")
"""


def regions(place: Place) -> list[dict[str, Any]]:
    """A region of a stored file, in a process of its own."""
    jpeg = stored_examples(place.shards).jpegs[0]
    rows = []
    for kind in ("HW_GPU_ONLY", "HYBRID_CPU_GPU"):
        for fancy in ("0", "1"):
            run = subprocess.run(
                [sys.executable, "-c", REGION, kind, fancy],
                input=jpeg,
                capture_output=True,
                timeout=30,
                check=False,
            )
            said = run.stdout.decode().strip().split("\n")[-1]
            if run.returncode:
                said = f"crashed with status {run.returncode}"
                print(run.stderr.decode()[-500:])
            rows.append(
                {
                    "benchmark": "gpu-regions",
                    "name": f"{kind}, fancy upsampling {fancy}",
                    "outcome": said,
                }
            )
            print(rows[-1], flush=True)
    return rows


def body(place: Place) -> str:
    """Try all kinds of files, then regions."""
    try:
        import_module("nvidia.nvimgcodec")
    except ImportError as error:
        skip(f"nvImageCodec is not installed: {error}")
    rows = [row for files in kinds(place) for row in try_kind(place, files)]
    asked = regions(place)
    place.keep(asked)
    stored = {row["name"]: row for row in rows if row["files"] == "stored"}
    figure = ", ".join(
        f"{name} {row['decoded']}/{row['images']} at {row['wall_ms_per_image']:.2f} ms"
        for name, row in stored.items()
    )
    crashed = sum("crashed" in row["outcome"] for row in asked)
    return f"stored files: {figure}; {crashed} of {len(asked)} region decodings crash"


if __name__ == "__main__":
    run_part(body)
