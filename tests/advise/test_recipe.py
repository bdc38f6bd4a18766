"""A written recipe, read with the trainer's own parser."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fastload.advise.advice import Advice, advise
from fastload.advise.recipe import FIRST_LINE, recipe_text, write_recipe
from fastload.advise.trials import LoaderTrial, Question, StepTrial
from fastload.errors import OutputError
from train.options import Options
from train.recipe import build_options, read_recipe

LOADER = LoaderTrial(backend="native", num_threads=3, images_per_second=2000)
STEP = StepTrial(batch_size=64, channels_last=True, amp="bf16", images_per_second=400)
CONTIGUOUS = StepTrial(batch_size=64, channels_last=False, amp="bf16", images_per_second=400)


def advice_on(question: Question, *steps: StepTrial) -> Advice:
    return advise(question, [LOADER], steps)


def read(path: Path) -> Options:
    return build_options(read_recipe(path), path.name)


@pytest.mark.parametrize("shards", ["shards", 'odd "name"/\\shards', "数据/🌹", "tab\t\x7f"])
def test_the_trainer_reads_what_the_loader_needs(tmp_path: Path, shards: str):
    question = Question(shards=shards, size=160, model="timm:resnet10t")
    path = tmp_path / "tuned.toml"
    write_recipe(path, recipe_text(question, advice_on(question), 300_000))
    options, default = read(path), Options()
    assert (options.data.data, options.data.loader, options.data.threads) == (shards, "native", 3)
    assert options.resolution.size == 160
    assert options.model.model == "timm:resnet10t"
    assert options.data.batch_size == default.data.batch_size
    assert (options.optimisation, options.run) == (default.optimisation, default.run)


@pytest.mark.parametrize("device", ["cuda:1", "cpu"])
def test_the_trainer_reads_what_the_training_step_needs(tmp_path: Path, device: str):
    question = Question(shards="shards", device=torch.device(device), effective_batch=200)
    advice = advice_on(question, STEP)
    path = tmp_path / "tuned.toml"
    write_recipe(path, recipe_text(question, advice, 300_000))
    options = read(path)
    assert options.data.batch_size == 64
    assert (options.run.amp, options.run.device) == ("bf16", device)
    assert options.optimisation.accumulate == advice.accumulate == 4
    assert options.optimisation.lr_rule == "linear"
    peak = options.optimisation.lr * 64 * 4 / 256
    assert peak == pytest.approx(advice.learning_rate)


@pytest.mark.parametrize(
    ("steps", "said"),
    [([], "Left open: batch size"), ([STEP], ""), ([CONTIGUOUS], "Left open: the trainer always")],
)
def test_comments_say_what_was_measured_and_left_open(steps: list[StepTrial], said: str):
    question = Question(shards="shards")
    advice = advice_on(question, *steps)
    text = recipe_text(question, advice, 300_000)
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert comments[0] == FIRST_LINE
    assert comments[1].startswith("# 300,000 training images; expected: ")
    assert comments[2] == f"# Bottleneck: {advice.bottleneck}."
    assert ("Left open" in text) == bool(said)
    assert said in text


def test_a_recipe_overwrites_only_what_the_command_wrote(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text("[data]\n")
    with pytest.raises(OutputError, match="was not written by"):
        write_recipe(path, FIRST_LINE)
    assert path.read_text() == "[data]\n"
    fresh = tmp_path / "tuned.toml"
    for size in (1, 2):
        write_recipe(fresh, f"{FIRST_LINE}\n[resolution]\nsize = {size}\n")
    assert read(fresh).resolution.size == 2
