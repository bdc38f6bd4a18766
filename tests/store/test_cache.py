"""The cache of what lies in an object store: shared, bounded, verified, harmless."""

from __future__ import annotations

import errno
import logging
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fastload.errors import ShardError
from fastload.load.augment import Augment
from fastload.load.loader import Loader
from fastload.store.cache import Cache
from fastload.store.collection import open_collection
from fastload.store.reader import Scratch
from fastload.store.remote import Access
from fastload.store.remote_reader import RemoteReader
from tests.faulty_proxy import FaultyProxy
from tests.shards import numbered

pytestmark = [pytest.mark.s3, pytest.mark.slow]
pytest.importorskip("obstore", reason="needs obstore: pip install -e '.[dev]' in the checkout")

SAMPLES = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return numbered(tmp_path_factory.mktemp("shards"), {"train": SAMPLES})


@pytest.fixture(scope="module")
def address(s3, folder):
    return s3.upload(folder, "cached/shards")


@pytest.fixture
def proxy(s3):
    with FaultyProxy(s3.endpoint).serving() as one:
        yield one


def labels_of(address, proxy, s3, cache, **options):
    options = {"storage_options": s3.options(endpoint=proxy.endpoint), "cache": cache, **options}
    with Loader(address, batch_size=8, augment=Augment.train(16), **options) as loader:
        return [(loader.last_indices().tolist(), labels.tolist()) for _, labels in loader]


def taken(cache: Path) -> int:
    """Bytes on the disk of all data in a cache."""
    return sum(path.stat().st_blocks * 512 for path in cache.glob("*/*"))


def reader_of(address, s3, cache, **options):
    access = Access(storage_options=s3.options(), cache=cache, **options)
    return RemoteReader(open_collection(address, "train", access))


def test_the_second_epoch_and_the_next_run_ask_for_nothing(s3, folder, address, proxy, tmp_path):
    cache = tmp_path / "cache"
    first = labels_of(address, proxy, s3, cache, drop_last=False)
    asked = len(proxy.gets())
    assert asked
    assert labels_of(address, proxy, s3, cache, drop_last=False) == first
    assert labels_of(address, proxy, s3, cache, drop_last=False, order="index")
    assert len(proxy.gets()) == asked
    with Loader(folder, batch_size=8, augment=Augment.train(16), drop_last=False) as local:
        assert [row for rows, _ in first for row in rows] == [
            row for _ in local for row in local.last_indices().tolist()
        ]


def test_what_is_kept_are_the_bytes_of_the_shards(s3, folder, address, proxy, tmp_path):
    labels_of(address, proxy, s3, tmp_path, drop_last=False)
    (data,) = (path for path in tmp_path.iterdir() if path.is_dir())
    for row in open_collection(folder, "train").index[:]:
        name = f"train-{int(row['file']):06d}.tar"
        begin, size = int(row["offset"]), int(row["size"])
        kept, stored = (data / name).read_bytes(), (folder / name).read_bytes()
        assert kept[begin : begin + size] == stored[begin : begin + size]


def test_damage_in_the_cache_is_found_and_fetched_anew(s3, folder, address, proxy, tmp_path):
    first = labels_of(address, proxy, s3, tmp_path, drop_last=False)
    asked = len(proxy.gets())
    index = open_collection(folder, "train").index
    files = sorted(tmp_path.glob("*/*.tar"))
    for number in (3, 17):  # a flipped byte, and an end that a kill has left out
        row = index[number]
        with files[int(row["file"])].open("r+b") as file:
            file.seek(int(row["offset"]) + 200)
            file.write(bytes(100))
    assert labels_of(address, proxy, s3, tmp_path, drop_last=False) == first
    assert len(proxy.gets()) == asked + 2
    labels_of(address, proxy, s3, tmp_path, drop_last=False)
    labels_of(address, proxy, s3, tmp_path, drop_last=False)
    assert len(proxy.gets()) == asked + 4  # kept again the next time


PROGRAM = """
import sys, warnings
warnings.simplefilter("ignore")
import json
from fastload.load.augment import Augment
from fastload.load.loader import Loader
address, cache, options, seed = sys.argv[1:]
with Loader(address, batch_size=4, augment=Augment.train(16), cache=cache, seed=int(seed),
            storage_options=json.loads(options), drop_last=False) as loader:
    print(sum(len(labels) for _, labels in loader), flush=True)
"""


def started(address, s3, proxy, cache, seed):
    import json

    options = json.dumps(s3.options(endpoint=proxy.endpoint))
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, address, str(cache), options, str(seed)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )


def test_processes_share_the_cache_and_fetch_each_byte_once(s3, folder, address, proxy, tmp_path):
    proxy.latency = 0.3  # so that both want the same at the same time
    processes = [started(address, s3, proxy, tmp_path, seed) for seed in (0, 0, 0)]
    try:
        assert [process.communicate(timeout=100)[0].strip() for process in processes] == [
            str(SAMPLES)
        ] * 3
    finally:
        for process in processes:
            process.kill()
            process.wait()
    # Six shards, each of one range, and what a thread takes before all is asked for: without the
    # locks there are 18 and more.
    assert 6 <= len(proxy.gets()) < 14


def test_a_killed_run_leaves_a_cache_that_works(s3, address, proxy, tmp_path):
    proxy.latency = 0.05
    for seconds in (1.2, 1.5, 1.8):
        process = started(address, s3, proxy, tmp_path, 1)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    proxy.latency = 0.0
    rows = [
        row for rows, _ in labels_of(address, proxy, s3, tmp_path, drop_last=False) for row in rows
    ]
    assert sorted(rows) == list(range(SAMPLES))


def test_the_cache_never_takes_more_than_its_limit(s3, address, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("fastload.store.remote_reader._CACHED_GAP", 0)
    limit = 12 * 4096
    reader = reader_of(address, s3, tmp_path, cache_bytes=limit)
    for row in np.random.default_rng(0).permutation(SAMPLES):
        _, bad = reader.read(np.array([row]), Scratch())
        assert not bad
        assert taken(tmp_path) <= limit
    assert taken(tmp_path) > limit // 2
    reader.close()
    assert caplog.text.count("is full") == 1


def test_what_nobody_has_used_for_a_while_makes_room(s3, address, tmp_path, monkeypatch):
    monkeypatch.setattr("fastload.store.remote_reader._CACHED_GAP", 0)
    old = tmp_path / "other-data"
    old.mkdir()
    for number, age in enumerate((5000, 4000, 10)):
        path = old / f"train-{number:06d}.tar"
        path.write_bytes(bytes([1]) * 40_960)
        os.utime(path, (time.time() - age,) * 2)
    reader = reader_of(address, s3, tmp_path, cache_bytes=4 * 40_960)
    reader.read(np.arange(0, SAMPLES, 3), Scratch())
    assert taken(tmp_path) <= 4 * 40_960
    left = sorted(path.name for path in old.iterdir())
    assert "train-000002.tar" in left  # used ten seconds ago
    assert "train-000000.tar" not in left  # the longest unused goes first
    reader.close()


def test_a_full_disk_is_said_once_and_the_run_goes_on(s3, address, proxy, tmp_path, caplog):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))  # the kernel refuses: EFBIG
    try:
        with caplog.at_level(logging.WARNING):
            rows = labels_of(address, proxy, s3, tmp_path, drop_last=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(row for part, _ in rows for row in part) == list(range(SAMPLES))
    assert caplog.text.count("takes no more data") == 1
    assert os.strerror(errno.EFBIG)  # its words are those of `files`
    assert "ulimit -f" in caplog.text


def test_a_folder_that_cannot_be_the_cache_is_one_sentence(s3, address, tmp_path):
    (tmp_path / "file").write_text("")
    for cache in (tmp_path / "file", "/proc/cache"):
        with pytest.raises(ShardError, match=r"(file|/proc/cache): cannot be the cache: .*"):
            Loader(address, batch_size=8, cache=cache, storage_options=s3.options())


def test_a_cache_whose_files_were_removed_meanwhile_goes_on(s3, address, tmp_path):
    reader = reader_of(address, s3, tmp_path)
    reader.read(np.arange(30), Scratch())
    for path in tmp_path.glob("*/*.tar"):
        os.truncate(path, 0)
        path.unlink()
    _, bad = reader.read(np.arange(SAMPLES), Scratch())
    assert not bad
    assert taken(tmp_path)
    reader.close()


def test_a_link_in_the_cache_is_not_followed(s3, address, tmp_path):
    (tmp_path / "precious").write_text("precious")
    reader = reader_of(address, s3, tmp_path)
    data = next(path for path in tmp_path.iterdir() if path.is_dir())
    (data / "train-000000.tar").symlink_to(tmp_path / "precious")
    _, bad = reader.read(np.arange(5), Scratch())
    assert not bad
    assert (tmp_path / "precious").read_text() == "precious"
    reader.close()


def test_the_bytes_that_are_noted_are_counted_anew_when_a_cache_is_opened(tmp_path):
    Cache(tmp_path, "data").close()
    (tmp_path / "used").write_text("nonsense")
    (tmp_path / "data" / "train-000000.tar").write_bytes(bytes([1]) * 10_000)
    Cache(tmp_path, "data").close()
    assert int((tmp_path / "used").read_text()[:20]) == taken(tmp_path)
