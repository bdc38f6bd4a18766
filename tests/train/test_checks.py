"""The usual causes of an accuracy of almost zero are found and named."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from train.checks import (
    CheckError,
    check_classes,
    check_first_loss,
    check_labels,
    check_normalisation,
    check_pixels,
    check_trainable,
    overfit,
)

ONES = np.ones(3, np.int64)


def test_the_same_classes_pass():
    assert check_classes("abc", "abc", train_counts=ONES, val_counts=ONES) is None


def test_classes_in_another_order_are_an_error_that_names_one():
    with pytest.raises(CheckError, match='another order: label 1 is "b" in train and "c" in val'):
        check_classes("abc", "acb", train_counts=ONES, val_counts=ONES)


def test_other_classes_are_an_error_that_names_them():
    with pytest.raises(CheckError, match=r"different classes \(x\), so equal labels mean"):
        check_classes("abc", "abx", train_counts=ONES, val_counts=ONES)
    with pytest.raises(CheckError, match=r"different classes \(2 classes for 3\)"):
        check_classes("abc", "ab", train_counts=ONES, val_counts=ONES[:2])


def test_classes_without_training_images_are_named():
    found = check_classes("abc", "abc", train_counts=np.array([3, 0, 0]), val_counts=ONES)

    assert found is not None
    assert found.startswith("2 of 3 classes are in val and have no training image")
    assert found.endswith("b, c")


def test_a_frozen_model_cannot_learn():
    model = nn.Linear(2, 2)
    assert check_trainable(model) is None

    with pytest.raises(CheckError, match="all 2 parameters of the model are frozen"):
        check_trainable(model.requires_grad_(False))


def test_normalisation_that_does_not_fit_the_weights_is_named():
    imagenet = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    half = ((0.5,) * 3, (0.5,) * 3)

    assert check_normalisation(imagenet, imagenet) is None
    assert check_normalisation(imagenet, None) is None
    assert "trained with mean (0.500, 0.500, 0.500)" in str(check_normalisation(imagenet, half))


def test_one_label_in_a_batch_is_an_accident_only_where_it_is_likely():
    same = torch.zeros(16, dtype=torch.int64)

    assert "all 16 labels of the first batch are class 0" in str(
        check_labels(same, np.array([10, 10]))
    )
    assert check_labels(same, np.array([990, 10])) is None
    assert check_labels(torch.tensor([0, 1]), ONES) is None
    assert check_labels(torch.tensor([0]), ONES) is None


def photographs(scale: float, shift: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 3, 8, 8, generator=generator) * scale + shift


@pytest.mark.parametrize(("scale", "shift"), [(1, 0), (0.6, -1.2), (1.2, 1.5)])
def test_normalised_pixels_pass(scale, shift):
    assert check_pixels(photographs(scale, shift)) is None


@pytest.mark.parametrize(
    ("scale", "shift"), [(0.25, 0.45), (60, 115), (0, 0)], ids=["unit", "bytes", "blank"]
)
def test_pixels_that_are_not_normalised_are_found(scale, shift):
    assert "not about 0 and 1" in str(check_pixels(photographs(scale, shift)))


def test_pixels_that_are_no_numbers_are_found():
    assert check_pixels(torch.full((1, 3, 2, 2), math.nan)) == (
        "the first batch has NaN or infinite pixels"
    )


def test_the_first_loss_is_near_that_of_chance():
    assert check_first_loss(4.9, 102, fresh_head=True) is None
    assert "near ln(102) = 4.62" in str(check_first_loss(11.0, 102, fresh_head=True))
    assert "the first loss is 0.30" in str(check_first_loss(0.3, 102, fresh_head=True))
    assert check_first_loss(0.3, 102, fresh_head=False) is None


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(8, 3, 4, 4, generator=generator), torch.arange(8) % 4


def test_a_sound_model_learns_a_batch_by_heart():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 64), nn.ReLU(), nn.Linear(64, 4))

    found = overfit(model, *batch())

    assert found.learns
    assert found.accuracy == 1.0
    assert found.last_loss < found.first_loss


def test_a_model_that_cannot_learn_is_found():
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4))
    nn.init.zeros_(model.get_parameter("2.weight")).requires_grad_(False)

    found = overfit(model, *batch(), steps=20)

    assert not found.learns
    assert found.steps == 20
