"""Which folder is what: layouts as people have them, understood or refused with a way out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from fastload.errors import LayoutError
from fastload.prepare.layout import LayoutOptions
from fastload.prepare.source import Source, read_source
from tests.pictures import write_tree

CLASSES = ("cat", "dog", "elk")
YEARS = ("2019", "2020")


def classes_in(*folders: str, names: Iterable[str] = CLASSES) -> list[str]:
    return [f"{folder}/{name}/{n}.jpg" for folder in folders for name in names for n in (1, 2)]


def flat(*folders: str) -> list[str]:
    return [f"{folder}/{n}.jpg" for folder in folders for n in (1, 2, 3)]


def read(root: Path, names: Iterable[str], **options: object) -> Source:
    """The source; files that are no pictures by name hold text."""
    write_tree(root, dict.fromkeys(names, b"x"))
    return read_source(root, options=LayoutOptions(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("train", "other"),
    [
        ("training_set", "test_set"),
        ("training_part", "testing_part"),
        ("seg_train", "seg_test"),
        ("train2017", "val2017"),
        ("trainset", "testset"),
        ("TRAIN", "VAL"),
        ("Training", "Testing"),
        ("train_images", "test_images"),
        ("images_train", "images_val"),
        ("imagesTr", "imagesTs"),
        ("TrainImages", "ValidationImages"),
        ("train (1)", "test (1)"),
        ("train-data", "eval-data"),
        ("trainval", "test"),
        ("cifar10_train", "cifar10_test"),
        ("ILSVRC2012_img_train", "ILSVRC2012_img_val"),
        ("train", "dev"),
        ("1_train", "2_test"),
        ("训练集", "测试集"),
    ],
)
def test_splits_are_known_by_the_words_of_their_names(tmp_path: Path, train: str, other: str):
    source = read(tmp_path, classes_in(train, other))
    assert source.classes == CLASSES
    split = (
        "test" if re.search("te?st|Ts|测试", other.lower().replace("imagests", "test")) else "val"
    )
    assert source.folders == {"train": train, split: other}
    assert {file.path.split("/")[0] for file in source.files if file.split == "train"} == {train}


@pytest.mark.parametrize(
    ("names", "train"),
    [
        (classes_in("data/train", "data/val"), "data/train"),
        (classes_in("imgs/train", "imgs/val"), "imgs/train"),
        (classes_in("CLS/train", "CLS/val"), "CLS/train"),
        (classes_in("train/train", "val/val"), "train/train"),
        (classes_in("train/train", "train/val"), "train/train"),
        (classes_in("train/images", "val/images"), "train/images"),
        (classes_in("chest_xray/train", "chest_xray/test"), "chest_xray/train"),
        (
            [
                *classes_in("ILSVRC/Data/CLS-LOC/train", "ILSVRC/Data/CLS-LOC/val"),
                "ILSVRC/Annotations/CLS-LOC/train/cat/1.xml",
                "ILSVRC/ImageSets/CLS-LOC/val.txt",
            ],
            "ILSVRC/Data/CLS-LOC/train",
        ),
        ([*classes_in("images"), "meta/names.txt"], "images"),
        ([*classes_in("Images"), "Annotation/cat/n02085620_7", "lists/train.mat"], "Images"),
        ([*classes_in("101_ObjectCategories"), "Annotations/cat/1.mat"], "101_ObjectCategories"),
        ([*classes_in("food-101/images"), "food-101/meta/train.txt"], "food-101/images"),
        ([*classes_in("jpg"), *classes_in("segmentations"), "readme.md"], "jpg"),
        (classes_in("data/data"), "data/data"),
        ([*classes_in("photos"), "runs/exp1/plot.png"], "photos"),
    ],
)
def test_folders_around_the_splits_or_classes_are_entered(
    tmp_path: Path, names: list[str], train: str
):
    source = read(tmp_path, names)
    assert source.classes == CLASSES
    assert source.folders["train"] == train


@pytest.mark.parametrize(
    ("names", "note"),
    [
        ([*classes_in("images"), "meta/names.txt"], "no images in them: meta"),
        ([*classes_in("train"), "annotations/a.json"], "no images in them: annotations"),
        ([*classes_in("train"), *flat("test")], "no labels: test (3 images)"),
        ([*classes_in("train"), *flat("test/unknown")], "no labels: test (3 images)"),
        ([*classes_in("train"), *flat("test/images")], "no labels: test (3 images)"),
        ([*classes_in("train", "test"), *flat("seg_pred/seg_pred")], "without labels: seg_pred"),
        ([*classes_in("train", "test"), *flat("unlabeled")], "without labels: unlabeled"),
        ([*classes_in("train", "test"), *flat("single")], "not a split: single"),
        ([*classes_in("train"), "runs/one/plot.png"], "not a split: runs"),
        ([*classes_in("imagesTr", "imagesTs"), *flat("masksTr")], "not a split: masksTr"),
        ([*classes_in("train"), "preview.png"], "outside the class folders: 1 image in"),
        ([*classes_in("train"), "train/meta/x.txt"], "no images in them: train/meta"),
        ([*flat("bus", "car", "train")], "train is taken for a class"),
        ([*flat("cat"), *classes_in("others")], "some class folders hold folders only, such as"),
        ([*flat("cat", "dog"), "elk.zip", "dog.tar.gz"], "passed over, archives: elk.zip"),
        ([*classes_in("train"), "train/fox.tar"], "passed over, archives: train/fox.tar"),
        ([*flat("cat", "dog"), "New folder/x.txt"], "no images in them: New folder"),
        ([*classes_in("b", "c", "d", "e", names=["leaf", "bark"])], "the outer one is the class"),
    ],
)
def test_what_is_passed_over_or_doubtful_is_said(tmp_path: Path, names: list[str], note: str):
    source = read(tmp_path, names)
    assert note in "\n".join(source.described())
    assert not source.imageless


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (classes_in("train1", "train2"), "train1 and train2 both name the train split"),
        (classes_in("train", "Train2017"), "both name the train split; .*--exclude"),
        (classes_in("train", "val", "validation"), "val and validation both name the val split"),
        (
            classes_in("bus", "car", "train", names=YEARS),
            "two ways: train holds class folders .* bus, car beside it .*splits .*classes",
        ),
        ([*classes_in("train"), *flat("bus", "car")], "two ways: train .* bus, car beside it"),
        (classes_in("train", "val", "train_mini"), "train_mini beside them .*--exclude train_mini"),
        (classes_in("train", "old images"), "--exclude 'old images'"),
        (flat("cat", "dog", "test"), "two ways: test may be, .* a class, .*--exclude test"),
        (flat("train", "test1"), "test1, train, which hold images but no class folders"),
        (flat("train2017", "val2017"), "hold images but no class folders"),
        ([*flat("images/train", "images/val"), "labels/train/1.txt"], "no class folders"),
        (flat("train/images", "valid/images"), "no class folders"),
        ([*classes_in("train"), *flat("val")], "val in .* holds 3 images but no class folders"),
        ([*classes_in("train"), *flat("val/images")], "val in .* holds 3 images but no class"),
        ([*flat("cat", "dog"), "runs/one/plot.png"], "runs in .* would become a class.*--exclude"),
        ([*flat("cat", "dog"), "Lightning_Logs/version_0/x.png"], "--exclude Lightning_Logs"),
        ([*classes_in("train"), *flat("train/checkpoints")], "--exclude train/checkpoints"),
        ([*flat("cat", "dog"), *flat("train_logs")], "train_logs in .* would become a class"),
        ([*flat("cat", "dog"), *flat("resnet50 checkpoints")], "--exclude 'resnet50 checkpoints'"),
        (classes_in("one/train", "one/val", "two/train", "two/val"), "did you mean .*one, or"),
        (flat("images", "annotations/trimaps"), "annotations in .* would become a class"),
        ([*flat("cat"), *classes_in("images")], "images in .* would become a class"),
        (classes_in("train", "train/val"), "train/val in .* would become a class"),
        (classes_in("fold1", "fold2", names=["a", "b"]), "folders of the same names .a, b."),
        (classes_in("cv1", "cv2", "cv3", "cv4", names=["a", "b"]), "folders of the same names"),
        (classes_in("bottle", "cable", names=["train", "test"]), "splits are read above classes"),
        (classes_in("test_tube", "bottle", names=YEARS), "test_tube in .* would become a class"),
        ([*classes_in("val", "test"), *flat("train")], "for val and test but none for train"),
        ([*classes_in("val"), *flat("other")], "can be read in two ways: val holds class folders"),
        ([*classes_in("val"), "train.zip"], "none for train .*; unpack train.zip first"),
        (classes_in("train", "train - Copy"), "--exclude 'train - Copy'"),
        (classes_in("train", "-old"), "--exclude=-old"),
        # what was unpacked twice, or is not yet moved into its classes
        ([*flat("cat", "dog"), *classes_in("new")], "new in .* holds folders of its neighbours'"),
        ([*classes_in("train", "val"), *classes_in("train/new")], "train/new in .* neighbours'"),
        (
            [*flat("cells/yes", "cells/no"), *classes_in("cells/cells", names=["yes", "no"])],
            "cells/cells in .* or keep it with --layout classes for .*/cells",
        ),
        (flat("cat", "dog", "cat - Copy"), "it is named as a copy of cat.*'cat - Copy'"),
        (flat("cat", "dog", "dog (2)"), "it is named as a copy of dog"),
        (flat("cat", "dog", "New folder"), "--exclude 'New folder'"),
        ([*flat("cat", "dog", "env/lib"), "env/pyvenv.cfg"], "it is an environment of Python"),
        # parts of one set, and classes below another level
        (flat("HAM_images_part_1", "HAM_images_part_2"), "differ in their numbers"),
        (flat("train/batch1", "train/batch2"), "differ in their numbers.*--layout splits"),
        (classes_in("amazon/images", "dslr/images"), "folders of the same names .cat, dog, elk."),
        (flat("a", "a/train", "a/test", "b"), "a in .* holds splits .a/test, a/train."),
        (flat(*(f"{one}/{two}" for one in "ab" for two in ("train", "val", "x"))), "holds splits"),
        # what to do is asked of the folder that holds the classes
        ([*classes_in("images"), *flat("previews")], "did you mean .*/images[?]"),
        (flat("data/a", "data/logs"), "--exclude data/logs, or .*--layout classes for .*/data"),
    ],
)
def test_what_has_two_readings_is_refused_with_a_way_out(
    tmp_path: Path, names: list[str], message: str
):
    with pytest.raises(LayoutError, match=message) as caught:
        read(tmp_path, names)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("link", ["train/elk", "val"])
def test_a_link_to_nothing_in_the_place_of_a_class_or_split_is_refused(tmp_path: Path, link: str):
    write_tree(tmp_path, dict.fromkeys(classes_in("train", names=["cat", "dog"]), b"x"))
    (tmp_path / link).symlink_to("/mnt/disk that is not there")
    with pytest.raises(LayoutError, match=f"{link} in .* is a link to nothing.*--exclude {link}"):
        read(tmp_path, [])
    assert read(tmp_path, [], exclude=(link,)).classes == ("cat", "dog")


def test_a_split_is_read_where_the_folder_above_may_not_be_listed(tmp_path: Path):
    write_tree(tmp_path, dict.fromkeys(classes_in("train", "val"), b"x"))
    tmp_path.chmod(0o311)
    try:
        if os.access(tmp_path, os.R_OK):
            pytest.skip("root may list every folder")
        assert read_source(tmp_path / "train").classes == CLASSES
    finally:
        tmp_path.chmod(0o755)


def test_a_split_that_is_given_for_the_whole_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_tree(tmp_path, dict.fromkeys(classes_in("train", "val", "test"), b"x"))
    (note,) = read_source(tmp_path / "train").notes
    assert "is read alone, without test, val beside it; did you mean" in note
    assert read_source(tmp_path).notes == ()
    monkeypatch.chdir(tmp_path / "train")
    assert "is read alone" in read_source(".").notes[0]


def test_a_user_who_knows_chooses_the_reading(tmp_path: Path):
    names = [*classes_in("bus", "car", "train", names=YEARS), "meta/x.txt"]
    assert read(tmp_path, names, layout="classes").classes == ("bus", "car", "train")
    splits = read(tmp_path, [], layout="splits")
    assert splits.classes == YEARS
    assert "not a split: bus, car" in "\n".join(splits.notes)
    assert read(tmp_path, [], exclude=("bus", "car/")).classes == YEARS


def test_a_class_that_is_named_as_a_folder_of_a_tool_can_be_kept(tmp_path: Path):
    assert read(tmp_path / "a", flat("cat", "logs"), layout="classes").classes == ("cat", "logs")
    names = classes_in("train", "val", names=["cat", "masks"])
    assert read(tmp_path / "b", names, layout="splits").classes == ("cat", "masks")


def test_splits_that_are_asked_for_and_not_there_are_refused(tmp_path: Path):
    with pytest.raises(LayoutError, match=r"no folder for train .*--layout splits wants"):
        read(tmp_path, flat("bus", "car"), layout="splits")


def test_a_class_may_have_any_name_beside_others(tmp_path: Path):
    names = ["test_tube", "freight train", "contest", "0", "10", "photo", "mask", "all", "-rf"]
    names += ["VA", "tr", "te", "Type (1)", "Type (2)", "part 1", "batch"]
    assert read(tmp_path, flat(*names)).classes == tuple(sorted(names))


@pytest.mark.parametrize(
    "pattern", ["old", "old/", "./old", "o*", "{root}/old", "{root}/old/", "[o]ld"]
)
def test_exclusions_are_names_paths_or_patterns(tmp_path: Path, pattern: str):
    names = [*classes_in("train", "val", "old")]
    source = read(tmp_path, names, exclude=(pattern.format(root=tmp_path),))
    assert source.classes == CLASSES


def test_an_exclusion_takes_files_and_names_at_any_depth(tmp_path: Path):
    names = [*flat("a", "b"), "a/mask_1.jpg", "b/deep/thumbs/1.jpg", "b/[1]/1.jpg", "é/1.jpg"]
    source = read(tmp_path, names, exclude=("mask_*", "thumbs", "b/[1]", "e\u0301"))
    assert sorted(file.path for file in source.files) == sorted(flat("a", "b"))


def test_what_is_passed_over_anyway_may_be_excluded(tmp_path: Path):
    names = [*flat("a", "b"), ".git/1.jpg", "lost+found/1.jpg"]
    assert read(tmp_path, names, exclude=(".git", "lost+found")).classes == ("a", "b")


def test_an_exclusion_that_matches_nothing_is_refused(tmp_path: Path):
    with pytest.raises(LayoutError, match="--exclude oldd matches nothing"):
        read(tmp_path, flat("a", "b"), exclude=("oldd",))


def test_thousands_of_classes_are_described_in_a_few_lines(tmp_path: Path):
    source = read(tmp_path, [f"train/{n:04}/1.jpg" for n in range(2000)])
    lines = source.described()
    assert len(lines) < 6
    assert max(map(len, lines)) < 120


@pytest.mark.parametrize(
    ("root", "names", "splits"),
    [
        ("data", classes_in("val"), {"val": "val"}),
        ("data", classes_in("test"), {"test": "test"}),
        ("data", classes_in("val", "test"), {"val": "val", "test": "test"}),
        ("data", classes_in("birds/validation"), {"val": "birds/validation"}),
        ("data", classes_in("set/images/val2017"), {"val": "set/images/val2017"}),
        ("data", classes_in("val/images"), {"val": "val/images"}),
        ("data", [*classes_in("val"), "logs/1.txt"], {"val": "val"}),
        ("val", flat("cat", "dog"), {"val": "the folder"}),
        ("validation", flat("cat", "dog"), {"val": "the folder"}),
        ("test", flat("cat", "dog"), {"train": "the folder"}),  # a data set may be called so
        ("value", flat("cat", "dog"), {"train": "the folder"}),
    ],
)
def test_splits_without_train_are_no_classes(
    tmp_path: Path, root: str, names: list[str], splits: dict[str, str]
):
    source = read(tmp_path / root, names)
    origins = {split: source.folders.get(split) for split in splits}
    assert origins == splits
    assert ("train" in source.folders) == ("train" in splits)
    assert not {"val", "test", "images", "validation"}.intersection(source.classes)
    said = any("no train: for evaluation only" in note for note in source.notes)
    assert said != ("train" in splits)


def test_a_folder_named_for_test_is_that_split_beside_one_for_train(tmp_path: Path):
    (tmp_path / "train").mkdir()
    assert list(read(tmp_path / "test", flat("cat", "dog")).folders) == ["test"]


def test_a_folder_named_for_val_can_be_all_there_is(tmp_path: Path):
    source = read(tmp_path / "val", flat("cat", "dog"), layout="classes")
    assert list(source.folders) == ["train", "val", "test"]


def test_a_fraction_of_no_train_is_refused_with_the_way_to_take_all(tmp_path: Path):
    with pytest.raises(LayoutError, match=r"there is no train, only val; .*--layout classes"):
        read(tmp_path / "val", flat("cat", "dog"), val_fraction=0.1)
