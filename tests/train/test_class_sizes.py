"""Accuracy by the number of training images of a class."""

from __future__ import annotations

import math

import torch

from train.class_sizes import ClassTable, group_by_size
from train.metrics import macro_average, shot_groups


def test_classes_are_grouped_by_training_images_and_each_counts_once():
    counts = [0, 1, 4, 5, 9, 10, 19, 20, 100, 101, 1000, 1001, 250_000]
    accuracies = [i / 16 for i in range(13)]
    table = ClassTable(
        names=[f"c{i}" for i in range(13)],
        train_counts=counts,
        val_counts=[2] * 13,
        accuracies=accuracies,
    )
    groups = group_by_size(table)

    rare = ["0", "1–4", "5–9", "10–19", "20–49", "50–100", "101–200"]
    assert [group.title for group in groups] == [*rare, "501–1,000", "1,001 or more"]
    assert [group.classes for group in groups] == [1, 2, 2, 2, 1, 1, 1, 1, 2]
    assert sum(group.train_images for group in groups) == sum(counts)
    assert sum(group.val_images for group in groups) == 26
    assert groups[1].accuracy == (1 + 2) / 2 / 16


def test_the_groups_refine_many_medium_and_few_shot():
    counts = list(range(0, 130, 3))
    accuracies = [(i * 7 % 11) / 11 for i in range(len(counts))]
    groups = group_by_size(
        ClassTable(names=counts, train_counts=counts, val_counts=counts, accuracies=accuracies)  # type: ignore[arg-type]  # names are not looked at
    )

    for shot, first, last in (("few_shot", 0, 4), ("medium_shot", 4, 6), ("many_shot", 6, 9)):
        among = shot_groups(torch.tensor(counts))[shot]
        parts = groups[first:last]
        classes = sum(part.classes for part in parts)
        assert classes == int(among.sum())
        mean = sum(part.accuracy * part.classes for part in parts) / classes
        expected = macro_average(torch.tensor(accuracies, dtype=torch.float64), among)
        assert math.isclose(mean, expected)


def test_a_group_without_validation_images_has_no_accuracy():
    table = ClassTable(
        names=["a", "b", "c"],
        train_counts=[3, 3, 30],
        val_counts=[0, 0, 4],
        accuracies=[math.nan, math.nan, 0.5],
    )
    rare, common = group_by_size(table)

    assert math.isnan(rare.accuracy)
    assert common.accuracy == 0.5
