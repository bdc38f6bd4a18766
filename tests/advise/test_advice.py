"""The tuner's decisions on given trials."""

from __future__ import annotations

import pytest
import torch

from fastload.advise import advice as advices
from fastload.advise.trials import LoaderTrial, Question, StepTrial, Trials
from fastload.errors import FastloadError
from train.options import OptimisationOptions
from train.schedule import base_rate


def loader(rate: float, threads: int = 2, backend: str = "native") -> LoaderTrial:
    return LoaderTrial(backend=backend, num_threads=threads, images_per_second=rate)


def step(batch: int, rate: float, gibibytes: float = 1.0, **more) -> StepTrial:
    return StepTrial(
        batch_size=batch,
        amp="bf16",
        images_per_second=rate,
        gpu_bytes=int(gibibytes * 2**30),
        **{"channels_last": True, **more},
    )


def test_without_a_gpu_the_loader_is_tuned_and_the_rest_left_open():
    question = Question(shards="shards")
    trials = [loader(900, 4), loader(880, 2), loader(500, 1)]
    advice = advices.advise(question, trials, [])
    assert (advice.loader.num_threads, advice.step, advice.learning_rate) == (2, None, 0.0)
    assert advice.images_per_second == 880
    (left,) = advices.left_open(question, advice)
    assert "batch size" in left
    assert "no GPU here" in left


def test_no_more_threads_are_taken_than_the_training_step_needs():
    trials = [loader(4000, 8), loader(2100, 4), loader(1050, 2), loader(520, 1)]
    advice = advices.advise(Question(shards="s"), trials, [step(64, 400)], gpu_bytes=12 << 30)
    assert advice.loader.num_threads == 1  # 520 is more than 400 with headroom
    assert advice.bottleneck.startswith("the training step")
    fast = advices.advise(Question(shards="s"), trials, [step(64, 9000)], gpu_bytes=12 << 30)
    assert fast.loader.num_threads == 8
    assert fast.bottleneck.startswith("the loader")
    assert fast.images_per_second == 4000


def test_a_cpu_back_end_that_suffices_is_taken_before_decoding_on_the_gpu():
    trials = [loader(3000, 2, "dali"), loader(1000, 2), loader(990, 1)]
    assert advices.choose_loader(trials, needed=500).backend == "native"
    assert advices.choose_loader(trials, needed=2900).backend == "dali"


def test_the_smallest_batch_that_is_nearly_fastest_and_fits_is_taken():
    trials = [step(32, 300, 3), step(64, 390, 5), step(128, 400, 9), step(256, 450, 11.9)]
    advice = advices.advise(Question(shards="s"), [loader(2000)], trials, gpu_bytes=12 << 30)
    assert advice.step is trials[1]
    assert advice.accumulate == 4
    failed = [StepTrial(batch_size=16, channels_last=True, amp="bf16", failed="out of memory")]
    assert advices.choose_step(failed, room=None) is None


def test_decoding_on_the_gpu_leaves_the_step_less_memory():
    trials = [step(64, 300, 9), step(128, 400, 10)]
    question = Question(shards="s")
    on_cpu = advices.advise(question, [loader(2000)], trials, gpu_bytes=12 << 30)
    on_gpu = advices.advise(question, [loader(2000, 2, "dali")], trials, gpu_bytes=12 << 30)
    assert (on_cpu.step, on_gpu.step) == (trials[1], trials[0])


def test_the_learning_rate_is_the_trainers_own():
    advice = advices.advise(Question(shards="s"), [loader(2000)], [step(32, 300)])
    wanted = base_rate(OptimisationOptions(), scratch=False, effective_batch=256)
    assert advice.learning_rate == pytest.approx(wanted)


def test_no_working_back_end_is_an_error_with_the_reasons():
    failed = [LoaderTrial(backend="native", num_threads=1, failed="no core")]
    with pytest.raises(FastloadError, match="native: no core"):
        advices.advise(Question(shards="s"), failed, [])


def test_the_report_shows_every_trial_and_what_is_taken():
    question = Question(shards="s", model="resnet18", device=torch.device("cuda"))
    loaders = [loader(900), loader(500, 1), LoaderTrial(backend="dali", num_threads=2, failed="no")]
    steps = [step(64, 400, 2.0), step(128, 0.0, channels_last=False, failed="out of memory")]
    trials = Trials(loaders=loaders, steps=steps, left_out=["batches of 256 and more"])
    advice = advices.advise(question, loaders, steps)
    lines = [line.rstrip() for line in advices.report(question, trials, advice, 4000)]
    assert lines[:9] == [
        "back-end  threads  images/s",
        "native          2       900",
        "native          1       500",
        "dali            2        no",
        "",
        "resnet18          layout   AMP       images/s  GPU memory, MiB",
        "batch 64   channels-last  bf16            400            2,048",
        "batch 128     contiguous  bf16  out of memory            1,024",
        "",
    ]
    assert lines[9] == "the stages of native with 1 thread, measured without a training step:"
    assert "take        native with 1 thread, batches of 64, 4 per optimizer step" in lines
    assert "expect      400 images/s, 10 s per epoch of 4,000 images" in lines
    assert lines[-1] == "not tried   batches of 256 and more: the time was used up"
