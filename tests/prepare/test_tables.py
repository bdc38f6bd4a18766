"""Tables and catalogues of labels as sources: read back against csv and json."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fastload import shard
from fastload.errors import LayoutError
from fastload.prepare.layout import LayoutOptions
from fastload.prepare.source import Source, read_source
from fastload.store.index import read_index
from fastload.store.manifest import read_manifest
from tests.pictures import jpeg, write_tree

ROWS = [
    ("images/1.jpg", "rose", "train"),
    ("images/2, two.jpg", "daisy", "train"),
    ('images/3 "three".jpg', "rose", "val"),
    ("images/Ä中.jpg", "Ä中", "train"),
]


def folder(root: Path, names: list[str] | None = None) -> Path:
    return write_tree(root, {name: name.encode() for name in names or [row[0] for row in ROWS]})


def table(path: Path, rows: Sequence[tuple[str, ...]], **form: Any) -> Path:
    with path.open("w", newline="", encoding=form.pop("encoding", "utf-8")) as file:
        csv.writer(file, **form).writerows(rows)
    return path


def found(source: Source) -> set[tuple[str, str, str]]:
    return {(file.path, source.classes[file.label], file.split) for file in source.files}


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"encoding": "utf-8-sig"},
        {"encoding": "utf-16"},
        {"lineterminator": "\n"},
        {"lineterminator": "\r\n", "quoting": csv.QUOTE_ALL},
        {"delimiter": ";"},
        {"delimiter": "\t"},
        {"delimiter": "|"},
    ],
)
def test_a_table_is_read_as_csv_reads_it(tmp_path: Path, form: dict[str, Any]):
    folder(tmp_path)
    path = table(tmp_path / "labels.csv", [("path", "label", "split"), *ROWS], **form)
    source = read_source(path)
    assert found(source) == set(ROWS)
    assert source.classes == ("daisy", "rose", "Ä中")
    assert source.layout == "listed in labels.csv: paths in path, labels in label, splits in split"


@pytest.mark.parametrize("name", ["labels.tsv", "labels.jsonl", "labels.ndjson", "labels.json"])
def test_other_forms_of_a_table_are_read(tmp_path: Path, name: str):
    folder(tmp_path)
    facts = [dict(zip(("path", "label", "split"), row, strict=True)) for row in ROWS]
    if name.endswith("tsv"):
        table(tmp_path / name, [("path", "label", "split"), *ROWS], delimiter="\t")
    elif name.endswith(".json"):
        (tmp_path / name).write_text(json.dumps(facts))
    else:
        (tmp_path / name).write_text("\n".join(map(json.dumps, facts)) + "\n\n")
    assert found(read_source(tmp_path / name)) == set(ROWS)


@pytest.mark.parametrize(
    "header",
    [
        ("filepath", "class", "split"),
        ("Filename", "Species", "Set"),
        ("file_name", "category_name", "subset"),
        ("image path", "class_name", "data set"),
        ("Image", "target", "Partition"),
    ],
)
def test_headers_have_their_usual_names(tmp_path: Path, header: tuple[str, str, str]):
    folder(tmp_path)
    assert found(read_source(table(tmp_path / "x.csv", [header, *ROWS]))) == set(ROWS)


def test_other_headers_are_named_by_options(tmp_path: Path):
    folder(tmp_path)
    path = table(tmp_path / "x.csv", [("where", "what", "when"), *ROWS])
    with pytest.raises(
        LayoutError, match=r"paths of the images: it has where, what, when.*--image"
    ):
        read_source(path)
    fields: dict[str, Any] = {"image_field": "where", "label_field": "what", "split_field": "when"}
    assert found(read_source(path, options=LayoutOptions(**fields))) == set(ROWS)
    with pytest.raises(
        LayoutError, match="has no column who, as --label-field asks; it has what, when"
    ):
        read_source(path, options=LayoutOptions(image_field="where", label_field="who"))


def test_integers_are_labels_and_a_column_beside_them_has_their_names(tmp_path: Path):
    folder(tmp_path, ["1.jpg", "2.jpg", "3.jpg"])
    rows = [
        ("filename", "label", "species"),
        ("1.jpg", "2", "C"),
        ("2.jpg", "0", "A"),
        ("3.jpg", "2", "C"),
    ]
    source = read_source(table(tmp_path / "x.csv", rows))
    assert source.classes == ("0", "1", "2")
    assert source.class_names == ("A", "1", "C")
    assert {(file.path, file.label) for file in source.files} == {
        ("1.jpg", 2),
        ("2.jpg", 0),
        ("3.jpg", 2),
    }


def test_integers_that_pandas_writes_with_a_point_are_integers(tmp_path: Path):
    folder(tmp_path, ["1.jpg", "2.jpg", "3.jpg"])
    rows = [("path", "label"), ("1.jpg", "1.0"), ("2.jpg", "0.0"), ("3.jpg", "")]
    source = read_source(table(tmp_path / "x.csv", rows))
    assert source.classes == ("0", "1")
    assert [(odd.path, odd.detail) for odd in source.oddities] == [("3.jpg", "has no label")]


def test_numbers_of_species_are_names(tmp_path: Path):
    folder(tmp_path, ["1.jpg", "2.jpg"])
    rows = [("path", "species_id"), ("1.jpg", "1355868"), ("2.jpg", "999999999")]
    table_of_names = {"1355868": "Lactuca virosa L."}
    (tmp_path / "plantnet300K_species_id_2_name.json").write_text(json.dumps(table_of_names))
    source = read_source(table(tmp_path / "x.csv", rows))
    assert source.classes == ("1355868", "999999999")
    assert source.class_names == ("Lactuca virosa L.", "999999999")
    assert any("are taken for names of 2 classes" in note for note in source.notes)


@pytest.mark.parametrize("first", [0, 1355868])
def test_a_number_with_a_point_is_the_same_label_in_every_table(tmp_path: Path, first: int):
    """pandas writes 3 as 3.0 in a table with gaps, and as 3 in one without."""
    folder(tmp_path, ["1.jpg", "2.jpg", "3.jpg", "4.jpg"])
    header, one, two = ("path", "label", "class_name"), str(first), str(first + 1)
    train = [header, ("1.jpg", one, "Rosa"), ("2.jpg", two, "Taxus")]
    val = [header, ("3.jpg", f"{one}.0", "Rosa"), ("4.jpg", f"{two}.0", "Taxus")]
    tables = [table(tmp_path / "train.csv", train), table(tmp_path / "val.csv", val)]
    source = read_source(tables)
    assert source.classes == (one, two)
    assert source.class_names == ("Rosa", "Taxus")
    assert {file.path: file.label for file in source.files} == {
        "1.jpg": 0, "2.jpg": 1, "3.jpg": 0, "4.jpg": 1
    }  # fmt: skip


def test_tables_that_number_the_classes_in_two_ways_are_refused(tmp_path: Path):
    folder(tmp_path, ["1.jpg", "2.jpg", "3.jpg"])
    header = ("path", "label", "class_name")
    train = table(tmp_path / "train.csv", [header, ("1.jpg", "0", "Rosa"), ("2.jpg", "1", "Taxus")])
    val = table(tmp_path / "val.csv", [header, ("3.jpg", "0", "Taxus")])
    message = "val.csv calls class 0 'Taxus', and train.csv calls it 'Rosa'"
    with pytest.raises(LayoutError, match=message):
        read_source([train, val])
    rows = [header, ("1.jpg", "0", "Rosa"), ("2.jpg", "0", "Malus")]  # finer than the classes
    source = read_source([table(tmp_path / "train.csv", rows), val])
    assert source.class_names == ("0",)


@pytest.mark.parametrize(
    "text",
    [
        "path, label\n1.jpg, a\n2.jpg, b\n",
        'label, path\na, 1.jpg\n"b", "2.jpg"\n',
        "\npath,label\n\n1.jpg,a\n,\n2.jpg,b\n   \n",
    ],
)
def test_spaces_behind_commas_and_empty_rows_are_no_data(tmp_path: Path, text: str):
    folder(tmp_path, ["1.jpg", "2.jpg"])
    (tmp_path / "x.csv").write_text(text)
    files = read_source(tmp_path / "x.csv").files
    assert {(file.path, file.label) for file in files} == {("1.jpg", 0), ("2.jpg", 1)}


def test_a_number_among_names_is_a_name_and_is_said(tmp_path: Path):
    folder(tmp_path, ["1.jpg", "2.jpg"])
    source = read_source(
        table(tmp_path / "x.csv", [("path", "label"), ("1.jpg", "7"), ("2.jpg", "b")])
    )
    assert source.classes == ("7", "b")
    assert "'7' is taken for the name of a class, since 'b' is one" in source.notes


def test_a_column_that_holds_no_splits_is_said_or_refused(tmp_path: Path):
    folder(tmp_path, ["1.jpg", "2.jpg"])
    rows = [("path", "label", "dataset"), ("1.jpg", "a", "inat"), ("2.jpg", "b", "flickr")]
    source = read_source(table(tmp_path / "x.csv", rows))
    assert "passed over, no splits: column dataset, such as 'inat'" in source.notes
    rows = [("path", "label", "is_valid"), ("1.jpg", "a", "False"), ("2.jpg", "b", "True")]
    notes = read_source(table(tmp_path / "x.csv", rows)).notes
    assert any(note.startswith("passed over: column is_valid; a column split") for note in notes)
    rows = [("path", "label", "split"), ("1.jpg", "a", "0"), ("2.jpg", "b", "1")]
    with pytest.raises(LayoutError, match="line 2: has '0' in split; expected train, val or test"):
        read_source(table(tmp_path / "x.csv", rows))


def test_a_list_of_classes_beside_the_table_gives_their_order(tmp_path: Path):
    folder(tmp_path)
    (tmp_path / "classes.txt").write_text("rose\nyew\nÄ中\ndaisy\n")
    source = read_source(table(tmp_path / "x.csv", [("path", "label", "split"), *ROWS]))
    assert source.classes == ("rose", "yew", "Ä中", "daisy")
    assert found(source) == set(ROWS)


def test_several_tables_are_the_splits_of_their_names(tmp_path: Path):
    folder(tmp_path)
    table(tmp_path / "train.csv", [("path", "label"), *(row[:2] for row in ROWS[:2])])
    table(tmp_path / "valid.csv", [("path", "label"), ROWS[2][:2]])
    source = read_source([tmp_path / "train.csv", tmp_path / "valid.csv"])
    assert Counter(file.split for file in source.files) == {"train": 2, "val": 1}


def test_without_splits_a_table_is_split_by_class(tmp_path: Path):
    names = [f"{number}.jpg" for number in range(20)]
    folder(tmp_path, names)
    path = table(
        tmp_path / "x.csv",
        [("path", "label"), *((name, "ab"[n % 2]) for n, name in enumerate(names))],
    )
    source = read_source(path)
    assert Counter(file.split for file in source.files) == {"train": 16, "val": 2, "test": 2}
    assert source.folders["val"] == "0.1 of each class of x.csv"


@pytest.mark.parametrize(
    ("images", "given", "note"),
    [
        ("images/{}.jpg", "{}.jpg", "images/NAME"),
        ("train/{}.jpg", "{}", "train/NAME.jpg"),
        ("data/images/{}.jpg", "{}.jpg", "data/images/NAME"),
        ("{}.png", "{}", "NAME.png"),
        ("images/{}.jpg", "images\\{}.jpg", ""),
        ("deep/images/{}.jpg", "images\\{}.jpg", "deep/NAME"),
    ],
)
def test_images_beside_the_table_are_found_from_its_names(
    tmp_path: Path, images: str, given: str, note: str
):
    """Kaggle's tables: id without extension, in a folder that no column names."""
    write_tree(tmp_path, {images.format(n): b"x" for n in "123"} | {"other/9.jpg": b""})
    rows = [("id", "breed"), *((given.format(n), "ab"[int(n) % 2]) for n in "123")]
    source = read_source(table(tmp_path / "labels.csv", rows))
    assert {file.path for file in source.files} == {images.format(n) for n in "123"}
    assert not note or f"the images of labels.csv are {note}" in source.notes


def test_names_that_lie_in_two_folders_alike_are_refused(tmp_path: Path):
    write_tree(tmp_path, {f"{folder}/{n}.jpg": b"x" for folder in "ab" for n in "12"})
    path = table(tmp_path / "x.csv", [("path", "label"), ("1.jpg", "a"), ("2.jpg", "b")])
    with pytest.raises(LayoutError, match="names files that lie in a, b alike"):
        read_source(path)


# What is wrong with a table is one sentence that names the line.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "is empty|no rows"),
        (b"path,label\n", "no rows below its header"),
        (b"a.jpg,rose\n", "no rows below"),
        (b"path,label\na.jpg,rose\n../b.jpg,rose\n", r"line 3: names ../b.jpg, which lies outside"),
        (b"path,label\na.jpg,rose\n/etc/passwd,rose\n", "line 3: names /etc/passwd, which l"),
        (b"path,label\na.jpg,rose\nx/../../b.jpg,x\n", "line 3: .*lies outside"),
        (b"path,label\na.jpg,rose\nhttps://x/b.jpg,x\n", "line 3: .*expected a file on this disk"),
        (b"path,label\na.jpg,rose\n,x\n", "line 3: names no file"),
        (b"path,label\na.jpg,rose\na\0.jpg,x\n", "line 3: "),
        (b"path,label\na.jpg,caf\xe9\n", "line 2: is not UTF-8"),
        (b"path,label\na.jpg,rose\nb\xff.jpg,x\n", "line 3: is not UTF-8"),
        (b"path,label\na.jpg,rose\na.jpg,tulip\n",
         "line 3: gives a.jpg the second of two labels: 'tulip', and 'rose' in line 2 of x.csv"),
        (b"path,label,split\na.jpg,rose,train\n./a.jpg,rose,val\n",
         "line 3: gives a.jpg the second of two splits: 'val', and 'train' in line 2"),
        (b"path,label,split\na.jpg,rose,train\nb.jpg,rose,9\n", "line 3: has '9' in split"),
        (b"path,label\na.jpg,rose,7\n", "line 2: has 3 fields, and the header 2"),
        (b"path,label\na.jpg\n", "line 2: has 1 field, and the header 2"),
        (b'path,label\na.jpg,"rose\n', "is damaged"),
        (b"path,label,label\na.jpg,1,2\n", "has two columns label"),
        (b"path,label\nnone.jpg,rose\n", "names none.jpg, which is not there"),
        (b"path,label\na.jpg,\n", "none of the 1 image .*has a label"),
        (b"path,label\na.jpg,-3\n", "-3 is no label"),
        (b"\xff\xfep\0a\0t\0h\0,\0l\0a\0b\0e\0l\0\n\0a", "is not UTF-16"),
    ],
)  # fmt: skip
def test_a_damaged_table_is_refused(tmp_path: Path, text: bytes, message: str):
    folder(tmp_path, ["a.jpg", "b.jpg"])
    (tmp_path / "x.csv").write_bytes(text)
    with pytest.raises(LayoutError, match=message) as caught:
        read_source(tmp_path / "x.csv")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"path": "a.jpg", "label": "x"}\n{', "line 2: is not JSON"),
        ('{"path": "a.jpg", "label": "x"}\n[1]', "line 2: is no object"),
        ('{"path": "a.jpg", "label": ["x", "y"]}', "line 1: has a list"),
        ('{"path": "a.jpg", "label": true}', "line 1: has true or false"),
        ('{"path": {"a": 1}, "label": 1}', "is not there|names no file"),
    ],
)
def test_damaged_json_lines_are_refused(tmp_path: Path, text: str, message: str):
    folder(tmp_path, ["a.jpg"])
    (tmp_path / "x.jsonl").write_text(text)
    with pytest.raises(LayoutError, match=message):
        read_source(tmp_path / "x.jsonl")


def test_files_that_are_missing_or_none_are_reported(tmp_path: Path):
    folder(tmp_path, ["a.jpg"])
    (tmp_path / "b.jpg").mkdir()
    (tmp_path / "c.jpg").symlink_to("nothing")
    rows = [("path", "label"), *((f"{name}.jpg", "x") for name in "abcd")]
    source = read_source(table(tmp_path / "x.csv", rows))
    assert [file.path for file in source.files] == ["a.jpg"]
    details = {odd.path: odd.detail for odd in source.oddities}
    assert details["b.jpg"] == "a folder"
    assert "a link to nothing" in details["c.jpg"]
    assert details["d.jpg"] == "is named in x.csv, line 5, but is not there"
    assert "1 of the files that are named are not there" in source.notes


def test_rows_that_say_the_same_again_are_passed_over(tmp_path: Path):
    folder(tmp_path, ["a.jpg", "b.jpg"])
    rows = [("path", "label"), ("a.jpg", "x"), ("./a.jpg", "x"), ("b.jpg", "y"), ("b.jpg", "y")]
    source = read_source(table(tmp_path / "x.csv", rows))
    assert len(source.files) == 2
    assert "passed over, named again: 2 files" in source.notes


def test_an_absolute_path_within_the_folder_is_taken(tmp_path: Path):
    folder(tmp_path, ["a.jpg", "b.jpg"])
    rows = [("path", "label"), (str(tmp_path / "a.jpg"), "x"), ("b.jpg", "y")]
    assert {file.path for file in read_source(table(tmp_path / "x.csv", rows)).files} == {
        "a.jpg",
        "b.jpg",
    }


@pytest.mark.slow
def test_a_million_rows_fit_in_bounded_memory(tmp_path: Path):
    """All rows name the same 100 files again, so that a file system of any speed gives them."""
    folder(tmp_path, [f"{n}.jpg" for n in range(100)])
    with (tmp_path / "x.csv").open("w") as file:
        file.write("path,label\n")
        file.writelines(f"{n % 100}.jpg,{n % 10}\n" for n in range(1_000_000))
    program = "from fastload.prepare.source import read_source\n"
    program += "from tests.memory import peak_bytes\nbefore = peak_bytes()\n"
    program += f"source = read_source({str(tmp_path / 'x.csv')!r})\n"
    program += "print(len(source.files), peak_bytes() - before)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    count, grown = map(int, done.stdout.split())
    assert count == 100
    assert grown < 50 << 20


def test_shards_of_a_table_hold_its_images_and_labels(tmp_path: Path):
    images = {f"images/{n}.jpg": jpeg(n) for n in range(20)}
    write_tree(tmp_path, images)
    rows = [(f"{n}.jpg", str(n % 2), "val" if n > 15 else "train") for n in range(20)]
    path = table(tmp_path / "labels.csv", [("file", "label", "split"), *rows])
    words = [str(path), "--out", str(tmp_path / "shards"), "--min-side", "16"]
    assert shard.main(words) == 0
    manifest = read_manifest(tmp_path / "shards")
    assert {name: split.class_counts for name, split in manifest.splits.items()} == {
        "train": (8, 8),
        "val": (2, 2),
    }
    sources = (tmp_path / "shards/train.sources.csv").read_text().splitlines()[1:]
    labels = read_index(tmp_path / "shards", "train")["label"].tolist()
    assert [int(line.rpartition("/")[2][:-4]) % 2 for line in sources] == labels
    assert shard.main(words) == 0  # complete
    table(
        path, [("file", "label", "split"), *((a, "1" if b == "0" else "0", c) for a, b, c in rows)]
    )
    assert shard.main(words) == 1  # other labels are other shards


# Catalogues.


def catalogue(images: dict[str, int], first: int = 0) -> dict[str, Any]:
    return {
        "info": {},
        "images": [{"id": first + n, "file_name": name} for n, name in enumerate(images)],
        "annotations": [
            {"id": n, "image_id": first + n, "category_id": label}
            for n, label in enumerate(images.values())
        ],
    }


NAMED = [{"id": 0, "name": "Rosa"}, {"id": 1, "name": "Bellis"}, {"id": 2, "name": "Taxus"}]


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("listed", [True, False])
def test_catalogues_of_inaturalist_are_read(tmp_path: Path, apart: bool, listed: bool):
    train = {f"train_val2018/Plantae/{n % 3}/{n}.jpg": n % 3 for n in range(9)}
    val = {f"train_val2018/Plantae/{n % 3}/{n}.jpg": n % 3 for n in range(9, 12)}
    write_tree(tmp_path, dict.fromkeys([*train, *val], b"x"))
    for name, images, first in (("train2018.json", train, 0), ("val2018.json", val, 100)):
        held = catalogue(images, first) | ({} if apart else {"categories": NAMED})
        (tmp_path / name).write_text(json.dumps(held))
    if apart:
        categories = NAMED if listed else {"categories": NAMED}
        (tmp_path / "categories.json").write_text(json.dumps(categories))
    source = read_source([tmp_path / "train2018.json", tmp_path / "val2018.json"])
    assert {(file.path, file.label, file.split) for file in source.files} == {
        *((name, label, "train") for name, label in train.items()),
        *((name, label, "val") for name, label in val.items()),
    }
    assert source.class_names == ("Rosa", "Bellis", "Taxus")
    assert len(read_source(tmp_path / "train2018.json").files) == 9


def test_a_folder_of_inaturalist_is_read_by_its_catalogues(tmp_path: Path):
    """Its folders are kingdoms, with the numbers of the species within them."""
    train = {f"train_val2018/{'AB'[n % 2]}/{n % 4}/{n}.jpg": n % 4 for n in range(8)}
    val = {f"train_val2018/{'AB'[n % 2]}/{n % 4}/{n}.jpg": n % 4 for n in range(8, 12)}
    write_tree(tmp_path, dict.fromkeys([*train, *val], b"x"))
    (tmp_path / "train2018.json").write_text(json.dumps(catalogue(train)))
    (tmp_path / "val2018.json").write_text(json.dumps(catalogue(val, 100)))
    source = read_source(tmp_path)
    assert source.layout == "listed in train2018.json, val2018.json"
    assert {(file.path, file.label) for file in source.files} == {*train.items(), *val.items()}


def test_a_folder_with_splits_is_read_as_before(tmp_path: Path):
    """That of 2021 has a folder for each species, in the order of their numbers."""
    train = {f"train/{n:05d}_x/{n}.jpg": n for n in range(3)}
    write_tree(tmp_path, dict.fromkeys(train, b"x"))
    (tmp_path / "train.json").write_text(json.dumps(catalogue(train)))
    source = read_source(tmp_path)
    assert source.classes == ("00000_x", "00001_x", "00002_x")
    assert {file.path: file.label for file in source.files} == train


def test_a_folder_of_images_names_the_table_beside_them(tmp_path: Path):
    write_tree(tmp_path, {"images/1.jpg": b"x", "images/2.jpg": b"x"})
    table(tmp_path / "labels.csv", [("file", "label"), ("1.jpg", "a"), ("2.jpg", "b")])
    with pytest.raises(LayoutError, match=r"; .*/labels\.csv may be its table: give that"):
        read_source(tmp_path)
    assert len(read_source(tmp_path / "labels.csv").files) == 2


def test_a_catalogue_of_a_test_set_has_no_labels(tmp_path: Path):
    write_tree(tmp_path, {"a.jpg": b"x", "b.jpg": b"x"})
    (tmp_path / "train.json").write_text(json.dumps(catalogue({"a.jpg": 0})))
    (tmp_path / "test.json").write_text(json.dumps({"images": [{"id": 1, "file_name": "b.jpg"}]}))
    source = read_source([tmp_path / "train.json", tmp_path / "test.json"])
    assert [file.path for file in source.files] == ["a.jpg"]
    assert "passed over, no labels: test.json (1 image)" in source.notes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotations": [{"image_id": 0, "category_id": 0}, {"image_id": 0, "category_id": 1}]},
         "image 0 has two categories, 0 and 1"),
        ({"images": [{"id": 0, "file_name": "../a.jpg"}]}, "image 1: names ../a.jpg, which lies"),
        ({"images": [{"id": 0}]}, "no catalogue of labelled images .*file_name"),
        ({"images": [5]}, "no catalogue of labelled images"),
        ({"annotations": [{"image_id": 0, "category_id": [1]}]}, "a list"),
        ({"images": [{"id": 0, "file_name": "none.jpg"}]}, "none of the files that x.json names"),
        ({"images": [{"id": 0, "file_name": "a.jpg"}, {"id": 0, "file_name": "b.jpg"}]},
         "two images have the id 0: a.jpg and b.jpg"),
        ({"categories": [*NAMED, {"id": 0, "name": "Malus"}]}, "calls class 0 'Malus'.*'Rosa'"),
    ],
)  # fmt: skip
def test_a_damaged_catalogue_is_refused(tmp_path: Path, change: dict[str, Any], message: str):
    write_tree(tmp_path, {"a.jpg": b"x"})
    (tmp_path / "x.json").write_text(json.dumps(catalogue({"a.jpg": 0}) | change))
    with pytest.raises(LayoutError, match=message):
        read_source(tmp_path / "x.json")


def test_catalogues_that_number_the_classes_in_two_ways_are_refused(tmp_path: Path):
    write_tree(tmp_path, {"a.jpg": b"x", "b.jpg": b"x"})
    other = [one | {"id": 2 - place} for place, one in enumerate(NAMED)]
    for name, image, categories in (("train", "a.jpg", NAMED), ("val", "b.jpg", other)):
        held = catalogue({image: 0}) | {"categories": categories}
        (tmp_path / f"{name}.json").write_text(json.dumps(held))
    message = "val.json calls class 2 'Rosa', and train.json calls it 'Taxus'"
    with pytest.raises(LayoutError, match=message):
        read_source([tmp_path / "train.json", tmp_path / "val.json"])


def test_numbers_of_species_have_the_names_of_their_catalogue(tmp_path: Path):
    write_tree(tmp_path, {"a.jpg": b"x", "b.jpg": b"x"})
    names = [{"id": 1355868, "name": "Rosa"}, {"id": 200000, "name": "Taxus"}]
    held = catalogue({"a.jpg": 1355868, "b.jpg": 200000}) | {"categories": names}
    (tmp_path / "x.json").write_text(json.dumps(held))
    source = read_source(tmp_path / "x.json")
    assert source.classes == ("200000", "1355868")
    assert source.class_names == ("Taxus", "Rosa")


@pytest.mark.parametrize("text", ["{", "[[[", '{"a": 1}', "7", '"x"'])
def test_json_that_is_neither_is_refused(tmp_path: Path, text: str):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(LayoutError):
        read_source(tmp_path / "x.json")


# Pl@ntNet-300K.


def test_the_names_of_plantnets_second_version_are_found(tmp_path: Path):
    names = [
        f"images/images/{split}/{n:04d}/a.jpg"
        for split in ("train", "val", "test")
        for n in (0, 1, 12)
    ]
    write_tree(tmp_path, dict.fromkeys(names, b"x"))
    rows = [("species_id", "full_species", "genus"), ("0", "Rosa alba L.", "Rosa"),
            ("1", "Bellis perennis L.", "Bellis"), ("12", "Taxus baccata L.", "Taxus")]  # fmt: skip
    table(tmp_path / "species_metadata.csv", rows)
    table(tmp_path / "plantnet300K_metadata.csv", [("image_id", "species_id"), ("1", "0")])
    source = read_source(tmp_path)
    assert source.classes == ("0000", "0001", "0012")
    assert source.class_names == ("Rosa alba L.", "Bellis perennis L.", "Taxus baccata L.")


@pytest.mark.parametrize("text", [b"a,b\n1,2\n", b"", b"\xff\xfe\xff", b'species_id,species\n"1'])
def test_a_damaged_table_of_species_is_refused(tmp_path: Path, text: bytes):
    write_tree(tmp_path, {"train/0000/1.jpg": b"x", "species_metadata.csv": text})
    with pytest.raises(LayoutError, match="not a table of species names"):
        read_source(tmp_path)
