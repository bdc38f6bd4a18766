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
from train.recipe import build_options, read_recipe


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


def test_a_card_that_is_not_here_is_answered_from_published_rates(shards, tmp_path, capsys):
    out = tmp_path / "tuned.toml"
    arguments = [str(shards), "--out", str(out), "--seconds", "1", "--model", "resnet18"]
    more = ["--gpu", "rtx3060 12gb", "--images", "300000", "--epochs", "90", "--size", "64"]
    assert tune.main([*arguments, *more]) == 0
    printed = capsys.readouterr().out
    for said in (
        "card        RTX 3060 12 GB",
        "estimated, not measured here",
        "https://github.com/huggingface/pytorch-image-models/",
        "per epoch of 300,000 images",
        "for 90 epochs",
        "like these feed",
        "next        ",
    ):
        assert said in printed
    options = build_options(read_recipe(out), out.name)
    assert (options.run.device, options.run.amp) == ("cuda", "bf16")
    assert (options.data.batch_size, options.optimisation.accumulate) == (256, 1)
    assert options.schedule.epochs == 90
    assert "# For RTX 3060 12 GB, which was not there" in out.read_text()


def test_what_limits_the_cores_is_said(shards, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tune, "explain_cores", lambda: "2 of 64 cores: the container's quota")
    arguments = [str(shards), "--out", str(tmp_path / "t.toml"), "--seconds", "0.5"]
    assert tune.main([*arguments, "--size", "32", "--device", "cpu"]) == 0
    assert "machine     2 of 64 cores: the container's quota\n" in capsys.readouterr().out


def test_the_help_lists_the_cards(capsys):
    with pytest.raises(SystemExit):
        tune.main(["--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "RTX 3060 12 GB, RTX 3060 8 GB" in printed


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--model", "nothing"], "no torchvision classification model"),
        (["--device", "cuda"], "PyTorch finds no GPU"),
        (["--out", "/"], "/: is a folder, expected a regular file"),
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
        (
            ["--gpu", "3061"],
            "--gpu must be a card that the table has, got '3061'; did you mean RTX",
        ),
        (["--gpu", "3060", "--device", "cuda"], "--device: not allowed with argument --gpu"),
        (["--images", "0"], "--images must be at least 1, got 0"),
        (["--epochs", "0"], "--epochs must be at least 1, got 0"),
        (["--device", "quantum"], "--device must be a device such as cpu or cuda:0, got 'quantum'"),
    ],
)
def test_a_wrong_argument_ends_with_status_2(shards, capsys, arguments, said):
    with pytest.raises(SystemExit) as ended:
        tune.main([str(shards), *arguments])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
