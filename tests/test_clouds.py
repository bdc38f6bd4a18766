"""Buckets of other servers than SeaweedFS: the same batches, the same bytes, the same sentences."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastload import fetch, shard, verify
from fastload.errors import ShardError
from fastload.load.augment import Augment
from fastload.load.loader import Loader
from fastload.prepare import bucket
from fastload.store import objects, uploads
from fastload.store.remote import Bucket
from tests.clouds import Cloud, azurite, fake_gcs, moto
from tests.pictures import jpeg, write_tree
from tests.servers import web_server
from tests.shards import numbered

pytestmark = [pytest.mark.s3, pytest.mark.slow]
pytest.importorskip("obstore", reason="needs obstore: pip install -e '.[dev]' in the checkout")

# fake-gcs-server does not take what the client writes.
writing = pytest.mark.parametrize(
    "server", [moto, azurite], indirect=True, ids=lambda one: one.__name__
)
OPTIONS = ("--min-side", "16", "--shard-size", "50kB", "--workers", "1")


@pytest.fixture(scope="module", params=[moto, azurite, fake_gcs], ids=lambda one: one.__name__)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cloud]:
    kept = request.config.cache.mkdir("servers")
    with request.param(tmp_path_factory.mktemp("server"), kept) as one:
        yield one


@pytest.fixture
def cloud(server: Cloud, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return numbered(tmp_path_factory.mktemp("shards"), {"train": 45, "val": 12})


@pytest.fixture(scope="module")
def address(server: Cloud, folder: Path) -> str:
    return server.upload(folder, "whole/shards")


def batches(data: Path | str, **options: Any) -> list[tuple[np.ndarray, list[int]]]:
    with Loader(data, batch_size=8, augment=Augment.train(16), **options) as loader:
        return [(images.numpy(), labels.tolist()) for images, labels in loader]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.usefixtures("cloud")
@pytest.mark.parametrize("order", ["shuffled", "sequential"])
def test_the_batches_are_those_of_the_folder(folder: Path, address: str, order: str):
    local, remote = batches(folder, order=order), batches(address, order=order)
    assert len(local) == len(remote) == 5
    for (images, labels), (others, their) in zip(local, remote, strict=True):
        assert np.array_equal(images, others)
        assert labels == their


@pytest.mark.usefixtures("cloud")
def test_a_copy_is_the_same_to_the_byte(folder: Path, address: str, tmp_path: Path):
    assert fetch.main([address, str(tmp_path / "copy")]) == 0
    assert snapshot(tmp_path / "copy") == snapshot(folder)


def test_verify_names_what_is_missing_and_what_was_changed(
    cloud: Cloud, folder: Path, address: str, capsys: pytest.CaptureFixture[str]
):
    assert verify.main([address]) == 0, capsys.readouterr().err
    damaged = cloud.upload(folder, "damaged/shards")
    data = bytearray((folder / "train-000001.tar").read_bytes())
    data[700] ^= 1
    cloud.put("damaged/shards", "train-000001.tar", bytes(data))
    cloud.delete("damaged/shards", "val-000001.tar")
    assert verify.main([damaged]) == 1
    assert [line.partition(": ")[::2] for line in capsys.readouterr().err.splitlines()[:2]] == [
        ("train-000001.tar", "sample 000010, offset 512: has another CRC-32 than the index says"),
        ("val-000001.tar", "is missing: there is no such object"),
    ]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some photographs, one of them there twice."""
    files = {
        f"{'val' if i % 5 == 4 else 'train'}/class {i % 3}/Größe {i}.jpg": jpeg(5 if i == 35 else i)
        for i in range(60)
    }
    return write_tree(tmp_path_factory.mktemp("photographs") / "data", files)


def test_photographs_are_copied_page_by_page(
    cloud: Cloud, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(objects, "PAGE", 25)
    address = cloud.upload(photographs, "photographs")
    assert fetch.main([address, str(tmp_path / "copy")]) == 0
    assert snapshot(tmp_path / "copy") == snapshot(photographs)


@writing
def test_shards_that_are_written_there_are_those_of_a_folder(
    cloud: Cloud,
    photographs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    real, calls = bucket.BucketTarget.name_partial, []

    def interrupted(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(*arguments)  # type: ignore[arg-type]  # a method's own

    out, here = f"{cloud.address}/written/shards", tmp_path / "shards"
    words = [str(photographs), *OPTIONS, "--out"]
    with monkeypatch.context() as patched:
        patched.setattr(bucket.BucketTarget, "name_partial", interrupted)
        assert shard.main([*words, out]) == 130
    assert "manifest.json" not in cloud.names("written/shards")
    assert shard.main([*words, out]) == 0, capsys.readouterr().err
    assert shard.main([*words, str(here)]) == 0
    assert sorted(cloud.names("written/shards")) == sorted(snapshot(here))
    assert fetch.main([out, str(tmp_path / "copy")]) == 0
    assert snapshot(tmp_path / "copy") == snapshot(here)
    capsys.readouterr()
    assert shard.main([*words, out]) == 0
    assert "already holds these shards, complete" in capsys.readouterr().out


@writing
def test_a_file_goes_up_in_parts_and_comes_down_the_same(cloud: Cloud, tmp_path: Path):
    data = np.random.default_rng(0).bytes(20 << 20)  # parts of 8 MiB
    (tmp_path / "file").write_bytes(data)
    with uploads.Uploads(Bucket(f"{cloud.address}/parts")) as writer:
        writer.upload(tmp_path / "file", "file.partial")
        writer.rename("file.partial", "file")
        writer.download("file", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == data
    assert cloud.names("parts") == ["file"]


@writing
def test_an_object_that_is_removed_already_is_no_error(cloud: Cloud):
    names = ["1", "2", "3"]
    for name in names:
        cloud.put("removed", name, b"x")
    with uploads.Uploads(Bucket(f"{cloud.address}/removed")) as writer:
        writer.delete("0", "1", "nothing", "3")
        assert writer.names(most=10) == ["2"]
        writer.delete("1")
        writer.rename("2", "3")
        assert writer.names(most=10) == ["3"]


@writing
def test_what_is_not_there_is_one_sentence(
    cloud: Cloud, photographs: Path, capsys: pytest.CaptureFixture[str]
):
    scheme = cloud.address.partition("://")[0]
    with pytest.raises(ShardError, match="there is no complete set of shards"):
        Loader(f"{cloud.address}/nothing", batch_size=8, augment=Augment.train(16))
    with pytest.raises(ShardError, match="there is no such bucket"):
        Loader(f"{scheme}://strange/nothing", batch_size=8, augment=Augment.train(16))
    assert shard.main([str(photographs), *OPTIONS, "--out", f"{scheme}://strange/shards"]) == 1
    said = capsys.readouterr().err
    assert "there is no such bucket" in said
    assert said.count("\n") == 1


def test_what_is_wrong_is_one_sentence(
    cloud: Cloud,
    photographs: Path,
    address: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr("fastload.store.remote_shards.OPENING_SECONDS", 1.0)
    monkeypatch.setattr("fastload.store.uploads.TRIES_SECONDS", 1.0)
    out = [str(photographs), *OPTIONS, "--out", f"{cloud.address}/wrong"]
    for variable, value, words in cloud.wrong:
        for door, arguments in ((verify, [address]), (shard, out)):
            with monkeypatch.context() as patched:
                patched.setenv(variable, value)
                assert door.main(arguments) == 1
            said = capsys.readouterr().err
            assert words in said
            assert said.count("\n") == 1


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for localhost, which nobody has signed but its own key."""
    if not shutil.which("openssl"):
        pytest.skip("needs openssl")
    made, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    words += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    words += ["-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run([*words, "-out", made, "-keyout", key], check=True, capture_output=True)
    return made, key


def test_an_https_server_is_read_where_its_certificate_is_trusted(
    folder: Path,
    certificate: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    ranges = pytest.importorskip(
        "RangeHTTPServer", reason="needs pip install -e '.[dev]' in the checkout"
    )
    with web_server(ranges.RangeRequestHandler, certificate, directory=str(folder)) as address:
        assert verify.main([address]) == 1
        said = capsys.readouterr().err
        assert "the server's certificate is not trusted on this machine" in said
        assert said.count("\n") == 1
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        assert verify.main([address]) == 0
        for one, other in zip(batches(folder), batches(address), strict=True):
            assert np.array_equal(one[0], other[0])
