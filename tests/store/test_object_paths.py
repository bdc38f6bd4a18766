"""Places below an address of a real S3 server, read as files."""

from __future__ import annotations

import os
import pickle
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from fastload.errors import ShardError, StalledError
from fastload.store import object_paths
from fastload.store.object_paths import ObjectList, ObjectPath, first_bytes
from fastload.store.objects import ChangedObjectError
from fastload.store.remote import Bucket
from tests.faulty_proxy import FaultyProxy
from tests.s3 import BUCKET, Server
from tests.servers import closed_port

pytestmark = [pytest.mark.s3, pytest.mark.slow]
pytest.importorskip("obstore", reason="needs obstore: pip install -e '.[dev]' in the checkout")

NAMES = ("top.csv", "花/图 1.jpg", "a/b c%20#x.jpg", "a/deep/er/1.jpg", "a-b/2.jpg", "a.txt")


@pytest.fixture
def place(s3: Server) -> str:
    """A prefix with some objects."""
    prefix = f"paths/{uuid.uuid4().hex}"
    for name in NAMES:
        s3.put(prefix, name, f"content of {name}".encode())
    s3.put(prefix, "empty/", b"")
    return prefix


def root_of(place: str) -> ObjectPath:
    return ObjectPath(ObjectList(Bucket(f"s3://{BUCKET}/{place}")))


def test_a_tree_is_walked_as_a_folder_is(place: str, proxy: FaultyProxy):
    root = root_of(place)
    assert sorted(one.name for one in root.iterdir()) == (
        ["a", "a-b", "a.txt", "empty", "top.csv", "花"]
    )
    assert [one.name for one in (root / "a").iterdir() if one.is_dir()] == ["deep"]
    assert (root / "a" / "deep").is_dir()
    assert not (root / "a" / "deep").is_file()
    assert (root / "empty").is_dir()
    assert list((root / "empty").iterdir()) == []
    assert not (root / "a" / "..").is_file()
    assert (root / "a/./deep/er/1.jpg").is_file()
    assert not (root / "../x").exists()
    assert not (root / "a/dee").exists()
    lists = [one for one in proxy.requests if one.method == "GET" and one.path.endswith(BUCKET)]
    assert len(lists) == 1


def test_names_keep_each_sign(place: str, proxy: FaultyProxy):
    root = root_of(place)
    for name in NAMES:
        path = root / name
        assert path.read_bytes() == f"content of {name}".encode()
        assert path.stat().st_size == len(path.read_bytes())
        assert str(path) == f"s3://{BUCKET}/{place}/{name}"
        assert path.parent / path.name == path
    assert (root / "花/图 1.jpg").read_text() == "content of 花/图 1.jpg"
    assert ((root / "a.txt").stem, (root / "a.txt").suffix) == ("a", ".txt")


def test_folders_that_a_console_made_are_folders(s3: Server, place: str, proxy: FaultyProxy):
    for folder in (place, f"{place}/a", f"{place}/bare"):
        s3.make_folder(folder)
    root = root_of(place)
    assert (root / "a").is_dir()
    assert sorted(one.name for one in (root / "a").iterdir()) == ["b c%20#x.jpg", "deep"]
    assert (root / "bare").is_dir()
    s3.make_folder(f"{place}-alone")
    assert not root_of(f"{place}-alone").exists()


@pytest.mark.parametrize("name", ["100%25", "a%20b", "花 园", "a+b&c=d"])
def test_an_address_means_the_name_that_it_shows(name: str, s3: Server, proxy: FaultyProxy):
    prefix = f"paths/{uuid.uuid4().hex}/{name}"
    s3.put(prefix, "1.jpg", b"1")
    assert (root_of(prefix) / "1.jpg").read_bytes() == b"1"


def test_no_function_of_the_system_takes_one(place: str, proxy: FaultyProxy):
    with pytest.raises(TypeError):
        os.stat(root_of(place))  # type: ignore[arg-type]  # noqa: PTH116  what is tested


def test_a_pickle_holds_no_list(place: str, proxy: FaultyProxy):
    root = root_of(place)
    assert root.exists()
    copied = pickle.loads(pickle.dumps(root / "a.txt"))
    assert len(pickle.dumps(root)) < 400
    assert copied == root / "a.txt"
    assert copied.read_bytes() == b"content of a.txt"


def test_a_large_object_is_read_in_ranges_and_sought_in(s3: Server, place: str, proxy: FaultyProxy):
    lines = [f"line {number:07d}\n" for number in range(20_000)]
    s3.put(place, "long.csv", "".join(lines).encode())
    path = root_of(place) / "long.csv"
    with path.open(newline="") as file:
        assert file.read(4) == "line"
        assert len(proxy.gets("long.csv")) == 1
        file.seek(0)
        assert list(file) == lines
    with path.open("rb") as binary:
        binary.seek(-13, os.SEEK_END)
        assert binary.read() == b"line 0019999\n"
    assert path.read_bytes() == "".join(lines).encode()


def test_first_bytes_come_together(place: str, proxy: FaultyProxy):
    proxy.latency = 0.2
    root = root_of(place)
    found = first_bytes([root / name for name in NAMES], 7)
    assert found == [b"content"] * len(NAMES)
    assert proxy.most_at_once > 1


def test_an_object_that_was_written_again_is_refused(s3: Server, place: str, proxy: FaultyProxy):
    root = root_of(place)
    assert root.exists()
    s3.put(place, "a.txt", b"another, longer content")
    s3.put(place, "top.csv", b"")
    with pytest.raises(ChangedObjectError, match=r"a\.txt: had 16 bytes and has 23; run again"):
        (root / "a.txt").read_bytes()
    with pytest.raises(ChangedObjectError, match=r"top\.csv: is shorter than it was"):
        first_bytes([root / "top.csv"], 3)


def test_more_than_a_page_is_listed_whole_after_a_list_that_broke_off(
    s3: Server, proxy: FaultyProxy
):
    prefix = f"paths/{uuid.uuid4().hex}"

    def put(number: int) -> None:
        s3.put(prefix, f"{number % 7 + 1}/{number:04d}", b"1" * (number % 7 + 1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(1_500)))
    root = root_of(prefix)
    proxy.fault = lambda request: "forbid" if request.number == 1 else ""
    with pytest.raises(ShardError, match="permission was denied"):
        root.exists()
    assert len(proxy.requests) == 2
    files = [file for folder in root.iterdir() for file in folder.iterdir()]
    assert len(files) == 1_500
    assert all(file.stat().st_size == int(file.parent.name) for file in files)


def test_what_is_no_tree_is_refused(
    s3: Server, place: str, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(ShardError, match="there is no such bucket"):
        ObjectPath(ObjectList(Bucket("s3://nowhere/x"))).exists()
    assert not root_of("paths/nothing").exists()
    monkeypatch.setattr(object_paths, "MOST_OBJECTS", 3)
    with pytest.raises(ShardError, match="more than 3 objects below it; give a longer prefix"):
        root_of(place).exists()


def test_a_name_with_a_line_break_is_named(s3: Server, place: str, proxy: FaultyProxy):
    s3.make_folder(f"{place}/a\nb")
    with pytest.raises(ShardError, match=rf"no path \('{place}/a\\nb/?'\); rename it: without"):
        root_of(place).is_dir()


def test_who_may_not_list_is_told_the_right(place: str, proxy: FaultyProxy):
    proxy.fault = lambda _: "forbid"
    with pytest.raises(ShardError, match="need the right to list and get objects"):
        root_of(place).exists()


def test_a_server_that_is_away_is_said(place: str, s3: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(object_paths, "OPENING_SECONDS", 0.5)
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed_port()}")
    with pytest.raises(StalledError, match="the server cannot be reached"):
        root_of(place).exists()
