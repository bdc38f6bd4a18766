"""The options of a Loader are filled in and checked in one place, before a file is opened."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from fastload.load.augment import Augment, Mix
from fastload.load.policy import CORRUPT_FRACTION, Policy, resolve_policy
from fastload.world import World

OPEN: dict[str, Any] = {
    "order": None,
    "batch_size": 8,
    "augment": None,
    "drop_last": None,
    "max_corrupt_fraction": None,
    "dtype": torch.uint8,
    "seed": 0,
    "world": World(),
    "num_threads": 1,
    "timeout_seconds": 1.0,
}


def policy_of(split: str = "train", **options: Any) -> Policy:
    return resolve_policy(split, **{**OPEN, **options})


@pytest.mark.parametrize(
    ("given", "dtype"),
    [
        ("float32", torch.float32),
        ("torch.bfloat16", torch.bfloat16),
        ("half", torch.float16),
        ("uint8", torch.uint8),
        (np.float32, torch.float32),
        (np.dtype("float16"), torch.float16),
        (torch.float64, torch.float64),
    ],
)
def test_a_type_may_be_named_as_torch_and_numpy_do(given: Any, dtype: torch.dtype):
    assert policy_of(dtype=given).dtype == dtype


@pytest.mark.parametrize(
    ("given", "meant"),
    [("fp16", "float16"), ("bf16", "bfloat16"), ("Float32", "float32"), ("flaot32", "float32")],
)
def test_a_type_by_another_name_is_refused_with_the_name(given: str, meant: str):
    message = rf"one of uint8, float32, .* got '{given}'; did you mean '{meant}'\?"
    with pytest.raises(ValueError, match=message):
        policy_of(dtype=given)


@pytest.mark.parametrize(
    "given", [torch.int64, torch.float8_e5m2, np.int32, np.longdouble, float, int, "", "nn", str]
)
def test_a_type_that_images_cannot_have_is_refused(given: Any):
    with pytest.raises(ValueError, match=r"dtype must be torch\.uint8 or a floating-point type"):
        policy_of(dtype=given)


@pytest.mark.parametrize("function", [lambda image: image, v2.CenterCrop(8), Augment.train])
def test_a_function_is_told_where_functions_go(function: Any):
    message = r"augment must be Augment, .* Augment\.train\(224\)\. .*Loader\(transform=…\), which"
    with pytest.raises(TypeError, match=message):
        policy_of(augment=function)


def test_numbers_of_numpy_become_pythons():
    policy = policy_of(batch_size=np.int64(4), seed=np.uint32(7), drop_last=np.bool_(False))
    assert [type(each) for each in (policy.batch_size, policy.seed)] == [int, int]
    assert policy.drop_last is False


def test_training_shuffles_drops_the_tail_and_replaces_some_bad_samples():
    policy = policy_of("train")
    assert (policy.order, policy.drop_last, policy.replaces_bad) == ("shuffled", True, True)
    assert policy.max_corrupt_fraction == CORRUPT_FRACTION
    assert policy.augment == Augment.train()


@pytest.mark.parametrize("split", ["val", "test", "any other"])
def test_evaluation_takes_all_in_order_and_allows_no_bad_sample(split: str):
    policy = policy_of(split)
    assert (policy.order, policy.drop_last, policy.replaces_bad) == ("index", False, False)
    assert policy.max_corrupt_fraction == 0
    assert policy.augment == Augment.eval()


def test_the_order_decides_about_tail_and_bad_samples_and_the_split_about_the_augmentation():
    other, same = policy_of("val", order="sequential"), policy_of("train", order="index")
    assert (other.drop_last, other.max_corrupt_fraction) == (True, CORRUPT_FRACTION)
    assert other.augment == Augment.eval()
    assert (same.drop_last, same.max_corrupt_fraction) == (False, 0)
    assert same.augment == Augment.train()


def test_what_the_caller_said_stays():
    said = {"drop_last": False, "max_corrupt_fraction": 0.5, "augment": Augment.plantnet()}
    policy = policy_of("train", order="sequential", **said)
    assert policy.order == "sequential"
    assert {name: getattr(policy, name) for name in said} == said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"num_threads": -1}, "num_threads must be at least 1, got -1"),
        ({"max_corrupt_fraction": 2}, r"max_corrupt_fraction must be in \[0, 1\], got 2"),
        ({"max_corrupt_fraction": -0.1}, r"max_corrupt_fraction must be in \[0, 1\], got -0.1"),
        ({"dtype": torch.int32}, "dtype must be torch.uint8 or a floating-point type"),
        ({"order": "index", "drop_last": True}, "evaluation drops nothing"),
        ({"timeout_seconds": 0}, "timeout_seconds must be above 0, got 0"),
        (
            {"batch_size": 1, "augment": Augment(mix=Mix())},
            r"batch_size must be at least 2 with augment\.mix",
        ),
    ],
)
def test_an_option_out_of_range_is_named(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        policy_of(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": "8"}, "batch_size must be an integer at least 1, got '8'"),
        ({"batch_size": 8.5}, "batch_size must be an integer at least 1, got 8.5"),
        ({"num_threads": True}, "num_threads must be an integer at least 1, got True"),
        ({"max_corrupt_fraction": "1%"}, r"max_corrupt_fraction must be a number in \[0, 1\]"),
        ({"dtype": 16}, "dtype must be torch.uint8 or a floating-point type, one of .* got 16"),
        ({"dtype": None}, "dtype must be torch.uint8 or a floating-point type, .* got None"),
        ({"split": None}, "split must be str, got None"),
        ({"augment": 224}, "augment must be Augment, got 224"),
        ({"augment": 0}, "augment must be Augment, got 0"),
        ({"drop_last": "no"}, "drop_last must be bool, got 'no'"),
        ({"world": (0, 2)}, r"world must be World, got \(0, 2\)"),
        ({"timeout_seconds": None}, "timeout_seconds must be a number at least 0.* got None"),
    ],
)
def test_an_option_of_a_wrong_type_is_named(options: dict[str, Any], message: str):
    with pytest.raises(TypeError, match=message):
        policy_of(**options)


@pytest.mark.parametrize("seconds", [float("nan"), float("inf")])
def test_a_time_limit_is_finite(seconds: float):
    with pytest.raises(ValueError, match="timeout_seconds must be at least 0, and finite, got"):
        policy_of(timeout_seconds=seconds)


def test_samples_that_are_left_out_cannot_be_mixed():
    mixing = Augment(size=32, mix=Mix(mixup=0.2))
    assert policy_of("train", augment=mixing).augment == mixing
    evaluation = policy_of("val", augment=mixing)
    with pytest.raises(ValueError, match=r'augment\.mix cannot be used with order "index"'):
        replace(evaluation, max_corrupt_fraction=0.1)
