"""Folders -> files with split and label: layouts, names, links, and what is no image."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from torchvision.datasets import ImageFolder

from fastload.errors import LayoutError
from fastload.prepare.layout import LayoutOptions
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


def test_a_class_without_training_images_is_named(tmp_path: Path):
    source = read_source(tree(tmp_path, "train/a/1.jpg", "val/a/1.jpg", "val/b/1.jpg"))
    assert classes_without_training(source.classes, source.files) == ["b"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "holds no images; expected"),
        (("readme.txt",), "holds no images"),
        (("1.jpg", "2.jpg"), "holds 2 images but no class folders"),
        (("val/a/1.jpg", "train/1.jpg"), "a folder for val but none for train .*--exclude train"),
        (("cat/2019/1.jpg", "cat/2020/1.jpg"), "did you mean .*cat"),
        (("a/1.txt", "train.zip"), "holds no images; .*unpack train.zip first"),
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
    with pytest.raises(LayoutError, match="my is not there; quote a name that has spaces in it"):
        read_source(["my", "photographs"])


@pytest.mark.parametrize("place", [".", "images", "..", "images/.."])
@pytest.mark.parametrize(
    "name", ["plantnet300K_species_names.json", "plantnet300K_species_id_2_name.json"]
)
def test_the_table_of_names_has_two_names_and_several_places(tmp_path: Path, place: str, name: str):
    root = tree(tmp_path / "data", "images/train/1/1.jpg", "images/train/2/1.jpg")
    (root / place / name).write_text(json.dumps({"1": "One", "2": "Two"}))
    source = read_source(root)
    assert source.class_names == ("One", "Two")
    assert source.notes == ()


def test_a_table_that_names_other_classes_is_said(tmp_path: Path):
    tree(tmp_path, "train/a/1.jpg", "train/b/1.jpg")
    (tmp_path / "plantnet300K_species_names.json").write_text(json.dumps({"1": "One"}))
    source = read_source(tmp_path)
    assert source.class_names == ("a", "b")
    assert any("names none of the classes: it lacks a, b" in note for note in source.notes)


@pytest.mark.parametrize(
    "text", [b"[1", b"[]", b"null", b'{"1": 2}', b'{"1": {}}', b"[" * 100_000, b"\xff"]
)
def test_a_damaged_table_of_names_is_refused(tmp_path: Path, text: bytes):
    tree(tmp_path, "train/1/1.jpg")
    (tmp_path / "plantnet300K_species_id_2_name.json").write_bytes(text)
    with pytest.raises(LayoutError, match="not a table of species names"):
        read_source(tmp_path)


def read_without_privileges(root: Path, *options: str) -> str:
    """What `read_source` says in a process that permissions bind, even one of root."""
    program = "from fastload.prepare.source import *\n"
    program += f"options = LayoutOptions(exclude={options!r})\n"
    program += f"try: print(read_source({str(root)!r}, options=options).classes)\n"
    program += "except LayoutError as error: print(error)\n"
    command = [sys.executable, "-c", program]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may read everything; run as another user, or install util-linux")
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"root keeps its privileges here; run as another user: {done.stderr[-200:]}")
    return done.stdout.strip()


def test_a_folder_that_may_not_be_read_is_one_sentence_or_left_out(tmp_path: Path):
    tree(tmp_path, "train/a/1.jpg", "train/b/1.jpg")
    (tmp_path / "train/a").chmod(0)
    try:
        said = read_without_privileges(tmp_path)
        assert "train/a cannot be read: permission was denied" in said
        assert "--exclude" in said
        assert read_without_privileges(tmp_path, "train/a") == "('b',)"
    finally:
        (tmp_path / "train/a").chmod(0o700)


@pytest.mark.parametrize(
    "name", ["lost+found", "System Volume Information", ".Trashes", "@Recently-Snapshot"]
)
@pytest.mark.parametrize("place", ["", "train/", "train/a/"])
def test_what_systems_keep_is_passed_over_though_nobody_may_read_it(
    tmp_path: Path, name: str, place: str
):
    tree(tmp_path, "train/a/1.jpg", f"{place}{name}/1.jpg")
    (tmp_path / f"{place}{name}").chmod(0)
    try:
        assert read_without_privileges(tmp_path) == "('a',)"
    finally:
        (tmp_path / f"{place}{name}").chmod(0o700)


@pytest.mark.parametrize(
    "name",
    ["#recycle", "@Recycle", "$RECYCLE.BIN", "@eaDir", "found.000", "__MACOSX", "LOST.DIR"],
)
def test_the_bins_of_systems_are_no_classes(tmp_path: Path, name: str):
    source = read_source(tree(tmp_path, "a/1.jpg", "b/1.jpg", f"{name}/1.jpg", f"a/{name}/2.jpg"))
    assert source.classes == ("a", "b")
    assert len(source.files) == 2


def test_a_link_to_a_folder_above_is_reported_and_not_followed(tmp_path: Path):
    root = tree(tmp_path / "data", "train/a/1.jpg", "train/b/1.jpg")
    for link, target in (("train/a/up", ".."), ("train/a/out", "../../.."), ("train/top", "/")):
        (root / link).symlink_to(target)
    (root / "self").symlink_to(".")
    tree(tmp_path / "store", "inner/2.jpg", "other/3.jpg")
    (root / "train/b/stored").symlink_to(tmp_path / "store/inner")
    (tmp_path / "store/inner/up").symlink_to("..")
    source = read_source(root)
    assert len(source.files) == 3
    assert {(odd.path, odd.reason.slug) for odd in source.oddities} == {
        ("train/b/stored/up", "not-a-file"),
        ("train/a/up", "not-a-file"),
        ("train/a/out", "not-a-file"),
        ("train/top", "not-a-file"),
        ("self", "not-a-file"),
    }


def test_folders_are_told_apart_where_a_file_system_gives_all_of_them_one_inode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tree(tmp_path, "train/a/1.jpg", "train/b/c/1.jpg", "val/a/1.jpg")
    (tmp_path / "train/b/link").symlink_to("../a")
    real = os.stat

    def one_inode(*args: Any, **named: Any) -> os.stat_result:
        facts = list(real(*args, **named))
        return os.stat_result([facts[0], 1, *facts[2:]])

    monkeypatch.setattr(os, "stat", one_inode)  # as some file systems in user space do
    with pytest.raises(LayoutError, match=r"train/a and train/b/link .* one folder"):
        read_source(tmp_path)
    (tmp_path / "train/b/link").unlink()
    assert len(read_source(tmp_path).files) == 3


@pytest.mark.parametrize(
    ("link", "target", "message"),
    [
        ("train/a/other", "../b", "two classes; remove the link, .*--exclude train/a/other"),
        ("train/c", "a", "two classes; remove the link, .*--exclude train/c"),
        ("val", "train", "two splits; remove the link, .*--exclude val"),
        ("test/a", "../train/a", "two splits; remove the link, .*--exclude test/a"),
    ],
)
def test_a_link_that_puts_a_folder_in_two_places_is_refused(
    tmp_path: Path, link: str, target: str, message: str
):
    tree(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "test/b/1.jpg")
    (tmp_path / link).symlink_to(target)
    with pytest.raises(LayoutError, match=message):
        read_source(tmp_path)


def test_an_empty_class_folder_keeps_its_label(tmp_path: Path):
    tree(tmp_path, "train/a/1.jpg", "train/c/1.jpg", "train/hidden/.x.jpg", "train/text/readme.txt")
    (tmp_path / "train/bb").mkdir()
    source = read_source(tmp_path)
    assert source.classes == ("a", "bb", "c", "hidden", "text")
    assert source.imageless == {1, 3, 4}
    assert {source.classes[f.label] for f in source.files if f.path.endswith("jpg")} == {"a", "c"}


def test_photographs_without_an_extension_are_images(tmp_path: Path):
    source = read_source(write_tree(tmp_path, {"train/a/0001": jpeg(), "train/b/readme": b"text"}))
    assert source.imageless == {1}


def test_two_unicode_forms_of_a_name_are_one_class(tmp_path: Path):
    names = ["train/Caf\u00e9/1.jpg", "train/Cafe\u0301/2.jpg", "val/Cafe\u0301/3.jpg"]
    source = read_source(tree(tmp_path, *names, "train/b/1.jpg"))
    assert source.classes == ("Caf\u00e9", "b")
    assert [file.label for file in source.files] == [0, 0, 1, 0]
    assert r"'Cafe\u0301' and 'Caf\xe9'" in "".join(source.notes)


def test_one_unicode_form_alone_is_kept_as_the_folder_has_it(tmp_path: Path):
    source = read_source(tree(tmp_path, "train/Cafe\u0301/2.jpg", "train/b/1.jpg"))
    assert source.classes == ("Cafe\u0301", "b")
    assert source.notes == ()


@pytest.mark.parametrize("twin", ["rosa alba", "Rosa alba ", "Rosa\u00a0alba", "Rosa_alba"])
def test_names_that_look_alike_are_said_and_told_apart(tmp_path: Path, twin: str):
    source = read_source(tree(tmp_path, "train/Rosa alba/1.jpg", f"train/{twin}/2.jpg"))
    assert len(source.classes) == 2
    assert any("look alike" in note and ascii(twin) in note for note in source.notes)


def test_a_name_that_hides_a_character_is_said(tmp_path: Path):
    source = read_source(tree(tmp_path, "train/rose\u200b/1.jpg", "train/ b/2.jpg"))
    note = r"nobody sees: ' b' (a space in front), 'rose\u200b' ('\u200b' (zero width space))"
    assert any(note in one for one in source.notes)


def test_ordinary_names_are_not_said(tmp_path: Path):
    emoji = "\U0001f469\u200d\U0001f33e"
    names = ["it's", 'a "b"', emoji, "\u0645\u06cc\u200c\u062e\u0648\u0627", "10", "1"]
    source = read_source(tree(tmp_path, *(f"train/{name}/1.jpg" for name in names)))
    assert source.notes == ()


def test_val_is_taken_from_train_class_by_class(tmp_path: Path):
    tree(tmp_path, *(f"train/a/{n}.jpg" for n in range(40)), "train/one/1.jpg")
    tree(tmp_path, "train/two/1.jpg", "train/two/2.jpg", "test/a/t.jpg")
    options = LayoutOptions(val_fraction=0.25)
    source = read_source(tmp_path, seed=3, options=options)
    found = Counter((source.classes[file.label], file.split) for file in source.files)
    assert found == {
        ("a", "train"): 30,
        ("a", "val"): 10,
        ("a", "test"): 1,
        ("one", "train"): 1,
        ("two", "train"): 1,
        ("two", "val"): 1,
    }
    assert read_source(tmp_path, seed=3, options=options) == source
    assert read_source(tmp_path, seed=4, options=options).files != source.files
    assert source.folders["val"] == "0.25 of each class of train"


@pytest.mark.parametrize(("val", "test"), [(0.99, None), (0.5, 0.49), (0.001, 0.001)])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_each_class_keeps_an_image_in_train(
    tmp_path: Path, val: float, test: float | None, count: int
):
    tree(tmp_path, *(f"train/{name}/{n}.jpg" for n in range(count) for name in "ab"))
    source = read_source(tmp_path, options=LayoutOptions(val_fraction=val, test_fraction=test))
    found = Counter((file.label, file.split) for file in source.files)
    assert found[0, "train"] >= 1
    assert found[0, "train"] == found[1, "train"]
    assert found[0, "val"] >= min(1, count - 1)
    assert len(source.files) == 2 * count


def test_a_fraction_of_a_split_that_is_there_is_refused(tmp_path: Path):
    tree(tmp_path, "train/a/1.jpg", "valid/a/1.jpg")
    with pytest.raises(LayoutError, match=r"but valid is val already; .*--exclude valid"):
        read_source(tmp_path, options=LayoutOptions(val_fraction=0.1))


@pytest.mark.parametrize(
    "options",
    [
        {"val_fraction": 0.0},
        {"val_fraction": 1.0},
        {"val_fraction": float("nan")},
        {"test_fraction": -0.1},
        {"val_fraction": 0.5, "test_fraction": 0.5},
        {"layout": "flat"},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]):
    with pytest.raises(ValueError, match=next(iter(options))):
        LayoutOptions(**options)


@pytest.mark.parametrize("name", ["image_field", "label_field", "split_field"])
def test_an_option_that_says_nothing_of_class_folders_is_refused(tmp_path: Path, name: str):
    tree(tmp_path, "train/a/1.jpg", "train/b/1.jpg")
    option = f"--{name.replace('_', '-')}"
    asked: dict[str, Any] = {name: "x"}
    with pytest.raises(LayoutError, match=f"{option} says nothing of class folders"):
        read_source(tmp_path, options=LayoutOptions(**asked))


def test_several_folders_and_files_of_two_kinds_are_refused(tmp_path: Path):
    tree(tmp_path, "a/x/1.jpg", "b/x/1.jpg", "x.csv", "x.tar")
    with pytest.raises(LayoutError, match="are 2 folders; name the one folder that holds them"):
        read_source([tmp_path / "a", tmp_path / "b"])
    with pytest.raises(LayoutError, match=r"x\.csv is a table and .*x\.tar is a tar; name one"):
        read_source([tmp_path / "x.csv", tmp_path / "x.tar"])
    with pytest.raises(LayoutError, match="is named twice"):
        read_source([tmp_path / "x.csv", tmp_path / "x.csv"])
    with pytest.raises(ValueError, match="where must name a source"):
        read_source([])


def test_a_table_of_species_beside_another_set_is_passed_over(tmp_path: Path):
    table = tmp_path / "plantnet300K_species_names.json"
    table.write_text(json.dumps({"1355": "Rosa alba"}))
    source = read_source(tree(tmp_path / "cats", "a/1.jpg", "b/1.jpg"))
    assert source.class_names == ("a", "b")
    assert source.notes == ()
    table.rename(tmp_path / "cats" / table.name)
    assert "names none of the classes" in read_source(tmp_path / "cats").notes[0]
