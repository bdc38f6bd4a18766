"""The same image under several names: which copies go."""

from __future__ import annotations

from fastload.prepare.duplicates import find_duplicates
from fastload.prepare.reasons import Reason
from fastload.prepare.source import File
from fastload.prepare.verdict import Dropped


def file(path: str, split: str = "train", label: int = 0) -> File:
    return File(path, split, label, 1, 0)


def test_the_same_image_in_several_splits_stays_in_test_then_val():
    images = [
        (file("train/a/1"), "x"),
        (file("val/a/1", "val"), "x"),
        (file("test/a/1", "test"), "x"),
        (file("train/a/2"), "y"),
        (file("val/a/2", "val"), "y"),
        (file("train/a/3"), "z"),
    ]
    dropped = find_duplicates(images)
    assert dropped == {
        "train/a/1": Dropped(Reason.TWO_SPLITS, "is also test/a/1"),
        "val/a/1": Dropped(Reason.TWO_SPLITS, "is also test/a/1"),
        "train/a/2": Dropped(Reason.TWO_SPLITS, "is also val/a/2"),
    }
    assert find_duplicates(images[::-1]) == dropped


def test_the_same_image_in_two_classes_goes_everywhere():
    images = [
        (file("train/a/1", label=0), "x"),
        (file("train/b/1", label=1), "x"),
        (file("test/b/2", "test", label=1), "x"),
    ]
    dropped = find_duplicates(images)
    assert {path: why.reason for path, why in dropped.items()} == dict.fromkeys(
        ("train/a/1", "train/b/1", "test/b/2"), Reason.TWO_CLASSES
    )
    assert dropped["train/a/1"].detail == "is also test/b/2"
    assert dropped["train/b/1"].detail == "is also train/a/1"
    assert find_duplicates(images[::-1]) == dropped


def test_repeats_within_a_class_and_split_stay():
    assert find_duplicates([(file("train/a/1"), "x"), (file("train/a/2"), "x")]) == {}
