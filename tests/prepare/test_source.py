"""Folders -> files with split and label: layouts, names, links, and what is no image."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from torchvision.datasets import ImageFolder

from fastload.errors import LayoutError
from fastload.prepare.source import classes_without_training, read_source
from tests.pictures import jpeg, write_tree

NAMES = ["b", "A", "a b", "a.b", "Ä", "中文", "10", "9", "-rf", "a"]


def tree(root: Path, *names: str) -> Path:
    return write_tree(root, dict.fromkeys(names, b"x"))


@pytest.mark.parametrize(
    ("prefix", "layout"),
    [
        ("{}/", "{train, val, test}/CLASS"),
        ("images/{}/", "images/{train, val, test}/CLASS"),
        ("images_{}/", "images_{train, val, test}/CLASS"),
    ],
)
def test_each_layout_is_found(tmp_path: Path, prefix: str, layout: str):
    names = [prefix.format(split) + "rose/1.jpg" for split in ("train", "val", "test")]
    source = read_source(tree(tmp_path, *names, prefix.format("train") + "daisy/2.JPG"))
    assert source.layout == layout
    assert source.classes == ("daisy", "rose")
    assert [(file.split, file.label, Path(file.path).name) for file in source.files] == [
        ("train", 0, "2.JPG"),
        ("train", 1, "1.jpg"),
        ("val", 1, "1.jpg"),
        ("test", 1, "1.jpg"),
    ]


@pytest.mark.parametrize("val", ["valid", "validation", "Val"])
def test_a_split_may_be_spelled_otherwise(tmp_path: Path, val: str):
    source = read_source(tree(tmp_path, "Train/a/1.jpg", f"{val}/a/1.jpg"))
    assert Counter(file.split for file in source.files) == {"train": 1, "val": 1}


def test_two_spellings_of_a_split_are_refused(tmp_path: Path):
    tree(tmp_path, "train/a/1.jpg", "val/a/1.jpg", "valid/a/1.jpg")
    with pytest.raises(LayoutError, match="val and valid both name the val split"):
        read_source(tmp_path)


def test_classes_are_numbered_as_imagefolder_numbers_them(tmp_path: Path):
    write_tree(tmp_path, {f"train/{name}/sub/1.jpg": jpeg() for name in NAMES})
    oracle = ImageFolder(str(tmp_path / "train"))
    source = read_source(tmp_path)
    assert list(source.classes) == oracle.classes
    found = [(str(tmp_path / file.path), file.label) for file in source.files]
    assert sorted(found) == sorted(oracle.samples)


def test_one_class_list_serves_all_splits(tmp_path: Path):
    source = read_source(tree(tmp_path, "train/b/1.jpg", "train/a/1.jpg", "val/b/2.jpg"))
    assert [(file.split, source.classes[file.label]) for file in source.files] == [
        ("train", "a"),
        ("train", "b"),
        ("val", "b"),
    ]


def test_names_that_are_no_utf8_survive(tmp_path: Path):
    name = os.fsdecode(b"caf\xe9")
    try:
        tree(tmp_path, f"train/{name}/{name}.jpg")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    source = read_source(tmp_path)
    assert source.classes == (name,)
    assert (tmp_path / source.files[0].path).read_bytes() == b"x"


def test_what_file_managers_leave_is_passed_over(tmp_path: Path):
    tree(tmp_path, "train/a/1.jpg", "train/a/.hidden.jpg", "train/a/Thumbs.db", "train/.git/x.jpg")
    tree(tmp_path, "train/__MACOSX/x.jpg", "train/a/desktop.ini", ".DS_Store", "readme.txt")
    source = read_source(tmp_path)
    assert [file.path for file in source.files] == ["train/a/1.jpg"]
    assert source.oddities == ()


def test_files_of_any_extension_are_listed_since_they_may_be_photographs(tmp_path: Path):
    source = read_source(tree(tmp_path, "train/a/1", "train/a/2.txt", "train/a/3.JPEG"))
    assert len(source.files) == 3


def test_images_outside_class_folders_are_reported(tmp_path: Path):
    source = read_source(tree(tmp_path, "train/a/1.jpg", "train/loose.PNG", "train/notes.txt"))
    assert [(odd.path, odd.reason.slug) for odd in source.oddities] == [
        ("train/loose.PNG", "no-class")
    ]


def test_links_to_files_and_folders_are_followed(tmp_path: Path):
    tree(tmp_path, "store/1.jpg", "store/2.jpg", "data/train/a/0.jpg")
    (tmp_path / "data/train/a/link.jpg").symlink_to(tmp_path / "store/1.jpg")
    (tmp_path / "data/train/b").symlink_to(tmp_path / "store")
    source = read_source(tmp_path / "data")
    assert [file.path for file in source.files] == [
        "train/a/0.jpg",
        "train/a/link.jpg",
        "train/b/1.jpg",
        "train/b/2.jpg",
    ]


def test_what_is_no_file_is_reported_and_not_opened(tmp_path: Path):
    tree(tmp_path, "train/a/1.jpg", "train/a/folder.jpg/2.jpg")
    os.mkfifo(tmp_path / "train/a/pipe.jpg")
    (tmp_path / "train/a/nothing.jpg").symlink_to("missing")
    (tmp_path / "train/a/loop").symlink_to("..")
    (tmp_path / "train/a/self.jpg").symlink_to("self.jpg")
    source = read_source(tmp_path)
    details = {odd.path: odd.detail for odd in source.oddities if odd.reason.slug == "not-a-file"}
    assert details["train/a/pipe.jpg"] == "a pipe"
    assert "a link to nothing" in details["train/a/nothing.jpg"]
    assert "a link to nothing" in details["train/a/self.jpg"]
    assert any("contains it" in detail for detail in details.values())
    assert {"train/a/1.jpg", "train/a/folder.jpg/2.jpg"} <= {file.path for file in source.files}


def test_a_folder_without_splits_is_split_by_class(tmp_path: Path):
    counts = {"one": 1, "two": 2, "three": 3, "many": 40}
    for name, count in counts.items():
        tree(tmp_path, *(f"{name}/{n}.jpg" for n in range(count)))
    source = read_source(tmp_path, seed=5)
    assert "split by fastload" in source.layout
    found = Counter((source.classes[file.label], file.split) for file in source.files)
    assert {key: found[key] for key in sorted(found)} == {
        ("many", "test"): 4,
        ("many", "train"): 32,
        ("many", "val"): 4,
        ("one", "train"): 1,
        ("three", "test"): 1,
        ("three", "train"): 1,
        ("three", "val"): 1,
        ("two", "train"): 1,
        ("two", "val"): 1,
    }
    assert read_source(tmp_path, seed=5) == source
    assert read_source(tmp_path, seed=6) != source
    assert not classes_without_training(source.classes, source.files)


def test_readable_names_of_plantnet_are_found(tmp_path: Path):
    tree(tmp_path, "images/train/1355868/1.jpg", "images/train/1355920/1.jpg")
    table = {"1355868": "Lactuca virosa L."}
    (tmp_path / "plantnet300K_species_id_2_name.json").write_text(json.dumps(table))
    source = read_source(tmp_path)
    assert source.classes == ("1355868", "1355920")
    assert source.class_names == ("Lactuca virosa L.", "1355920")
    assert read_source(tmp_path / "images").class_names == source.class_names


def test_a_damaged_table_of_names_is_refused(tmp_path: Path):
    tree(tmp_path, "train/1/1.jpg")
    (tmp_path / "plantnet300K_species_id_2_name.json").write_text("[1")
    with pytest.raises(LayoutError, match="not a table of species names"):
        read_source(tmp_path)


def test_a_class_without_training_images_is_named(tmp_path: Path):
    source = read_source(tree(tmp_path, "train/a/1.jpg", "val/a/1.jpg", "val/b/1.jpg"))
    assert classes_without_training(source.classes, source.files) == ["b"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "holds no images; expected"),
        (("readme.txt",), "holds no images"),
        (("1.jpg", "2.jpg"), "holds 2 images but no class folders"),
        (("val/a/1.jpg", "test/a/1.jpg"), "a folder for val and test but none for train"),
        (("data/a/1.jpg", "data/b/1.jpg"), "did you mean .*data"),
    ],
)
def test_what_is_no_data_set_is_refused_in_one_sentence(
    tmp_path: Path, names: tuple[str, ...], message: str
):
    with pytest.raises(LayoutError, match=message):
        read_source(tree(tmp_path, *names))


def test_a_missing_folder_and_a_file_are_refused(tmp_path: Path):
    with pytest.raises(LayoutError, match="is not there; expected a folder"):
        read_source(tmp_path / "missing")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LayoutError, match="is a file; expected a folder"):
        read_source(tmp_path / "file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything; run as another user")
def test_a_folder_that_may_not_be_read_is_one_sentence(tmp_path: Path):
    tree(tmp_path, "train/a/1.jpg")
    (tmp_path / "train/a").chmod(0)
    try:
        with pytest.raises(LayoutError, match="permission was denied"):
            read_source(tmp_path)
    finally:
        (tmp_path / "train/a").chmod(0o700)
