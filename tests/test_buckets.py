"""Commands that are given the address of shards: they take it, or say what to do instead."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from fastload import clean, inspect, tune, verify
from fastload import index as indexing
from tests.faulty_proxy import FaultyProxy
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


@pytest.fixture
def proxy(s3, monkeypatch):
    with FaultyProxy(s3.endpoint).serving() as one:
        for name, value in {**s3.environment, "AWS_ENDPOINT_URL": one.endpoint}.items():
            monkeypatch.setenv(name, value)
        yield one


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


@pytest.mark.parametrize("command", [verify, inspect])
def test_what_reads_folders_alone_names_the_command_that_copies(command, capsys):
    assert command.main(["s3://bucket/shards"]) == 1
    said = capsys.readouterr().err
    assert said.endswith(" -m fastload.fetch s3://bucket/shards shards/`\n")
    assert "; copy the shards to one with `" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("command", [clean, indexing])
def test_images_in_a_bucket_are_not_read_in_place(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command.main(["s3://bucket/photographs"]) == 1
    assert "images in an object store are not read in place" in capsys.readouterr().err
