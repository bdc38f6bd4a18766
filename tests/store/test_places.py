"""An index of data in place says what is there, within bounds; a reader reads it, checked."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from fastload import Loader, TarDataset
from fastload.errors import ShardError
from fastload.load.augment import Augment
from fastload.pixels import native
from fastload.store.collection import open_collection
from fastload.store.holders import FILE
from fastload.store.places import (
    FOLDER_NAME,
    PLACE,
    cache_folder,
    find_index,
    names_of,
    points_name,
)
from fastload.store.reader import FileReader, Scratch
from tests.places import index_by_hand, numbered_in_place, rewrite_names
from tests.shards import flat_picture, numbered
from tests.store.test_reader import advised, open_descriptors, read  # noqa: F401  a fixture

COUNT = 12


def parts() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Rows, files and paths of some pictures in two classes."""
    rows, files, paths = np.zeros(COUNT, PLACE), np.zeros(COUNT, FILE), []
    for number in range(COUNT):
        picture = flat_picture(number, number % 2)
        paths.append(f"train/{'ab'[number % 2]}/{number}.jpg")
        row = rows[number : number + 1]
        row["file"], row["label"], row["size"] = number, number % 2, len(picture.jpeg)
        row["height"], row["width"], row["orientation"] = 48, 64, 1
        row["crc32"] = zlib.crc32(picture.jpeg)
    files["bytes"], files["alone"] = rows["size"], 1
    return rows, files, paths


def written(
    directory: Path, rows: np.ndarray, files: np.ndarray, paths: list[str], **facts
) -> Path:
    for number, path in enumerate(paths):
        if ".." not in path and not path.startswith("/"):
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            (directory / path).write_bytes(flat_picture(number, 0).jpeg)
    within = [path if ".." not in path and path[0] != "/" else "train/a/0.jpg" for path in paths]
    names, ends = names_of(paths)
    index_by_hand(directory, {"train": rows}, files, within, classes=["a", "b"], **facts)
    if within != paths:  # an index with these names all the same
        files["name_end"] = ends
        rewrite_names(directory, files, names)
    return directory


def test_what_is_read_is_what_lies_in_the_files(tmp_path):
    reader = FileReader(open_collection([written(tmp_path, *parts())], "train"))
    images, bad = read(reader, [11, 0, 5, 5])
    assert images == [flat_picture(number, 0).jpeg for number in (11, 0, 5, 5)]
    assert bad == {}
    assert str(reader.locate(5)) == "train/b/5.jpg"
    assert reader.file_of(5) == "5.jpg"


def test_no_file_stays_open(tmp_path):
    reader = FileReader(open_collection([written(tmp_path, *parts())], "train"))
    before = open_descriptors()
    read(reader, list(range(COUNT)))
    reader.read_ahead(np.arange(COUNT))
    assert open_descriptors() == before


def test_files_in_place_are_read_ahead(tmp_path, advised, monkeypatch):  # noqa: F811
    """Without the core, whose requests nobody sees; what it is asked for is the same."""
    monkeypatch.setattr(native, "is_available", lambda: False)
    reader = FileReader(open_collection([written(tmp_path, *parts())], "train"))
    (tmp_path / "train/a/4.jpg").unlink()
    reader.read_ahead(np.array([3, 4, 7]))
    expected = [(tmp_path / f"train/b/{n}.jpg").stat() for n in (3, 7)]
    assert advised == [(status.st_ino, 0, status.st_size) for status in expected]


def test_without_a_free_descriptor_the_limit_is_named(tmp_path):
    directory = written(tmp_path / "d", *parts())
    program = """
import resource, sys
import numpy as np
from fastload.store.collection import open_collection
from fastload.store.reader import FileReader, Scratch
from fastload.errors import ShardError
reader = FileReader(open_collection([sys.argv[1]], "train"))
files = []
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
try:
    while True:
        files.append(open("/dev/null"))
except OSError:
    pass
try:
    reader.read(np.arange(3), Scratch())
except ShardError as error:
    print(error)
files.pop().close()
print(reader.read(np.arange(3), Scratch())[1])
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(directory)], capture_output=True, text=True
    )
    first, second = done.stdout.splitlines()
    assert "train/a/0.jpg: cannot be read: Too many open files" in first, done.stderr
    assert second == "{}"


def test_a_picture_that_is_another_size_than_its_row_says_is_bad(tmp_path):
    rows, files, paths = parts()
    rows["height"][3] = 40
    reader = FileReader(open_collection([written(tmp_path, rows, files, paths)], "train"))
    assert read(reader, [3])[1] == {0: "is 48 x 64 pixels, the index says 40 x 64"}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_of_a_turned_picture_is_that_of_the_upright_one(tmp_path, orientation):
    rows, files, paths = parts()
    rows["orientation"] = orientation
    if orientation > 4:
        rows["height"], rows["width"] = 64, 48
    reader = FileReader(open_collection([written(tmp_path, rows, files, paths)], "train"))
    encoded, bad = reader.read(np.arange(4), Scratch())
    assert bad == {}
    assert (encoded.upright is None) == (orientation == 1)


HOSTILE = {
    "a file that is not listed": ("file", 99, "names file 99, the index lists 12"),
    "a range behind the file": ("offset", 1, "lies outside its file"),
    "an offset that overflows": ("offset", 2**64 - 1, "lies outside its file"),
    "more bytes than the file": ("size", 2**32 - 1, "lies outside its file"),
    "a part of the file": ("size", 1, "is not the whole of its file"),
    "a label": ("label", 2, "has a label outside|not add up|other class counts|differ in length"),
    "no height": ("height", 0, "has an image of no height or width"),
    "an orientation": ("orientation", 9, r"outside \[1, 8\]"),
    "no orientation": ("orientation", 0, r"outside \[1, 8\]"),
    "a kind": ("kind", 3, "of an unknown kind"),
    "a table": ("seek_size", 1, "seek table that lies outside"),
    "a table far away": ("seek", 2**64 - 1, "seek table that lies outside"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_row_that_points_anywhere_is_refused(tmp_path, name):
    field, value, words = HOSTILE[name]
    rows, files, paths = parts()
    rows[field][7] = value
    if name == "a table far away":
        rows["seek_size"][7] = 2
    with pytest.raises(ShardError, match=words) as caught:
        Loader(written(tmp_path, rows, files, paths))
    assert "fastload.index" in str(caught.value)


@pytest.mark.parametrize(
    "path", ["../secret.jpg", "/etc/passwd", "train/../../x.jpg", "..", "train/.."]
)
def test_a_path_that_leads_out_of_the_data_is_refused(tmp_path, path):
    rows, files, paths = parts()
    directory = written(tmp_path, rows, files, [path, *paths[1:]])
    with pytest.raises(ShardError, match="has a path that leads out of the data"):
        TarDataset(directory)


def test_a_name_with_dots_is_no_way_out(tmp_path):
    rows, files, paths = parts()
    paths[0] = "train/a/..odd..jpg"
    assert len(TarDataset(written(tmp_path, rows, files, paths))) == COUNT


def test_seek_tables_are_read_beside_the_images(tmp_path):
    rows, files, paths = parts()
    sums = rows["crc32"].tolist()
    tables = [bytes(6) + sums[n].to_bytes(4, "little") + b"%d" % n for n in range(COUNT)]
    tables[3] = tables[6] = b""
    rows["seek_size"] = [len(table) for table in tables]
    rows["seek"] = np.cumsum(rows["seek_size"]) - rows["seek_size"]
    directory = written(tmp_path, rows, files, paths, points_bytes=sum(map(len, tables)), points=4)
    with pytest.raises(ShardError, match="no such file"):
        FileReader(open_collection([directory], "train"))
    path = directory / FOLDER_NAME / points_name(4)
    path.write_bytes(b"".join(tables)[:-1])
    with pytest.raises(ShardError, match=r"points-4.seek: has \d+ bytes, the index says"):
        FileReader(open_collection([directory], "train"))
    path.write_bytes(b"".join(tables))
    reader = FileReader(open_collection([directory], "train"))
    encoded, bad = reader.read(np.array([7, 3, 8]), Scratch())
    assert bad == {}
    assert encoded.tables is not None
    assert [bytes(encoded.tables[i]) for i in range(3)] == [tables[7], tables[3], tables[8]]
    assert [bytes(encoded[i]) for i in range(3)] == [flat_picture(n, 0).jpeg for n in (7, 3, 8)]
    assert reader.read(np.array([3, 6]), Scratch())[0].tables is None  # neither has one
    before = open_descriptors()
    reader.close()
    assert open_descriptors() == before - (before > 0)
    path.write_bytes(path.read_bytes()[::-1])
    reader = FileReader(open_collection([directory], "train"))
    assert "its seek table is damaged, or that of another image" in read(reader, [3, 7])[1][1]


# Files of many images: tars where they lie


@pytest.fixture
def tars(tmp_path) -> Path:
    """Two tars as `tar` writes them, and an index of the members."""
    directory = tmp_path / "tars"
    directory.mkdir()
    rows, files, paths = np.zeros(COUNT, PLACE), np.zeros(2, FILE), ["0.tar", "1.tar"]
    for number, name in enumerate(paths):
        with tarfile.open(directory / name, "w") as tar:
            for member in range(number, COUNT, 2):
                data = flat_picture(member, 0).jpeg
                info = tarfile.TarInfo(f"{member:04d}.jpg")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        with tarfile.open(directory / name) as tar:
            for info in tar:
                row = rows[int(info.name[:4]) :][:1]
                row["file"], row["offset"], row["size"] = number, info.offset_data, info.size
        status = (directory / name).stat()
        files["bytes"][number], files["modified_ns"][number] = status.st_size, status.st_mtime_ns
    rows["height"], rows["width"], rows["orientation"] = 48, 64, 1
    rows["crc32"] = [zlib.crc32(flat_picture(n, 0).jpeg) for n in range(COUNT)]
    rows["label"] = np.arange(COUNT) % 2
    return index_by_hand(directory, {"train": rows}, files, paths, classes=["a", "b"])


def test_members_of_tars_are_read_where_they_lie(tars):
    reader = FileReader(open_collection([tars], "train"))
    images, bad = read(reader, list(range(COUNT)))
    assert images == [flat_picture(number, 0).jpeg for number in range(COUNT)]
    assert bad == {}
    assert reader.locate(5)[:2] == ("1.tar", "0005")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (Path.unlink, "1.tar: cannot be used: .*no such file or folder; run `"),
        (lambda path: os.truncate(path, 1000), "1.tar: has 1000 bytes, when it was indexed it had"),
    ],
)
def test_a_tar_that_changed_is_an_error_at_once(tars, change, words):
    change(tars / "1.tar")
    with pytest.raises(ShardError, match=words):
        FileReader(open_collection([tars], "train"))


def test_a_tar_replaced_by_one_of_the_same_size_is_an_error(tars):
    reader = FileReader(open_collection([tars], "train"))
    shutil.copyfile(tars / "0.tar", tars / "other")
    (tars / "other").replace(tars / "1.tar")
    with pytest.raises(ShardError, match=r"1\.tar, .*replaced or changed while it was in use; run"):
        read(reader, [1])


# Several directories


def test_shards_and_files_in_place_are_put_end_to_end(tmp_path, tars):
    one = numbered_in_place(tmp_path / "one", {"train": 5}, classes=2)
    two = numbered(tmp_path / "two", {"train": 7}, classes=2)
    collection = open_collection([one, two, one], "train")
    assert collection.sources.tolist() == [0] * 5 + [1] * 7 + [2] * 5
    reader = FileReader(collection)
    images, bad = read(reader, [16, 0, 5, 11, 12, 4])
    assert images == [flat_picture(number, 0).jpeg for number in (4, 0, 0, 6, 0, 4)]
    assert bad == {}
    assert str(reader.locate(0)) == "train/class 0/000000.jpg"
    assert reader.locate(6)[:2] == ("train-000000.tar", "000001")
    with pytest.raises(ShardError, match=r"has other classes .* prepare both with the same"):
        open_collection([one, tars], "train")
    with Loader([one, two], augment=Augment.eval(32), batch_size=4) as loader:
        assert sum(len(images) for images, _ in loader) == 12


# Where an index lies


def test_the_newer_of_two_indexes_counts(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = numbered_in_place(tmp_path / "data", {"train": 5})
    beside, cached = data / FOLDER_NAME, cache_folder(data)
    assert find_index(data) == beside
    shutil.copytree(beside, cached)
    os.utime(beside / "index.json", (1, 1))
    assert find_index(data) == cached
    assert find_index(tmp_path / "nowhere") is None


def test_a_foreign_index_json_is_none(tmp_path):
    (tmp_path / "index.json").write_text('{"images": []}')
    assert find_index(tmp_path) is None
