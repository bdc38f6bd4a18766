"""Who is compared, and one measurement of one of them in a process of its own.

Contenders that `pip install -e '.[dev]'` does not bring are installed by `scripts/bench --peers`,
each into an environment of its own under `benchmarks/.peers/NAME`. One that is not there, or does
not build, is a row that says so.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks.contenders.contract import Work, resident_mib
from benchmarks.environment import ROOT
from benchmarks.harness import Row
from fastload.installation import DISTRIBUTION

ENVIRONMENTS = ROOT / "benchmarks" / ".peers"
TIME_LIMIT_SECONDS = 300.0
SAMPLE_SECONDS = 0.5  # between two looks at a contender's memory; one look takes 1 to 10 ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One loader in one setting.

    Attributes:
        name: Name in rows and tables.
        module: Module of `benchmarks.contenders`.
        package: Whose version is recorded.
        option: Passed on as `Work.option`.
        environment: Name under `benchmarks/.peers`; "" for the one that runs this.
        antialiased: Whether its resize is: "yes", "no" or "area" (box filter).
        data: Contenders with the same word read the same prepared data.
        kind: "ours", "peer", or "floor" for a decoder without a loader.
        note: What a reader of the table must know.
    """

    name: str
    module: str
    package: str
    option: str = ""
    environment: str = ""
    antialiased: str = "yes"
    data: str = ""
    kind: str = "peer"
    note: str = ""

    @property
    def data_name(self) -> str:
        """Folder of the prepared data."""
        return self.data or self.module

    @property
    def python(self) -> Path:
        """The interpreter that runs it."""
        if not self.environment:
            return Path(sys.executable)
        return ENVIRONMENTS / self.environment / "bin" / "python"


def _ours(backend: str, note: str) -> Contender:
    return Contender(
        name=f"fastload {backend}",
        module="fastload_loader",
        package=DISTRIBUTION,
        option=backend,
        kind="ours",
        note=note,
    )


def _in_place(what: str, note: str) -> Contender:
    return Contender(
        name=f"fastload native, {what} in place",
        module="fastload_place",
        package=DISTRIBUTION,
        option=what,
        data=f"fastload_place-{what}",
        kind="ours",
        note=note,
    )


CONTENDERS = (
    _ours("native", "C++ core, lossless restart markers"),
    _in_place("folder", "the files as they are, and an index"),
    _in_place("tars", "tars as webdataset reads them, and an index"),
    _ours("libjpeg", "slices of the file, libjpeg-turbo, torch's resize"),
    _ours("dali-cpu", "DALI on slices of the file"),
    Contender(
        name="torchvision ImageFolder, PIL",
        module="image_folder",
        package="torchvision",
        option="pil",
    ),
    Contender(
        name="torchvision ImageFolder, v2 tensors",
        module="image_folder",
        package="torchvision",
        option="tensor",
    ),
    Contender(name="webdataset, PIL", module="web_dataset", package="webdataset", option="pil"),
    Contender(
        name="webdataset, v2 tensors", module="web_dataset", package="webdataset", option="tensor"
    ),
    Contender(
        name="DALI webdataset reader, CPU",
        module="dali_reader",
        package="nvidia-dali-cuda120",
        option="cpu",
        note="image_random_crop decodes only the crop",
    ),
    Contender(
        name="tf.data, antialiased",
        module="tf_data",
        package="tensorflow-cpu",
        option="antialiased",
        environment="tf_data",
        note="decode_and_crop_jpeg decodes only the crop",
    ),
    Contender(
        name="tf.data, not antialiased",
        module="tf_data",
        package="tensorflow-cpu",
        option="plain",
        environment="tf_data",
        antialiased="no",
        note="decode_and_crop_jpeg decodes only the crop",
    ),
    Contender(
        name="FFCV",
        module="ffcv_beton",
        package="ffcv",
        environment="ffcv",
        antialiased="area",
        note="images encoded again, at about the same bytes",
    ),
    Contender(
        name="TurboLoader, antialiased",
        module="turbo_loader",
        package="turboloader",
        option="antialiased",
        environment="turboloader",
        note="float32 batches, no labels from tars",
    ),
    Contender(
        name="TurboLoader, not antialiased",
        module="turbo_loader",
        package="turboloader",
        option="plain",
        environment="turboloader",
        antialiased="no",
        note="float32 batches, no labels from tars",
    ),
    Contender(
        name="LitData, v2 tensors", module="lit_data", package="litdata", environment="litdata"
    ),
    Contender(
        name="MosaicML Streaming, v2 tensors",
        module="mosaic_streaming",
        package="mosaicml-streaming",
        environment="streaming",
    ),
    Contender(name="SPDL", module="spdl_pipeline", package="spdl", environment="spdl"),
    Contender(
        name="native core alone",
        module="floor",
        package=DISTRIBUTION,
        option="native",
        data="fastload_loader",
        kind="floor",
        note="the same crops from bytes in memory",
    ),
    Contender(
        name="libjpeg-turbo alone",
        module="floor",
        package="simplejpeg",
        option="libjpeg-turbo",
        data="fastload_loader",
        antialiased="no",
        kind="floor",
        note="whole images from bytes in memory, neither crop nor resize",
    ),
)

ON_GPU = (
    _ours("native:cuda", "CPU decode, batches on the GPU"),
    _ours("dali:cuda", "all on the GPU"),
    Contender(
        name="DALI webdataset reader, mixed",
        module="dali_reader",
        package="nvidia-dali-cuda120",
        option="mixed",
        note="decodes and resizes on the GPU",
    ),
)


def named(name: str) -> Contender:
    """The contender of that name."""
    return next(contender for contender in (*CONTENDERS, *ON_GPU) if contender.name == name)


def prepare(contender: Contender, images: Path, data: Path, *, cores: int) -> Row:
    """Make what the contender reads, in `data / data_name`, once.

    Returns:
        prepare_seconds (0 where it was there), bytes_per_image on disk, or `failed`.
    """
    out = data / contender.data_name
    done = data / f"{contender.data_name}.json"
    if done.exists():
        row: Row = json.loads(done.read_text(encoding="utf-8"))
        return row
    work = Work(option=contender.option, cores=cores)
    row = run(contender, ["prepare", contender.module, str(images), str(out), work.to_json()])
    if "failed" not in row:
        count = sum(1 for path in images.rglob("*") if path.is_file())
        read = out if any(out.rglob("*")) else images
        row |= {"prepared_images": count, "bytes_per_image": _bytes_of(read) / count}
        done.write_text(json.dumps(row), encoding="utf-8")
    return row


def reads_images(contender: Contender, data: Path) -> bool:
    """Whether it reads the image folder itself, after `prepare`."""
    return not any((data / contender.data_name).rglob("*"))


def measure(
    contender: Contender, images: Path, data: Path, work: Work, *, cold: bool = False
) -> Row:
    """One measurement in a process of its own.

    Args:
        contender: Who.
        images: The image folder that it was prepared from.
        data: Where it was prepared.
        work: What is asked; its option is the contender's.
        cold: Drop the data from the page cache before, and measure one whole epoch.

    Returns:
        What `contract.measure` returns and peak_memory_mib; or `failed` with the reason.
    """
    folder = images if reads_images(contender, data) else data / contender.data_name
    fields = json.loads(work.to_json()) | {"option": contender.option, "whole_epoch": cold}
    if cold:
        drop_from_page_cache(folder)
    row = run(contender, ["iterate", contender.module, str(folder), Work(**fields).to_json()])
    return {"cache": "cold" if cold else "warm", **row}


def run(
    contender: Contender, arguments: list[str], environment: Mapping[str, str] | None = None
) -> Row:
    """One task of `contenders.run` in a process of its own, in the contender's environment.

    Args:
        contender: Whose environment.
        arguments: Of `contenders.run`.
        environment: Variables that the process has beside those of this one.

    Returns:
        What it prints and peak_memory_mib; or `failed` with the reason.
    """
    if not contender.python.exists():
        return {"failed": f"{contender.package} is not installed; run scripts/bench --peers"}
    command = [str(contender.python), "-m", "benchmarks.contenders.run", *arguments]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONWARNINGS": "ignore",
            "PYTHONPATH": str(ROOT),
            **(environment or {}),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that whatever it leaves behind can be ended with it
    )
    with _MemoryWatch(process.pid) as watch:
        try:
            output, errors = process.communicate(timeout=TIME_LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            output, errors = "", f"no result after {TIME_LIMIT_SECONDS:.0f} s"
        finally:
            _end_session(process)
    lines = output.strip().splitlines()
    try:
        row: Row = json.loads(lines[-1])
    except (IndexError, ValueError):
        reasons = [line for line in errors.strip().splitlines() if line.strip()]
        return {"failed": reasons[-1][:300] if reasons else f"status {process.returncode}"}
    return {**row, "peak_memory_mib": watch.peak_mib}


def drop_from_page_cache(folder: Path) -> None:
    """Tell the kernel that no page of these files is needed (posix_fadvise, DONTNEED)."""
    os.sync()  # dirty pages cannot be dropped
    for path in _files_in(folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


@cache
def version(contender: Contender) -> str:
    """Version of its package; "" where it is not installed."""
    question = f"import importlib.metadata as m; print(m.version({contender.package!r}))"
    try:
        answer = subprocess.run(
            [contender.python, "-c", question],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip()


def _bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in _files_in(folder))


def _files_in(folder: Path) -> Iterator[Path]:
    """Every file below a folder, through links to folders too, as data in place have one."""
    for parent, _, names in os.walk(folder, followlinks=True):
        yield from (Path(parent, name) for name in names)


def _end_session(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):  # nothing is left of it
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class _MemoryWatch:
    """Looks at the memory of a process tree every half second while it runs."""

    def __init__(self, process: int) -> None:
        self.peak_mib = 0.0
        self._process = process
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self.peak_mib = max(self.peak_mib, resident_mib(self._process))
