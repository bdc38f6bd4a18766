"""The folder of a run; classes.csv and result.json."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastload.errors import OutputError
from fastload.world import World
from tests.train.pictures import CLASSES
from train.command import Command, parse
from train.metrics import evaluate_logits
from train.ranks import Ranks
from train.record import held, open_folder, write_classes, write_result

ALONE = Ranks(world=World(), device=torch.device("cpu"))


def test_classes_csv_has_a_row_for_each_class_whatever_its_name(tmp_path):
    logits = torch.eye(4)[[0, 1, 2, 0]]
    found = evaluate_logits(logits, torch.tensor([0, 1, 2, 2]), train_counts=torch.ones(4).long())
    names = [(name, f"{name}, quoted", 5) for name in CLASSES]

    write_classes(tmp_path / "classes.csv", names, {"val": found})

    with (tmp_path / "classes.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == list(CLASSES)
    assert [row["val_top1"] for row in rows] == ["1.0", "1.0", "0.5", ""]
    assert [row["val_images"] for row in rows] == ["1", "1", "2", "0"]


def test_result_json_is_json_even_where_figures_are_missing(tmp_path):
    write_result(tmp_path / "result.json", {"val": {"top1": math.nan, "few": 0.5}, "中": (1, 2)})

    text = (tmp_path / "result.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=pytest.fail) == {
        "val": {"top1": None, "few": 0.5},
        "中": [1, 2],
    }


def command(runs: Path, *more: str) -> Command:
    return parse(["--model", "resnet18", "--runs", str(runs), *more])


def test_runs_that_begin_in_one_second_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda form: form.replace("%Y%m%d-%H%M%S", "now"))

    folders = [open_folder(command(tmp_path), ALONE) for _ in range(3)]

    assert [folder.name for folder in folders] == [
        "resnet18-now",
        "resnet18-now-2",
        "resnet18-now-3",
    ]


HOLDING = """
import sys
from pathlib import Path
from tests.train.test_record import ALONE
from train.record import held
with held(Path(sys.argv[1]), ALONE):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_that_another_process_trains_in_is_refused(tmp_path):
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(tmp_path)],
        cwd=root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(OutputError, match="another process trains there"),
            held(tmp_path, ALONE),
        ):
            pass
        other.kill()
    with held(tmp_path, ALONE):  # the lock ended with the process
        pass


def test_a_file_where_a_folder_should_be_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(OutputError, match="file: is a file; --runs must name a folder"):
        open_folder(command(tmp_path / "file"), ALONE)
    with pytest.raises(OutputError, match="file: is a file; --name must name a folder"):
        open_folder(command(tmp_path, "--name", "file"), ALONE)
