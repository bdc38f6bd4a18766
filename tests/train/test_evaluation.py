"""The figure that chooses the best epoch."""

from __future__ import annotations

import math

import torch

from train.evaluation import Verdict
from train.metrics import Evaluation


def verdict(plain: dict[str, float], corrected: dict[str, float] | None = None) -> Verdict:
    def evaluation(figures: dict[str, float]) -> Evaluation:
        nothing = torch.zeros(0)
        counts = torch.tensor([3, 4])
        return Evaluation(
            figures=figures,
            thresholds={},
            class_counts=counts,
            class_top1=nothing,
            class_top5=nothing,
        )

    return Verdict(plain=evaluation(plain), corrected=evaluation(corrected or {}), seconds=1.5)


def test_a_higher_figure_is_better_and_a_loss_is_turned_round():
    assert verdict({"top1": 0.25}).figure("top1") == 0.25
    assert verdict({"loss": 2.5}).figure("loss") == -2.5


def test_a_figure_that_is_missing_is_worse_than_all_others():
    assert verdict({"top1": math.nan}).figure("top1") == -math.inf
    assert verdict({"loss": math.nan}).figure("loss") == -math.inf


def test_a_row_has_both_kinds_of_figures_and_counts_the_images():
    row = verdict({"top1": 0.25}, {"top1": 0.5}).row()

    assert row == {"top1": 0.25, "corrected_top1": 0.5, "images": 7, "seconds": 1.5}
