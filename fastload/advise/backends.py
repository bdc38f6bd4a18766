"""Which back-ends work here, whether their pixels are right, and how fast they are.

Each back-end is tried in another process: a back-end that crashes is a line of the report, and the
next one is tried. Pixels are right where each image differs from Pillow's decoder and Pillow's
resize by at most one grey on average.
"""

from __future__ import annotations

import io
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from fastload.advise.examples import SIZE, Examples
from fastload.console.terminal import table
from fastload.cores import usable_cores
from fastload.errors import FastloadError
from fastload.load.backend import Backend, BackendName, find_backend
from fastload.load.rendering import CHUNK
from fastload.pixels import dali, native
from fastload.pixels.jpeg import Encoded
from fastload.prepare.workers import Cause, Lost, run_chunks

BACKENDS = tuple(name.value for name in BackendName)
ALLOWED = 1.0  # mean absolute difference of an image, in greys of 255
MEASURED_SECONDS = 1.5
LIMIT_SECONDS = 40.0  # for one back-end; includes the start of CUDA, not the start of Python


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What became of one back-end.

    Attributes:
        name: The back-end.
        fault: Why the back-end is wrong or crashed; "" if it is sound or absent.
        absent: Why the back-end cannot run here, and what to install; "" if it runs.
        difference: The mean absolute difference from Pillow, of the image where it is largest.
        images_per_second: The speed on all cores.
    """

    name: str
    fault: str = ""
    absent: str = ""
    difference: float = 0.0
    images_per_second: float = 0.0


def pillow_pixels(examples: Examples) -> NDArray[np.uint8]:
    """The pixels by Pillow, uint8 [N, S, S, 3]: a reference that shares no code with fastload."""
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
    """Try one back-end in this process: first its pixels, then its speed."""
    way = torch.device("cpu" if BackendName(name).on_cpu else device)
    absent = why_absent(name, way)
    if absent:
        return Finding(name=name, absent=absent)
    try:
        backend = find_backend(name, way, num_threads=usable_cores())
    except FastloadError as error:
        return Finding(name=name, absent=str(error))
    if backend.renderer.name != name:
        return Finding(name=name, absent=backend.reason)
    pixels, failures = _render(backend, examples)
    if failures:
        index, reason = next(iter(failures.items()))
        return Finding(name=name, fault=f"image {index} of {len(examples.jpegs)} failed: {reason}")
    if isinstance(backend.renderer, dali.DaliRenderer) and backend.renderer.fallbacks:
        return Finding(name=name, fault="DALI could not decode them, and the CPU back-end had to")
    apart = np.abs(pixels.astype(np.int16) - pillow_pixels(examples)).mean((1, 2, 3))
    worst = float(apart.max())
    if worst > ALLOWED:
        fault = f"its pixels are {worst:.1f} greys from Pillow's, {ALLOWED:g} is allowed"
        return Finding(name=name, fault=fault, difference=worst)
    return Finding(name=name, difference=worst, images_per_second=_speed(backend, examples))


def examine_apart(
    names: Sequence[str],
    examples: Examples,
    device: str,
    *,
    trial: Callable[[str, Examples, str], Finding] = examine,
    limit_seconds: float = LIMIT_SECONDS,
) -> list[Finding]:
    """Try each back-end in another process, which may crash or hang.

    Args:
        names: The back-ends.
        examples: What the back-ends render.
        device: The GPU of the back-end dali.
        trial: What is run in the other process. Tests crash it.
        limit_seconds: For one trial, without the start of Python.
    """
    task = partial(_explained, trial, examples, device)
    tried = run_chunks(
        task,
        [[name] for name in names],
        workers=1,
        limit_seconds=limit_seconds,
        clock=signal.ITIMER_REAL,  # a driver that hangs computes nothing
    )
    return [
        _lost(name, end, limit_seconds) if isinstance(end, Lost) else end for name, end in tried
    ]


def _explained(
    trial: Callable[[str, Examples, str], Finding], examples: Examples, device: str, name: str
) -> Finding:
    try:
        return trial(name, examples, device)
    except Exception as error:  # noqa: BLE001  whatever a broken installation raises is a finding
        return Finding(name=name, fault=f"it raised {type(error).__name__}: {error}")


def _lost(name: str, lost: Lost, limit_seconds: float) -> Finding:
    if lost.cause is Cause.SLOW:
        return Finding(name=name, fault=f"it did not answer within {limit_seconds:g} s")
    return Finding(name=name, fault="it crashed its process")


def why_absent(name: str, device: torch.device) -> str:
    """Why a back-end cannot run here and what to install; "" where nothing is known against it."""
    if name == BackendName.NATIVE and not native.is_available():
        return f"{native.why_unavailable()}: {native.how_to_mend()}"
    if name == BackendName.DALI_CPU:
        return dali.why_unavailable()
    if name == BackendName.DALI:
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


def report(findings: Sequence[Finding]) -> list[str]:
    """The table of back-ends, what is amiss, and which one to take, as lines of text."""
    rows = [("back-end", "works", "greys from Pillow", "images/s, all cores")]
    for finding in findings:
        works = "WRONG" if finding.fault else "no" if finding.absent else "yes"
        apart = f"{finding.difference:.2f}" if works == "yes" else ""
        speed = f"{finding.images_per_second:,.0f}" if works == "yes" else ""
        rows.append((finding.name, works, apart, speed))
    lines = [*table(rows), ""]
    for finding in findings:
        if _amiss(finding):  # what a foreign library raised may have several lines
            lines += f"{finding.name}: {finding.fault or finding.absent}".splitlines()
    sound = [finding for finding in findings if not _amiss(finding)]
    if sound:
        best = max(sound, key=lambda finding: finding.images_per_second)
        lines.append(f'fastest here: Loader(..., backend="{best.name}")')
    return lines


def _amiss(finding: Finding) -> bool:
    return bool(finding.fault or finding.absent)
