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
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastload.augment import Augment
from fastload.batch import READY_BATCHES
from fastload.errors import FastloadError, OutputError, run_command
from fastload.index import read_manifest, write_atomically
from fastload.loader import Loader, usable_cores
from fastload.progress import Progress
from fastload.stats import Stats
from fastload.terminal import table

FIRST_LINE = "# Written by `python -m fastload.tune`; a recipe for train/run.py --recipe."
CPU_BACKENDS = ("native", "libjpeg", "dali-cpu")
BATCH_SIZES = (16, 32, 64, 128, 256, 512, 1024)
LOADER_BATCH = 128
TIME_SECONDS = 150.0  # for all trials; start-up and the last trial stay within 3 minutes with it
LEAST_SECONDS, MOST_SECONDS = 0.8, 4.0  # of one trial

ENOUGH = 0.95  # of the best rate: fewer threads, or a smaller batch, are taken for the rest
HEADROOM = 1.25  # the loader over the training step, so that a slow stretch of files stalls nothing
GPU_SHARE = 0.9  # of the card's memory that the step may take; evaluation and fragments need some
GPU_LOADER_BYTES = {"dali": 1 << 30}  # what a back-end keeps on the card; the others: two batches
OTHER_LOADER_BYTES = 128 << 20

# Pl@ntNet-300K's 0.01 at a batch of 32, for 256 by the linear rule (Goyal et al. 2017): fine-tuning
# with SGD, as the trainer's own default has it.
REFERENCE_BATCH, REFERENCE_RATE = 256, 0.08
RTX_3060 = 400  # ResNet-50 at 224 pixels, images/s: between estimates of 350 and 470


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is to be tuned.

    Attributes:
        shards: The shard directory, as it will be given to the trainer.
        model: A torchvision classification model, or timm:NAME.
        size: Side of the training images.
        device: Where the model trains.
        effective_batch: Images per optimizer step that the recipe should come to, at least.
        seconds: For all trials.
    """

    shards: str
    model: str = "resnet50"
    size: int = 224
    device: torch.device = torch.device("cpu")  # noqa: RUF009  a constant
    effective_batch: int = 256
    seconds: float = TIME_SECONDS

    def __post_init__(self) -> None:
        for name in ("size", "effective_batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.seconds > 0:
            raise ValueError(f"seconds must be above 0, got {self.seconds}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderTrial:
    """One back-end with one number of threads; images_per_second is 0 where it `failed`."""

    backend: str
    num_threads: int
    images_per_second: float = 0.0
    failed: str = ""
    stats: Stats = field(default_factory=Stats)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTrial:
    """The training step with one batch size; images_per_second is 0 where it `failed`.

    Attributes:
        gpu_bytes: Most memory that PyTorch held on the device; 0 on a CPU.
    """

    batch_size: int
    channels_last: bool
    amp: str
    images_per_second: float = 0.0
    gpu_bytes: int = 0
    failed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What to take. The fields from `batch_size` on are 0 or "" where there was no GPU to ask.

    Attributes:
        loader: The trial that is taken.
        step: Likewise, or None.
        accumulate: Batches per optimizer step.
        bottleneck: One sentence: which part limits training, and what would change that.
    """

    loader: LoaderTrial
    step: StepTrial | None
    accumulate: int
    bottleneck: str

    @property
    def images_per_second(self) -> float:
        """What training is expected to reach."""
        step = self.step.images_per_second if self.step else float("inf")
        return min(self.loader.images_per_second, step)

    @property
    def learning_rate(self) -> float:
        """The peak learning rate by the linear rule; 0 without a batch size."""
        if self.step is None:
            return 0.0
        return REFERENCE_RATE * self.step.batch_size * self.accumulate / REFERENCE_BATCH


# Decisions: pure functions of the trials.


def advise(
    question: Question,
    loaders: Sequence[LoaderTrial],
    steps: Sequence[StepTrial],
    *,
    gpu_bytes: int = 0,
) -> Advice:
    """What the trials say.

    Args:
        question: What was asked.
        loaders: At least one that did not fail.
        steps: Empty where there is no GPU.
        gpu_bytes: Memory of the card.

    Raises:
        FastloadError: If no back-end delivered anything.
    """
    working = [trial for trial in loaders if trial.images_per_second > 0]
    if not working:
        reasons = "; ".join(f"{trial.backend}: {trial.failed}" for trial in loaders)
        raise FastloadError(f"no back-end delivered an image ({reasons}); see fastload.doctor")
    best = max(working, key=lambda trial: trial.images_per_second)
    kept = GPU_LOADER_BYTES.get(best.backend, OTHER_LOADER_BYTES)
    step = choose_step(steps, room=GPU_SHARE * gpu_bytes - kept if gpu_bytes else None)
    loader = choose_loader(working, needed=step.images_per_second * HEADROOM if step else None)
    accumulate = 1
    if step:
        accumulate = max(1, -(-question.effective_batch // step.batch_size))
    return Advice(
        loader=loader, step=step, accumulate=accumulate, bottleneck=bottleneck(loader, step)
    )


def choose_loader(trials: Sequence[LoaderTrial], *, needed: float | None) -> LoaderTrial:
    """The fewest threads that deliver what is `needed`, else nearly as much as the best.

    A back-end on the CPU that suffices is taken before one that decodes on the GPU, whose cores are
    the training step's.
    """
    best = max(trial.images_per_second for trial in trials)
    enough = ENOUGH * best if needed is None else min(needed, ENOUGH * best)
    fitting = [trial for trial in trials if trial.images_per_second >= enough]
    return min(
        fitting,
        key=lambda trial: (trial.backend == "dali", trial.num_threads, -trial.images_per_second),
    )


def choose_step(trials: Sequence[StepTrial], *, room: float | None) -> StepTrial | None:
    """The smallest batch that is nearly as fast as the best of those that fit.

    Args:
        trials: All of them.
        room: Bytes of the card that the step may take; None for any number.
    """
    fitting = [
        trial
        for trial in trials
        if trial.images_per_second > 0 and (room is None or trial.gpu_bytes <= room)
    ]
    if not fitting:
        return None
    best = max(trial.images_per_second for trial in fitting)
    fast = [trial for trial in fitting if trial.images_per_second >= ENOUGH * best]
    return min(fast, key=lambda trial: (trial.batch_size, -trial.images_per_second))


def bottleneck(loader: LoaderTrial, step: StepTrial | None) -> str:
    """Which part limits training, and what would change that."""
    rate = f"{loader.images_per_second:,.0f} images/s"
    if step is None:
        return (
            f"the loader gives {rate} on {_threads(loader.num_threads)}, and a GPU that trains"
            f" faster waits for it; an RTX 3060 is estimated to train ResNet-50 at {RTX_3060}"
        )
    trained = f"{step.images_per_second:,.0f} images/s"
    if loader.images_per_second < step.images_per_second:
        return (
            f"the loader: it gives {rate}, the GPU trains {trained}; more cores, the back-end"
            " native, or smaller images (`python -m fastload.shard --max-side`) would help"
        )
    return (
        f"the training step: the GPU trains {trained}, the loader gives {rate}; a smaller model or"
        " image size, or --compile, would help, more threads would not"
    )


def recipe(question: Question, advice: Advice, samples: int) -> str:
    """The TOML text, with what was measured in its comments."""
    loader, step = advice.loader, advice.step
    seconds = samples / advice.images_per_second
    expected = f"{advice.images_per_second:,.0f} images/s, {duration(seconds)} per epoch"
    lines = [
        FIRST_LINE,
        f"# {samples:,} training images; expected: {expected}.",
        f"# Bottleneck: {advice.bottleneck}.",
        *(f"# Left open: {what}." for what in left_open(question, advice)),
        "",
        "[data]",
        f"data = {json.dumps(question.shards)}",
        f'loader = "{loader.backend}"  # {loader.images_per_second:,.0f} images/s',
        f"threads = {loader.num_threads}",
    ]
    if step:
        lines.append(f"batch_size = {step.batch_size}  # {step.images_per_second:,.0f} images/s")
    lines += ["", "[resolution]", f"size = {question.size}", ""]
    lines += ["[model]", f"model = {json.dumps(question.model)}", ""]
    if step:
        lines += [
            "[optimisation]",
            f"accumulate = {advice.accumulate}",
            f"lr = {REFERENCE_RATE}  # for a batch of {REFERENCE_BATCH}, fine-tuning with SGD",
            f'lr_rule = "linear"  # the peak is {advice.learning_rate:.4g}',
            "",
            "[run]",
            f'amp = "{step.amp}"',
            f"device = {json.dumps(str(question.device))}",
            "",
        ]
    return "\n".join(lines)


def left_open(question: Question, advice: Advice) -> list[str]:
    """What the trials could not say."""
    if advice.step is None:
        found = "no batch fitted the GPU" if question.device.type == "cuda" else "no GPU here"
        what = "batch size, accumulation, AMP, channels-last and learning rate"
        return [f"{what} ({found}): the trainer's defaults stay"]
    if not advice.step.channels_last:
        return ["the trainer always takes channels-last, which was the slower layout here"]
    return []


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"


def duration(seconds: float) -> str:
    """Three digits at most: "45 s", "12 min", "3.4 h"."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def thread_counts(cores: int) -> list[int]:
    """Powers of two below `cores`, and `cores`: what is tried after all of them together."""
    return [*(1 << power for power in range(cores.bit_length()) if 1 << power < cores), cores]


# Trials: effects, bounded in time and memory.


def measure_loader(
    question: Question, backend: str, num_threads: int, *, seconds: float, seed: int = 0
) -> LoaderTrial:
    """Iterate the loader for a while.

    Each trial has its own seed, so that none finds the images in the page cache because another
    read them. A back-end that cannot run here, or data that cannot be read, is a failed trial.
    """
    trial = LoaderTrial(backend=backend, num_threads=num_threads)
    samples = read_manifest(question.shards).splits["train"].samples
    try:
        with Loader(
            question.shards,
            batch_size=min(LOADER_BATCH, samples),
            augment=Augment.train(question.size),
            backend=backend,
            device=question.device,
            num_threads=num_threads,
            seed=seed,
        ) as loader:
            if loader.backend != backend:
                return replace(trial, failed=loader.backend_reason)
            rate = _rate(_endless(loader), seconds, warm=loader.reset_stats)
            return replace(trial, images_per_second=rate, stats=loader.stats())
    except (FastloadError, torch.OutOfMemoryError) as error:
        return replace(trial, failed=_first_line(error))


def _endless(loader: Loader) -> Iterator[int]:
    while True:
        for images, _ in loader:
            yield len(images)


def _rate(counts: Iterator[int], seconds: float, *, warm: Callable[[], None]) -> float:
    """Images per second, after two batches and a quarter of the time; `warm` is called there."""
    began = time.perf_counter()
    for number, _ in enumerate(counts, 1):
        if number >= 2 and time.perf_counter() - began >= seconds / 4:
            break
    warm()
    began, images = time.perf_counter(), 0
    for count in counts:
        images += count
        elapsed = time.perf_counter() - began
        if elapsed >= seconds:
            break
    return images / elapsed


def measure_step(
    build: Callable[[], nn.Module],
    trial: StepTrial,
    *,
    size: int,
    device: torch.device,
    seconds: float,
) -> StepTrial:
    """Train on synthetic images for a while: forward, backward, SGD with momentum.

    Args:
        build: Makes the model, on the CPU; its output is [N, classes], at least 2 of them.
        trial: What to try.
        size: Side of the images.
        device: Where.
        seconds: How long, after three steps to warm up.

    Returns:
        The trial with its result; running out of memory is `failed`.
    """
    on_gpu = device.type == "cuda"
    synchronise: Callable[[], None] = torch.cuda.synchronize if on_gpu else _nothing
    try:
        if on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        step = _training_step(build, trial, size=size, device=device)
        for _ in range(3):
            step()
        synchronise()
        began, count = time.perf_counter(), 0
        while count < 2 or time.perf_counter() - began < seconds:
            step()
            synchronise()
            count += 1
        rate = count * trial.batch_size / (time.perf_counter() - began)
        held = torch.cuda.max_memory_reserved(device) if on_gpu else 0
        return replace(trial, images_per_second=rate, gpu_bytes=held)
    except RuntimeError as error:  # torch.OutOfMemoryError is one; the CPU's allocator raises this
        if not isinstance(error, torch.OutOfMemoryError) and "memory" not in str(error):
            raise
        return replace(trial, failed="out of memory")


def _training_step(
    build: Callable[[], nn.Module], trial: StepTrial, *, size: int, device: torch.device
) -> Callable[[], None]:
    layout = torch.channels_last if trial.channels_last else torch.contiguous_format
    # The images first: what does not fit is then known before the model is built.
    images = torch.randint(
        0, 256, (trial.batch_size, 3, size, size), dtype=torch.uint8, device=device
    ).to(memory_format=layout)
    model = build().to(device, memory_format=layout).train()  # type: ignore[call-overload]  # torch's stub lacks this form
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    amp = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(trial.amp)
    scaler = torch.amp.GradScaler(device.type, enabled=trial.amp == "fp16")
    labels = torch.zeros(trial.batch_size, dtype=torch.int64, device=device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=amp, enabled=amp is not None):
            scores: Tensor = model(images.float().div(255))
            loss = functional.cross_entropy(scores, labels)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch's own
        scaler.step(optimizer)
        scaler.update()

    return step


def _nothing() -> None:
    pass


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:200]


def model_builder(name: str, num_classes: int) -> Callable[[], nn.Module]:
    """Makes a torchvision classification model, or timm:NAME, with random weights.

    Raises:
        FastloadError: If there is no model of that name, or timm is not installed.
    """
    if name.startswith("timm:"):
        try:
            import timm
        except ImportError as error:
            raise FastloadError(f"{name} needs timm: pip install timm") from error
        if not timm.is_model(name[5:]):
            raise FastloadError(f"timm has no model {name[5:]!r}; see timm.list_models()")
        return lambda: timm.create_model(name[5:], num_classes=num_classes)
    from torchvision import models

    if name not in models.list_models(module=models):
        raise FastloadError(f"torchvision has no classification model {name!r}")
    return lambda: models.get_model(name, weights=None, num_classes=num_classes)


@dataclass(frozen=True, slots=True)
class Trials:
    """All that was tried, and what the time did not suffice for."""

    loaders: list[LoaderTrial]
    steps: list[StepTrial]
    left_out: list[str]


def run_trials(question: Question) -> Trials:
    """Try back-ends, threads and, on a GPU, batch sizes; shows progress on standard error."""
    trials = Trials([], [], [])
    cores = usable_cores()
    fewer = thread_counts(cores)[-2::-1]
    on_gpu = question.device.type == "cuda"
    backends = [*CPU_BACKENDS, *(["dali"] if on_gpu else [])]
    planned = len(backends) + len(fewer) + (len(BATCH_SIZES) + 1 if on_gpu else 0)
    each = min(MOST_SECONDS, max(LEAST_SECONDS, question.seconds / planned / 2))
    ends = time.monotonic() + question.seconds

    def in_time(what: str) -> bool:
        if time.monotonic() + 1.5 * each <= ends:
            return True
        trials.left_out.append(what)
        return False

    with Progress(planned, "trials") as progress:
        for number, backend in enumerate(backends):
            none_yet = not any(trial.images_per_second for trial in trials.loaders)
            if none_yet or in_time(f"the back-end {backend}"):
                trials.loaders.append(
                    measure_loader(question, backend, cores, seconds=each, seed=number)
                )
            progress.add(note=backend)
        best = max(trials.loaders, key=lambda trial: trial.images_per_second)
        for number, count in enumerate(fewer, len(backends)):
            if best.images_per_second and in_time(_threads(count)):
                trials.loaders.append(
                    measure_loader(question, best.backend, count, seconds=each, seed=number)
                )
            progress.add(note=_threads(count))
        if on_gpu:
            bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
            try_steps(
                trials.steps,
                _step_measurer(question, seconds=each),
                amp="bf16" if bf16 else "fp16",
                in_time=in_time,
                progress=progress,
            )
    return trials


def _step_measurer(question: Question, *, seconds: float) -> Callable[[StepTrial], StepTrial]:
    build = model_builder(question.model, len(read_manifest(question.shards).classes))

    def measure(trial: StepTrial) -> StepTrial:
        size, device = question.size, question.device
        return measure_step(build, trial, size=size, device=device, seconds=seconds)

    return measure


def try_steps(
    steps: list[StepTrial],
    measure: Callable[[StepTrial], StepTrial],
    *,
    amp: str,
    in_time: Callable[[str], bool],
    progress: Progress,
) -> None:
    """Batch sizes upwards until one does not fit, or gains nothing; then the other layout once.

    Args:
        steps: Results are appended.
        measure: Does one trial.
        amp: Mixed precision of all of them.
        in_time: Whether there is time for what its argument names.
        progress: Counts.
    """
    for batch_size in BATCH_SIZES:
        progress.add(note=f"batch {batch_size}")
        if not in_time(f"batches of {batch_size} and more"):
            break
        steps.append(measure(StepTrial(batch_size=batch_size, channels_last=True, amp=amp)))
        rates = [done.images_per_second for done in steps]
        if steps[-1].failed or (len(rates) > 2 and rates[-1] < 1.02 * rates[-3]):
            break
    best = max(steps, key=lambda trial: trial.images_per_second, default=None)
    if best and best.images_per_second and in_time("the layout without channels-last"):
        other = replace(best, channels_last=False, images_per_second=0.0, gpu_bytes=0)
        steps.append(measure(other))


# The command.


def report(question: Question, trials: Trials, advice: Advice, samples: int) -> list[str]:
    """What was measured and what to take, as lines of text."""
    rows = [("back-end", "threads", "images/s")]
    rows += [
        (trial.backend, str(trial.num_threads), trial.failed or f"{trial.images_per_second:,.0f}")
        for trial in trials.loaders
    ]
    lines = table(rows)
    if trials.steps:
        rows = [(question.model, "layout", "AMP", "images/s", "GPU memory, MiB")]  # type: ignore[list-item]  # a table of another width
        rows += [
            (  # type: ignore[misc]  # likewise
                f"batch {trial.batch_size}",
                "channels-last" if trial.channels_last else "contiguous",
                trial.amp,
                trial.failed or f"{trial.images_per_second:,.0f}",
                f"{trial.gpu_bytes / 2**20:,.0f}",
            )
            for trial in trials.steps
        ]
        lines += ["", *table(rows)]
    taken = f"{advice.loader.backend} with {_threads(advice.loader.num_threads)}"
    lines += ["", f"{taken}, and nobody who keeps it waiting:"]
    lines += [*advice.loader.stats.table(), advice.loader.stats.remedy]
    epoch = f"{duration(samples / advice.images_per_second)} per epoch of {samples:,} images"
    if advice.step:
        taken += f", batches of {advice.step.batch_size}, {advice.accumulate} per optimizer step"
    lines += [
        "",
        f"take        {taken}",
        f"prefetch    {READY_BATCHES} batches ready besides those in work; fixed",
        f"expect      {advice.images_per_second:,.0f} images/s, {epoch}",
        f"bottleneck  {advice.bottleneck}",
        *(f"left open   {what}" for what in left_open(question, advice)),
    ]
    if trials.left_out:
        lines.append(f"not tried   {', '.join(trials.left_out)}: the time was used up")
    return lines


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
