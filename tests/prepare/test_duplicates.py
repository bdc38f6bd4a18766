"""The same image under several names: which copies go."""

from __future__ import annotations

from fastload.prepare.duplicates import find_copies
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
    found = find_copies(images)
    assert found.dropped == {
        "train/a/1": Dropped(Reason.TWO_SPLITS, "is also test/a/1"),
        "val/a/1": Dropped(Reason.TWO_SPLITS, "is also test/a/1"),
        "train/a/2": Dropped(Reason.TWO_SPLITS, "is also val/a/2"),
    }
    assert found.repeats == {}
    assert find_copies(images[::-1]) == found


def test_the_same_image_in_two_classes_goes_everywhere():
    images = [
        (file("train/a/1", label=0), "x"),
        (file("train/b/1", label=1), "x"),
        (file("test/b/2", "test", label=1), "x"),
    ]
    found = find_copies(images)
    dropped = found.dropped
    assert {path: why.reason for path, why in dropped.items()} == dict.fromkeys(
        ("train/a/1", "train/b/1", "test/b/2"), Reason.TWO_CLASSES
    )
    assert dropped["train/a/1"].detail == "is also test/b/2"
    assert dropped["train/b/1"].detail == "is also train/a/1"
    assert found.repeats == {}  # nothing of it stays
    assert find_copies(images[::-1]) == found


def test_repeats_within_a_class_and_split_stay_and_name_the_first():
    images = [(file(f"train/a/{n}"), "x") for n in (3, 1, 2)] + [(file("train/a/4"), "y")]
    found = find_copies(images)
    assert found.dropped == {}
    assert found.repeats == dict.fromkeys(("train/a/2", "train/a/3"), "is also train/a/1")


def test_of_copies_in_two_splits_those_that_stay_may_repeat_each_other():
    images = [
        (file("train/a/1"), "x"),
        (file("train/a/2"), "x"),
        (file("test/a/8", "test"), "x"),
        (file("test/a/9", "test"), "x"),
    ]
    found = find_copies(images)
    assert list(found.dropped) == ["train/a/1", "train/a/2"]
    assert found.repeats == {"test/a/9": "is also test/a/8"}
