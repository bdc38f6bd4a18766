"""What each contender does, and how it is timed. Runs in any environment that has NumPy.

A contender is a module with two functions:

    prepare(images, out, work)     image folder -> whatever it reads         (once; timed)
    open_loader(data, work)        -> epoch number -> iterator of batches    (timed, in a process of
                                                                              its own)

A batch is (images, labels): an array of N images, [N, S, S, 3] or [N, 3, S, S], uint8 or float32 as
the contender natively gives it, and whatever it has as labels. Everybody may use `work.cores` cores
and no more: the process is bound to them before anything is imported.

    process starts | import | open_loader | first batch | warm-up | measured        | closed
                            '--- first_batch_seconds ---'         '- images/s, CPU -'
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

Batch = tuple[Any, Any]
Epochs = Callable[[int], Iterator[Batch]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one measurement asks for; the same for every contender.

    Attributes:
        option: Variant of a contender that has several, such as a back-end's name.
        cores: CPU cores that it may use; also its number of threads or worker processes.
        batch_size: Images per batch.
        size: Side of the square crop in pixels.
        seconds: How long is measured, at least; ends with a batch.
        warm_up_seconds: How long is iterated before, after the first batch.
        whole_epoch: Measure the first epoch from its first batch to its end instead, without a
            warm-up: for a cold page cache.
        consumer: Images per second that a simulated training step takes; 0: as fast as they come.
        seed: Seed of orders and crops, where a contender takes a seed.
    """

    option: str = ""
    cores: int = 1
    batch_size: int = 128
    size: int = 224
    seconds: float = 4.0
    warm_up_seconds: float = 1.5
    whole_epoch: bool = False
    consumer: float = 0.0
    seed: int = 0

    def to_json(self) -> str:
        """For the command line of the process that does it."""
        return json.dumps(asdict(self))


def list_images(images: Path) -> list[tuple[Path, int]]:
    """Every JPEG and PNG of a folder of class folders, with its label: sorted, then shuffled."""
    classes = sorted(entry.name for entry in images.iterdir() if entry.is_dir())
    found = [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((images / name).iterdir())
        if path.suffix.lower() in {".jpg", ".jpeg", ".png"}
    ]
    random.Random(0).shuffle(found)
    return found


def write_tars(images: Path, out: Path, *, shards: int) -> list[Path]:
    """The images as WebDataset tars of KEY.jpg (or .png) and KEY.cls, the files' own bytes."""
    listed = list_images(images)
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for shard in range(shards):
        paths.append(out / f"train-{shard:06d}.tar")
        with tarfile.open(paths[-1], "w", format=tarfile.USTAR_FORMAT) as tar:
            for number, (path, label) in enumerate(listed[shard::shards]):
                key = f"{shard:03d}{number:06d}"
                kind = "png" if path.suffix.lower() == ".png" else "jpg"
                for suffix, data in ((kind, path.read_bytes()), ("cls", str(label).encode())):
                    member = tarfile.TarInfo(f"{key}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, BytesIO(data))
    return paths


def measure(open_loader: Callable[[Path, Work], Epochs], data: Path, work: Work) -> dict[str, Any]:
    """Iterate a contender and take the time.

    Returns:
        first_batch_seconds, images_per_second, cpu_seconds_per_1000, busy_cores, images, seconds,
        output (the batch's type and shape); with a consumer also stalled_fraction and stalls.
    """
    began = time.perf_counter()
    epochs = open_loader(data, work)
    batches = _endless(epochs)
    images = _next_images(batches, work)
    facts: dict[str, Any] = {
        "first_batch_seconds": time.perf_counter() - began,
        "output": f"{images.dtype} {list(images.shape)}",
    }
    if work.whole_epoch:
        return {**facts, **_timed(_rest_of_epoch(batches, work))}
    _iterate(batches, work.warm_up_seconds, least=4, work=work)
    if work.consumer:
        return {**facts, **_consumed(batches, work)}
    return {**facts, **_timed(_for_seconds(batches, work))}


def _endless(epochs: Epochs) -> Iterator[Batch | None]:
    """The batches of one epoch after the other; None where an epoch ends."""
    number = 0
    while True:
        empty = True
        for batch in epochs(number):
            empty = False
            yield batch
        if empty:
            raise RuntimeError(f"epoch {number} has no batch")
        number += 1
        yield None


def _next_images(batches: Iterator[Batch | None], work: Work) -> Any:
    """The images of the next batch, whichever epoch it belongs to."""
    batch = next(batches) or next(batches)
    if batch is None:
        raise RuntimeError("an epoch has no batch")
    return _checked(batch[0], work)


def _checked(images: Any, work: Work) -> Any:
    array = images if hasattr(images, "is_cuda") else np.asarray(images)
    shapes = {(work.size, work.size, 3), (3, work.size, work.size)}
    if array.ndim != 4 or tuple(array.shape[1:]) not in shapes:
        raise RuntimeError(f"a batch must be [N, S, S, 3] or [N, 3, S, S], got {array.shape}")
    int(array[-1, -1, -1, -1])  # the last value: the whole batch is there
    return array


def _iterate(batches: Iterator[Batch | None], seconds: float, *, least: int, work: Work) -> None:
    began, count = time.perf_counter(), 0
    while count < least or time.perf_counter() - began < seconds:
        _next_images(batches, work)
        count += 1


def _rest_of_epoch(batches: Iterator[Batch | None], work: Work) -> Iterator[int]:
    for batch in batches:
        if batch is None:
            return
        yield len(_checked(batch[0], work))


def _for_seconds(batches: Iterator[Batch | None], work: Work) -> Iterator[int]:
    began = time.perf_counter()
    while time.perf_counter() - began < work.seconds:
        yield len(_next_images(batches, work))


def _timed(counts: Iterator[int]) -> dict[str, Any]:
    cpu, began = cpu_seconds(), time.perf_counter()
    images = sum(counts)
    seconds, cpu = time.perf_counter() - began, cpu_seconds() - cpu
    if not images:
        raise RuntimeError("the epoch has one batch only; give more images")
    return _rates(images, seconds, cpu)


def _rates(images: int, seconds: float, cpu: float) -> dict[str, Any]:
    return {
        "images": images,
        "seconds": seconds,
        "images_per_second": images / seconds,
        "cpu_seconds_per_1000": 1000 * cpu / images,
        "busy_cores": cpu / seconds,
    }


def _consumed(batches: Iterator[Batch | None], work: Work) -> dict[str, Any]:
    """A training step that takes `batch_size / consumer` seconds for a batch, and sleeps meanwhile.

    A stall is time in which the step could have begun and its batch was not there.
    """
    step = work.batch_size / work.consumer
    images, stalled, stalls = 0, 0.0, 0
    cpu, began = cpu_seconds(), time.perf_counter()
    steps = max(8, round(work.seconds / step))
    for _ in range(steps):
        asked = time.perf_counter()
        images += len(_next_images(batches, work))
        waited = time.perf_counter() - asked
        stalled += waited
        stalls += waited > 0.01 * step
        time.sleep(step)
    seconds, cpu = time.perf_counter() - began, cpu_seconds() - cpu
    return {
        **_rates(images, seconds, cpu),
        "stalled_fraction": stalled / seconds,
        "stalls": stalls,
        "steps": steps,
    }


def cpu_seconds() -> float:
    """User and system seconds of this process and of all its living descendants, so far."""
    ticks = os.sysconf("SC_CLK_TCK")
    total = 0.0
    for process in descendants(os.getpid()):
        # Behind the name in parentheses; utime and stime are the fields 14 and 15 of proc(5).
        fields = _read_if_there(Path(f"/proc/{process}/stat")).rpartition(")")[2].split()
        total += sum(map(int, fields[11:13])) / ticks
    return total or time.process_time()


def descendants(root: int) -> list[int]:
    """Process identifiers of `root` and everything it started, where /proc tells."""
    found, pending = [], [root]
    while pending:
        process = pending.pop()
        found.append(process)
        with contextlib.suppress(OSError):  # it ended while its threads were listed
            for task in Path(f"/proc/{process}/task").glob("*/children"):
                pending += map(int, _read_if_there(task).split())
    return found


def _read_if_there(path: Path) -> str:
    """The text of a file under /proc; "" where its process or thread has ended."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def resident_mib(root: int) -> float:
    """Memory of a process tree that cannot be dropped: anonymous and shared pages, in MiB.

    Shared pages are counted once (proportional set size), mapped files not at all: the kernel can
    drop those, and how much of a mapped file is resident says how large the file is.
    """
    total = 0
    for process in descendants(root):
        rollup = _read_if_there(Path(f"/proc/{process}/smaps_rollup"))
        total += sum(
            int(line.split()[1])
            for line in rollup.splitlines()
            if line.startswith(("Pss_Anon:", "Pss_Shmem:"))
        )
    return total / 1024
