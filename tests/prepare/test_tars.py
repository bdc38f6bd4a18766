"""Tars as sources: read back against tarfile, webdataset and GNU tar; hostile and damaged ones."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
import webdataset

from fastload import shard
from fastload.errors import LayoutError
from fastload.prepare.layout import LayoutOptions
from fastload.prepare.reading import read_bytes
from fastload.prepare.source import Source, read_source
from fastload.prepare.tar_members import TarFile
from fastload.store.index import read_index
from fastload.store.manifest import read_manifest
from tests.pictures import flower_tree, jpeg, pixels_of, write_tree

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def write_tar(
    path: Path, members: Iterable[tuple[str, bytes]], kind: int = tarfile.PAX_FORMAT
) -> Path:
    """A tar of these members, in this order; a name may stand twice."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=kind) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def samples(count: int, *, first: int = 0, classes: int = 3) -> list[tuple[str, bytes]]:
    """Members of that many samples, as webdataset writes them."""
    members = []
    for number in range(first, first + count):
        members += [
            (f"{number:06d}.jpg", b"JPEG %d" % number),
            (f"{number:06d}.cls", b"%d" % (number % classes)),
        ]
    return members


def held(source: Source) -> dict[str, tuple[str, str, bytes]]:
    """Path -> split, class and bytes of each image."""
    return {
        file.path: (file.split, source.classes[file.label], read_bytes(source.root, file))
        for file in source.files
    }


# The members: whatever wrote the tar, what we list is what tarfile lists.


def listed_by_tarfile(path: Path) -> list[tuple[str, int, int]]:
    with tarfile.open(path, errors="surrogateescape", encoding="utf-8") as tar:
        return [(one.name, one.offset_data, one.size) for one in tar if one.isreg()]


def listed(path: Path) -> list[tuple[str, int, int]]:
    with TarFile(path) as tar:
        return [(one.name, one.offset, one.size) for one in tar.members() if not one.kind]


NAMES = [
    "a.jpg",
    "dir/" * 20 + "deep.jpg",
    "x" * 101 + ".jpg",
    "y/" * 60 + "z" * 99,
    "Ä中文.jpg",
    "l/" * 300 + "end.jpg",
    "exactly " + "n" * 92,
]


@pytest.mark.parametrize("kind", FORMATS)
def test_the_members_are_those_that_tarfile_finds(tmp_path: Path, kind: str):
    names = NAMES[:2] if kind == "ustar" else NAMES  # it has no room for the others
    members = [(name, name.encode() * count) for count, name in enumerate(names)]
    path = write_tar(tmp_path / "x.tar", members, FORMATS[kind])
    assert listed(path) == listed_by_tarfile(path)
    assert [name for name, _, _ in listed(path)] == names


@pytest.mark.parametrize("kind", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_the_members_of_what_gnu_tar_writes_are_found(tmp_path: Path, kind: str):
    long = [] if kind == "v7" else ["d" * 60 + "/" + "e" * 60 + ".jpg"]
    long += ["f" * 140 + ".jpg"] if kind in {"gnu", "oldgnu", "posix"} else []
    root = tmp_path / "data"
    write_tree(root, {name: name.encode() for name in ["a b.jpg", "c/d.jpg", "empty", *long]})
    (root / "none").write_bytes(b"")
    command = ["tar", f"--format={kind}", "-cf", str(tmp_path / "x.tar"), "-C", str(root), "."]
    subprocess.run(command, check=True)
    assert listed(tmp_path / "x.tar") == listed_by_tarfile(tmp_path / "x.tar")
    assert len(listed(tmp_path / "x.tar")) == 4 + len(long)


@pytest.mark.parametrize("kind", ["gnu", "posix"])
def test_a_sparse_member_is_set_aside_and_what_follows_is_found(tmp_path: Path, kind: str):
    root = write_tree(tmp_path / "data", {"a/1.jpg": b"1", "a/3.jpg": b"3"})
    with (root / "a/2.jpg").open("wb") as file:
        for part in range(40):  # more parts than a header has room for
            file.seek(part << 20)
            file.write(b"x" * 4096)
    path = tmp_path / "x.tar"
    subprocess.run(
        ["tar", "-S", f"--format={kind}", "--sort=name", "-cf", str(path), "-C", str(root), "a"],
        check=True,
    )
    source = read_source(path)
    assert [read_bytes(source.root, file) for file in source.files] == [b"1", b"3"]
    assert [(odd.path, odd.detail) for odd in source.oddities] == [
        ("x.tar/a/2.jpg", "a sparse file")
    ]


def test_a_size_in_base_256_is_read(tmp_path: Path):
    path = write_tar(tmp_path / "x.tar", [("a.jpg", b"abc"), ("b.jpg", b"defg")])
    data = bytearray(path.read_bytes())
    data[124:136] = b"\x80" + (3).to_bytes(11, "big")
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    path.write_bytes(data)
    assert listed(path) == listed_by_tarfile(path) == [("a.jpg", 512, 3), ("b.jpg", 1536, 4)]


# Samples of webdataset.


# webdataset leaves the last tar to the garbage collector
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", FORMATS)
def test_samples_are_those_that_webdataset_reads(tmp_path: Path, kind: str):
    members = [
        ("a/0.jpg", b"0"),
        ("a/0.cls", b"1"),
        ("./v1.0/b.c/1.JPG", b"1"),
        ("./v1.0/b.c/1.cls", b"0\n"),
        ("a/2.json", b'{"label": 3}'),
        ("a/2.webp", b"2"),
        ("a/2.cls", b" 2 "),
        ("a/3.txt", b"a caption"),
        ("a/3.png", b"3"),
        ("a/3.cls", b"0002"),
        ("__meta__/x.jpg", b"no sample"),
        ("4.jpeg", b"4"),
        ("4.cls", b"0"),
    ]
    path = write_tar(tmp_path / "train.tar", members, FORMATS[kind])
    found = read_source(path)
    ours = {
        file.path.removeprefix("train.tar/").rpartition(".")[0]: (
            int(found.classes[file.label]),
            read_bytes(found.root, file),
        )
        for file in found.files
    }
    kinds = ("jpg", "jpeg", "png", "webp")
    theirs = {
        sample["__key__"].removeprefix("./"): (
            int(sample["cls"]),
            next(sample[kind] for kind in kinds if kind in sample),
        )
        for sample in webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False)
    }
    assert ours == theirs
    assert found.oddities == ()


def test_what_webdataset_writes_is_read(tmp_path: Path):
    for split, count in (("train", 20), ("validation", 4)):
        pattern = str(tmp_path / f"set-{split}-%04d.tar")
        with webdataset.ShardWriter(pattern, maxcount=7, verbose=0) as writer:
            for number in range(count):
                image = {"__key__": f"s{number:05d}", "jpg": jpeg(number), "cls": number % 2}
                writer.write(image)
    source = read_source(tmp_path)
    assert Counter((one.split, one.label) for one in source.files) == {
        ("train", 0): 10,
        ("train", 1): 10,
        ("val", 0): 2,
        ("val", 1): 2,
    }
    assert source.layout == "samples in 4 tars, labels in .cls"
    assert source.folders == {
        "train": "set-train-0000.tar and 2 more",
        "val": "set-validation-0000.tar",
    }
    assert all(
        read_bytes(source.root, one) == jpeg(int(one.path.rpartition("/s")[2][:5]))
        for one in source.files
    )


def test_samples_whose_members_lie_apart_are_joined(tmp_path: Path):
    """`tar cf x.tar *.jpg *.cls` writes all images first."""
    members = sorted(samples(6), key=lambda one: one[0].rpartition(".")[2], reverse=True)
    source = read_source(write_tar(tmp_path / "x.tar", members))
    assert sorted((one.label, one.path) for one in source.files) == sorted(
        (number % 3, f"x.tar/{number:06d}.jpg") for number in range(6)
    )


def test_a_key_that_stands_twice_is_two_samples(tmp_path: Path):
    members = [("1.jpg", b"a"), ("1.cls", b"0"), ("1.jpg", b"b"), ("1.cls", b"1")]
    source = read_source(write_tar(tmp_path / "x.tar", members))
    assert sorted((label, data) for _, label, data in held(source).values()) == [
        ("0", b"a"),
        ("1", b"b"),
    ]
    assert len({file.path for file in source.files}) == 2


def test_keys_with_dots_keep_their_labels(tmp_path: Path):
    """webdataset cuts IMG_1.2.jpg at its first dot; the label is that of the same name."""
    members = []
    for number in range(4):
        members += [
            (f"IMG_1.{number}.jpg", b"%d" % number),
            (f"IMG_1.{number}.cls", b"%d" % number),
        ]
    source = read_source(write_tar(tmp_path / "x.tar", members))
    assert {label: data for _, label, data in held(source).values()} == {
        str(number): b"%d" % number for number in range(4)
    }


def test_a_mask_beside_the_image_is_passed_over(tmp_path: Path):
    members = [("1.jpg", b"image"), ("1.seg.png", b"mask"), ("1.cls", b"0")]
    source = read_source(write_tar(tmp_path / "x.tar", members))
    assert list(held(source)) == ["x.tar/1.jpg"]
    assert "passed over, beside the image of a sample: 1 .seg.png" in source.notes


def test_several_images_of_a_sample_need_a_choice(tmp_path: Path):
    members = [("1.left.jpg", b"left"), ("1.right.jpg", b"right"), ("1.cls", b"0")]
    path = write_tar(tmp_path / "x.tar", members)
    with pytest.raises(LayoutError, match=r"several images for one label.*--image-field left.jpg"):
        read_source(path)
    source = read_source(path, options=LayoutOptions(image_field="right.jpg"))
    assert [data for _, _, data in held(source).values()] == [b"right"]
    assert source.files[0].path == "x.tar/1.right.jpg"


def test_an_image_with_an_odd_ending_is_taken_where_it_is_alone(tmp_path: Path):
    source = read_source(write_tar(tmp_path / "x.tar", [("1.img.jpg", b"1"), ("1.cls", b"0")]))
    assert list(held(source)) == ["x.tar/1.img.jpg"]


@pytest.mark.parametrize(
    ("facts", "label"),
    [
        ({"label": 7}, 7),
        ({"caption": "a rose", "class_id": 2}, 2),
        ({"cls": "1", "key": "0001", "sha256": "ab"}, 1),
        ({"label": 1.0, "class": 9}, 1),
    ],
)
def test_labels_are_found_in_json(tmp_path: Path, facts: dict[str, object], label: int):
    members = [("0.jpg", b"0"), ("0.json", json.dumps(facts).encode()), ("0.txt", b"caption")]
    source = read_source(write_tar(tmp_path / "x.tar", members))
    assert [file.label for file in source.files] == [label]
    assert len(source.classes) == label + 1


def test_what_img2dataset_writes_needs_the_name_of_its_field(tmp_path: Path):
    members = []
    for number, name in enumerate(["rose", "tulip"] * 3):
        facts = {"key": f"{number:05d}", "caption": "x", "flower": name, "status": "success"}
        members += [
            (f"{number:05d}.jpg", b"%d" % number),
            (f"{number:05d}.txt", b"x"),
            (f"{number:05d}.json", json.dumps(facts).encode()),
        ]
    write_tar(tmp_path / "out/00000.tar", members)
    write_tree(tmp_path / "out", {"00000.parquet": b"what it did", "00000_stats.json": b"{}"})
    with pytest.raises(LayoutError, match=r"no label.*in \.json.*flower.*--label-field"):
        read_source(tmp_path / "out")
    source = read_source(tmp_path / "out", options=LayoutOptions(label_field="flower"))
    assert source.classes == ("rose", "tulip")
    assert Counter(file.label for file in source.files) == {0: 3, 1: 3}


def test_a_text_is_a_class_where_it_is_named(tmp_path: Path):
    members = [("0.jpg", b"0"), ("0.txt", b"rose\n"), ("1.jpg", b"1"), ("1.txt", b"daisy\n")]
    path = write_tar(tmp_path / "x.tar", members)
    with pytest.raises(LayoutError, match=r"no label: no \.cls.*found \.jpg, \.txt"):
        read_source(path)
    source = read_source(path, options=LayoutOptions(label_field="txt"))
    assert {label: data for _, label, data in held(source).values()} == {
        "rose": b"0",
        "daisy": b"1",
    }


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (b"1\n2", "several lines"),
        (b"\xff\xfe", "not UTF-8"),
        (b"-7", "-7 is no label"),
        (b"x" * (2 << 20), "too many for a label"),
    ],
)
def test_a_label_that_is_none_is_refused(tmp_path: Path, label: bytes, message: str):
    path = write_tar(tmp_path / "x.tar", [*samples(2), ("9.jpg", b"9"), ("9.cls", label)])
    with pytest.raises(LayoutError, match=message):
        read_source(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "is not JSON"),
        (b'{"label": [1, 2]}', r"holds a list.*--label-field"),
        (b'{"label": true}', "true or false"),
        (b'{"label": {"id": 1}}', "an object"),
        (b'{"label": 1.5}', "a fraction"),
    ],
)
def test_a_label_in_json_that_is_none_is_refused(tmp_path: Path, text: bytes, message: str):
    path = write_tar(tmp_path / "x.tar", [("9.jpg", b"9"), ("9.json", text)])
    with pytest.raises(LayoutError, match=message):
        read_source(path)


def test_an_image_without_a_label_is_reported(tmp_path: Path):
    source = read_source(write_tar(tmp_path / "x.tar", [*samples(4), ("zz.jpg", b"z")]))
    assert len(source.files) == 4
    assert [(odd.path, odd.reason.slug) for odd in source.oddities] == [
        ("x.tar/zz.jpg", "no-class")
    ]


def test_labels_stay_what_they_are_and_gaps_are_classes(tmp_path: Path):
    members = [("a.jpg", b"a"), ("a.cls", b"2"), ("b.jpg", b"b"), ("b.cls", b"10")]
    source = read_source(write_tar(tmp_path / "x.tar", members))
    assert source.classes == tuple(map(str, range(11)))
    assert {file.label for file in source.files} == {2, 10}
    assert source.imageless == frozenset(range(11)) - {2, 10}


@pytest.mark.parametrize("name", ["classes.txt", "classnames.txt"])
@pytest.mark.parametrize(
    "text", ["daisy\nrose\nyew\n", "0 daisy\n1 rose\n2 yew", "\ufeffdaisy\r\nrose\r\nyew"]
)
def test_names_beside_the_tars_are_read(tmp_path: Path, name: str, text: str):
    write_tar(tmp_path / "x.tar", samples(4))
    (tmp_path / name).write_bytes(text.encode())
    source = read_source(tmp_path)
    assert source.classes == ("0", "1", "2")
    assert source.class_names == ("daisy", "rose", "yew")


def test_labels_that_begin_at_one_are_not_renumbered(tmp_path: Path):
    members = [("a.jpg", b"a"), ("a.cls", b"1"), ("b.jpg", b"b"), ("b.cls", b"2")]
    source = read_source(write_tar(tmp_path / "x.tar", members))
    assert source.classes == ("0", "1", "2")
    assert "labels begin at 1: class 0 has no image" in source.notes


# Which tars, and which split each is.


def test_a_directory_a_glob_a_brace_list_and_words_are_one_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for number in range(12):
        write_tar(tmp_path / f"set-train-{number:04d}.tar", samples(2, first=2 * number))
    write_tar(tmp_path / "set-val-0000.tar", samples(3, first=100))
    monkeypatch.chdir(tmp_path)
    whole = read_source(".")
    assert len(whole.files) == 27
    for words in (
        ["set-train-{0000..0011}.tar", "set-val-0000.tar"],
        ["set-*.tar"],
        ["set-{train-00*,val-0000}.tar"],
        sorted(str(path) for path in tmp_path.glob("*.tar")),
    ):
        source = read_source(words)
        assert [held(source)[path] for path in held(whole)] == list(held(whole).values())


def test_words_may_lead_up_from_where_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_tar(tmp_path / "train/0.tar", samples(2))
    write_tar(tmp_path / "val/0.tar", samples(2, first=2))
    monkeypatch.chdir(tmp_path / "train")
    source = read_source(["0.tar", "../val/0.tar"])
    assert {(file.path.rpartition("/")[0], file.split) for file in source.files} == {
        ("train/0.tar", "train"),
        ("val/0.tar", "val"),
    }
    assert source.root.resolve() == tmp_path.resolve()
    (tmp_path / "train/again.tar").symlink_to("0.tar")
    for word in ("0.tar", "./0.tar", "../train/0.tar", "again.tar", "*.tar"):
        with pytest.raises(LayoutError, match=r"0\.tar is named twice"):
            read_source(["0.tar", word])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("set-{0000..0004}.tar", "2 of 5 files are not there, such as set-0003.tar"),
        ("none-{0..2}.tar", "no file is there, such as none-0.tar"),
        ("other*.tar", "matches no file"),
        ("https://host/x.tar", "is no file here"),
        ("s3://", "names no bucket; give SCHEME://BUCKET/PREFIX"),
        ("pipe:aws s3 cp x -", "is no file here"),
        ("missing.tar", "is not there"),
    ],
)
def test_words_that_mean_nothing_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, message: str
):
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        write_tar(Path(f"set-{number:04d}.tar"), samples(2, first=2 * number))
    with pytest.raises(LayoutError, match=message):
        read_source(word)


def test_splits_may_be_folders_of_tars(tmp_path: Path):
    """As the sets of CLIP's benchmark lie on Hugging Face."""
    write_tar(tmp_path / "train/0.tar", samples(4))
    write_tar(tmp_path / "test/0.tar", samples(2, first=10))
    write_tree(tmp_path, {"classnames.txt": b"a\nb\nc", "test/nshards.txt": b"1"})
    source = read_source(tmp_path)
    assert Counter(file.split for file in source.files) == {"train": 4, "test": 2}
    assert source.class_names == ("a", "b", "c")


def test_a_tar_of_no_split_beside_others_is_refused(tmp_path: Path):
    write_tar(tmp_path / "train-0.tar", samples(2))
    write_tar(tmp_path / "extra-0.tar", samples(2, first=5))
    with pytest.raises(LayoutError, match=r"extra-0.tar names no split.*--exclude extra-0.tar"):
        read_source(tmp_path)
    options = LayoutOptions(exclude=("extra-0.tar",))
    assert len(read_source(tmp_path, options=options).files) == 2


def test_tars_without_train_are_for_evaluation(tmp_path: Path):
    write_tar(tmp_path / "val-0.tar", samples(2))
    source = read_source(tmp_path)
    assert {file.split for file in source.files} == {"val"}
    assert any("no train: for evaluation only" in note for note in source.notes)


@pytest.mark.parametrize("beside", [{"cls": b"-1"}, {}, {"json": b'{"url": 1}'}])
def test_a_test_split_without_labels_is_passed_over(tmp_path: Path, beside: dict[str, bytes]):
    write_tar(tmp_path / "train-0.tar", samples(3))
    unlabelled = [
        (f"{n}.{kind}", text) for n in range(4) for kind, text in ({"jpg": b"x"} | beside).items()
    ]
    write_tar(tmp_path / "test-0.tar", unlabelled)
    source = read_source(tmp_path)
    assert {file.split for file in source.files} == {"train"}
    assert any("passed over, no labels: test-0.tar (4 images)" in note for note in source.notes)


@pytest.mark.parametrize("name", ["train-1.tar", "test-1.tar"])
def test_tars_without_labels_beside_some_of_their_split_are_refused(tmp_path: Path, name: str):
    for split in ("train", "test"):
        write_tar(tmp_path / f"{split}-0.tar", samples(3))
    write_tar(tmp_path / name, [("1.jpg", b"x")])
    with pytest.raises(LayoutError, match=rf"\(\.cls\), and {name} has none"):
        read_source(tmp_path)


def test_members_may_be_excluded(tmp_path: Path):
    write_tar(tmp_path / "x.tar", [("a/1.jpg", b"1"), ("b/2.jpg", b"2"), ("c/3.jpg", b"3")])
    source = read_source(tmp_path / "x.tar", options=LayoutOptions(exclude=("b",)))
    assert source.classes == ("a", "c")
    with pytest.raises(LayoutError, match="--exclude zz matches nothing"):
        read_source(tmp_path / "x.tar", options=LayoutOptions(exclude=("zz",)))


# Class folders in tars: the same as the folders themselves.


def in_folders(source: Source, root: Path) -> list[tuple[str, str, str, bytes]]:
    return sorted(
        (one.path, one.split, source.classes[one.label], read_bytes(root, one))
        for one in source.files
    )


@pytest.mark.parametrize("inner", ["", "data/", "images/"])
@pytest.mark.parametrize("splits", [True, False])
@pytest.mark.parametrize("kind", ["gnu", "posix"])
def test_a_tar_of_class_folders_is_read_as_the_folders(
    tmp_path: Path, inner: str, splits: bool, kind: str
):
    tree = flower_tree(tmp_path / "plain")
    if not splits:
        shutil.rmtree(tree / "val")
        shutil.rmtree(tree / "test")
        (tree / "train").rename(tmp_path / "classes")
        tree = tmp_path / "classes"
    (tree / next(tree.iterdir()).name / ".DS_Store").write_bytes(b"")
    shutil.copytree(tree, tmp_path / "top" / inner)
    path = tmp_path / "all.tar"
    command = ["tar", f"--format={kind}", "-cf", str(path), "-C", str(tmp_path / "top"), "."]
    subprocess.run(command, check=True)
    source, oracle = read_source(path), read_source(tmp_path / "top")
    assert source.classes == oracle.classes
    ours = [(one[0].removeprefix("all.tar/"), *one[1:]) for one in in_folders(source, tmp_path)]
    assert ours == in_folders(oracle, tmp_path / "top")
    assert all(file.container == "all.tar" for file in source.files)


def test_tars_of_classes_are_classes(tmp_path: Path):
    """ImageNet's train archive holds a tar for each class."""
    for name in ("n01440764", "n01443537", "n02099601"):
        write_tar(tmp_path / f"{name}.tar", [(f"{name}_{n}.JPEG", name.encode()) for n in range(4)])
    source = read_source(tmp_path)
    assert source.classes == ("n01440764", "n01443537", "n02099601")
    assert all(data.decode() == label for _, label, data in held(source).values())
    paths = sorted(tmp_path.glob("*.tar"))
    whole = write_tar(
        tmp_path / "ILSVRC2012_img_train.tar", [(one.name, one.read_bytes()) for one in paths]
    )
    inside = read_source(whole)
    assert inside.classes == source.classes
    assert sorted(held(inside)) == [
        f"ILSVRC2012_img_train.tar/{path}" for path in sorted(held(source))
    ]
    assert all(data.decode() == label for _, label, data in held(inside).values())


def test_tars_of_class_names_are_classes_and_folders_may_be_splits(tmp_path: Path):
    for split in ("train", "val"):
        for name in ("rose", "tulip"):
            write_tar(tmp_path / split / f"{name}.tar", [(f"{n}.jpg", name.encode()) for n in "12"])
    source = read_source(tmp_path)
    assert source.classes == ("rose", "tulip")
    assert Counter(file.split for file in source.files) == {"train": 4, "val": 4}
    assert all(data.decode() == label for _, label, data in held(source).values())


def test_a_tar_of_one_split_that_is_split_is_said(tmp_path: Path):
    path = write_tar(tmp_path / "val.tar", [(f"{n % 2}/{n}.jpg", b"x") for n in range(8)])
    source = read_source(path)
    assert set(source.folders) == {"train", "val", "test"}
    assert "val.tar is read alone and split, though its name says val" in source.notes


def test_tars_of_splits_and_their_parts_are_put_together(tmp_path: Path):
    for split, part in (("train", 0), ("train", 1), ("val", 0)):
        members = [(f"{name}/1.jpg", f"{split}{part}{name}".encode()) for name in ("a", "b")]
        write_tar(tmp_path / f"set-{split}-{part}.tar", members)
    source = read_source(tmp_path)
    assert source.classes == ("a", "b")
    assert {(split, data) for split, _, data in held(source).values()} == {
        (split, f"{split}{part}{name}".encode())
        for split, part in (("train", 0), ("train", 1), ("val", 0))
        for name in "ab"
    }


def test_images_without_labels_or_classes_are_refused(tmp_path: Path):
    for number in range(2):
        write_tar(tmp_path / f"{number:05d}.tar", [(f"{n}.jpg", b"x") for n in range(3)])
    with pytest.raises(LayoutError, match="holds images without labels"):
        read_source(tmp_path)
    with pytest.raises(LayoutError, match="3 images but no class folders"):
        read_source(tmp_path / "00000.tar")


def test_what_tar_has_added_again_counts_last(tmp_path: Path):
    members = [("a/1.jpg", b"old"), ("b/2.jpg", b"b"), ("a/1.jpg", b"new")]
    source = read_source(write_tar(tmp_path / "x.tar", members))
    assert {data for _, _, data in held(source).values()} == {b"new", b"b"}
    assert any("replaced later in their tar: x.tar/a/1.jpg" in note for note in source.notes)


# Hostile and damaged tars.


def test_what_leads_out_of_a_tar_or_is_no_file_is_set_aside(tmp_path: Path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        for name, kind, link in (
            ("a/1.jpg", tarfile.REGTYPE, ""),
            ("../../etc/2.jpg", tarfile.REGTYPE, ""),
            ("a/../../3.jpg", tarfile.REGTYPE, ""),
            ("/b/4.jpg", tarfile.REGTYPE, ""),
            ("a/5.jpg", tarfile.SYMTYPE, "/etc/passwd"),
            ("b/6.jpg", tarfile.LNKTYPE, "a/1.jpg"),
            ("b/7.jpg", tarfile.LNKTYPE, "../../etc/passwd"),
            ("a/8.jpg", tarfile.CHRTYPE, ""),
            ("a/9.jpg", tarfile.FIFOTYPE, ""),
            ("a/10.jpg", tarfile.BLKTYPE, ""),
            ("a/11.jpg", b"Z", ""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, link
            member.size = 1 if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(b"x") if member.size else None)
    source = read_source(path)
    assert sorted(file.path for file in source.files) == [
        "x.tar/a/1.jpg",
        "x.tar/b/4.jpg",
        "x.tar/b/6.jpg",
    ]
    assert {read_bytes(source.root, file) for file in source.files} == {b"x"}
    assert {odd.path.rpartition("/")[2]: odd.detail for odd in source.oddities} == {
        "2.jpg": "a member whose name leads out of the tar",
        "3.jpg": "a member whose name leads out of the tar",
        "5.jpg": "a link",
        "7.jpg": "a hard link to ../../etc/passwd, which is no file of the tar",
        "8.jpg": "a device",
        "9.jpg": "a pipe",
        "10.jpg": "a device",
        "11.jpg": "of the type 'Z'",
    }


@pytest.mark.parametrize("lost", [513, 1023, 1100, 2049, 3000])
def test_a_tar_that_is_cut_off_is_refused(tmp_path: Path, lost: int):
    path = write_tar(tmp_path / "x.tar", [*samples(3), ("9.jpg", b"x" * 2000), ("9.cls", b"1")])
    end = max(offset + size for _, offset, size in listed(path))
    whole = path.read_bytes()[: end + -end % 512]
    path.write_bytes(whole[: len(whole) - lost])
    with pytest.raises(LayoutError, match=r"ends within .*cut off"):
        read_source(path)


@pytest.mark.parametrize("lost", [0, 1, 500])
def test_a_tar_without_its_end_mark_is_said(tmp_path: Path, lost: int):
    path = write_tar(tmp_path / "x.tar", samples(3))
    end = max(offset + size for _, offset, size in listed(path))
    path.write_bytes(path.read_bytes()[: end + -end % 512 - lost])
    source = read_source(path)
    assert len(source.files) == 3
    assert any("lacks the mark of its end" in note for note in source.notes)


def test_what_cat_puts_behind_a_tar_is_said(tmp_path: Path):
    one = write_tar(tmp_path / "1.tar", samples(3)).read_bytes()
    two = write_tar(tmp_path / "2.tar", samples(3, first=3)).read_bytes()
    (tmp_path / "x.tar").write_bytes(one + two)
    source = read_source(tmp_path / "x.tar")
    assert len(source.files) == 3
    assert any("what follows the end of" in note for note in source.notes)


@pytest.mark.parametrize(
    ("mode", "name", "command"),
    [("w:gz", "x.tar.gz", "gunzip"), ("w:gz", "x.tar", "gunzip"), ("w:bz2", "x.tar.bz2", "bunzip2"),
     ("w:xz", "x.tar.xz", "unxz"), ("w:gz", "x.tgz", "gunzip")],
)  # fmt: skip
def test_a_compressed_tar_is_refused(tmp_path: Path, mode: str, name: str, command: str):
    with tarfile.open(tmp_path / name, mode) as tar:  # type: ignore[call-overload]
        tar.addfile(tarfile.TarInfo("a/1.jpg"))
    with pytest.raises(LayoutError, match=rf"is compressed .*`{command}` first"):
        read_source(tmp_path / name)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "has no bytes"),
        (b"hello" * 1000, "is no tar"),
        (b"\xff\xd8\xff\xe0" + bytes(2000), "is no tar"),
        (b"x" * 100, "is no tar"),
    ],
)
def test_what_is_no_tar_is_refused(tmp_path: Path, data: bytes, message: str):
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises(LayoutError, match=message):
        read_source(tmp_path / "x.tar")


def test_an_empty_tar_is_refused(tmp_path: Path):
    with pytest.raises(LayoutError, match=r"x\.tar holds no images"):
        read_source(write_tar(tmp_path / "x.tar", []))


def test_no_flipped_byte_of_a_header_is_an_odd_error(tmp_path: Path):
    """Whatever a header says, the answer is a list or a sentence, and no read beyond the file."""
    path = write_tar(tmp_path / "x.tar", [("é" * 80 + ".jpg", b"1"), *samples(2)])
    good = path.read_bytes()
    for at in range(0, 2048, 3):
        data = bytearray(good)
        data[at] ^= 0xFF
        for fixed in (False, True):
            if fixed:
                block = at // 512 * 512
                data[block + 148 : block + 156] = b" " * 8
                data[block + 148 : block + 156] = b"%06o\0 " % sum(data[block : block + 512])
            path.write_bytes(data)
            try:
                source = read_source(path)
            except LayoutError:
                continue
            for file in source.files:
                assert 0 <= file.offset <= file.offset + file.bytes <= len(good)


def test_a_tar_that_changes_is_noticed_when_it_is_read(tmp_path: Path):
    path = write_tar(tmp_path / "x.tar", samples(3))
    source = read_source(path)
    write_tar(path, samples(3, first=3))
    os.utime(path, ns=(1, 1))
    with pytest.raises(LayoutError, match="has changed since it was listed"):
        read_bytes(source.root, source.files[0])


# The whole way.


def test_shards_of_tars_hold_the_same_images_and_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    pictures = {f"{number:04d}": jpeg(number) for number in range(24)}
    members = [
        (f"{key}.{ending}", data)
        for key, image in pictures.items()
        for ending, data in (("jpg", image), ("cls", str(int(key) % 3).encode()))
    ]
    write_tar(tmp_path / "in/set-train-0.tar", [*members[:32], ("bad.jpg", b""), ("bad.cls", b"1")])
    write_tar(tmp_path / "in/set-val-0.tar", members[32:])
    (tmp_path / "in/classes.txt").write_text("daisy\nrose\nyew\n")
    options = ["--min-side", "16", "--out", str(tmp_path / "out")]
    assert shard.main([str(tmp_path / "in/set-{train,val}-0.tar"), *options]) == 0
    assert "train from set-train-0.tar" in " ".join(capsys.readouterr().err.split())
    manifest = read_manifest(tmp_path / "out")
    assert manifest.class_names == ("daisy", "rose", "yew")
    assert manifest.cleaning == {"empty": 1}
    assert (tmp_path / "out/cleaning.csv").read_text().count("set-train-0.tar/bad.jpg,empty") == 1
    found = {}
    for split in ("train", "val"):
        rows = read_index(tmp_path / "out", split)
        sources = (tmp_path / "out" / f"{split}.sources.csv").read_text().splitlines()[1:]
        for row, line in zip(rows, sources, strict=True):
            key = line.rpartition("/")[2].removesuffix(".jpg")
            name = manifest.splits[split].shards[row["shard"]].name
            data = (tmp_path / "out" / name).read_bytes()[row["offset"] :][: row["size"]]
            found[key] = int(row["label"])
            assert (pixels_of(data) == pixels_of(pictures[key])).all()
    assert found == {key: int(key) % 3 for key in pictures}
    assert shard.main([str(tmp_path / "in/set-{train,val}-0.tar"), *options]) == 0
    assert "already holds these shards" in capsys.readouterr().out


def test_shards_are_a_source_again(tmp_path: Path):
    root = flower_tree(tmp_path / "data")
    side = ["--min-side", "16"]
    assert shard.main([str(root), *side, "--out", str(tmp_path / "one")]) == 0
    assert shard.main([str(tmp_path / "one"), *side, "--out", str(tmp_path / "two")]) == 0
    first, second = read_manifest(tmp_path / "one"), read_manifest(tmp_path / "two")
    assert second.class_names == first.classes
    counts = [{name: one.class_counts for name, one in it.splits.items()} for it in (first, second)]
    assert counts[0] == counts[1]


def test_shards_may_lie_beside_a_tar_but_not_in_a_folder_of_tars(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    members = [(f"{name}/{n}.jpg", jpeg(ord(name) + n)) for name in "ab" for n in range(4)]
    path = write_tar(tmp_path / "x.tar", members)
    side = ["--min-side", "16", "--out", str(tmp_path / "shards")]
    assert shard.main([str(tmp_path), *side]) == 1
    assert "lies within" in capsys.readouterr().err
    assert shard.main([str(path), *side]) == 0


def test_what_lies_in_a_tar_is_not_moved(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = write_tar(tmp_path / "x.tar", samples(3))
    words = [str(path), "--out", str(tmp_path / "out"), "--quarantine", str(tmp_path / "q")]
    assert shard.main(words) == 1
    assert "moves files, but these images lie in tars" in capsys.readouterr().err
