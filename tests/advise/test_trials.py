"""Trials of the loader on real shards, and of the training step on synthetic images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from fastload.advise import trials
from fastload.advise.advice import choose_step
from fastload.advise.trials import Question, StepTrial
from fastload.console.progress import Progress
from tests.shards import numbered

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    out: Path = tmp_path_factory.mktemp("trials") / "shards"
    return numbered(out, {"train": 24})


@pytest.mark.parametrize(("cores", "counts"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6])])
def test_thread_counts_end_with_all_cores(cores: int, counts: list[int]):
    assert trials.thread_counts(cores) == counts


def test_a_loader_trial_measures_and_a_missing_back_end_is_a_data_point(shards: Path):
    question = Question(shards=str(shards), size=32)
    assert trials.measure_loader(question, "libjpeg", 1, seconds=0.1).images_per_second > 0
    failed = trials.measure_loader(question, "dali", 1, seconds=0.1)  # falls back without a GPU
    assert failed.images_per_second == 0
    assert failed.failed


def test_a_loader_trial_says_where_its_threads_spent_their_time(shards: Path):
    trial = trials.measure_loader(Question(shards=str(shards), size=32), "libjpeg", 1, seconds=0.2)
    stages = trial.stats.stages
    assert min(stages.plan, stages.read, stages.decode, stages.resize) > 0
    assert trial.stats.remedy


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, images):
        return self.layer(images.mean((2, 3)))


def test_a_step_trial_trains_on_synthetic_images():
    trial = StepTrial(batch_size=4, channels_last=True, amp="off")
    done = trials.measure_step(Tiny, trial, size=8, device=CPU, seconds=0.01)
    assert done.images_per_second > 0
    assert not done.failed


def test_batches_grow_until_one_gains_nothing_or_does_not_fit():
    def measure(trial):  # a real step; a batch of 128 shall be too large for this machine
        if trial.batch_size == 128:
            trial = replace(trial, batch_size=10**9)
        size = 1024 if trial.batch_size > 1024 else 8
        return trials.measure_step(Tiny, trial, size=size, device=CPU, seconds=0.02)

    steps: list[StepTrial] = []
    with Progress(9, "trials") as progress:
        trials.try_steps(steps, measure, amp="off", in_time=lambda _: True, progress=progress)
    *grown, other = steps
    assert [trial.batch_size for trial in grown] in ([16, 32, 64, 10**9], [16, 32, 64])
    assert all(trial.images_per_second > 0 for trial in grown[:3])
    assert grown[-1].failed == ("out of memory" if len(grown) == 4 else "")
    assert not other.channels_last
    assert choose_step(steps, room=None) in steps


def test_no_time_means_no_steps():
    steps: list[StepTrial] = []
    with Progress(9, "trials") as progress:
        trials.try_steps(steps, lambda t: t, amp="off", in_time=lambda _: False, progress=progress)
    assert steps == []


def test_running_out_of_memory_is_a_data_point():
    trial = StepTrial(batch_size=10**9, channels_last=True, amp="off")
    done = trials.measure_step(Tiny, trial, size=1024, device=CPU, seconds=0.01)
    assert done.failed == "out of memory"


def test_another_error_of_the_model_is_not_swallowed():
    trial = StepTrial(batch_size=2, channels_last=False, amp="off")
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        trials.measure_step(
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(5, 2)),
            trial,
            size=8,
            device=CPU,
            seconds=0.01,
        )
