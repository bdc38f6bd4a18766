"""How long from nothing to the first batch?

    scripts/release --dry-run
    python -m benchmarks.bench_start dist/*x86_64.whl [--images DIR] [--rounds N] [--output FILE]
    pytest benchmarks/bench_start.py               (the first batch only, one round)

Method, in the order of somebody who has PyTorch and photographs:

    install     `pip install WHEEL` into an environment that has all packages that fastload needs,
                as links to those of this one; without the package index. Bytes of the wheel, and of
                the files that pip wrote, compiled ones among them
    first       seconds from the start of `python` to the first batch of 128: fastload in a folder
    batch       that it has never seen, of which it makes an index; fastload the second time; and
                what the tutorials write (`tutorial.py`), ImageFolder and a DataLoader with two
                workers. The same photographs, crop to 224 pixels (antialiased) and flip, float32
                and normalised. The child says how many of these seconds are imports

The three take turns, each measurement is a process of its own. What a first round reads into the
page cache is there for all of them, so that round does not count.

Answer: docs/benchmarks.md, the rows are in rows/start.jsonl.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pytest

from benchmarks.compare import DATA
from benchmarks.conftest import Keep
from benchmarks.contenders.contract import list_images
from benchmarks.environment import ROOT
from benchmarks.harness import ROWS, Row, append_rows, interleave, summarise
from benchmarks.images import SAMPLE_DATA, link_or_copy
from benchmarks.start_tables import AGAIN, NEVER_SEEN, TUTORIAL
from fastload.console.command import run_command
from fastload.console.parser import CommandParser, whole_number
from fastload.cores import usable_cores
from fastload.errors import FastloadError
from fastload.store.places import FOLDER_NAME

BATCH_SIZE, SIZE, WORKERS = 128, 224, 2

OF_FASTLOAD = (
    "import torch\nfrom fastload import Augment, Loader",
    f"Loader(DATA, batch_size={BATCH_SIZE}, augment=Augment.train({SIZE}), dtype=torch.float32)",
)
OF_TUTORIAL = (
    f"sys.path.insert(0, {str(ROOT / 'benchmarks')!r})\nfrom pathlib import Path\nimport tutorial",
    f"tutorial.loaders_of(Path(DATA), {SIZE}, {BATCH_SIZE}, {WORKERS})['train']",
)
PROGRAM = """
import sys, time
DATA, began = sys.argv[1], time.perf_counter()
{imports}
imported = time.perf_counter() - began
images, labels = next(iter({loader}))
print(imported, images.dtype, *images.shape, flush=True)
"""


class StartError(FastloadError):
    """What was to be measured did not happen."""


def environment_beside(folder: Path) -> Path:
    """An environment that has what is installed in this one, but not fastload; returns its Python.

    The packages are links, so that it takes no minutes and no gigabytes, and the package index is
    not asked.
    """
    packages = folder / "packages"
    packages.mkdir(parents=True)
    for place in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(place).iterdir():
            ours = entry.name.startswith("fastload") or entry.suffix == ".pth"
            if not ours and entry.name != "__pycache__":
                (packages / entry.name).symlink_to(entry)
    venv.create(folder / "venv", symlinks=True)
    (site,) = (folder / "venv" / "lib").glob("python3*/site-packages")
    (site / "packages.pth").write_text(f"{packages}\n", encoding="utf-8")
    return folder / "venv" / "bin" / "python"


def install(wheel: Path, folder: Path) -> Row:
    """One installation of the wheel, into an environment of its own in the folder."""
    python = environment_beside(folder)
    (site,) = (folder / "venv" / "lib").glob("python3*/site-packages")
    began = time.perf_counter()
    _run([python, "-m", "pip", "install", "--no-index", "--disable-pip-version-check", wheel])
    seconds = time.perf_counter() - began
    (record,) = site.glob("fastload_images-*.dist-info/RECORD")
    written = [site / line.split(",")[0] for line in record.read_text("utf-8").splitlines()]
    return {
        "seconds": seconds,
        "wheel_bytes": wheel.stat().st_size,
        "installed_bytes": sum(path.stat().st_size for path in written),
    }


def first_batch(python: Path, data: Path, parts: tuple[str, str], *, indexed: bool) -> Row:
    """One start of `python` that ends with its first batch.

    Args:
        python: Has fastload, or sees it in the checkout.
        data: Folders train/ and val/ of class folders.
        parts: The imports of the program, and the expression that is its loader.
        indexed: Whether fastload's index of the data is there when the clock starts.
    """
    if not indexed:
        shutil.rmtree(data / FOLDER_NAME, ignore_errors=True)
    elif not (data / FOLDER_NAME).exists():
        first_batch(python, data, OF_FASTLOAD, indexed=False)
    imports, loader = parts
    program = PROGRAM.format(imports=imports, loader=loader)
    began = time.perf_counter()
    child = subprocess.Popen(
        [python, "-c", program, data.name],
        cwd=data.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    line = child.stdout.readline()
    seconds = time.perf_counter() - began
    _, said = child.communicate()  # until it has ended, so that it does not disturb the next one
    imported, *batch = line.split() or ("",)
    if child.returncode or batch != ["torch.float32", str(BATCH_SIZE), "3", str(SIZE), str(SIZE)]:
        raise StartError(f"there is no batch as expected but {batch}: {said.strip()[-2000:]}")
    return {"seconds": seconds, "import_seconds": float(imported)}


def first_batches(python: Path, data: Path, rounds: int) -> list[Row]:
    """Rows of all three in turn; one round more is not counted."""
    contestants = {
        NEVER_SEEN: partial(first_batch, python, data, OF_FASTLOAD, indexed=False),
        AGAIN: partial(first_batch, python, data, OF_FASTLOAD, indexed=True),
        TUTORIAL: partial(first_batch, python, data, OF_TUTORIAL, indexed=True),
    }
    measured = interleave(contestants, rounds=rounds + 1)
    return _rows("start-batch", {name: rows[1:] for name, rows in measured.items()}, data)


def _rows(benchmark: str, measured: Mapping[str, Sequence[Row]], data: Path) -> list[Row]:
    facts = {"images_from": data.name, "images": _count(data), "used_cores": usable_cores()}
    return [
        {"benchmark": benchmark, "name": name, "round": number, **facts, **row}
        for name, rows in measured.items()
        for number, row in enumerate(rows)
    ]


def _count(data: Path) -> int:
    return sum(len(list_images(split)) for split in data.iterdir() if split.name != FOLDER_NAME)


def _run(command: Sequence[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StartError(f"failed: {' '.join(map(str, command))}: {done.stderr.strip()[-2000:]}")


def measure(wheel: Path, images: Path, scratch: Path, rounds: int) -> list[Row]:
    """The rows of all parts.

    Args:
        wheel: Of fastload.
        images: Folders train/ and val/ of class folders; nothing is written there.
        scratch: Where the environments are made, and links to the images.
        rounds: At least 1.
    """
    data = shutil.copytree(images, scratch / images.name, copy_function=link_or_copy)
    numbers = iter(range(rounds))
    installed = interleave(
        {"pip install": lambda: install(wheel, scratch / f"{next(numbers)}")}, rounds=rounds
    )
    python = scratch / "0" / "venv" / "bin" / "python"
    return _rows("start-install", installed, data) + first_batches(python, data, rounds)


def test_the_first_batch(
    photographs: Path, tmp_path: Path, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the three delivers."""
    data = tmp_path / "data"
    for number, (path, label) in enumerate(list_images(photographs)):
        place = data / ("val" if number % 10 == 0 else "train") / f"{label}"
        place.mkdir(parents=True, exist_ok=True)
        link_or_copy(path, place / f"{number}{path.suffix}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    rows = first_batches(Path(sys.executable), data, 1)
    keep(rows)
    assert [row["name"] for row in rows] == [NEVER_SEEN, AGAIN, TUTORIAL]
    assert all(row["seconds"] > row["import_seconds"] > 0 for row in rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and append rows."""
    parser = CommandParser(
        prog="python -m benchmarks.bench_start", description="From nothing to the first batch."
    )
    parser.add_argument("wheel", type=Path, help="what scripts/release --dry-run makes, in dist/")
    parser.add_argument(
        "--images",
        type=Path,
        default=SAMPLE_DATA.parent,
        metavar="DIR",
        help="train/ and val/ with class folders (default: the sample data)",
    )
    parser.add_argument("--rounds", type=whole_number(1), default=5, metavar="N", help="default 5")
    parser.add_argument("--output", type=Path, default=ROWS / "start.jsonl", metavar="FILE")
    options = parser.read(argv)
    for place in (options.wheel, options.images / "train", options.images / "val"):
        if not place.exists():
            parser.error(f"{place} is not there")
    os.environ.pop("PYTHONPATH", None)  # the wheel is measured, and not the checkout
    DATA.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=DATA, prefix="start-") as scratch:
        rows = measure(options.wheel.resolve(), options.images, Path(scratch), options.rounds)
    append_rows(options.output, rows)
    for name in dict.fromkeys(row["name"] for row in rows):
        print(f"{name}: {summarise(row['seconds'] for row in rows if row['name'] == name)} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_command("benchmarks.bench_start", main))
