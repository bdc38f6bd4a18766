"""The augmentation that the options of a run describe."""

from __future__ import annotations

from typing import Any

import pytest

from fastload.load.augment import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Augment,
    CenterCrop,
    ColourJitter,
    RandomCrop,
    RandomResizedCrop,
)
from fastload.load.auto_augment import RandAugment, TrivialAugment
from train.data import augment_for
from train.options import AugmentOptions


def described(**options: Any) -> Augment:
    return augment_for(AugmentOptions(**options), 64, (IMAGENET_MEAN, IMAGENET_STD))


def test_without_options_it_is_the_preset():
    assert described() == Augment.train(64)


@pytest.mark.parametrize(
    ("options", "field", "value"),
    [
        ({"crop_area": 0.25}, "crop", RandomResizedCrop(area=(0.25, 1.0))),
        ({"crop_area": 1.0}, "crop", RandomResizedCrop(area=(1.0, 1.0))),
        ({"crop": "random"}, "crop", RandomCrop()),
        ({"crop": "centre"}, "crop", CenterCrop()),
        ({"auto_augment": "trivial"}, "auto", TrivialAugment()),
        ({"auto_augment": "randaugment"}, "auto", RandAugment(operations=2, magnitude=9)),
        ({"auto_augment": "randaugment:3:17"}, "auto", RandAugment(operations=3, magnitude=17)),
        ({"hue": 0.1}, "jitter", ColourJitter(hue=0.1)),
        ({"jitter": 0.4}, "jitter", ColourJitter(brightness=0.4, contrast=0.4, saturation=0.4)),
        (
            {"jitter": 0.3, "hue": 0.5},
            "jitter",
            ColourJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.5),
        ),
    ],
)
def test_an_option_changes_one_part_and_leaves_the_others(options, field, value):
    augment = described(**options)
    assert getattr(augment, field) == value
    others = {name for name in Augment.__slots__ if name != field}
    for name in others:
        assert getattr(augment, name) == getattr(Augment.train(64), name)
