"""classes.csv and result.json."""

from __future__ import annotations

import csv
import json
import math

import pytest
import torch

from tests.train.pictures import CLASSES
from train.metrics import evaluate_logits
from train.record import write_classes, write_result


def test_classes_csv_has_a_row_for_each_class_whatever_its_name(tmp_path):
    logits = torch.eye(4)[[0, 1, 2, 0]]
    found = evaluate_logits(logits, torch.tensor([0, 1, 2, 2]), train_counts=torch.ones(4).long())
    names = [(name, f"{name}, quoted", 5) for name in CLASSES]

    write_classes(tmp_path / "classes.csv", names, {"val": found})

    with (tmp_path / "classes.csv").open(encoding="utf-8", newline="") as file:
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
