"""Shards in a real S3 server: the same batches as from a disk, faults on the way, bad input."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastload.errors import FastloadError, ResourceError, ShardError, StalledError
from fastload.load.augment import Augment
from fastload.load.dataset import TarDataset
from fastload.load.loader import Loader
from fastload.store import requests
from fastload.store.collection import open_collection
from fastload.store.endpoints import why_no_endpoint
from fastload.store.reader import Scratch
from fastload.store.remote import Access, Bucket
from fastload.store.remote_reader import RemoteReader
from fastload.world import World
from tests.faulty_proxy import FaultyProxy
from tests.s3 import BUCKET
from tests.servers import closed_port
from tests.shards import flip_bit, numbered

pytestmark = [pytest.mark.s3, pytest.mark.slow]
pytest.importorskip("obstore", reason="needs obstore: pip install -e '.[dev]' in the checkout")

SAMPLES = 95


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return numbered(tmp_path_factory.mktemp("shards"), {"train": SAMPLES, "val": 23})


@pytest.fixture(scope="module")
def address(s3, folder):
    return s3.upload(folder, "plain/shards")


def loader(path, **options):
    return Loader(path, **{"batch_size": 8, "augment": Augment.train(16), **options})


def batches(path, **options):
    with loader(path, **options) as made:
        return [(images.numpy(), labels.tolist()) for images, labels in made]


def rows_of(path, **options):
    with loader(path, **options) as made:
        return [made.last_indices().tolist() for _ in made]


def equal(one, other):
    return len(one) == len(other) and all(
        np.array_equal(a, b) and labels == others
        for (a, labels), (b, others) in zip(one, other, strict=True)
    )


def refused(path, message, **options):
    began = time.monotonic()
    with pytest.raises(FastloadError, match=message):
        Loader(path, **options)
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("order", ["shuffled", "sequential", "index"])
def test_the_batches_are_those_of_the_folder(s3, folder, address, order):
    remote = batches(address, order=order, storage_options=s3.options())
    assert equal(remote, batches(folder, order=order))


def test_reweighting_selection_and_several_epochs_are_those_of_the_folder(s3, folder, address):
    options = {"reweight": "inverse", "epoch_size": 150}
    with (
        loader(folder, **options) as one,
        loader(address, storage_options=s3.options(), **options) as other,
    ):
        for _ in range(2):
            assert [labels.tolist() for _, labels in one] == [
                labels.tolist() for _, labels in other
            ]
        assert one.state_dict() == other.state_dict()


def test_credentials_and_endpoint_come_from_the_environment(s3, folder, address, monkeypatch):
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    assert rows_of(address, split="val") == rows_of(folder, split="val")


def test_a_plain_web_server_is_read_too(s3, folder, address):
    place = address.replace(f"s3://{BUCKET}", s3.web)
    assert rows_of(place, storage_options={"allow_http": "true"}) == rows_of(folder)
    gone = f"{s3.web}/nothing"
    refused(gone, "there is no complete set of shards", storage_options={"allow_http": "true"})


def test_a_run_goes_on_where_it_was_left_on_another_number_of_ranks(s3, folder, address):
    whole = rows_of(folder, batch_size=8)
    with loader(address, batch_size=8, storage_options=s3.options()) as first:
        steps = iter(first)
        for _ in range(3):
            next(steps)
        state = first.state_dict()
    parts = []
    for rank in range(2):
        world = World(rank=rank, size=2)
        with loader(address, batch_size=4, storage_options=s3.options(), world=world) as part:
            part.load_state_dict(json.loads(json.dumps(state)))
            parts.append([part.last_indices().tolist() for _ in part])
    assert [a + b for a, b in zip(*parts, strict=True)] == whole[3:]


def test_a_rank_fetches_its_own_samples_alone(s3, folder, address, monkeypatch):
    monkeypatch.setattr("fastload.store.remote_reader._GAP", 0)
    whole = rows_of(folder, order="sequential", drop_last=False)
    for rank in range(2):
        world = World(rank=rank, size=2)
        options = {"storage_options": s3.options(), "order": "sequential", "world": world}
        with loader(address, batch_size=4, drop_last=False, **options) as part:
            rows = [part.last_indices().tolist() for _ in part]
            requests, fetched = part._reader.fetched
        own = sorted(row for each in rows for row in each)
        assert fetched == sum(open_collection(folder, "train").index["size"][own])
        assert requests <= len(own)
        assert all(set(mine) <= set(all_ranks) for mine, all_ranks in zip(rows, whole, strict=True))


def test_a_data_set_gives_the_samples_of_the_folder(s3, folder, address):
    remote = TarDataset(address, storage_options=s3.options(), output="tensor")
    local = TarDataset(folder, output="tensor")
    for index in (0, 41, -1):
        assert torch.equal(remote[index][0], local[index][0])
        assert remote[index][1] == local[index][1]
    shard, key, offset = remote.locate(41)
    assert (Path(shard).name, key, offset) == local.locate(41)


def test_a_batch_of_a_data_set_is_fetched_at_once(s3, folder, address):
    with FaultyProxy(s3.endpoint, latency=0.1).serving() as proxy:
        remote = TarDataset(address, storage_options=s3.options(endpoint=proxy.endpoint))
        before = len(proxy.requests)
        rows = [5, 25, 45, 65, 85, 15, 35, 55]
        assert [label for _, label in remote.__getitems__(rows)] == [row % 3 for row in rows]
        assert len(proxy.requests) - before == len(rows)
        assert proxy.most_at_once > 4


def test_spawned_workers_read_and_forked_ones_say_why_they_do_not(s3, address):
    data = TarDataset(address, storage_options=s3.options(), output="tensor", split="val")
    assert data[3][1] == 0

    def batches_by(start: str) -> Any:
        return torch.utils.data.DataLoader(
            data, batch_size=4, num_workers=1, timeout=60, multiprocessing_context=start
        )

    assert sum(len(labels) for _, labels in batches_by("spawn")) == 23
    with pytest.raises(ResourceError, match="was forked from one that reads an object store"):
        next(iter(batches_by("fork")))


def test_a_pickle_holds_no_connection(s3, address):
    data = TarDataset(address, storage_options=s3.options(), split="val")
    data[0]
    assert pickle.loads(pickle.dumps(data))[5][1] == 5 % 3


def test_requests_are_bounded_and_neighbours_come_together(s3, folder, address, monkeypatch):
    monkeypatch.setattr(requests, "MOST_IN_FLIGHT", 6)
    with FaultyProxy(s3.endpoint, latency=0.02).serving() as proxy:
        options = s3.options(endpoint=proxy.endpoint)
        assert rows_of(address, storage_options=options, drop_last=False) == rows_of(
            folder, drop_last=False
        )
        assert proxy.most_at_once <= 6
        # Each of the ten shards is smaller than the gap that is fetched with its neighbours. The
        # chunk that a thread takes before all is asked for may come by itself.
        assert 10 <= len(proxy.gets()) <= 20
        first = len(proxy.requests)
        rows_of(address, storage_options=options, order="sequential", drop_last=False)
        assert len(proxy.requests[first:]) < 20


def test_memory_for_what_was_fetched_is_bounded_and_given_back(s3, folder, address, monkeypatch):
    monkeypatch.setattr("fastload.store.remote_reader._GAP", 0)
    collection = open_collection(address, "train", Access(storage_options=s3.options()))
    reader = RemoteReader(collection)
    size = int(collection.index["size"].max())
    reader._requests._most_held = 10 * size
    monkeypatch.setattr("fastload.store.remote_reader._TOGETHER", SAMPLES)
    reader.read_ahead(np.arange(SAMPLES))
    time.sleep(1.0)
    assert 0 < reader.fetched[0] <= 10
    order = np.random.default_rng(0).permutation(SAMPLES)
    for part in np.array_split(order, 12):  # others than those that are there
        _, bad = reader.read(part, Scratch())
        assert not bad
    assert reader.fetched[0] == SAMPLES
    assert reader._requests.run(_held(reader)) == 0
    assert not reader._coming
    reader.close()


async def _held(reader):
    return reader._requests._held


@pytest.mark.parametrize("fault", ["slow down", "reset", "truncate", "stall"])
def test_what_fails_for_a_moment_is_asked_for_again(s3, folder, address, fault, monkeypatch):
    monkeypatch.setattr("fastload.store.objects._ATTEMPT_SECONDS", 1.0)
    with FaultyProxy(s3.endpoint).serving() as proxy:
        proxy.fault = lambda request: fault if request.number % 3 == 1 else ""
        options = s3.options(endpoint=proxy.endpoint)
        assert rows_of(address, storage_options=options) == rows_of(folder)


def test_bytes_that_changed_on_the_way_are_fetched_again(s3, folder, address):
    def fault(request):
        first = request.path.endswith(".tar") and request.path not in seen
        seen.add(request.path)
        return "corrupt" if first else ""

    seen: set[str] = set()
    with FaultyProxy(s3.endpoint, fault=fault).serving() as proxy:
        options = s3.options(endpoint=proxy.endpoint)
        assert rows_of(address, storage_options=options) == rows_of(folder)
        assert len(proxy.gets()) >= 2 * 10


def test_a_bad_sample_is_replaced_as_in_the_folder(s3, tmp_path, caplog):
    folder = numbered(tmp_path / "bad", {"train": 40})
    row = open_collection(folder, "train").index[13]
    flip_bit(folder / "train-000001.tar", int(row["offset"]) + 300)
    address = s3.upload(folder, "bad/shards")
    options = {"max_corrupt_fraction": 0.5}
    assert equal(
        batches(address, storage_options=s3.options(), **options), batches(folder, **options)
    )
    assert "train-000001.tar, sample 000013" in caplog.text


def test_a_server_that_stops_answering_is_named_in_time(s3, address):
    with FaultyProxy(s3.endpoint).serving() as proxy:
        options = s3.options(endpoint=proxy.endpoint)
        with loader(address, storage_options=options, timeout_seconds=4) as remote:
            proxy.fault = lambda request: "slow down" if request.path.endswith("3.tar") else ""
            with pytest.raises(
                StalledError, match=r"000003.tar, bytes \d+ to \d+: .*503.*asked for"
            ):
                list(remote)


def test_an_early_end_leaves_nothing_running_and_does_not_wait(s3, address):
    before = set(threading.enumerate())
    with FaultyProxy(s3.endpoint).serving() as proxy:
        proxy.fault = lambda request: "stall" if request.path.endswith(".tar") else ""
        remote = loader(address, storage_options=s3.options(endpoint=proxy.endpoint))
        steps = iter(remote)
        threading.Timer(1.0, lambda: remote.close()).start()
        began = time.monotonic()
        with pytest.raises((RuntimeError, StalledError)):
            next(steps)
        remote.close()
        assert time.monotonic() - began < 8
    time.sleep(0.2)
    left = {thread.name for thread in set(threading.enumerate()) - before}
    assert not any(name.startswith("fastload") for name in left)


def test_two_iterations_in_a_row_ask_anew_and_an_epoch_can_be_left(s3, folder, address):
    with loader(address, storage_options=s3.options()) as remote, loader(folder) as local:
        for made in (remote, local):
            next(iter(made))
        assert [labels.tolist() for _, labels in remote] == [labels.tolist() for _, labels in local]


def test_bad_input_is_one_sentence(s3, address, folder, monkeypatch):
    for name in s3.environment:
        monkeypatch.delenv(name, raising=False)
    options = s3.options()
    refused(f"s3://no-{BUCKET}/x", "there is no such bucket", storage_options=options)
    refused(
        f"s3://{BUCKET}/other",
        "other: there is no complete set of shards .no manifest",
        storage_options=options,
    )
    refused(address, "does not know the access key", storage_options=s3.options(access_key_id="x"))
    refused(address, "secret key is another", storage_options=s3.options(secret_access_key="x"))
    refused(address, "permission was denied", storage_options={**options, "skip_signature": True})
    refused(address, "key that the store does not know", storage_options=s3.options(secret="x"))
    refused(
        address, "value of storage_options is of a wrong type", storage_options=s3.options(region=3)
    )
    gone = s3.options(endpoint=f"http://127.0.0.1:{closed_port()}")
    refused(address, "the server cannot be reached", storage_options=gone)
    closed = {**options, "allow_http": "false"}
    refused(address, "endpoint is no https", storage_options=closed)
    bare = s3.options(endpoint="127.0.0.1:9000")
    refused(address, "endpoint in storage_options is no URL, got '127", storage_options=bare)
    refused("s3://", "names no bucket", storage_options=options)
    refused(
        f"{address}/train-000000.tar", "is the address of a tar, expected", storage_options=options
    )
    refused([address, str(folder)], "give addresses alone", storage_options=options)
    with pytest.raises(TypeError, match="storage_options must be Mapping or None"):
        Loader(address, storage_options="region")  # type: ignore[arg-type]  # on purpose
    with pytest.raises(ValueError, match="give cache=…"):
        Loader(address, storage_options=options, cache_bytes=10)
    with pytest.raises(ValueError, match="cache must be a folder of this machine, got 's3:"):
        Loader(address, storage_options=options, cache=f"s3://{BUCKET}/cache")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("s3://bucket/a/./b", "^s3://bucket/a/./b: has an empty part, or . or .., in its path"),
        ("s3://bucket/a/..", "in its path; give the path without them"),
        ("gs://bucket//b", "has an empty part"),
        ("s3://bucket:80/a", "has more than a name for its bucket"),
        ("S3://me:secret@bucket/a", "^S3://bucket/a: has more than a name for its bucket"),
        ("az://bucket/a?sig=secret", r"^az://bucket/a: has \? in it"),
        ("az://bucket/a#b", "has # in it, which no folder of an address may have"),
    ],
)
def test_one_place_has_one_address(address: str, message: str):
    with pytest.raises(ShardError, match=message):
        Bucket(address)


def test_an_address_that_names_an_account_is_taken():
    assert Bucket("abfs://container@account.dfs.core.windows.net/a/").address.endswith("net/a")


@pytest.mark.parametrize(
    "endpoint", ["localhost:9000", "htp://host", "http://", "http://host:99999", "http://host/ "]
)
@pytest.mark.parametrize(
    ("variable", "scheme", "option"),
    [
        ("AWS_ENDPOINT_URL", "s3", "AWS_Endpoint"),
        ("AWS_ENDPOINT_URL_S3", "S3", "endpoint_url"),
        ("AZURE_STORAGE_ENDPOINT", "az", "azure_endpoint"),
        ("AZURE_ENDPOINT", "abfs", "endpoint"),
        ("GOOGLE_BASE_URL", "gs", "base_url"),
    ],
)
def test_an_endpoint_that_is_no_url_is_refused_before_the_client_panics(
    monkeypatch, endpoint, variable, scheme, option
):
    monkeypatch.setenv(variable, endpoint)
    address = f"{scheme}://{BUCKET}/x"
    refused(address, "x: the endpoint in the environment is no URL, got")
    monkeypatch.setenv(variable, "http://host:9000")
    assert why_no_endpoint(address, {}) is None
    assert why_no_endpoint(address, {option: endpoint}) is not None
    assert why_no_endpoint("https://host/x", {option: endpoint}) is None


def test_no_permission_in_the_middle_names_the_object(s3, address):
    with FaultyProxy(s3.endpoint).serving() as proxy:
        proxy.fault = lambda request: "forbid" if request.path.endswith("2.tar") else ""
        options = s3.options(endpoint=proxy.endpoint)
        with pytest.raises(ShardError, match=r"000002.tar, bytes .*: permission was denied"):
            batches(address, storage_options=options)


def test_an_incomplete_copy_is_found_when_it_is_opened(s3, folder):
    address = s3.upload(folder, "part/shards")
    options = s3.options()
    s3.put("part/shards", "train-000004.tar", b"short")
    refused(address, "train-000004.tar: has 5 bytes, the manifest says", storage_options=options)
    s3.delete("part/shards", "train-000004.tar")
    refused(address, "train-000004.tar: is missing", storage_options=options)
    s3.delete("part/shards", "train.index.npy")
    refused(address, "train.index.npy: is missing", storage_options=options)


def test_a_shard_that_was_deleted_or_replaced_meanwhile_is_an_error(s3, folder):
    address = s3.upload(folder, "gone/shards")
    with loader(address, storage_options=s3.options()) as remote:
        s3.delete("gone/shards", "train-000004.tar")
        with pytest.raises(ShardError, match=r"000004.tar, bytes .*: there is no such object"):
            list(remote)
    s3.put("gone/shards", "train-000004.tar", bytes(100_000))
    data = open_collection(folder, "train")
    collection = open_collection(
        s3.upload(folder, "new/shards"), "train", Access(storage_options=s3.options())
    )
    s3.put("new/shards", "train-000004.tar", bytes(100_000))
    reader = RemoteReader(collection)
    with pytest.raises(ShardError, match="was replaced while it was in use"):
        reader.read(np.flatnonzero(data.index["file"] == 4)[:1], Scratch())
    reader.close()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("manifest.json", b"[", "manifest.json: is not JSON"),
        ("manifest.json", b'{"format_version": 99}', "has format version 99"),
        ("train.index.npy", b"nothing", "is not an index"),
        ("train.index.npy", bytes(200_000), "has 200,000 bytes, expected at most"),
    ],
)
def test_a_damaged_or_hostile_manifest_or_index_is_refused(s3, folder, name, content, message):
    prefix = "hostile/shards"
    address = s3.upload(folder, prefix)
    s3.put(prefix, name, content)
    refused(address, message, storage_options=s3.options())


def test_a_name_that_leads_out_of_the_prefix_is_refused(s3, folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["splits"]["train"]["shards"][0]["name"] = "../../other.tar"
    address = s3.upload(folder, "escape/shards")
    s3.put("escape/shards", "manifest.json", json.dumps(manifest).encode())
    refused(address, "is not a plain file name", storage_options=s3.options())


def test_without_obstore_the_command_that_installs_it_is_named():
    program = (
        "import sys; sys.modules['obstore'] = None\n"
        "from fastload import Loader\n"
        "from fastload.errors import ShardError\n"
        "try: Loader('s3://bucket/shards')\n"
        "except ShardError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert "read by obstore, which is not installed" in done.stdout
    assert "[remote]" in done.stdout


def test_importing_fastload_does_not_load_the_client():
    program = "import sys, fastload, fastload.load.loader; print('obstore' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_a_request_may_take_longer_than_the_clients_own_limit(monkeypatch):
    address = "s3://tests/shards"
    assert Bucket(address).store.client_options["timeout"] == "1h"
    monkeypatch.setenv("AWS_TIMEOUT", "50s")
    assert Bucket(address).store.client_options["timeout"] == "50s"
    for options in ({"timeout": "7s"}, {"client_options": {"timeout": "7s"}}):
        given = Bucket(address, Access(storage_options=options))
        assert given.store.client_options["timeout"] == "7s"
