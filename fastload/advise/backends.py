"""Which back-ends work here, whether their pixels are right, and how fast they are.

Each back-end is tried in another process, so that one that crashes is a line of the report and not
the end of it. Right means: within one grey of Pillow's decoder and Pillow's resize, on average over
each image.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import platform
import shutil
import subprocess
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError  # the built-in one from 3.11 on
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from fastload import installation
from fastload.console.terminal import table
from fastload.cores import usable_cores
from fastload.errors import FastloadError, ShardError
from fastload.load.augment import Augment
from fastload.load.backend import Backend, BackendName, choose_backend
from fastload.load.rendering import CHUNK
from fastload.pixels import dali, native
from fastload.pixels.jpeg import Encoded, restart_interval_for
from fastload.store.collection import open_collection
from fastload.store.reader import Scratch, ShardReader

BACKENDS = tuple(name.value for name in BackendName)
IMAGES = 10
SIZE = 224
ALLOWED = 1.0  # mean absolute difference of an image, in greys of 255
MEASURED_SECONDS = 1.5
LIMIT_SECONDS = 40.0  # for one back-end, start of Python and CUDA included


@dataclass(frozen=True, slots=True)
class Examples:
    """Images to try the back-ends with.

    Attributes:
        origin: Where they come from, in a few words.
        jpegs: N files.
        boxes: int32 [N, 4]: top, left, height, width in pixels.
        flips: bool [N].
    """

    origin: str
    jpegs: tuple[bytes, ...]
    boxes: NDArray[np.int32]
    flips: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one back-end.

    Attributes:
        name: Of the back-end.
        fault: Why it is wrong or crashed; "" if it is sound or absent.
        absent: Why it cannot run here, and what to install; "" if it runs.
        difference: The worst image's mean absolute difference from Pillow.
        images_per_second: On all cores.
    """

    name: str
    fault: str = ""
    absent: str = ""
    difference: float = 0.0
    images_per_second: float = 0.0


def made_examples() -> Examples:
    """Ten pictures of 500 x 375 or 375 x 500, with the chroma samplings of cameras and the web."""
    random = np.random.default_rng(0)
    jpegs, sizes = [], []
    for index in range(IMAGES):
        height, width = (375, 500) if index % 2 else (500, 375)
        y, x = np.mgrid[:height, :width]
        waves = [np.sin(x / a + y / b + c) for a, b, c in random.uniform(4, 40, (3, 3))]
        pixels = 127 + 90 * np.stack(waves, -1) + random.normal(0, 8, (height, width, 3))
        sampling, mcu_width = ("4:2:0", 16) if index % 3 else ("4:4:4", 8)
        file = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(
            file,
            "JPEG",
            quality=90,
            subsampling=sampling,
            restart_marker_blocks=restart_interval_for(width, mcu_width),
        )
        jpegs.append(file.getvalue())
        sizes.append((height, width))
    return _examples("made here, 500 x 375", jpegs, sizes)


def stored_examples(directory: Path) -> Examples:
    """Ten images of a shard directory, spread over its first split.

    Raises:
        ShardError: If it is none, or is damaged.
    """
    splits = sorted(path.name.split(".")[0] for path in directory.glob("*.index.npy"))
    if not splits:
        raise ShardError(
            "holds no index of samples; give a folder written by `python -m fastload.shard`",
            where=str(directory),
        )
    split = "train" if "train" in splits else splits[0]
    collection = open_collection([directory], split)
    rows = np.linspace(0, len(collection.index) - 1, IMAGES).astype(np.int64)
    reader = ShardReader(collection)
    encoded, bad = reader.read(rows, Scratch())
    for place, reason in bad.items():
        raise ShardError(
            f"{reason}; check with `python -m fastload.verify`",
            where=reader.locate(int(rows[place])),
        )
    reader.close()
    records = collection.index[rows]
    sizes = list(zip(records["height"].tolist(), records["width"].tolist(), strict=True))
    jpegs = [bytes(encoded[index]) for index in range(len(encoded))]
    return _examples(f"{directory}, split {split}", jpegs, sizes)


def _examples(origin: str, jpegs: list[bytes], sizes: list[tuple[int, int]]) -> Examples:
    choices = Augment.train(SIZE).draw(0, 0, np.arange(len(sizes)), np.array(sizes, np.int64))
    return Examples(origin, tuple(jpegs), choices.boxes, choices.flips)


def pillow_pixels(examples: Examples) -> NDArray[np.uint8]:
    """What Pillow makes of them, uint8 [N, S, S, 3]: a reference that shares no code with us."""
    squares = []
    for jpeg, box, flip in zip(
        examples.jpegs, examples.boxes.tolist(), examples.flips, strict=True
    ):
        top, left, height, width = box
        crop = Image.open(io.BytesIO(jpeg)).convert("RGB")
        crop = crop.crop((left, top, left + width, top + height))
        square = np.asarray(crop.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
        squares.append(square[:, ::-1] if flip else square)
    return np.stack(squares)


def examine(name: str, examples: Examples, device: str) -> Finding:
    """Try one back-end in this process: parity, then speed."""
    way = torch.device(device if name == "dali" else "cpu")
    absent = why_absent(name, way)
    if absent:
        return Finding(name, absent=absent)
    try:
        backend = choose_backend(name, way, num_threads=usable_cores())
    except FastloadError as error:
        return Finding(name, absent=str(error))
    if backend.renderer.name != name:
        return Finding(name, absent=backend.reason)
    pixels, failures = _render(backend, examples)
    if failures:
        index, reason = next(iter(failures.items()))
        return Finding(name, fault=f"image {index} of {len(examples.jpegs)} failed: {reason}")
    if isinstance(backend.renderer, dali.DaliRenderer) and backend.renderer.fallbacks:
        return Finding(name, fault="DALI could not decode them, and the CPU back-end had to")
    apart = np.abs(pixels.astype(np.int16) - pillow_pixels(examples)).mean((1, 2, 3))
    worst = float(apart.max())
    if worst > ALLOWED:
        fault = f"its pixels are {worst:.1f} greys from Pillow's, {ALLOWED:g} is allowed"
        return Finding(name, fault=fault, difference=worst)
    return Finding(name, difference=worst, images_per_second=_speed(backend, examples))


def why_absent(name: str, device: torch.device) -> str:
    """Why a back-end cannot run here and what to install; "" where nothing is known against it."""
    if name == "native" and not native.is_available():
        return f"{native.why_unavailable()}: {native.how_to_mend()}"
    if name == "dali-cpu":
        return dali.why_unavailable()
    if name == "dali":
        return dali.why_unavailable(device=device.index or 0)
    return ""


def _render(backend: Backend, examples: Examples) -> tuple[NDArray[np.uint8], dict[int, str]]:
    out = backend.memory.take((len(examples.jpegs), SIZE, SIZE, 3))
    encoded = Encoded.join(examples.jpegs)
    failures = backend.renderer.render(encoded, examples.boxes, examples.flips, out)
    return (out if isinstance(out, np.ndarray) else out.cpu().numpy()), failures


def _speed(backend: Backend, examples: Examples) -> float:
    """Images per second on all cores, as the loader shares the work out."""
    count = 128 if backend.whole_batches else CHUNK
    places = np.arange(count) % len(examples.jpegs)
    encoded = Encoded.join([examples.jpegs[place] for place in places])
    boxes, flips = examples.boxes[places], examples.flips[places]

    def render_until(deadline: float) -> int:
        out = backend.memory.take((count, SIZE, SIZE, 3))
        done = 0
        while time.perf_counter() < deadline:
            backend.renderer.render(encoded, boxes, flips, out)
            done += count
        return done

    # Every thread renders once before the clock starts: DALI builds a graph for each, which takes
    # seconds where there is a GPU.
    together = threading.Barrier(backend.num_threads, timeout=LIMIT_SECONDS)

    def warm(_: int) -> None:
        out = backend.memory.take((count, SIZE, SIZE, 3))
        backend.renderer.render(encoded, boxes, flips, out)
        together.wait()

    with ThreadPoolExecutor(backend.num_threads) as pool:
        list(pool.map(warm, range(backend.num_threads)))
        began = time.perf_counter()
        deadlines = [began + MEASURED_SECONDS] * backend.num_threads
        done = sum(pool.map(render_until, deadlines))
        return done / (time.perf_counter() - began)


class Apart:
    """Another process to try back-ends in. They may crash or hang: a new process does the next."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    def examine(self, name: str, examples: Examples, device: str) -> Finding:
        """See `examine`."""
        if self._pool is None:
            spawn = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
            self._pool = ProcessPoolExecutor(1, mp_context=spawn)
        try:
            return self._pool.submit(examine, name, examples, device).result(LIMIT_SECONDS)
        except BrokenProcessPool:
            self.close()
            return Finding(name, fault="it crashed its process")
        except FutureTimeoutError:
            self.close()
            return Finding(name, fault=f"it did not answer within {LIMIT_SECONDS:g} s")
        except Exception as error:  # noqa: BLE001  whatever a broken installation raises is a finding
            return Finding(name, fault=f"it raised {type(error).__name__}: {error}")

    def close(self) -> None:
        """End the process, whatever it is doing."""
        pool, self._pool = self._pool, None
        if pool is not None:
            processes = list((pool._processes or {}).values())  # no public way before Python 3.14
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.kill()


def versions() -> list[tuple[str, str]]:
    """What is installed, as (name, what) for each line of the report."""
    simd = "not built"
    if native.is_available():
        portable = os.environ.get("FASTLOAD_SIMD") == "portable"
        simd = "AVX2" if native.set_simd(portable=portable) else "portable, without AVX2"
    return [
        ("fastload", f"{_version(installation.DISTRIBUTION)}, native core: {simd}"),
        ("Python", f"{platform.python_version()} on {platform.platform(terse=True)}"),
        ("processor", f"{_processor()}, {usable_cores()} cores usable"),
        ("PyTorch", f"{torch.__version__}, built for CUDA {torch.version.cuda or 'none'}"),
        ("DALI", _dali_versions()),
        ("driver", _driver()),
        ("GPU", _gpu()),
    ]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _dali_versions() -> str:
    wanted = ("nvidia-dali", "nvidia-nvimgcodec", "nvidia-nvjpeg-")
    found = {each.metadata["Name"]: each.version for each in metadata.distributions()}
    named = [f"{name} {found[name]}" for name in sorted(found) if name.startswith(wanted)]
    return ", ".join(named) or "not installed"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _driver() -> str:
    command = shutil.which("nvidia-smi")
    if command is None:
        return "nvidia-smi is not there"
    query = [command, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        run = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return f"nvidia-smi failed: {error}"
    return (run.stdout.split() or ["none"])[0]


def _gpu() -> str:
    if not torch.cuda.is_available():
        return "none that PyTorch can use"
    facts = torch.cuda.get_device_properties(0)
    return f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB"


def report(findings: Sequence[Finding]) -> list[str]:
    """The table of back-ends, what is amiss, and the one to take."""
    rows = [("back-end", "works", "from Pillow", "images/s")]
    for finding in findings:
        works = "WRONG" if finding.fault else "no" if finding.absent else "yes"
        apart = f"{finding.difference:.2f}" if works == "yes" else ""
        speed = f"{finding.images_per_second:,.0f}" if works == "yes" else ""
        rows.append((finding.name, works, apart, speed))
    lines = [*table(rows), ""]
    lines += [f"{each.name}: {each.fault or each.absent}" for each in findings if _amiss(each)]
    sound = [finding for finding in findings if not _amiss(finding)]
    if sound:
        best = max(sound, key=lambda finding: finding.images_per_second)
        lines.append(f'fastest here: Loader(..., backend="{best.name}")')
    return lines


def _amiss(finding: Finding) -> bool:
    return bool(finding.fault or finding.absent)
