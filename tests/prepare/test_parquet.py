"""Parquet as a source: read back against pyarrow; in place where its bytes lie as they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fastload import index, shard
from fastload.errors import LayoutError
from fastload.installation import install_command
from fastload.prepare.layout import LayoutOptions
from fastload.prepare.reading import read_bytes
from fastload.prepare.source import Source, read_source
from fastload.store.index import read_index
from fastload.store.manifest import read_manifest
from tests.pictures import encoded, jpeg, picture, pixels_of

pa = pytest.importorskip("pyarrow", reason="pip install pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

NAMES = ["daisy", "rose", "yew"]
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def features(**columns: dict[str, Any]) -> dict[bytes, bytes]:
    held = {"image": {"_type": "Image"}, "label": {"names": NAMES, "_type": "ClassLabel"}}
    return {b"huggingface": json.dumps({"info": {"features": held | columns}}).encode()}


def write(
    path: Path,
    images: Sequence[bytes | None],
    labels: Sequence[Any],
    *,
    names: Sequence[str | None] | None = None,
    metadata: dict[bytes, bytes] | None = None,
    columns: tuple[str, str] = ("image", "label"),
    **options: Any,
) -> Path:
    """A file as Hugging Face's datasets writes it."""
    names = names or [None] * len(images)
    rows = [{"bytes": image, "path": name} for image, name in zip(images, names, strict=True)]
    schema = pa.schema([(columns[0], IMAGE), (columns[1], pa.array(labels).type)])
    table = pa.table({columns[0]: pa.array(rows, IMAGE), columns[1]: labels}, schema)
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = table.schema.with_metadata(features() if metadata is None else metadata)
    pq.write_table(table.cast(schema), path, **options)
    return path


def held(source: Source) -> dict[str, tuple[str, bytes]]:
    return {
        file.path: (source.class_names[file.label], read_bytes(source.root, file))
        for file in source.files
    }


IMAGES = [jpeg(number) for number in range(40)]
LABELS = [number % 3 for number in range(40)]


@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("group", [7, 1000])
@pytest.mark.parametrize("compression", ["NONE", "SNAPPY", "ZSTD", "GZIP", "LZ4"])
@pytest.mark.parametrize("page", [4096, 1 << 20])
def test_images_and_labels_are_those_that_pyarrow_reads(
    tmp_path: Path, dictionary: bool, group: int, compression: str, page: int
):
    form: dict[str, Any] = {
        "row_group_size": group,
        "compression": compression,
        "data_page_size": page,
    }
    path = write(tmp_path / "x.parquet", IMAGES, LABELS, use_dictionary=dictionary, **form)
    source = read_source(path)
    table = pq.read_table(path).to_pylist()
    assert held(source) == {
        f"x.parquet/{number}.jpg": (NAMES[row["label"]], row["image"]["bytes"])
        for number, row in enumerate(table)
    }
    assert source.classes == ("0", "1", "2")
    assert source.class_names == tuple(NAMES)
    in_place = compression == "NONE"
    assert all((file.offset > 0) == in_place for file in source.files)
    if in_place:
        data = path.read_bytes()
        for file in source.files:
            number = int(file.path.rpartition("/")[2][:-4])
            assert data[file.offset :][: file.bytes] == IMAGES[number]
    else:
        assert any("compressed in the parquet files" in note for note in source.notes)


def test_the_same_image_twice_and_images_with_one_beginning_are_found(tmp_path: Path):
    first = jpeg(1)
    images = [first, first[:-1] + b"x", first, first[:-1] + b"y", first + b"z"]
    path = write(tmp_path / "x.parquet", images, [0, 1, 2, 0, 1], compression="NONE")
    source = read_source(path)
    assert all(file.offset > 0 for file in source.files)
    assert [data for _, data in dict(sorted(held(source).items())).values()] == images


def test_splits_are_those_of_the_file_names(tmp_path: Path):
    for split, parts in (("train", 2), ("validation", 1), ("test", 1)):
        for part in range(parts):
            name = f"data/{split}-{part:05d}-of-{parts:05d}.parquet"
            write(tmp_path / name, IMAGES[:4], [0, 1, 2, -1 if split == "test" else 0])
    (tmp_path / "README.md").write_text("---\n")
    source = read_source(tmp_path)
    assert Counter(file.split for file in source.files) == {"train": 8, "val": 4, "test": 3}
    assert source.folders["train"] == "data/train-00000-of-00002.parquet and 1 more"
    assert [odd.detail for odd in source.oddities] == ["has no label"]
    assert len(read_source(str(tmp_path / "data/train-{00000..00001}-of-00002.parquet")).files) == 8


def test_a_column_of_splits_is_said_to_be_passed_over(tmp_path: Path):
    rows = pa.array([{"bytes": image, "path": None} for image in IMAGES[:2]], IMAGE)
    table = pa.table({"image": rows, "label": [0, 1], "split": ["train", "val"]})
    pq.write_table(table, tmp_path / "x.parquet")
    notes = read_source(tmp_path / "x.parquet").notes
    assert "passed over: column split; splits are told by the names of the files" in notes


@pytest.mark.parametrize("packed", [("a",), ("a", "b")])
def test_images_that_are_compressed_are_not_indexed_in_part(
    tmp_path: Path, packed: tuple[str, ...], capsys: pytest.CaptureFixture[str]
):
    for number, name in enumerate(("a", "b")):
        write(
            tmp_path / f"{name}.parquet",
            *(IMAGES[number * 20 :][:20], LABELS[number * 20 :][:20]),
            compression="SNAPPY" if name in packed else "NONE",
        )
    assert index.main([str(tmp_path), "--min-side", "16"]) == 1
    count = 20 * len(packed)
    assert f"holds {count} of 40 images compressed, which" in capsys.readouterr().err
    assert not list(tmp_path.rglob("index.json"))


def test_two_sets_in_one_folder_are_refused(tmp_path: Path):
    for name in ("full", "cropped"):
        write(tmp_path / name / "train-00000-of-00001.parquet", IMAGES[:3], [0, 1, 2])
    with pytest.raises(LayoutError, match="cropped and full both hold parquet files for train"):
        read_source(tmp_path)
    assert len(read_source(tmp_path / "full").files) == 3


def test_the_extension_is_that_of_the_name_or_of_the_bytes(tmp_path: Path):
    png = encoded(picture(3), "PNG")
    images = [IMAGES[0], png, png, IMAGES[1]]
    names = ["a.JPEG", None, "b.jpg", "no extension"]
    source = read_source(write(tmp_path / "x.parquet", images, [0, 1, 2, 0], names=names))
    assert sorted(held(source)) == [f"x.parquet/{n}" for n in ("0.JPEG", "1.png", "2.jpg", "3.jpg")]


def test_other_columns_are_named_by_options(tmp_path: Path):
    metadata = features() | {b"huggingface": b"{}"}
    path = write(
        tmp_path / "x.parquet",
        IMAGES[:3],
        ["b", "a", "b"],
        columns=("scan", "kind"),
        metadata=metadata,
    )
    with pytest.raises(LayoutError, match=r"no column is known to hold the classes.*--label-field"):
        read_source(path)
    source = read_source(path, options=LayoutOptions(label_field="kind"))
    assert source.classes == ("a", "b")
    assert [file.label for file in sorted(source.files, key=lambda one: one.path)] == [1, 0, 1]


def test_several_columns_of_classes_need_a_choice(tmp_path: Path):
    table = pa.table(
        {
            "img": pa.array([{"bytes": image, "path": None} for image in IMAGES[:3]], IMAGE),
            "fine_label": [0, 1, 2],
            "coarse_label": [0, 0, 1],
        }
    )
    named = {"img": {"_type": "Image"}} | {
        f"{kind}_label": {"_type": "ClassLabel", "names": names}
        for kind, names in (("fine", NAMES), ("coarse", ["x", "y"]))
    }
    metadata = {b"huggingface": json.dumps({"info": {"features": named}}).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "x.parquet")
    with pytest.raises(LayoutError, match="fine_label, coarse_label may hold the classes"):
        read_source(tmp_path / "x.parquet")
    options = LayoutOptions(label_field="coarse_label")
    assert read_source(tmp_path / "x.parquet", options=options).class_names == ("x", "y")


def test_a_plain_column_of_bytes_is_taken(tmp_path: Path):
    table = pa.table({"jpg": pa.array(IMAGES[:3], pa.binary()), "cls": [0, 1, 0]})
    pq.write_table(table, tmp_path / "x.parquet", compression="NONE")
    source = read_source(tmp_path / "x.parquet")
    assert [data for _, data in dict(sorted(held(source).items())).values()] == IMAGES[:3]
    assert all(file.offset > 0 for file in source.files)


def test_rows_without_an_image_are_reported(tmp_path: Path):
    path = write(
        tmp_path / "x.parquet", [IMAGES[0], None, b""], [0, 1, 2], names=["a.jpg", "b.jpg", "c.jpg"]
    )
    source = read_source(path)
    assert [file.bytes for file in source.files] == [len(IMAGES[0]), 0]
    assert [(odd.path, odd.detail) for odd in source.oddities] == [
        ("x.parquet/1.jpg", "a row that holds no image, but the path b.jpg")
    ]
    assert b"" in {data for _, data in held(source).values()}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["a"], "label": [0]}, "no column is known to hold the images"),
        ({"image": ["a.jpg"], "label": [0]}, "no column is known to hold the images"),
        ({"image": [{"bytes": "text"}], "label": [0]}, "holds no encoded images"),
        ({"image": [{"bytes": [1, 2]}], "label": [0]}, "holds no encoded images"),
        ({"image": [{"bytes": b"x"}], "label": [[1, 2]]}, "a list"),
        (
            {"image": pa.array([{"bytes": None, "path": "a.jpg"}], IMAGE), "label": [0]},
            "holds no images .*x.parquet/0.jpg is a row that holds no image, but the path a.jpg",
        ),
    ],
)
def test_what_holds_no_labelled_images_is_refused(
    tmp_path: Path, columns: dict[str, Any], message: str
):
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises(LayoutError, match=message):
        read_source(tmp_path / "x.parquet")


@pytest.mark.parametrize("size", [0, 3, 100, 2000, -9])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, size: int):
    path = write(tmp_path / "x.parquet", IMAGES, LABELS)
    data = path.read_bytes()
    path.write_bytes(data[:size])
    with pytest.raises(LayoutError, match=r"x\.parquet cannot be read as parquet") as caught:
        read_source(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_changes_is_noticed_when_it_is_read(tmp_path: Path):
    for compression in ("NONE", "SNAPPY"):
        path = write(tmp_path / "x.parquet", IMAGES, LABELS, compression=compression)
        source = read_source(path)
        write(path, IMAGES[::-1], LABELS, compression=compression)
        os.utime(path, ns=(1, 1))
        with pytest.raises(LayoutError, match="has changed since it was listed"):
            read_bytes(source.root, source.files[0])


def test_without_pyarrow_one_sentence_says_what_to_install(tmp_path: Path):
    path = write(tmp_path / "x.parquet", IMAGES, LABELS)
    program = "import sys\nsys.modules['pyarrow'] = None\nfrom fastload import shard\n"
    program += f"sys.exit(shard.main([{str(path)!r}]))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"which is not installed: {install_command('parquet')}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("compression", ["NONE", "SNAPPY"])
def test_shards_of_parquet_hold_its_images_and_labels(tmp_path: Path, compression: str):
    form: dict[str, Any] = {"compression": compression, "row_group_size": 10}
    write(tmp_path / "in/train-0.parquet", IMAGES[:30], LABELS[:30], **form)
    write(tmp_path / "in/test-0.parquet", IMAGES[30:], LABELS[30:], **form)
    out = tmp_path / "shards"
    assert shard.main([str(tmp_path / "in"), "--out", str(out), "--min-side", "16"]) == 0
    manifest = read_manifest(out)
    assert manifest.class_names == tuple(NAMES)
    assert sum(one.samples for one in manifest.splits.values()) == 40
    for split, first in (("train", 0), ("test", 30)):
        lines = (out / f"{split}.sources.csv").read_text().splitlines()[1:]
        for row, line in zip(read_index(out, split), lines, strict=True):
            number = first + int(line.rpartition("/")[2].removesuffix(".jpg"))
            assert row["label"] == LABELS[number]
            name = manifest.splits[split].shards[row["shard"]].name
            data = (out / name).read_bytes()[row["offset"] :][: row["size"]]
            assert (pixels_of(data) == pixels_of(IMAGES[number])).all()
