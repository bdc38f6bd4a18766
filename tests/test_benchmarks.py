"""The measuring itself: intervals, rounds, the contract of contenders, tables, charts, the page."""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
import runpy
import statistics
import subprocess
import sys
import tarfile
import time
import urllib.request
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
import torch
from pandas import DataFrame
from PIL import Image

from benchmarks import (
    bench_recipe,
    compare,
    harness,
    images,
    peers,
    plot,
    recipe_tables,
    remote_tables,
    report,
    standings,
    start_tables,
    tutorial,
)
from benchmarks.bench_size import sized
from benchmarks.compare import Comparison
from benchmarks.contenders import contract
from benchmarks.contenders.boxes import random_resized_box
from benchmarks.contenders.contract import Work
from benchmarks.distance import far
from benchmarks.environment import ROOT, describe, storage
from benchmarks.harness import Row
from benchmarks.images import Kind
from benchmarks.light_server import INSTALL, has_light_server, light_server
from fastload.errors import FastloadError
from fastload.load.loader import Loader
from fastload.store.index import read_index
from tests.servers import closed_port, web_server
from tests.shards import numbered

SVG = "{http://www.w3.org/2000/svg}"


# Intervals and rounds.


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 9, 20])
def test_the_interval_covers_the_median_as_often_as_it_says(count: int):
    # Brute force over all ways in which rounds fall below (0) or above (1) the true median.
    found = harness.summarise(float(value) for value in range(count))
    low, high = int(found.low), int(found.high)
    covered = sum(
        sum(sides) >= count - high and count - sum(sides) >= low + 1
        for sides in itertools.product((0, 1), repeat=count)
        if count <= 12
    )
    if count <= 12:
        assert found.confidence == pytest.approx(covered / 2**count)
    assert found.confidence >= 0.95 or (low, high) == (0, count - 1)
    assert found.median == statistics.median(range(count))


def test_rounds_are_interleaved_and_begin_with_another_one_each_time():
    order: list[str] = []

    def call(name: str) -> int:
        order.append(name)
        return len(order)

    calls = {name: functools.partial(call, name) for name in "abc"}
    kept = harness.interleave(calls, rounds=3)
    assert "".join(order) == "abcbcacab"
    assert kept["a"] == [1, 6, 8]
    with pytest.raises(ValueError, match="rounds must be at least 1, got 0"):
        harness.interleave(calls, rounds=0)


def test_no_values_have_no_summary():
    with pytest.raises(ValueError, match="at least one round"):
        harness.summarise([])


def test_every_row_says_where_it_was_measured(tmp_path: Path):
    path = tmp_path / "deep" / "rows.jsonl"
    rows = harness.rows_of("decode", {"a": [1.0, 2.0], "b": [3.0]}, unit="ms")
    harness.append_rows(path, rows)
    harness.append_rows(path, rows[:1])
    read = harness.read_rows(path)
    assert [(row["name"], row["round"], row["ms"]) for row in read] == [
        ("a", 0, 1.0),
        ("a", 1, 2.0),
        ("b", 0, 3.0),
        ("a", 0, 1.0),
    ]
    found, here = read[0], describe()
    for key in ("commit", "versions", "cpu", "cores", "gpu", "storage", "python"):
        assert found[key] == here[key]
    assert datetime.now(timezone.utc) - datetime.fromisoformat(found["time"]) < timedelta(hours=1)
    assert str(ROOT) not in path.read_text()


def test_the_machine_is_described_without_paths():
    said = describe()
    assert said["cores"] >= 1
    assert said["versions"]["numpy"] == np.__version__
    assert storage(Path("/")) != ""
    assert str(Path.home()) not in json.dumps(said)


# The contract of contenders.


def counted(batches: int, size: int = 8, shape: tuple[int, ...] = (3, 8, 8)):
    """A contender of 4 images a batch, and the list of the epochs it was asked for."""
    asked: list[int] = []

    def open_loader(_data, _work):
        def epoch(number):
            asked.append(number)
            for _ in range(batches):
                yield np.zeros((4, *shape), np.uint8), np.zeros(4)

        return epoch

    return open_loader, asked


def test_a_whole_epoch_is_measured_from_its_first_batch_to_its_end():
    open_loader, asked = counted(5)
    row = contract.measure(open_loader, Path(), Work(size=8, whole_epoch=True))
    assert row["images"] == 4 * 4
    assert asked == [0]
    assert row["images_per_second"] == pytest.approx(row["images"] / row["seconds"])


def test_epochs_follow_each_other_while_the_time_lasts():
    open_loader, asked = counted(3)
    row = contract.measure(open_loader, Path(), Work(size=8, seconds=0.05, warm_up_seconds=0.0))
    assert row["seconds"] >= 0.05
    assert asked == list(range(len(asked)))
    assert len(asked) > 2


def test_a_consumer_waits_for_a_slow_loader_and_not_for_a_fast_one():
    def slow(_data, _work):
        def epoch(_number):
            import time

            while True:
                time.sleep(0.02)
                yield np.zeros((4, 8, 8, 3), np.uint8), None

        return epoch

    work = Work(size=8, batch_size=4, consumer=400.0, seconds=0.1, warm_up_seconds=0.0)
    starved = contract.measure(slow, Path(), work)
    fed = contract.measure(counted(100)[0], Path(), work)
    assert starved["stalled_fraction"] > 0.5  # 20 ms of waiting for 10 ms of work
    assert fed["stalled_fraction"] < 0.2
    assert starved["stalls"] == starved["steps"]


@pytest.mark.parametrize("shape", [(3, 8, 9), (8, 8), (8, 8, 4)])
def test_a_batch_of_another_shape_is_refused(shape):
    with pytest.raises(RuntimeError, match="a batch must be"):
        contract.measure(counted(3, shape=shape)[0], Path(), Work(size=8))


def test_an_empty_epoch_does_not_loop_for_ever():
    with pytest.raises(RuntimeError, match="epoch 0 has no batch"):
        contract.measure(counted(0)[0], Path(), Work(size=8))


def test_processor_time_and_memory_of_children_are_counted():
    program = (
        "import sys; x = bytearray(b'1') * (96 << 20); sum(range(4_000_000)); "
        "print(1, flush=True); sys.stdin.read()"
    )
    before = contract.cpu_seconds()
    idle = contract.resident_mib(os.getpid())
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert child.stdout is not None
        child.stdout.readline()
        if child.pid not in contract.descendants(os.getpid()):
            pytest.skip("this system does not list the children of a process in /proc")
        assert contract.resident_mib(os.getpid()) > idle + 80
        assert contract.cpu_seconds() > before + 0.02
    finally:
        child.communicate()


def test_boxes_lie_inside_and_have_the_asked_area_and_ratio():
    random = np.random.default_rng(0)
    for _ in range(500):
        height, width = random.integers(1, 400, 2).tolist()
        top, left, down, across = random_resized_box(height, width, random.random(22))
        assert 0 <= top <= top + down <= height
        assert 0 <= left <= left + across <= width
        assert min(down, across) >= 1
    found = [random_resized_box(500, 667, random.random(22)) for _ in range(500)]
    areas = [down * across / (500 * 667) for _, _, down, across in found]
    assert 0.07 < min(areas) < 0.12
    assert 0.40 < statistics.mean(areas) < 0.48  # large ones are often too wide


# Images and prepared data.


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return images.made_photographs(tmp_path_factory.mktemp("made") / "images", count=24, classes=3)


def test_made_photographs_are_photographs_in_class_folders(folder: Path):
    listed = contract.list_images(folder)
    assert sorted(label for _, label in listed) == [0] * 8 + [1] * 8 + [2] * 8
    with Image.open(listed[0][0]) as image:
        assert (image.size, image.mode) == ((500, 375), "RGB")


def test_large_photographs_have_the_asked_pixels(folder: Path, tmp_path: Path):
    made = images.photographs(folder, tmp_path / "large", Kind(megapixels=1.0, count=2))
    paths = list(made.rglob("*.jpg"))
    assert len(paths) == 2
    with Image.open(paths[0]) as image:
        assert image.width * image.height == pytest.approx(1e6, rel=0.01)
    assert paths[0].stat().st_size > 150_000  # grain is kept: a camera's bytes, not a smooth sky


def test_repeated_images_are_the_same_images(folder: Path, tmp_path: Path):
    made = images.repeated(folder, tmp_path / "x3", times=3)
    assert len(contract.list_images(made)) == 72
    one = contract.list_images(folder)[0][0]
    copies = list((made / one.parent.name).glob(f"{one.stem}-*"))
    assert [copy.read_bytes() for copy in copies] == [one.read_bytes()] * 3


def test_tars_hold_every_image_once_with_its_label(folder: Path, tmp_path: Path):
    tars = contract.write_tars(folder, tmp_path / "tars", shards=5)
    stored = []
    for path in tars:
        with tarfile.open(path) as tar:
            members = [(m.name, tar.extractfile(m).read()) for m in tar]  # type: ignore[union-attr]
        for (image, data), (label, text) in zip(members[::2], members[1::2], strict=True):
            assert image.removesuffix(".jpg") == label.removesuffix(".cls")
            stored.append((data, int(text)))
    given = [(path.read_bytes(), label) for path, label in contract.list_images(folder)]
    assert sorted(stored) == sorted(given)


@pytest.mark.parametrize("samples", [7, 60])
def test_a_sized_directory_is_a_sound_one_of_so_many_samples(tmp_path: Path, samples: int):
    numbered(tmp_path / "shards", {"train": 24})
    made = sized(tmp_path / "shards", tmp_path / "sized", samples)
    assert len(read_index(made, "train")) == samples
    with Loader(made, batch_size=7, backend="libjpeg", num_threads=1, drop_last=False) as loader:
        assert sum(len(labels) for _, labels in loader) == samples
    if samples > 24:  # whole copies hold every member that the index names
        assert read_index(made, "train")["shard"].max() >= 2


# One measurement in a process of its own.


@pytest.fixture(scope="module")
def measured(folder: Path, tmp_path_factory) -> list[harness.Row]:
    """Real rows of two contenders, on one core, very short."""
    place = tmp_path_factory.mktemp("measured")
    asked = Comparison(
        contenders=(peers.named("fastload libjpeg"), peers.named("webdataset, PIL")),
        images=folder,
        data=place / "data",
        output=place / "rows.jsonl",
        rounds=1,
        work=Work(cores=1, batch_size=8, size=32, seconds=0.1, warm_up_seconds=0.0),
    )
    compare.prepare(asked)
    compare.measure(asked)
    return harness.read_rows(place / "rows.jsonl")


def test_contenders_are_prepared_and_measured_in_their_own_processes(measured):
    ours, peer = (row for row in measured if row["benchmark"] == "loaders")
    assert "failed" not in ours
    assert "failed" not in peer
    assert ours["output"] == "torch.uint8 [8, 3, 32, 32]"
    assert peer["output"] == "torch.uint8 [8, 3, 32, 32]"
    for row in (ours, peer):
        assert row["images_per_second"] > 0
        assert row["first_batch_seconds"] > 0
        assert row["peak_memory_mib"] > 20
        assert row["busy_cores"] < 1.3  # bound to one
        assert row["cache"] == "warm"
    prepared = [row for row in measured if row["benchmark"] == "prepare"]
    assert all(row["prepared_images"] == 24 for row in prepared)


def test_a_peer_that_is_not_installed_is_a_row_that_says_so(folder: Path, tmp_path: Path):
    absent = replace(peers.CONTENDERS[0], environment="nobody", package="nothing")
    row = peers.prepare(absent, folder, tmp_path, cores=1)
    assert row["failed"] == "nothing is not installed; run scripts/bench --peers"
    assert peers.version(absent) == ""


def test_a_peer_that_fails_is_a_row_with_its_reason(folder: Path, tmp_path: Path):
    broken = replace(peers.CONTENDERS[0], module="no_such_module", data="broken")
    row = peers.measure(broken, folder, tmp_path, Work())
    assert "no_such_module" in row["failed"]


def test_all_contenders_have_names_and_modules_of_their_own():
    names = [contender.name for contender in (*peers.CONTENDERS, *peers.ON_GPU)]
    assert len(set(names)) == len(names)
    for contender in peers.CONTENDERS:
        assert (ROOT / "benchmarks" / "contenders" / f"{contender.module}.py").exists()
        assert contender.antialiased in {"yes", "no", "area"}


def test_contenders_are_chosen_by_parts_of_their_names():
    without = ["PIL", "libjpeg", "dali", "in place"]
    names = [each.name for each in compare.chosen(["fastload", "webdataset"], without)]
    assert names == ["fastload native", "webdataset, v2 tensors", "DALI webdataset reader, CPU"]
    assert compare.chosen([], []) == peers.CONTENDERS


def test_dropping_the_page_cache_keeps_the_files(folder: Path, tmp_path: Path):
    copied = images.repeated(folder, tmp_path / "copied", times=1)
    before = {path: path.read_bytes() for path in copied.rglob("*.jpg")}
    peers.drop_from_page_cache(copied)
    assert {path: path.read_bytes() for path in copied.rglob("*.jpg")} == before


# A server that is far away.


@pytest.fixture
def file_server(tmp_path: Path):
    """A web server of a file of 3 MB; the file and the address of the server."""
    path = tmp_path / "file"
    path.write_bytes(np.random.default_rng(0).bytes(3_000_000))
    with web_server(SimpleHTTPRequestHandler, directory=str(tmp_path)) as address:
        yield path, address


def test_a_relay_holds_each_request_back_and_counts_what_comes_through(file_server):
    path, address = file_server
    with far(address, seconds=0.2) as relay:
        for number in (1, 2):
            began = time.monotonic()
            with urllib.request.urlopen(f"{relay.endpoint}/file", timeout=30) as answer:
                assert answer.read() == path.read_bytes()
            assert time.monotonic() - began >= 0.2
            assert relay.counts().requests == number
        assert 6_000_000 < relay.counts().bytes < 6_002_000
    assert relay.process.poll() is not None


@pytest.mark.skipif(not has_light_server(), reason=INSTALL)
def test_a_light_server_gives_ranges_of_files_to_a_client_of_s3(tmp_path):
    obstore = pytest.importorskip("obstore", reason="pip install -e '.[remote]'")
    from obstore.store import S3Store

    (shards := tmp_path / "a folder" / "shards").mkdir(parents=True)
    (shards / "one.tar").write_bytes(data := bytes(range(256)) * 400)
    (scratch := tmp_path / "scratch").mkdir()
    with light_server(shards.parent, scratch) as server:
        options = server.options(client_options={"allow_http": True})
        del options["allow_http"]
        store = S3Store("tests", prefix="shards", **options)
        assert bytes(obstore.get_range(store, "one.tar", start=300, end=70_000)) == data[300:70_000]
        with pytest.raises(FileNotFoundError):
            obstore.get(store, "two.tar")
    with pytest.raises(OSError):
        urllib.request.urlopen(server.endpoint, timeout=5)


def test_a_relay_closes_the_connection_where_there_is_no_server(file_server):
    with far(f"http://127.0.0.1:{closed_port()}", seconds=0.0) as relay, pytest.raises(OSError):
        urllib.request.urlopen(relay.endpoint, timeout=30)


def test_the_table_of_object_stores_compares_each_loader_with_its_own_disk(tmp_path: Path):
    of_disk = {
        "benchmark": "remote",
        "used_cores": 1,
        "server_on_other_cores": True,
        "cpu_milliseconds_per_image": 0.5,
        "first_batch_seconds": 1.0,
        "peak_memory_mib": 400.0,
    }
    of_store = {**of_disk, "requests": 1000, "bytes": 5_000_000}
    rows = [
        {**of_disk, "loader": "a", "name": "a, local disk", "images_per_second": 2000.0},
        *(
            {**of_store, "loader": "a", "name": "a, S3", "images_per_second": rate}
            for rate in (900.0, 1000.0, 1200.0)
        ),
        {**of_store, "loader": "b", "name": "b, S3", "failed": "b is not installed"},
    ]
    path = tmp_path / "remote.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    said, _, _, _, *lines = remote_tables.tables(path).splitlines()
    assert said == "1 core; the server has its own:"
    assert lines == [
        "| a, local disk | 2,000 (2,000–2,000) | 1.00 | 0.50 | – | 1.00 | – | – | 400 |",
        "| a, S3 | 1,000 (900–1,200) | 0.50 | 0.50 | – | 1.00 | 1,000 | 5 | 400 |",
        "| b, S3 | b is not installed |  |  |  |  |  |  |  |",
    ]
    assert remote_tables.tables(tmp_path / "no such file") == ""


# Tables, charts, the page.


def row(name: str, rate: float, **more) -> harness.Row:
    """A row as compare.py writes it."""
    return {
        "benchmark": "loaders",
        "name": name,
        "kind": "peer",
        "package": name,
        "version": "1.0",
        "antialiased": "yes",
        "note": "",
        "images_from": "flowers",
        "used_cores": 2,
        "batch_size": 128,
        "size": 224,
        "command": "python -m benchmarks.compare",
        "images_per_second": rate,
        "cpu_seconds_per_1000": 2000 / rate,
        "busy_cores": 2.0,
        "peak_memory_mib": 300.0,
        "first_batch_seconds": 0.5,
        "import_seconds": 2.0,
        **more,
        **describe(),
    }


ROWS = [
    *(row("fastload native", rate, kind="ours") for rate in (4000.0, 4200.0, 4100.0)),
    *(row("tf.data", rate) for rate in (1000.0, 1100.0)),
    row("tf.data plain", 2000.0, antialiased="no"),
    row("native core alone", 5000.0, kind="floor"),
    row("fastload native", 2100.0, kind="ours", used_cores=1),
    row("tf.data", 525.0, used_cores=1),
    {**row("absent", 1.0), "failed": "absent is not installed", "images_per_second": None},
    {
        **row("fastload native", 1.0),
        "benchmark": "prepare",
        "prepare_seconds": 3.0,
        "prepared_images": 2000,
        "bytes_per_image": 42_000.0,
    },
]
for unwanted in (ROWS[-1], ROWS[-2]):
    del unwanted["images_per_second"]


def test_standings_are_medians_in_order_and_the_ratio_is_to_the_best_antialiased_peer():
    rows = standings.table_of(ROWS)
    found = standings.standings(rows, "loaders", used_cores=2)
    assert list(found.index) == [
        "native core alone",
        "fastload native",
        "tf.data plain",
        "tf.data",
    ]
    ours = found.loc["fastload native"]
    assert (ours["images_per_second"], ours["low"], ours["high"]) == (4100, 4000, 4200)
    assert ours["rounds"] == 3
    assert standings.ratio_text(2, found) == "3.90 times tf.data on 2 cores"
    assert standings.failures(rows) == {"absent": "absent is not installed"}


def test_the_short_table_has_the_fastest_of_each_side_and_says_what_it_leaves_out(tmp_path: Path):
    path = tmp_path / "comparison.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in ROWS))
    titles, _, ours, *peers = [
        line for line in standings.short_table(path).splitlines() if line.startswith("|")
    ]
    assert (
        titles
        == "| loader | images/s, 2 cores | images/s, 1 core | CPU s per 1,000 | memory, MiB |"
    )
    assert ours == "| **fastload native** | **4,100** (4,000–4,200) | 2,100 | 0.49 | 300 |"
    assert [line.split(" | ")[0] for line in peers] == ["| tf.data"]
    assert "does not antialias gives 2,000: tf.data plain." in standings.short_table(path)


def test_the_long_table_comes_from_the_rows(tmp_path: Path):
    path = tmp_path / "comparison.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in ROWS))
    text = standings.long_table(path)
    lines = text.splitlines()
    assert lines[2].split(" | ") == [
        *("| **fastload native**", "**4,100** (4,000–4,200)", "2,100", "0.49", "300", "0.50"),
        *("42.0", "1.50 |"),
    ]
    assert lines[3].startswith("| tf.data plain ¹ | 2,000")
    assert "native core alone" not in text
    assert "3.90 times tf.data on 2 cores, 4.00 times tf.data on 1 core" in text
    assert "absent (absent is not installed)" in text
    widths = {line.count("|") for line in lines if line.startswith("|")}
    assert widths == {9}


def test_only_what_stands_between_the_markers_is_replaced():
    document = f"before\n{standings.START}\nold\n{standings.END}\nafter\n"
    new = standings.replace_table(document, "| new |")
    assert new == f"before\n{standings.START}\n| new |\n{standings.END}\nafter\n"
    assert standings.replace_table(new, "| new |") == new
    for broken in (
        "nothing",
        standings.START,
        standings.END + standings.START,
        document + document,
    ):
        with pytest.raises(ValueError, match="once each"):
            standings.replace_table(broken, "x")


@pytest.mark.parametrize("name", report.TABLES)
def test_the_tables_of_readme_and_docs_are_those_of_the_committed_rows(name: str):
    document = (ROOT / name).read_text(encoding="utf-8")
    table, rows = report.TABLES[name]
    assert standings.replace_table(document, table(rows)) == document, (
        "run python -m benchmarks.report --tables"
    )


def test_the_section_of_the_start_has_medians_and_ratios_round_by_round(tmp_path: Path):
    facts = {
        "images_from": "photographs",
        "images": 2800,
        "cpu": "a CPU",
        "cores": 2,
        "commit": "c",
    }
    installed = {"benchmark": "start-install", "wheel_bytes": 740_000, "installed_bytes": 2_100_000}
    taken = {
        start_tables.NEVER_SEEN: (4.0, 12.0, 6.0),
        start_tables.AGAIN: (1.0, 3.0, 2.0),
        start_tables.TUTORIAL: (2.0, 6.0, 4.0),
    }
    rows = [
        *({**installed, **facts, "round": n, "seconds": s} for n, s in enumerate((3.0, 9.0, 4.0))),
        *(
            {"benchmark": "start-batch", "name": name, "round": n, "seconds": s, **facts}
            | {"import_seconds": s / 2}
            for name, seconds in taken.items()
            for n, s in enumerate(seconds)
        ),
    ]
    path = tmp_path / "start.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    section = start_tables.tables(path)
    assert section.splitlines()[4:8] == [
        "| fastload, a new folder | 6.0 (4.0–12.0) | 3.0 (2.0–6.0) | 2.00 (1.50–2.00) |",
        "| fastload, the second time | 2.0 (1.0–3.0) | 1.0 (0.5–1.5) | 0.50 (0.50–0.50) |",
        "| ImageFolder and DataLoader | 4.0 (2.0–6.0) | 2.0 (1.0–3.0) | 1 |",
        "",
    ]
    for said in ("takes 4.0 (3.0–9.0) s", "has 0.74 MB", "installs 2.10 MB", "Median of 3"):
        assert said in section
    assert start_tables.tables(tmp_path / "no such file") == ""


def recipe_row(part: str, name: str, seed: int, *macros: float, step: float) -> Row:
    epochs: list[Row] = [
        {"epoch": number, "macro_top1": macro, "seconds": number * step}
        for number, macro in enumerate(macros, 1)
    ]
    epochs[-1]["cpu_seconds"] = 2 * epochs[-1]["seconds"]
    row = {"benchmark": f"recipe-{part}", "name": name, "seed": seed, "epochs": epochs}
    return {**row, "test_macro_top1": macros[-1] / 2}


def test_the_tables_of_a_recipe_say_when_it_was_as_good_and_what_it_reached_by_then(tmp_path: Path):
    path = tmp_path / "recipe.jsonl"
    rows = [
        recipe_row("time", "recipe", 0, 0.1, 0.2, 0.25, 0.3, step=10),
        recipe_row("time", "the script", 0, 0.1, 0.2, step=20),
        recipe_row("time", "the script", 1, 0.1, 0.4, step=12),
        recipe_row("time", "recipe", 1, 0.1, 0.2, 0.3, 0.3, step=10),
        recipe_row("changes", "the recipe", 0, 0.1, 0.2, step=10),
        recipe_row("changes", "the recipe", 1, 0.1, 0.3, step=20),
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    time, changes = recipe_tables.tables(path).split("\n\n")
    assert time.splitlines()[2:] == [
        "| 0 | recipe | 30.0 | 40 | 20 | 0.50 | 30.0 |",
        "| 0 | the script | 20.0 | 40 | 40 | 1.00 | 20.0 |",
        "| 1 | recipe | 30.0 | 40 | never | – | 20.0 |",
        "| 1 | the script | 40.0 | 24 | 24 | 1.00 | 40.0 |",
    ]
    assert changes.splitlines()[2:] == ["| the recipe | 2 | 25.0 ± 7.1 | 12.5 ± 3.5 | 60 |"]


def test_the_plain_script_gives_each_class_the_same_weight_in_its_macro_average():
    labels = torch.tensor([0, 0, 0, 1])
    answers = torch.tensor([0, 0, 1, 1])
    batches = [
        (torch.eye(2)[answers[:3]], labels[:3]),
        (torch.eye(2)[answers[3:]], labels[3:]),
    ]
    assert tutorial.accuracies(torch.nn.Identity(), batches) == pytest.approx((3 / 4, 5 / 6))


LOGGING = """
import json, sys, time
with open(sys.argv[1], "w") as log:
    for epoch in 1, 2:
        print(json.dumps({"epoch": epoch}), file=log, flush=True)
        time.sleep(0.3)
print("all done")
sys.exit(int(sys.argv[2]))
"""


def test_a_training_is_timed_by_its_log_while_it_runs(tmp_path: Path):
    log = tmp_path / "log.jsonl"
    command = [sys.executable, "-c", LOGGING, str(log), "0"]
    rows = bench_recipe.watched(
        command, lambda: bench_recipe.of_jsonl(log), said=tmp_path / "said.txt", threads=1
    )
    assert [row["epoch"] for row in rows] == [1, 2]
    assert 0 < rows[0]["seconds"] <= rows[1]["seconds"]
    assert "cpu_seconds" not in rows[0]
    assert rows[1]["cpu_seconds"] > 0


def test_a_training_that_fails_is_shown_with_what_it_said(tmp_path: Path):
    log = tmp_path / "log.jsonl"
    command = [sys.executable, "-c", LOGGING, str(log), "3"]
    with pytest.raises(FastloadError, match="all done"):
        bench_recipe.watched(
            command, lambda: bench_recipe.of_jsonl(log), said=tmp_path / "said.txt", threads=1
        )


def drawn(chart: plot.Chart) -> ElementTree.Element:
    return ElementTree.fromstring(chart.svg())


def test_bars_are_as_long_as_their_values():
    found = DataFrame(
        {
            "images_per_second": [100.0, 50.0],
            "low": [90.0, 50.0],
            "high": [110.0, 50.0],
            "kind": ["ours", "peer"],
            "mark": [" ¹", ""],
        },
        index=["a & b", "c"],
    )
    chart = plot.bars("A <title>", "images/s", found, guides=[plot.Guide(400, "needed")])
    figure = drawn(chart)
    wide, narrow = (width_of(figure, f"a-title-bar-{number}") for number in (0, 1))
    assert wide == pytest.approx(2 * narrow, rel=0.01)
    words = [text.text for text in figure.iter(f"{SVG}text")]
    assert {"a & b", "100 ¹", "50", "needed"} <= set(words)  # text stays text
    assert [tip.text for tip in figure.iter(f"{SVG}title")] == [
        "a & b: 100 images/s [90, 110]",
        "c: 50 images/s [50, 50]",
    ]
    assert "var(--accent)" in chart.svg()  # the page's colour, light or dark


def test_the_same_numbers_give_the_same_drawing():
    parts = DataFrame({"read": [1.0], "decode": [3.0]}, index=["x"])
    first, second = (plot.stacked("Stages", "ms", parts).svg() for _ in range(2))
    assert first == second


def test_stacked_bars_end_where_their_sum_is():
    parts = DataFrame({"read": [1.0], "decode": [3.0]}, index=["x"])
    figure = drawn(plot.stacked("Stages", "ms", parts))
    read, decode = ("stages-bar-0", "stages-bar-1")
    assert width_of(figure, decode) == pytest.approx(3 * width_of(figure, read), rel=0.01)
    assert min(across(figure, decode)) == pytest.approx(max(across(figure, read)), abs=0.2)
    assert "4" in [text.text for text in figure.iter(f"{SVG}text")]


def across(figure: ElementTree.Element, name: str) -> list[float]:
    """The x of each corner of a bar."""
    group = next(each for each in figure.iter(f"{SVG}g") if each.get("id") == name)
    path = group.find(f"{SVG}path")
    assert path is not None
    return [float(x) for x, _ in re.findall(r"([\d.]+) ([\d.]+)", path.get("d", ""))]


def width_of(figure: ElementTree.Element, name: str) -> float:
    return max(across(figure, name)) - min(across(figure, name))


def test_the_page_stands_alone_and_holds_every_part(tmp_path: Path):
    more = [
        *ROWS,
        row("fastload native", 900.0, kind="ours", benchmark="cold"),
        row("<script>x</script> $x^{2$", 5.0),  # matplotlib would read a formula, and fail
        *(
            row("tf.data", rate, benchmark="consumer", consumer=rate, stalled_fraction=0.25)
            for rate in (400.0, 1000.0)
        ),
        *(
            row("fastload native", 4000.0, kind="ours", benchmark="size", samples=samples)
            for samples in (1000, 1_000_000)
        ),
        {
            **row("fastload native", 1.0, kind="ours", benchmark="stages"),
            "plan_ms_per_1000": 2.0,
            "render_ms_per_1000": 300.0,
        },
        row("fastload native", 99.0, kind="ours", benchmark="photographs"),
        {**row("native", 1.0), "benchmark": "decode", "stage_milliseconds": {"Huffman": 0.2}},
        row(
            "resnet50",
            380.0,
            benchmark="training-step",
            model="resnet50",
            memory_format="channels-last",
            amp="bf16",
            peak_gpu_mib=5000.0,
        ),
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in more))
    out = tmp_path / "page" / "index.html"
    assert report.main([str(path), "--out", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    assert "<script" not in text
    assert re.findall(r"""(?:src|href)=["'](?!#)|url\((?!#)|@import""", text) == []
    for title in (
        *("Who is fastest", "What it costs, 2 cores", "With a cold page cache"),
        *("Does the training step wait", "How it scales", "Where the time goes"),
        *("Small and large photographs", "The training step", "Without a result"),
        "How it was measured",
    ):
        assert f"<h2>{title}</h2>" in text
    assert "25.0 %" in text
    assert "this GPU" in text
    assert "Huffman" in text
    body = text[text.index("<body>") : text.index("</body>") + 7]
    tree = ElementTree.fromstring(body)  # well-formed: every tag is closed
    names = [name for each in tree.iter() if (name := each.get("id"))]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("bench_size", ["nowhere"], "nowhere: there is no complete set of shards"),
        ("bench_loader", ["nowhere"], "nowhere: there is no complete set of shards"),
        ("bench_photographs", ["--images", "nowhere"], "nowhere: there is no such file"),
        ("bench_remote", ["--images", "nowhere"], "nowhere: holds no images in class folders"),
        ("compare", ["--images", "nowhere"], "nowhere: there is no such file"),
        ("compare", ["--cores", "1,a"], "--cores must be an integer at least 1, got 'a'"),
        ("compare", ["--parts", "cold,warm"], "--parts must be of prepare, loaders, cold"),
        ("report", ["nowhere"], "nowhere: there is no such file"),
        ("report", [__file__], "a file holds no rows of JSON"),
        ("report", ["/dev/null"], "the files hold no rows"),
    ],
)
def test_a_wrong_argument_of_a_benchmark_is_one_sentence(
    tmp_path: Path, monkeypatch, capsys, name, words, said
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, *words])
    with pytest.raises(SystemExit):
        runpy.run_path(str(ROOT / "benchmarks" / f"{name}.py"), run_name="__main__")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert said in lines[0]


def test_a_report_without_rows_says_what_to_run(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(report, "ROWS", tmp_path)
    with pytest.raises(SystemExit, match="2"):
        report.main([])
    assert "run python -m benchmarks.compare first" in capsys.readouterr().err


def test_every_number_of_the_committed_page_has_a_row():
    committed = sorted(p for p in harness.ROWS.glob("*.jsonl") if "latest" not in p.name)
    assert committed
    rows = [each for path in committed for each in harness.read_rows(path)]
    for each in rows:
        assert each["benchmark"]
        assert each["commit"] != "unknown"
        assert each["cpu"]
        assert each["versions"]["numpy"]
    made = report.page(rows, [path.name for path in committed])
    assert said_by(made) == said_by(report.PAGE.read_text("utf-8")), (
        "run python -m benchmarks.report"
    )


@pytest.mark.parametrize("path", sorted(harness.ROWS.glob("*.jsonl")), ids=lambda path: path.name)
def test_rows_name_no_folder_of_the_machine_that_measured(path: Path):
    assert not re.findall(r'[" ]/[\w.]+', path.read_text(encoding="utf-8"))


def said_by(page: str) -> list[str]:
    """Cells, paragraphs, and what stands behind each bar; the drawing differs between versions."""
    found = re.findall(r"<(td|p|title)(?: class=\"n\")?>(.*?)</\1>", page, re.DOTALL)
    assert len(found) > 100
    return [text for _, text in found]
