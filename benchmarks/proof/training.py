"""Does `train/run.py` train on this device, with each loader and precision, and after a kill?

Each run is the command that people type, on the shards of the proof: ResNet-18 at 64 pixels, some
epochs. It must end with status 0 and its loss must fall. Runs go on beside one another: this asks
whether they are right, not how fast.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.environment import ROOT
from benchmarks.proof.part import Place, fail, run_part
from fastload.pixels import dali

LIMIT_SECONDS = (
    200.0  # of a run; the slowest, a compiled transformer beside others, had no end in 100
)
AT_A_TIME = 4


@dataclass(frozen=True, slots=True)
class Training:
    """A run, and what of it is asked."""

    name: str
    options: tuple[str, ...]
    killed: bool = False


GPU_RUNS = (
    Training("native-bf16-ema", ("--loader", "native", "--amp", "bf16", "--ema", "0.9")),
    Training(
        "native-compiled",
        (
            *("--loader", "native", "--amp", "bf16", "--compile", "--ema", "0.9"),
            *("--start-size", "32", "--ramp-from", "0", "--ramp-to", "0.5"),
        ),
    ),
    Training(
        "native-cuda-graphs",
        ("--loader", "native", "--amp", "bf16", "--compile", "--cuda-graphs"),
    ),
    Training(
        "dali-bf16-killed", ("--loader", "dali", "--amp", "bf16", "--ema", "0.9"), killed=True
    ),
    Training("dali-fp16", ("--loader", "dali", "--amp", "fp16", "--clip", "1")),
    Training("native-fp16", ("--loader", "native", "--amp", "fp16")),
    Training("native-float32-killed", ("--loader", "native", "--amp", "off"), killed=True),
    Training("libjpeg-bf16", ("--loader", "libjpeg", "--amp", "bf16")),
    Training(
        "native-augmented",
        (
            *("--loader", "native", "--auto-augment", "trivial", "--rotation", "15"),
            *("--jitter", "0.2", "--hue", "0.05", "--erasing", "0.2"),
        ),
    ),
    Training(
        "dali-mixed-killed",
        (
            *("--loader", "dali", "--auto-augment", "randaugment", "--mixup", "0.2"),
            *("--cutmix", "1", "--drop-path", "0.1", "--dropout", "0.1"),
        ),
        killed=True,
    ),
    Training(
        "native-accumulated",
        (
            *("--loader", "native", "--accumulate", "2", "--loss", "balanced", "--reweight"),
            *("sqrt", "--tune", "layerwise", "--zero-init"),
        ),
    ),
    Training(
        "native-transformer",
        ("--loader", "native", "--model", "timm:vit_tiny_patch16_224", "--compile", "--ema", "0.9"),
    ),
)
CPU_RUNS = (
    Training("native-killed", ("--loader", "auto", "--amp", "off"), killed=True),
    Training("dali-gives-way", ("--loader", "dali", "--amp", "off", "--epochs", "1")),
)


def command(place: Place, run: Training) -> list[str]:
    """What starts it."""
    return [
        *(sys.executable, "train/run.py", "--data", str(place.shards), "--device", "auto"),
        *("--runs", str(place.out / "runs"), "--name", run.name, "--model", "resnet18"),
        *("--init", "scratch", "--size", "32" if place.dry else "64", "--batch-size", "32"),
        *("--optimizer", "adamw", "--lr", "0.002", "--epochs", "2" if place.dry else "4"),
        *("--warmup-epochs", "0.5", "--no-tensorboard", "--save-every", "5", *run.options),
    ]


def start(arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a process whose words go to a file."""
    with log.open("ab") as file:
        return subprocess.Popen(arguments, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)


def wait(process: subprocess.Popen[bytes], deadline: float) -> int | None:
    """The exit status; None, and the process is ended, when time is over."""
    try:
        return process.wait(max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return None


def try_run(place: Place, run: Training) -> str:
    """What is wrong with a run; "" if nothing."""
    deadline = time.monotonic() + LIMIT_SECONDS * place.patience
    folder, log = place.out / "runs" / run.name, place.log(run.name)
    process = start(command(place, run), log)
    if run.killed:
        while not (folder / "last.pt").exists() and process.poll() is None:
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        if process.poll() is not None:
            return f"{run.name} ended before it could be killed: {last_line(log)}"
        process.kill()
        process.wait()
        resume = ["--resume", "--runs", str(place.out / "runs"), "--name", run.name]
        process = start([sys.executable, "train/run.py", *resume], log)
    status = wait(process, deadline)
    if status != 0:
        return f"{run.name}: {'no end in time' if status is None else last_line(log)}"
    with (folder / "log.csv").open(encoding="utf-8", newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file) if row["split"] == "train"]
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    asked = run.options[run.options.index("--loader") + 1]
    print(f"{run.name}: {result['backend']}, losses {losses}", flush=True)
    if len(losses) > 1 and losses[-1] >= losses[0]:
        return f"{run.name}: the loss does not fall: {losses}"
    if not place.dry and result["backend"] != asked:
        return f"{run.name}: {result['backend']} ran in place of {asked}"
    return ""


def last_line(log: Path) -> str:
    """The last words of a log."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "said nothing")


def body(place: Place) -> str:
    """Try all runs; the part fails where one of them does."""
    runs: tuple[Training, ...] = CPU_RUNS if place.dry else GPU_RUNS
    if not place.dry and dali.why_unavailable(device=0):
        runs = tuple(run for run in runs if not run.name.startswith("dali"))
    with ThreadPoolExecutor(1 if place.dry else AT_A_TIME) as pool:
        faults = list(pool.map(lambda run: try_run(place, run), runs))
    if any(faults):
        fail("; ".join(fault for fault in faults if fault))
    return f"{len(runs)} runs end and learn: {', '.join(run.name for run in runs)}"


if __name__ == "__main__":
    run_part(body)
