"""What do `--compile` and `--cuda-graphs` bring where steps are short, and do they learn the same?

The trainer's own step, ResNet-18 at 128 pixels in batches of 64, mixed precision, moving average,
on one batch that stays on the device: plain, compiled, and compiled with CUDA graphs. The first
losses must agree within 2 %, which is what bfloat16 leaves open, and compiling must not have been
left out. Answers of the evaluated model, kept over several calls, must agree with those of the
module called as it is.
"""

from __future__ import annotations

import time
from contextlib import ExitStack

import torch

from benchmarks.harness import Row
from benchmarks.proof.part import Place, fail, run_part
from train.assembly import Run, assemble
from train.command import parse
from train.model import set_training
from train.optimiser import autocast
from train.run import train_step

MODES: dict[str, tuple[str, ...]] = {
    "plain": (),
    "compiled": ("--compile",),
    "CUDA graphs": ("--compile", "--cuda-graphs"),
}
BATCH_SIZE, SIZE, WARM, STEPS = 64, 128, 10, 100
APART = 0.02


def assembled(place: Place, mode: str, stack: ExitStack) -> Run:
    """The run of a mode."""
    batch, size = (8, 32) if place.dry else (BATCH_SIZE, SIZE)
    command = parse(
        [
            *("--data", str(place.shards), "--runs", str(place.out / "runs"), "--name", "compile"),
            *("--model", "resnet18", "--init", "scratch", "--loader", "native", "--ema", "0.9"),
            *("--size", str(size), "--batch-size", str(batch), "--lr", "0.01"),
            *("--device", place.device.type, *MODES[mode]),
        ]
    )
    return assemble(command.options, stack)


def measure(place: Place, mode: str) -> Row:
    """Losses of the first steps, milliseconds of the later ones, and how far answers are off."""
    with ExitStack() as stack:
        run = assembled(place, mode, stack)
        options, device = run.options, run.ranks.device
        generator = torch.Generator().manual_seed(0)
        batch, size = options.data.batch_size, options.resolution.size
        images = torch.randn(batch, 3, size, size, generator=generator)
        images = images.to(
            device, run.precision or torch.float32, memory_format=torch.channels_last
        )
        labels = torch.arange(batch, device=device) % len(run.loaders.classes)
        set_training(run.network.model)
        warm, steps = (2, 2) if place.dry else (WARM, STEPS)
        began = time.perf_counter()
        totals = [train_step(run, images, labels, ends_step=True)[1] for _ in range(warm)]
        first = [float(total.loss.detach()) / batch for total in totals]
        prepared = time.perf_counter() - began
        began = time.perf_counter()
        for _ in range(steps):
            train_step(run, images, labels, ends_step=True)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - began
        model = run.stepper.evaluated().eval()
        with torch.no_grad(), autocast(device, run.precision):
            others = [images * factor for factor in (1.0, 0.5, 0.25, -1.0)]
            kept = torch.stack([run.answers(other) for other in others]).float()
            right = torch.stack([model(other) for other in others]).float()
        compiler = run.network.compiler
        return {
            "benchmark": "gpu-compile",
            "name": mode,
            "batch_size": batch,
            "size": size,
            "losses": first,
            "seconds_before": prepared,
            "ms_per_step": seconds / steps * 1e3,
            "images_per_second": batch * steps / seconds,
            "answers_apart": float((kept - right).abs().max() / right.abs().max()),
            "left_out": compiler is not None and not compiler.works,
        }


def body(place: Place) -> str:
    """Each mode, in the same process: the compiled graphs of one serve no other."""
    rows = [measure(place, mode) for mode in (("plain",) if place.dry else MODES)]
    for row in rows:
        print(row, flush=True)
    place.keep(rows)
    figure = ", ".join(f"{row['name']} {row['ms_per_step']:.2f} ms" for row in rows)
    wrong = [
        row["name"]
        for row in rows
        if row["left_out"]
        or row["answers_apart"] > APART
        or any(
            abs(a - b) > APART * b
            for a, b in zip(row["losses"][:3], rows[0]["losses"][:3], strict=True)
        )
    ]
    if wrong:
        fail(f"left out or apart from plain: {', '.join(wrong)} ({figure})")
    return f"a step of ResNet-18: {figure}"


if __name__ == "__main__":
    run_part(body)
