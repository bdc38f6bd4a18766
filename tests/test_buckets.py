"""Commands that are given the address of shards or of images: they take it, or say why not."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import pytest

from fastload import doctor, inspect, tune, verify
from tests.faulty_proxy import Fault, FaultyProxy, Request
from tests.servers import web_server
from tests.train.pictures import striped_shards
from train.run import main as train

pytestmark = [
    pytest.mark.s3,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:fastload's native core:RuntimeWarning"),
]
pytest.importorskip("obstore", reason="needs obstore: pip install -e '.[dev]' in the checkout")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return striped_shards(tmp_path_factory.mktemp("striped") / "shards")


def samples_asked(proxy: FaultyProxy) -> int:
    """Requests for images; those of 512 bytes are for their keys, which messages name."""
    ends = [each.range.removeprefix("bytes=").split("-") for each in proxy.gets()]
    return sum(int(last) - int(first) >= 512 for first, last in ends)


def trained(data: object, runs: Path, *more: str) -> list[dict[str, str]]:
    arguments = [
        *("--data", str(data), "--runs", str(runs), "--name", "run", "--device", "cpu"),
        *("--model", "shufflenet_v2_x0_5", "--init", "scratch", "--size", "32", "--epochs", "2"),
        *("--batch-size", "8", "--threads", "1", "--no-tensorboard", "--no-report"),
    ]
    assert train([*arguments, *more]) == 0
    with (runs / "run" / "log.csv").open() as file:
        return list(csv.DictReader(file))


def test_training_from_a_bucket_gives_the_figures_of_the_folder(s3, folder, proxy, tmp_path):
    address = s3.upload(folder, "trained/shards")
    local = trained(folder, tmp_path / "local")
    remote = trained(address, tmp_path / "remote", "--cache", str(tmp_path / "cache"))
    for name in ("split", "loss", "top1", "images"):
        assert [row[name] for row in remote] == [row[name] for row in local]
    assert list((tmp_path / "cache").glob("*/*.tar"))
    before = samples_asked(proxy)
    trained(address, tmp_path / "again", "--cache", str(tmp_path / "cache"))
    assert samples_asked(proxy) == before


def test_tune_takes_an_address(s3, folder, proxy, tmp_path, capsys):
    address = s3.upload(folder, "tuned/shards")
    arguments = [address, "--device", "cpu", "--seconds", "1", "--size", "32"]
    arguments += ["--model", "shufflenet_v2_x0_5", "--out", str(tmp_path / "tuned.toml")]
    assert tune.main(arguments) == 0, capsys.readouterr().err


def test_verify_reads_each_byte_of_a_bucket_once_and_writes_nothing(
    s3, folder, proxy, tmp_path, monkeypatch, capsys
):
    address = s3.upload(folder, "verified/shards")
    monkeypatch.chdir(tmp_path)
    assert verify.main([address + "/"]) == 0
    assert capsys.readouterr().out == (
        f"{address}/: 9 shards and 74 samples are as the manifest says\n"
    )
    assert sorted(each.path.rpartition("/")[2] for each in proxy.gets()) == sorted(
        path.name for path in folder.glob("*.tar")
    )
    assert list(tmp_path.iterdir()) == []


def changed(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def test_verify_names_each_fault_of_a_bucket(s3, folder, proxy, capsys):
    address = s3.upload(folder, "faulty/shards")
    read = {path.name: path.read_bytes() for path in folder.iterdir()}
    s3.put("faulty/shards", "train-000001.tar", changed(read["train-000001.tar"], 700))
    s3.put("faulty/shards", "train-000002.tar", changed(read["train-000002.tar"], -3))
    s3.put("faulty/shards", "val-000000.tar", read["val-000000.tar"] + b"\0" * 512)
    s3.delete("faulty/shards", "val-000001.tar")
    s3.delete("faulty/shards", "test.index.npy")
    s3.put("faulty/shards", "test-000000.tar", changed(read["test-000000.tar"], 700))
    s3.put("faulty/shards", "train-000099.tar", b"x")
    assert verify.main([address]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    size = len(read["val-000000.tar"])
    remedy = "copy the shards there again, or rebuild it with `python -m fastload.shard`"
    for line, expected in zip(
        said.err.splitlines(),
        [
            "train-000099.tar: is not in the manifest; remove it",
            "train-000001.tar: sample 000010, offset 512: has another CRC-32 than the index says",
            "train-000002.tar: holds more than its index lists, or does not end as a tar does",
            f"val-000000.tar: has {size + 512} bytes, the manifest says {size}",
            "val-000001.tar: is missing: there is no such object",
            "test.index.npy: is missing: there is no such object",
            "test-000000.tar: has another SHA-256 than the manifest says",
            f"7 faults in {address}; {remedy}",
        ],
        strict=True,
    ):
        assert line == expected


def test_verify_finds_the_same_where_the_bucket_must_not_be_listed(s3, folder, proxy, capsys):
    address = s3.upload(folder, "unlisted/shards")
    data = (folder / "val-000000.tar").read_bytes()
    s3.put("unlisted/shards", "train-000001.tar", b"x")
    s3.delete("unlisted/shards", "val-000001.tar")
    s3.put("unlisted/shards", "val-000000.tar", data + b"\0" * 512)
    proxy.fault = lambda each: "forbid" if each.path.count("/") < 3 else ""
    assert verify.main([address]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[0] for line in lines[:-1]] == [
        "train-000001.tar",
        "val-000000.tar",
        "val-000001.tar",
    ]
    assert lines[0].startswith("train-000001.tar: has 1 bytes, the manifest says ")


def test_verify_tries_again_what_fails_or_is_damaged_on_the_way(s3, folder, proxy, capsys):
    address = s3.upload(folder, "shaky/shards")
    faults = {"train-000000.tar": "slow down", "train-000001.tar": "truncate"}
    faults |= {"val-000000.tar": "corrupt", "test-000001.tar": "reset"}
    proxy.fault = lambda each: faults.pop(each.path.rpartition("/")[2], "") if each.range else ""
    assert verify.main([address]) == 0, capsys.readouterr().err
    assert not faults


def test_what_was_found_is_said_where_the_rest_cannot_be_read(s3, folder, proxy, capsys):
    address = s3.upload(folder, "denied/shards")
    s3.put("denied/shards", "train-000001.tar", b"x")
    proxy.fault = lambda each: "forbid" if each.path.endswith("val-000001.tar") else ""
    assert verify.main([address]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("train-000001.tar: has 1 bytes")
    assert "val-000001.tar, bytes 0 to " in second
    assert "permission was denied (AccessDenied)" in second


def test_an_object_that_goes_while_verify_runs_is_missing(s3, folder, proxy, capsys):
    address = s3.upload(folder, "going/shards")

    def fault(each: Request) -> Fault:
        if each.path.endswith("manifest.json"):
            gone.append(True)
        elif gone and each.path.endswith("train-000000.tar"):
            s3.delete("going/shards", "test-000001.tar")
        return ""

    gone: list[bool] = []
    proxy.fault = fault
    assert verify.main([address]) == 1
    assert "test-000001.tar: is missing: there is no such object" in capsys.readouterr().err


def test_ctrl_c_ends_verify_while_a_server_stalls(s3, folder, proxy, tmp_path):
    address = s3.upload(folder, "stalled/shards")
    s3.put("stalled/shards", "train-000001.tar", b"x")
    proxy.fault = lambda each: "stall" if each.path.endswith("val-000000.tar") else ""
    process = subprocess.Popen(
        [sys.executable, "-m", "fastload.verify", address],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not proxy.gets("val-000000.tar"):
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=20)
    assert process.returncode == 130
    assert error.startswith("train-000001.tar: has 1 bytes")


def test_a_web_server_without_ranges_is_one_sentence(folder, capsys, monkeypatch):
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    with web_server(SimpleHTTPRequestHandler, directory=str(folder)) as address:
        began = time.monotonic()
        assert verify.main([address]) == 1
        assert time.monotonic() - began < 60
    assert "the server sends no parts of objects (HTTP ranges)" in capsys.readouterr().err


def test_a_plain_web_server_is_verified_too(s3, folder, proxy, capsys):
    s3.upload(folder, "web/shards")
    assert verify.main([f"{s3.web}/web/shards"]) == 0, capsys.readouterr().err
    s3.delete("web/shards", "val-000001.tar")
    assert verify.main([f"{s3.web}/web/shards"]) == 1
    assert capsys.readouterr().err.startswith("val-000001.tar: is missing")


def test_inspect_reports_and_draws_a_bucket_as_it_does_a_folder(
    s3, folder, proxy, tmp_path, monkeypatch, capsys
):
    address = s3.upload(folder, "inspected/shards")
    monkeypatch.chdir(tmp_path)
    said = []
    for data in (str(folder), address):
        assert inspect.main([data, "--sheet", "s.html", "--count", "6", "--size", "32"]) == 0
        pages = [Path(name).read_text() for name in ("shards-inspect.html", "s.html")]
        said.append((capsys.readouterr().out, *pages))
    assert said[0] == said[1]


def test_doctor_tries_images_of_a_bucket(s3, folder, proxy, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "BACKENDS", ("libjpeg",))
    address = s3.upload(folder, "examined/shards")
    assert doctor.main([address]) == 0, capsys.readouterr().err
    assert f"10, {address}, split train" in capsys.readouterr().out


@pytest.mark.parametrize("command", [verify, inspect, doctor])
@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wrong", "the secret key is another than the server's"),
        ("AWS_ACCESS_KEY_ID", "nobody", "the server does not know the access key"),
        (None, None, "there is no complete set of shards"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(
    proxy, monkeypatch, capsys, command, variable, value, said
):
    if variable:
        monkeypatch.setenv(variable, value)
    assert command.main(["s3://tests/nothing"]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
