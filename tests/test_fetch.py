"""fetch: shards of a bucket become a folder, verified; an interrupted copy goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from fastload import fetch, shard, verify
from fastload.errors import ShardError
from fastload.load.augment import Augment
from fastload.load.loader import Loader
from fastload.store import objects, plain_copy
from fastload.store.objects import PART_BYTES
from tests.pictures import jpeg, write_tree
from tests.shards import noisy_picture, numbered, write_shards

pytestmark = [pytest.mark.s3, pytest.mark.slow]
pytest.importorskip("obstore", reason="needs obstore: pip install -e '.[dev]' in the checkout")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return numbered(tmp_path_factory.mktemp("shards"), {"train": 45, "val": 12})


@pytest.fixture(scope="module")
def address(s3, folder):
    (folder / "cleaning.csv").write_text("path,reason,action\n")
    return s3.upload(folder, "fetched/shards")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_copy_is_the_same_to_the_byte_and_is_verified(folder, address, proxy, tmp_path, capsys):
    assert fetch.main([address, str(tmp_path / "copy")]) == 0
    assert "7 shards and 57 samples are as the manifest says" in capsys.readouterr().out
    assert contents(tmp_path / "copy") == contents(folder)
    assert verify.main([str(tmp_path / "copy")]) == 0


def test_a_second_run_fetches_no_shard_again(address, proxy, tmp_path):
    assert fetch.main([address, str(tmp_path)]) == 0
    before = len(proxy.gets())
    assert fetch.main([address, str(tmp_path)]) == 0
    assert len(proxy.gets()) == before


def test_one_split_alone_can_be_copied(address, proxy, tmp_path, capsys):
    assert fetch.main([address, str(tmp_path), "--split", "val"]) == 0
    assert "only val was copied" in capsys.readouterr().out
    assert not list(tmp_path.glob("train*"))
    with Loader(tmp_path, split="val", batch_size=4, augment=Augment.eval(16)) as loader:
        assert sum(len(labels) for _, labels in loader) == 12
    assert fetch.main([address, str(tmp_path), "--split", "dev"]) == 1
    assert "there is no split 'dev'" in capsys.readouterr().err


def test_a_run_that_was_saved_on_the_bucket_goes_on_with_the_copy(address, proxy, tmp_path):
    options: dict[str, Any] = {"batch_size": 8, "augment": Augment.train(16)}
    with Loader(address, **options) as remote:
        steps = iter(remote)
        next(steps)
        state = remote.state_dict()
        rest = [remote.last_indices().tolist() for _ in steps]
    assert fetch.main([address, str(tmp_path)]) == 0
    with Loader(tmp_path, **options) as local:
        local.load_state_dict(state)
        assert [local.last_indices().tolist() for _ in local] == rest


def test_a_copy_that_was_killed_goes_on_where_it_was(s3, proxy, tmp_path, monkeypatch):
    pictures = [noisy_picture(i, 0, height=900, width=900, quality=98) for i in range(24)]
    large = write_shards(tmp_path / "l", {"train": pictures}, classes=["a"], samples_per_shard=24)
    size = (large / "train-000000.tar").stat().st_size
    assert size > 2 * PART_BYTES
    address = s3.upload(large, "large/shards")
    third = f"bytes={2 * PART_BYTES}-"
    proxy.fault = lambda request: "stall" if request.range.startswith(third) else ""
    command = [sys.executable, "-m", "fastload.fetch", address, str(tmp_path / "copy")]
    for ended_by, status in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        proxy.requests.clear()
        process = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        partial = tmp_path / "copy" / ".train-000000.tar.partial"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (
            any(each.range.startswith(third) for each in proxy.gets())
            and partial.stat().st_size >= 2 * PART_BYTES
        ):
            time.sleep(0.05)
        process.send_signal(ended_by)
        assert process.wait(20) == status
        assert not (tmp_path / "copy" / "manifest.json").exists()
        assert not (tmp_path / "copy" / "train-000000.tar").exists()
    proxy.fault = lambda _: ""
    assert fetch.main([address, str(tmp_path / "copy")]) == 0
    begins = {int(each.range.removeprefix("bytes=").split("-")[0]) for each in proxy.gets()}
    assert min(begins) == 2 * PART_BYTES  # the second and third run fetch nothing again
    assert contents(tmp_path / "copy") == contents(large)


def test_bytes_that_are_not_those_of_the_manifest_get_no_name(s3, folder, proxy, tmp_path, capsys):
    address = s3.upload(folder, "damaged/shards")
    data = bytearray((folder / "train-000002.tar").read_bytes())
    data[700] ^= 1
    s3.put("damaged/shards", "train-000002.tar", bytes(data))
    assert fetch.main([address, str(tmp_path)]) == 1
    assert "train-000002.tar: its SHA-256 is" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix == ".tar") == [
        "train-000000.tar",
        "train-000001.tar",
    ]
    assert not (tmp_path / "manifest.json").exists()


def test_what_belongs_to_something_else_is_not_overwritten(
    s3, folder, address, proxy, tmp_path, capsys
):
    numbered(tmp_path / "other", {"train": 9})
    assert fetch.main([address, str(tmp_path / "other")]) == 1
    assert "holds other shards than" in capsys.readouterr().err
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "train-000001.tar").write_text("mine")
    assert fetch.main([address, str(tmp_path / "own")]) == 1
    assert "is another file than the shard of that name" in capsys.readouterr().err
    assert (tmp_path / "own" / "train-000001.tar").read_text() == "mine"


@pytest.mark.parametrize(
    ("passed", "said"),
    [
        ("shards", "shards: is not an address of an object store (s3://, gs://"),
        ("s3://tests/nothing", "there is no complete set of shards"),
    ],
)
def test_bad_input_is_one_sentence(proxy, tmp_path, capsys, passed, said):
    assert fetch.main([passed, str(tmp_path / "copy")]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "copy").exists()


def test_a_manifest_that_lists_other_names_writes_nothing_outside(s3, folder, proxy, tmp_path):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["splits"]["val"]["shards"][0]["name"] = "../escaped.tar"
    address = s3.upload(folder, "outside/shards")
    s3.put("outside/shards", "manifest.json", json.dumps(manifest).encode())
    assert fetch.main([address, str(tmp_path / "copy")]) == 1
    assert list(tmp_path.iterdir()) == []


# Files that are no shards.


def fetch_with_small_files(address: str, folder: Path) -> str:
    """What the command says where no file may be larger than 1,000 bytes."""
    program = (
        "import resource, sys; from fastload import fetch;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); sys.exit(fetch.main())"
    )
    command = [sys.executable, "-c", program, address, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    return done.stderr.splitlines()[-1]


@pytest.mark.usefixtures("proxy")
def test_a_full_disk_names_the_file_that_had_no_room(address, of_photographs, tmp_path):
    said = fetch_with_small_files(address, tmp_path / "copy")
    assert f"{tmp_path}/copy/train-00000" in said
    assert ".tar: the file grows beyond what" in said
    said = fetch_with_small_files(of_photographs, tmp_path / "photographs")
    assert f"{tmp_path}/photographs/" in said
    assert ".jpg: the file grows beyond what" in said


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("photographs") / "data"
    files = {f"train/class {i % 3}/Größe {i}.jpg": jpeg(i) for i in range(60)}
    return write_tree(root, {**files, "names.json": b"{}", "train/class 0/empty.jpg": b""})


@pytest.fixture(scope="module")
def of_photographs(s3, photographs) -> str:
    for path in photographs.rglob("*.*"):
        s3.put("photographs", str(path.relative_to(photographs)), path.read_bytes())
    s3.put("photographs", "train/class 9/", b"")  # as a console makes a folder
    return "s3://tests/photographs"


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"folder"
        for path in folder.rglob("*")
    }


def test_photographs_are_copied_as_they_are_and_not_twice(
    of_photographs, photographs, proxy, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(objects, "PAGE", 25)
    copy = tmp_path / "copy"
    assert fetch.main([f"{of_photographs}/", str(copy)]) == 0
    assert "62 files" in capsys.readouterr().out
    found = tree(copy)
    assert found.pop("train/class 9") == b"folder"
    assert found == tree(photographs)
    before = len(proxy.gets(".jpg"))
    assert fetch.main([of_photographs, str(copy)]) == 0
    assert len(proxy.gets(".jpg")) == before
    assert shard.main([str(copy), "--out", str(tmp_path / "shards"), "--min-side", "16"]) == 1
    assert "1 of the classes have no image" in capsys.readouterr().err


def test_a_copy_of_photographs_goes_on_after_a_server_that_failed(
    of_photographs, photographs, proxy, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(plain_copy, "TIMEOUT_SECONDS", 1.0)
    proxy.fault = lambda request: "slow down" if "40.jpg" in request.path else ""
    assert fetch.main([of_photographs, str(tmp_path)]) == 1
    assert "40.jpg" in capsys.readouterr().err
    there = {path.name for path in tmp_path.rglob("*.jpg")}
    assert not list(tmp_path.rglob("*40.jpg"))
    assert not list(tmp_path.glob(".fetch.partial"))
    (tmp_path / ".fetch.partial").mkdir()  # as a kill leaves it
    (tmp_path / ".fetch.partial" / "7").write_bytes(b"half")
    proxy.fault = lambda _: ""
    before = len(proxy.requests)
    assert fetch.main([of_photographs, str(tmp_path)]) == 0
    again = {unquote(Path(one.path).name) for one in proxy.requests[before:]}
    assert there
    assert not there & again
    assert {**tree(photographs), "train/class 9": b"folder"} == tree(tmp_path)


def test_another_file_of_the_name_is_not_overwritten(of_photographs, proxy, tmp_path, capsys):
    (tmp_path / "names.json").write_text("mine")
    assert fetch.main([of_photographs, str(tmp_path)]) == 1
    assert "names.json: is another file than that of s3://tests" in capsys.readouterr().err
    assert (tmp_path / "names.json").read_text() == "mine"


def test_shards_without_their_manifest_do_not_pass_for_files(s3, folder, proxy, tmp_path, capsys):
    address = s3.upload(folder, "headless/shards")
    s3.delete("headless/shards", "manifest.json")
    assert fetch.main([address, str(tmp_path / "copy")]) == 1
    assert "there is no complete set of shards" in capsys.readouterr().err
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("name", ["../x.jpg", "/x.jpg", "a//x.jpg", "a/./x.jpg", "a/..", "a\0b"])
def test_names_that_lead_elsewhere_are_refused(name):
    with pytest.raises(ShardError, match="has an object whose name is no path"):
        plain_copy.check_name(name, "s3://tests")
