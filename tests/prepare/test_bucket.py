"""Shards that go to a bucket of a real S3 server: the same bytes, whatever is killed or fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastload import fetch, shard
from fastload.errors import OutputError, ShardError
from fastload.prepare import bucket
from fastload.store import uploads
from fastload.store.remote import Bucket
from tests.faulty_proxy import Fault, FaultyProxy, Request
from tests.pictures import jpeg, write_tree
from tests.s3 import BUCKET, Server
from tests.servers import closed_port

pytestmark = [pytest.mark.s3, pytest.mark.slow]
obstore = pytest.importorskip(
    "obstore", reason="needs obstore: pip install -e '.[dev]' in the checkout"
)

OPTIONS = ("--min-side", "16", "--shard-size", "100kB", "--workers", "1")


def make(root: Path, out: Path | str, *options: str) -> int:
    return shard.main([str(root), "--out", str(out), *OPTIONS, *options])


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Photographs, one in ten there twice, and their shards."""
    folder = tmp_path_factory.mktemp("many")
    files = {}
    for number in range(200):
        split = "val" if number % 5 == 4 else "train"
        seed = 5 if number % 50 == 20 else number
        files[f"{split}/class {number % 3}/{number:03d}.jpg"] = jpeg(seed, height=80, width=96)
    write_tree(folder / "data", files)
    assert make(folder / "data", folder / "whole") == 0
    return folder / "data", folder / "whole"


@pytest.fixture
def proxy(s3: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FaultyProxy]:
    with FaultyProxy(s3.endpoint).serving() as one:
        for name, value in {**s3.environment, "AWS_ENDPOINT_URL": one.endpoint}.items():
            monkeypatch.setenv(name, value)
        (tmp_path / "temporary").mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
        yield one


@pytest.fixture
def place() -> str:
    """A prefix of the test's own."""
    return f"written/{uuid.uuid4().hex}"


def start(root: Path, out: str, *options: str, first: str = "") -> subprocess.Popen[str]:
    """The command in a process of its own; `first` is run before it."""
    arguments = [str(root), "--out", out, *OPTIONS, *options]
    program = f"import sys\n{first}\nfrom fastload.shard import main\nsys.exit(main({arguments!r}))"
    return subprocess.Popen(
        [sys.executable, "-c", f"if __name__ == '__main__':\n    exec({program!r})"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_what_lies_in_the_bucket_is_the_same_to_the_byte(
    s3: Server,
    many: tuple[Path, Path],
    proxy: FaultyProxy,
    place: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    root, whole = many
    out = f"s3://{BUCKET}/{place}"
    assert make(root, f"{out}/") == 0
    said = capsys.readouterr().out
    assert f"report      {out}/cleaning.csv" in said
    assert f"--data {out}" in said
    assert s3.contents(place) == snapshot(whole)
    writes = [one.path for one in proxy.requests if one.method in {"PUT", "POST"}]
    assert writes[-1].endswith("manifest.json") or writes[-2].endswith("manifest.json")
    assert not list((tmp_path / "temporary").iterdir())
    assert make(root, out) == 0
    assert f"{out} already holds these shards, complete" in capsys.readouterr().out
    assert fetch.main([out, str(tmp_path / "copy")]) == 0
    assert snapshot(tmp_path / "copy") == snapshot(whole)


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_killed_goes_on_from_another_place(
    s3: Server,
    many: tuple[Path, Path],
    proxy: FaultyProxy,
    place: str,
    tmp_path: Path,
    signal_number: int,
):
    root, whole = many
    out = f"s3://{BUCKET}/{place}"
    proxy.latency = 0.05
    with start(root, out, "--staging", str(tmp_path / "first")) as process:
        deadline = time.monotonic() + 60
        while sum(name.endswith(".tar.json") for name in s3.names(place)) < 3:
            assert time.monotonic() < deadline, process.poll()
            time.sleep(0.05)
        process.send_signal(signal_number)
        _, error = process.communicate(timeout=60)
    there = s3.names(place)
    finished = {name[10:-5] for name in there if name.endswith(".tar.json")}
    assert "manifest.json" not in there
    assert not [name for name in there if name.endswith(".tar")], "a final name before the end"
    assert len(finished) < len(list(whole.glob("*.tar"))), "it was killed too late"
    if signal_number == signal.SIGINT:
        assert process.returncode == 130
        assert "the same command goes on from there" in error
        assert not (tmp_path / "first").exists()
    before, proxy.latency = len(proxy.requests), 0.0
    assert make(root, out, "--staging", str(tmp_path / "second")) == 0
    again = {
        Path(one.path).name
        for one in proxy.requests[before:]
        if one.method == "PUT" and one.path.endswith(".partial")
    }
    assert not {f"{name}.partial" for name in finished} & again, "shards were uploaded again"
    assert s3.contents(place) == snapshot(whole)


@pytest.mark.parametrize("step", ["name_partial", "name_rewritten", "publish"])
def test_a_run_that_stops_near_its_end_goes_on_and_ends_the_same(
    s3: Server,
    many: tuple[Path, Path],
    proxy: FaultyProxy,
    place: str,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
):
    root, whole = many
    calls = []
    real = getattr(bucket.BucketTarget, step)

    def interrupted(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr(bucket.BucketTarget, step, interrupted)
    assert make(root, f"s3://{BUCKET}/{place}") == 130
    there = s3.names(place)
    assert "manifest.json" not in there
    assert not {f"{name}.partial" for name in there if name.endswith(".tar")} & set(there)
    monkeypatch.setattr(bucket.BucketTarget, step, real)
    assert make(root, f"s3://{BUCKET}/{place}") == 0
    assert s3.contents(place) == snapshot(whole)


def test_a_server_that_fails_now_and_then_is_asked_again(
    s3: Server, many: tuple[Path, Path], proxy: FaultyProxy, place: str
):
    root, whole = many
    proxy.fault = lambda request: ("", "slow down", "", "reset", "")[request.number % 5]
    assert make(root, f"s3://{BUCKET}/{place}") == 0
    assert s3.contents(place) == snapshot(whole)


def test_a_server_that_fails_for_good_ends_the_run_which_goes_on_later(
    s3: Server,
    many: tuple[Path, Path],
    proxy: FaultyProxy,
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    root, whole = many
    monkeypatch.setattr(uploads, "TRIES_SECONDS", 1.0)

    def fault(request: Request) -> Fault:
        later = request.path.endswith(("2.tar.partial", "3.tar.partial"))
        return "slow down" if later and request.method == "PUT" else ""

    proxy.fault = fault
    assert make(root, f"s3://{BUCKET}/{place}") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"{place}/train-000002.tar.partial: the server answers HTTP 503 (SlowDown)" in error
    assert "manifest.json" not in s3.names(place)
    assert not list((tmp_path / "temporary").iterdir())
    proxy.fault = lambda _: ""
    assert make(root, f"s3://{BUCKET}/{place}") == 0
    assert s3.contents(place) == snapshot(whole)


@pytest.mark.skipif(
    obstore.__version__.startswith("0.11."), reason="needs obstore 0.12, which ends such an upload"
)
def test_parts_of_an_upload_that_fails_are_given_up(
    s3: Server, proxy: FaultyProxy, place: str, tmp_path: Path
):
    (tmp_path / "large").write_bytes(bytes(20 << 20))
    with uploads.Uploads(Bucket(f"s3://{BUCKET}/{place}")) as writer:
        writer.upload(tmp_path / "large", "whole")
        assert writer.size("whole") == 20 << 20
        proxy.fault = lambda request: "forbid" if request.method == "PUT" else ""
        with pytest.raises(ShardError, match="right to list, get, put and delete objects"):
            writer.upload(tmp_path / "large", "half")
        proxy.fault = lambda _: ""
        assert writer.size("half") is None
    ended = [one for one in proxy.requests if one.method == "DELETE"]
    assert [one.path.rpartition("/")[2] for one in ended] == ["half"], "the upload was not ended"


def test_an_object_that_is_shorter_than_its_file_is_noticed(
    s3: Server, proxy: FaultyProxy, place: str, tmp_path: Path
):
    def shortened(request: Request) -> Fault:
        if request.method == "HEAD":
            s3.put(place, "shard", b"short")
        return ""

    (tmp_path / "shard").write_bytes(b"longer")
    proxy.fault = shortened
    with (
        uploads.Uploads(Bucket(f"s3://{BUCKET}/{place}")) as writer,
        pytest.raises(ShardError, match="has 5 bytes in the store, the file has 6"),
    ):
        writer.upload(tmp_path / "shard", "shard")


def test_a_server_that_does_not_answer_is_asked_again(
    s3: Server,
    many: tuple[Path, Path],
    proxy: FaultyProxy,
    place: str,
    monkeypatch: pytest.MonkeyPatch,
):
    root, whole = many
    monkeypatch.setattr(uploads, "REQUEST_SECONDS", 1.0)
    hung: set[str] = set()

    def fault(request: Request) -> Fault:
        first = request.path.endswith("1.tar.partial") and request.path not in hung
        hung.add(request.path)
        return "hang" if first else ""

    proxy.fault = fault
    assert make(root, f"s3://{BUCKET}/{place}") == 0
    assert s3.contents(place) == snapshot(whole)


def test_a_full_disk_is_one_sentence_and_the_run_goes_on(
    s3: Server, many: tuple[Path, Path], proxy: FaultyProxy, place: str
):
    root, whole = many
    out = f"s3://{BUCKET}/{place}"
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))"
    with start(root, out, first=limit) as process:
        _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" not in error
    message = error.splitlines()[-1]
    assert ".tar.partial: the file grows beyond what" in message
    assert "the same command goes on from there" in message
    assert make(root, out) == 0
    assert s3.contents(place) == snapshot(whole)


def test_what_belongs_to_something_else_is_refused(
    s3: Server,
    many: tuple[Path, Path],
    proxy: FaultyProxy,
    place: str,
    capsys: pytest.CaptureFixture[str],
):
    root, _ = many
    s3.put(f"{place}/strange", "notes.txt", b"mine")
    assert make(root, f"s3://{BUCKET}/{place}/strange") == 1
    assert "is not empty (it holds 'notes.txt') and holds no shards" in capsys.readouterr().err
    assert s3.contents(f"{place}/strange") == {"notes.txt": b"mine"}
    assert make(root, f"s3://{BUCKET}/{place}/other") == 0
    before = s3.contents(f"{place}/other")
    assert make(root, f"s3://{BUCKET}/{place}/other", "--seed", "9") == 1
    assert "holds shards made from other files or with other options" in capsys.readouterr().err
    assert s3.contents(f"{place}/other") == before
    s3.put(f"{place}/damaged", "manifest.json", b"{}")
    assert make(root, f"s3://{BUCKET}/{place}/damaged") == 1
    assert "damaged/manifest.json cannot be used" in capsys.readouterr().err
    assert make(root, f"s3://{BUCKET}/{place}/new", "--staging", str(root / "s")) == 1
    assert "choose --staging outside it" in capsys.readouterr().err
    assert not (root / "s").exists()
    assert not s3.names(f"{place}/new")
    s3.put(f"{place}/begun", ".fastload/run.json", b'{"options": {"seed": 1}}')
    assert make(root, f"s3://{BUCKET}/{place}/begun") == 1
    assert "was begun with other options" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("AWS_ACCESS_KEY_ID", "stranger", "the server does not know the access key"),
        ("AWS_SECRET_ACCESS_KEY", "wrong", "the secret key is another than the server's"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:{closed}", "the server cannot be reached"),
    ],
)
def test_credentials_that_are_wrong_are_one_sentence_before_any_image_is_read(
    many: tuple[Path, Path],
    proxy: FaultyProxy,
    place: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variable: str,
    value: str,
    said: str,
):
    monkeypatch.setattr("fastload.store.remote_shards.OPENING_SECONDS", 1.0)
    monkeypatch.setenv(variable, value.format(closed=closed_port()))
    assert make(many[0], f"s3://{BUCKET}/{place}") == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_bucket_that_may_only_be_read_is_one_sentence_before_any_image_is_read(
    many: tuple[Path, Path],
    proxy: FaultyProxy,
    place: str,
    capsys: pytest.CaptureFixture[str],
):
    proxy.fault = lambda request: "forbid" if request.method == "PUT" else ""
    assert make(many[0], f"s3://{BUCKET}/{place}") == 1
    error = capsys.readouterr().err
    assert "permission was denied (AccessDenied); the credentials need the right to list" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--out", "s3://bucket/a", "--shard-size", "5GiB"), "--shard-size must be at most 4GiB"),
        (("--staging", "there"), "--staging is for an --out in an object store"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    many: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    said: str,
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        shard.main([str(many[0]), *words])
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_address_that_can_only_be_read_is_refused(capsys: pytest.CaptureFixture[str]):
    assert shard.main(["photographs", "--out", "https://host/shards"]) == 1
    assert "can only be read; shards are written to s3://" in capsys.readouterr().err


def test_two_runs_of_one_machine_do_not_write_to_one_address(
    proxy: FaultyProxy, place: str, many: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
):
    out = f"s3://{BUCKET}/{place}"
    with bucket.bucket_target(out, None):
        assert make(many[0], out) == 1
    assert f"another fastload.shard is writing to {out}" in capsys.readouterr().err


def test_what_a_killed_run_left_in_the_staging_folder_is_removed(
    s3: Server, many: tuple[Path, Path], proxy: FaultyProxy, place: str, tmp_path: Path
):
    root, whole = many
    out, staging = f"s3://{BUCKET}/{place}", tmp_path / "staging"
    with bucket.bucket_target(out, staging) as target:
        files = target.out
    assert not staging.exists()
    files.mkdir(parents=True)
    (files / "train-000099.tar.partial").write_bytes(b"left")
    assert make(root, out, "--staging", str(staging)) == 0
    assert not list(staging.iterdir())
    assert s3.contents(place) == snapshot(whole)


def test_a_staging_folder_that_leads_elsewhere_is_not_written_to(
    proxy: FaultyProxy, place: str, tmp_path: Path
):
    out = f"s3://{BUCKET}/{place}"
    (tmp_path / "staging").mkdir()
    with bucket.bucket_target(out, tmp_path / "staging") as target:
        name = target.out.parent.name
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "staging" / name).symlink_to(tmp_path / "elsewhere")
    with (
        pytest.raises(OutputError, match="belongs to somebody else"),
        bucket.bucket_target(out, tmp_path / "staging"),
    ):
        pass
    assert not list((tmp_path / "elsewhere").iterdir())
