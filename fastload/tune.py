"""Which parameters to take on this machine: `python -m fastload.tune shards/`.

    loader trials   every back-end with all threads, then the best one with fewer; where the threads
                    of the one that is taken spend their time
    step trials     the training step on synthetic images by batch size, on a GPU only
    advise          both -> back-end, threads, batch size, accumulation, AMP; what is the bottleneck
    recipe          a TOML file for `train/run.py --recipe`

Trials are short and bounded: a trial that fails or runs out of memory is a line of the report, and
what does not fit the time is left out and named. Without a GPU the loader is tuned and the rest is
left open.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from fastload.advise.advice import FIRST_LINE, advise, recipe, report
from fastload.advise.trials import TIME_SECONDS, Question, model_builder, run_trials
from fastload.console.command import run_command
from fastload.errors import FastloadError, OutputError
from fastload.files import write_atomically
from fastload.store.index import read_manifest


def write_recipe(path: Path, text: str) -> None:
    """Write the recipe; overwrites only what this command wrote.

    Raises:
        OutputError: If another file of that name is there.
        OSError: If it cannot be written.
    """
    if path.exists() and not path.read_bytes().startswith(FIRST_LINE.encode()):
        raise OutputError(f"{path}: is there and was not written by fastload.tune; choose --out")
    write_atomically(path, text.encode())


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise FastloadError(f"{name}: PyTorch finds no GPU; leave out --device")
    return device


def main(argv: Sequence[str] | None = None) -> int:
    """The command: measures, prints, writes the recipe."""
    parser = argparse.ArgumentParser(
        prog="python -m fastload.tune",
        description="Find the parameters for this machine; takes less than 3 minutes.",
    )
    parser.add_argument("shards", help="a shard directory, from python -m fastload.shard")
    parser.add_argument("--out", type=Path, default=Path("tuned.toml"), metavar="FILE")
    parser.add_argument("--model", default="resnet50", help="default resnet50; or timm:NAME")
    parser.add_argument("--size", type=int, default=224, help="of the training images, in pixels")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    parser.add_argument(
        "--effective-batch",
        type=int,
        default=256,
        metavar="N",
        help="images per optimizer step to reach by accumulation (default 256)",
    )
    parser.add_argument(
        "--seconds", type=float, default=TIME_SECONDS, help=f"for all trials ({TIME_SECONDS:.0f})"
    )
    options = parser.parse_args(argv)

    def body() -> int:
        question = Question(
            shards=options.shards,
            model=options.model,
            size=options.size,
            device=_device(options.device),
            effective_batch=options.effective_batch,
            seconds=options.seconds,
        )
        manifest = read_manifest(question.shards)
        if "train" not in manifest.splits:
            raise FastloadError(f"{question.shards}: there is no split train to tune with")
        samples = manifest.splits["train"].samples
        model_builder(question.model, len(manifest.classes))  # a wrong name ends it here
        trials = run_trials(question)
        on_gpu = question.device.type == "cuda"
        memory = torch.cuda.get_device_properties(question.device).total_memory if on_gpu else 0
        advice = advise(question, trials.loaders, trials.steps, gpu_bytes=memory)
        write_recipe(options.out, recipe(question, advice, samples))
        lines = [*report(question, trials, advice, samples), f"written to  {options.out}"]
        print("\n".join(lines))  # noqa: T201  a command's own words
        return 0

    try:
        return run_command("fastload.tune", body)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    sys.exit(main())
