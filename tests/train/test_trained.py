"""A run's best.pt as what uses it reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fastload.advise.models import build_model
from fastload.load.augment import Augment
from train.options import LossOptions, Options
from train.recipe import to_toml
from train.tensorfile import CheckpointError, read_tensors, write_tensors
from train.trained import open_run

CPU = torch.device("cpu")
NAME = "shufflenet_v2_x0_5"


def best(path: Path, **changes: Any) -> Path:
    content = {
        "model": build_model(NAME, 3).state_dict(),
        "name": NAME,
        "options": to_toml(Options(loss=LossOptions(tau=0.5))),
        "classes": ["a", "b", "c"],
        "class_names": ["Acer", "Bellis", "中文"],
        "train_counts": [100, 10, 10],
        "epoch": 4,
        "figures": {"top1": 0.5},
        "thresholds": {1: 0.5},
        "normalise": [[0.5, 0.5, 0.5], [0.2, 0.2, 0.2]],
        "size": 32,
        "temperature": 1.5,
        **changes,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, {key: value for key, value in content.items() if value is not None})
    return path


def test_a_run_is_opened_by_its_folder_or_its_best_pt(tmp_path):
    path = best(tmp_path / "run" / "best.pt")

    for given in (path, path.parent):
        trained = open_run(given, CPU)

        assert trained.path == path
        assert not trained.model.training
        expected = read_tensors(path)["model"]
        assert all(
            torch.equal(value, expected[key]) for key, value in trained.model.state_dict().items()
        )
        assert trained.classes == ("a", "b", "c")
        assert trained.class_names == ("Acer", "Bellis", "中文")
        assert (trained.temperature, trained.calibrated) == (1.5, True)
        assert trained.thresholds == {1: 0.5}
        assert trained.view == Augment.eval(32, normalise=((0.5,) * 3, (0.2,) * 3))
        assert trained.options.loss.tau == 0.5
        assert trained.train_counts is not None
        assert trained.train_counts.tolist() == [100, 10, 10]


def test_the_prior_is_that_of_the_runs_loss(tmp_path):
    prior = open_run(best(tmp_path / "best.pt"), CPU).log_prior()

    assert prior.tolist() == pytest.approx(
        (0.5 * torch.tensor([100, 10, 10.0]).div(120).log()).tolist()
    )


def test_a_best_pt_of_an_older_version_has_no_temperature_and_the_names_of_the_folders(tmp_path):
    path = best(tmp_path / "best.pt", temperature=None, class_names=None, train_counts=None)

    trained = open_run(path, CPU)

    assert (trained.temperature, trained.calibrated) == (1.0, False)
    assert trained.class_names == trained.classes
    with pytest.raises(CheckpointError, match="does not say how many training images each class"):
        trained.log_prior()


def test_an_option_of_a_newer_version_is_left_out(tmp_path):
    options = to_toml(Options()) + "\n[new]\nx = 1\n"
    options = options.replace("[model]", "[model]\nnewer = 3")

    assert open_run(best(tmp_path / "best.pt", options=options), CPU).options == Options()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("temperature", 0.0),
        ("temperature", float("nan")),
        ("temperature", "warm"),
        ("class_names", ["Acer"]),
        ("train_counts", [100, 10]),
        ("size", 0),
        ("size", "32"),
        ("normalise", [[0.5], [0.2]]),
        ("normalise", [[0.5] * 3, [0.0] * 3]),
        ("thresholds", "half"),
    ],
)
def test_facts_that_do_not_fit_the_model_are_refused_before_it_is_asked(tmp_path, key, value):
    with pytest.raises(CheckpointError, match="does not fit this version of fastload"):
        open_run(best(tmp_path / "best.pt", **{key: value}), CPU)


def test_what_is_no_run_is_one_sentence(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "begun").mkdir()
    write_tensors(tmp_path / "begun" / "last.pt", {"optimizer": {}, "model": {}})
    best(tmp_path / "runs" / "one" / "best.pt")
    best(tmp_path / "runs" / "two" / "best.pt")
    foreign = tmp_path / "foreign.pt"
    torch.save({"state_dict": build_model(NAME, 3).state_dict()}, foreign)
    torch.save(build_model(NAME, 3).state_dict(), tmp_path / "bare.pt")
    newer = tmp_path / "newer.pt"
    torch.save({"format": "fastload 9"}, newer)
    damaged = best(tmp_path / "damaged.pt")
    damaged.write_bytes(damaged.read_bytes()[:-1000])
    other = best(tmp_path / "other.pt", name="resnet18")
    invalid = best(tmp_path / "invalid.pt", options="[loss]\nloss = 'none such'\n")
    unknown = best(tmp_path / "unknown.pt", name="resnet19")
    lacking = best(tmp_path / "lacking.pt", size=None)
    for path, sentence in (
        (tmp_path / "nowhere", "there is no such run; the folder of a run or its best.pt"),
        (tmp_path / "empty", "has no best.pt, so it is no run"),
        (tmp_path / "begun", "has no best.pt yet"),
        (tmp_path / "begun" / "last.pt", "continues a run, .* give the best.pt"),
        (tmp_path / "runs", r"holds runs, and one was expected: give .*one, .*two"),
        (foreign, "a file of another trainer; start a run from it with `--init FILE`"),
        (tmp_path / "bare.pt", "a file of another trainer"),
        (newer, "has the format fastload 9, and this version reads fastload 2"),
        (damaged, "is damaged or incomplete"),
        (other, "does not fit this version"),
        (invalid, "does not fit this version"),
        (lacking, "it lacks size"),
    ):
        with pytest.raises(CheckpointError, match=sentence) as raised:
            open_run(path, CPU)
        assert str(path.name) in str(raised.value)
        assert "\n" not in str(raised.value)
    with pytest.raises(Exception, match='model "resnet19" is no torchvision'):
        open_run(unknown, CPU)
