"""Short trials of the loader and of the training step on this machine, within a limit of time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastload.advise.models import build_model
from fastload.console.progress import Progress
from fastload.console.terminal import counted
from fastload.cores import usable_cores
from fastload.errors import FastloadError, first_line
from fastload.load.augment import Augment
from fastload.load.backend import BackendName
from fastload.load.loader import Loader
from fastload.load.stats import Stats
from fastload.store.collection import read_contents

BATCH_SIZES = (16, 32, 64, 128, 256, 512, 1024)
LOADER_BATCH = 128
TIME_SECONDS = 150.0  # for all trials; start-up and the last trial stay within 3 minutes with it
LEAST_SECONDS, MOST_SECONDS = 0.8, 4.0  # of one trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is to be tuned.

    Attributes:
        shards: The shard directory, as the trainer will be given it.
        model: A torchvision classification model, or timm:NAME.
        size: Side of the training images, in pixels.
        device: Where the model trains.
        effective_batch: Least number of images per optimizer step that the recipe reaches.
        epochs: Epochs of the run; None for the trainer's default.
        seconds: Limit of time for all trials.
    """

    shards: str
    model: str = "resnet50"
    size: int = 224
    device: torch.device = torch.device("cpu")  # noqa: RUF009  a constant
    effective_batch: int = 256
    epochs: int | None = None
    seconds: float = TIME_SECONDS

    def __post_init__(self) -> None:
        for name in ("size", "effective_batch", "epochs"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.seconds > 0:
            raise ValueError(f"seconds must be above 0, got {self.seconds}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderTrial:
    """One back-end with one number of threads; images_per_second is 0 for a trial that `failed`."""

    backend: str
    num_threads: int
    images_per_second: float = 0.0
    failed: str = ""
    stats: Stats = field(default_factory=Stats)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTrial:
    """The training step with one batch size; images_per_second is 0 for a trial that `failed`.

    Attributes:
        gpu_bytes: The most memory that PyTorch held on the device; 0 on a CPU.
    """

    batch_size: int
    channels_last: bool
    amp: str
    images_per_second: float = 0.0
    gpu_bytes: int = 0
    failed: str = ""


def thread_counts(cores: int) -> list[int]:
    """The numbers of threads to try: powers of two below `cores`, then `cores`."""
    return [*(1 << power for power in range(cores.bit_length()) if 1 << power < cores), cores]


def measure_loader(
    question: Question, backend: str, num_threads: int, *, seconds: float, seed: int = 0
) -> LoaderTrial:
    """Iterate the loader for `seconds`, and measure its speed.

    A back-end that cannot run here, or data that cannot be read, is a failed trial.

    Args:
        question: The data and the device.
        backend: The back-end.
        num_threads: Number of threads of the loader.
        seconds: How long to measure, after a quarter of that time to warm up.
        seed: Each trial has its own, so that no trial finds its images in the page cache because
            another trial has just read them.
    """
    trial = LoaderTrial(backend=backend, num_threads=num_threads)
    samples = read_contents(question.shards).splits["train"].samples
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
        return replace(trial, failed=first_line(error))


def _endless(loader: Loader) -> Iterator[int]:
    while True:
        for images, _ in loader:
            yield len(images)


def _rate(counts: Iterator[int], seconds: float, *, warm: Callable[[], None]) -> float:
    """Images per second after a warm-up of two batches and a quarter of the time.

    `warm` is called between warm-up and measurement.
    """
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
    """Train on synthetic images for `seconds`: forward, backward, SGD with momentum.

    Args:
        build: Makes the model, on the CPU; its output is [N, classes], at least 2 of them.
        trial: What to try.
        size: Side of the images, in pixels.
        device: Where the model trains.
        seconds: How long to measure, after three steps to warm up.

    Returns:
        The trial with its result. A trial that runs out of memory has `failed`.
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
    # The images come first: a batch that does not fit fails before the model is built.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Trials:
    """What was tried, and what the time did not suffice for."""

    loaders: list[LoaderTrial] = field(default_factory=list)
    steps: list[StepTrial] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def run_trials(question: Question) -> Trials:
    """Try back-ends, numbers of threads and, on a GPU, batch sizes; shows progress."""
    trials = Trials()
    cores = usable_cores()
    fewer = thread_counts(cores)[-2::-1]
    on_gpu = question.device.type == "cuda"
    backends = [name.value for name in BackendName if name.on_cpu or on_gpu]
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
            if best.images_per_second and in_time(counted(count, "thread")):
                trials.loaders.append(
                    measure_loader(question, best.backend, count, seconds=each, seed=number)
                )
            progress.add(note=counted(count, "thread"))
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
    classes = len(read_contents(question.shards).classes)
    build = partial(build_model, question.model, classes, size=question.size)

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
    """Try larger and larger batches until one does not fit or gains nothing, then the other layout.

    Args:
        steps: Each trial is appended to it.
        measure: Does one trial.
        amp: Mixed precision of all trials.
        in_time: Tells whether there is time for the trial that its argument names.
        progress: Counts the trials.
    """
    for batch_size in BATCH_SIZES:
        progress.add(note=f"batch {batch_size}")
        if not in_time(f"batches of {batch_size:,} and more"):
            break
        steps.append(measure(StepTrial(batch_size=batch_size, channels_last=True, amp=amp)))
        rates = [done.images_per_second for done in steps]
        if steps[-1].failed or (len(rates) > 2 and rates[-1] < 1.02 * rates[-3]):
            break
    best = max(steps, key=lambda trial: trial.images_per_second, default=None)
    if best and best.images_per_second and in_time("the layout without channels-last"):
        other = replace(best, channels_last=False, images_per_second=0.0, gpu_bytes=0)
        steps.append(measure(other))
