"""The tuner: its decisions on given trials, its trials on real shards, and its command."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from fastload import tune
from fastload.advise import advice as advices
from fastload.advise import trials
from fastload.advise.trials import LoaderTrial, Question, StepTrial
from fastload.console.progress import Progress
from fastload.errors import FastloadError, OutputError
from fastload.pixels import native
from tests.shards import numbered
from train.options import OptimisationOptions
from train.recipe import read_recipe
from train.schedule import base_rate

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    out: Path = tmp_path_factory.mktemp("tune") / "shards"
    return numbered(out, {"train": 24})


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


@pytest.mark.parametrize("steps", [[], [step(64, 400)], [step(64, 400, channels_last=False)]])
def test_a_recipe_is_what_the_trainer_reads(tmp_path: Path, steps: list[StepTrial]):
    question = Question(shards='odd "name"/shards', size=160)
    advice = advices.advise(question, [loader(2000, 3)], steps)
    path = tmp_path / "tuned.toml"
    tune.write_recipe(path, advices.recipe(question, advice, 300_000))
    tables = read_recipe(path)
    assert tables["data"]["data"] == question.shards
    assert tables["data"]["threads"] == 3
    assert tables["resolution"]["size"] == 160
    assert tables["model"]["model"] == "resnet50"
    assert tables.get("optimisation", {}).get("accumulate") == (4 if steps else None)
    assert ("Left open" in path.read_text()) == (not steps or not steps[0].channels_last)


def test_a_recipe_overwrites_only_what_the_command_wrote(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text("[data]\n")
    with pytest.raises(OutputError, match="was not written by"):
        tune.write_recipe(path, advices.FIRST_LINE)
    assert path.read_text() == "[data]\n"
    fresh = tmp_path / "tuned.toml"
    for size in (1, 2):
        tune.write_recipe(fresh, f"{advices.FIRST_LINE}\n[resolution]\nsize = {size}\n")
    assert read_recipe(fresh)["resolution"]["size"] == 2


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
    assert advices.choose_step(steps, room=None) in steps


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


def test_a_model_that_does_not_exist_is_one_sentence():
    with pytest.raises(FastloadError, match="no classification model 'resnet5O'"):
        trials.model_builder("resnet5O", 3)


def test_the_command_writes_a_recipe_and_says_what_it_left_open(shards, tmp_path, capsys):
    out = tmp_path / "tuned.toml"
    began = time.monotonic()
    arguments = [str(shards), "--out", str(out), "--seconds", "4", "--size", "32"]
    assert tune.main([*arguments, "--device", "cpu"]) == 0
    assert time.monotonic() - began < 60
    printed = capsys.readouterr().out
    assert "bottleneck" in printed
    assert "left open" in printed
    assert "ms / 1,000 images" in printed
    tables = read_recipe(out)
    assert tables["data"]["loader"] in trials.CPU_BACKENDS


def test_what_the_time_does_not_suffice_for_is_named(shards, tmp_path, capsys):
    out = tmp_path / "tuned.toml"
    arguments = [str(shards), "--out", str(out), "--seconds", "0.5", "--size", "32"]
    assert tune.main([*arguments, "--device", "cpu"]) == 0
    left = ["libjpeg", "dali-cpu"] if native.is_available() else ["dali-cpu"]
    said = "not tried   " + ", ".join(f"the back-end {name}" for name in left)
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--model", "nothing"], "no classification model"),
        (["--device", "cuda"], "PyTorch finds no GPU"),
    ],
)
def test_a_mistake_is_one_sentence_on_standard_error(shards, tmp_path, capsys, more, said):
    if "cuda" in more and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert tune.main([str(shards), "--out", str(tmp_path / "t.toml"), *more]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line
    assert not (tmp_path / "t.toml").exists()


def test_a_folder_without_shards_is_one_sentence(tmp_path, capsys):
    assert tune.main([str(tmp_path)]) == 1
    assert "fastload.tune: " in capsys.readouterr().err


def test_a_wrong_argument_ends_with_status_2(shards, capsys):
    with pytest.raises(SystemExit) as ended:
        tune.main([str(shards), "--size", "0"])
    assert ended.value.code == 2
    assert "size must be at least 1, got 0" in capsys.readouterr().err
