"""`python -m fastload.tune`: what is printed and written, what is said of mistakes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from fastload import tune
from fastload.load.backend import BackendName
from fastload.pixels import native
from tests.shards import numbered, write_shards
from train.recipe import read_recipe


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    out: Path = tmp_path_factory.mktemp("tune") / "shards"
    return numbered(out, {"train": 24})


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
    assert BackendName(tables["data"]["loader"]).on_cpu


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
        (["--model", "nothing"], "no torchvision classification model"),
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


def test_a_folder_without_shards_or_images_is_one_sentence(tmp_path, capsys):
    assert tune.main([str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("fastload.tune: ")
    assert error.count("\n") == 1
    assert "there is no complete set of shards" in error
    empty = write_shards(tmp_path / "empty", {"train": []}, classes=["a"])
    assert tune.main([str(empty)]) == 1
    assert "empty: split train has no images to tune with\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--size", "0"], "--size must be at least 1, got 0"),
        (["--seconds", "nan"], "--seconds must be a number above 0, got 'nan'"),
        (["--device", "quantum"], "--device must be a device such as cpu or cuda:0, got 'quantum'"),
    ],
)
def test_a_wrong_argument_ends_with_status_2(shards, capsys, arguments, said):
    with pytest.raises(SystemExit) as ended:
        tune.main([str(shards), *arguments])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
