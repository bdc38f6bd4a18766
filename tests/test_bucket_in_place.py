"""Photographs and foreign tars of a bucket, read where they lie: as the same files on a disk."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastload import doctor, fetch, index, inspect, tune, verify
from fastload.errors import FastloadError, ShardError, TooManyCorruptError
from fastload.load.augment import Augment
from fastload.load.dataset import TarDataset
from fastload.load.loader import Loader
from fastload.prepare.examined import BLOCK_FILES, FOUND
from fastload.store import freshness
from fastload.store.places import cache_folder
from fastload.store.remote_reader import RemoteReader
from fastload.world import World
from tests.faulty_proxy import Request
from tests.pictures import encoded, flower_tree, jpeg, picture, with_orientation, write_tree
from tests.s3 import BUCKET, Server
from tests.test_buckets import trained
from tests.test_index import tar_of

pytestmark = [
    pytest.mark.s3,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:fastload's native core"),
]
pytest.importorskip("obstore", reason="needs obstore: pip install -e '.[dev]' in the checkout")

Batches = list[tuple[np.ndarray[Any, Any], list[int], list[int]]]

SIDE = ["--min-side", "16", "--workers", "2"]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs in class folders: some turned, of other formats, broken, with odd names."""
    root = flower_tree(tmp_path_factory.mktemp("photographs") / "data")
    return write_tree(
        root,
        {
            "train/daisy/lossless.png": encoded(picture(4), "PNG"),
            "train/daisy/empty.jpg": b"",
            "train/daisy/broken.jpg": jpeg(77)[:-300],
            "train/rose 中文/a%20b #1+?.jpg": jpeg(78),
            **{f"train/daisy/turned-{n}.jpg": with_orientation(n, height=50 + n) for n in range(9)},
        },
    )


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tars of samples, as webdataset has them; one sample is broken."""
    root = tmp_path_factory.mktemp("tars") / "data"
    for split, number in (("train", 0), ("train", 1), ("train", 2), ("val", 0)):
        members = {}
        for i in range(9):
            seed = 5000 + 100 * len(split) + 10 * number + i
            members[f"{i}.jpg"], members[f"{i}.cls"] = jpeg(seed), b"%d" % (i % 3)
        if (split, number) == ("train", 1):
            members["4.jpg"] = members["4.jpg"][:-200]
        tar_of(root / f"{split}-{number}.tar", members)
    return root


@pytest.fixture(params=["photographs", "tars"])
def data(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """Makes the process one on another machine: with a cache of its own."""

    def become(name: str) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))

    freshness._warn_once.cache_clear()
    become("first")
    return become


def uploaded(s3: Server, data: Path, prefix: str) -> str:
    """The files of a folder and those below it, without an index; the address."""
    for path in sorted(data.rglob("*")):
        name = path.relative_to(data).as_posix()
        if path.is_file() and not name.startswith(".fastload"):
            s3.put(prefix, name, path.read_bytes())
    return f"s3://{BUCKET}/{prefix}"


def prefix_of(request: pytest.FixtureRequest) -> str:
    """A prefix for one test alone."""
    return "in-place/" + re.sub(r"\W+", "-", request.node.name)


def make(place: object, *options: str) -> int:
    return index.main([str(place), *SIDE, *options])


@pytest.fixture
def both(s3, data, tmp_path, proxy, machine, request) -> tuple[Path, str]:
    """The same files on a disk and in a bucket, each with an index."""
    local = Path(shutil.copytree(data, tmp_path / "local"))
    address = uploaded(s3, data, prefix_of(request))
    assert make(local) == 0
    assert make(address) == 0
    return local, address


def loader(path: object, **options: object) -> Loader:
    return Loader(path, **{"batch_size": 4, "augment": Augment.train(16), **options})  # type: ignore[arg-type]


def taken(made: Loader) -> Batches:
    return [
        (images.numpy(), labels.tolist(), made.last_indices().tolist()) for images, labels in made
    ]


def batches(path: object, **options: object) -> Batches:
    with loader(path, **options) as made:
        return taken(made)


def equal(one: Batches, other: Batches) -> bool:
    return len(one) == len(other) > 0 and all(
        np.array_equal(a[0], b[0]) and a[1:] == b[1:] for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("order", ["shuffled", "sequential", "index"])
def test_the_batches_are_those_of_the_folder(both, machine, order):
    local, address = both
    machine("second")
    assert equal(batches(address, order=order), batches(local, order=order))
    options = {"order": order, "backend": "libjpeg"}
    assert equal(batches(address, **options), batches(local, **options))


def test_reweighting_ranks_and_a_resumed_epoch_are_those_of_the_folder(both, machine):
    local, address = both
    machine("second")
    options = {"reweight": "inverse", "epoch_size": 40}
    with loader(local, **options) as one, loader(address, **options) as other:
        assert [labels.tolist() for _, labels in one] == [labels.tolist() for _, labels in other]
        assert one.state_dict() == other.state_dict()
        steps = iter(other)
        next(steps)
        state = json.loads(json.dumps(other.state_dict()))
    parts = []
    for rank in range(2):
        world = World(rank=rank, size=2)
        with loader(address, batch_size=2, world=world, **options) as part:
            part.load_state_dict(state)
            parts.append([part.last_indices().tolist() for _ in part])
    with loader(local, **options) as whole:
        whole.load_state_dict(state)
        left = [whole.last_indices().tolist() for _ in whole]
    assert [a + b for a, b in zip(*parts, strict=True)] == left


def test_a_data_set_gives_the_samples_of_the_folder(both, machine):
    local, address = both
    machine("second")
    here, there = TarDataset(local), pickle.loads(pickle.dumps(TarDataset(address)))
    assert here.targets == there.targets
    for i in range(len(here)):
        assert np.array_equal(np.asarray(here[i][0]), np.asarray(there[i][0]))
    file, key, offset = there.locate(0)
    own, own_key, own_offset = here.locate(0)
    assert file == f"{address}/{own}"
    assert (key.removeprefix(f"{address}/"), offset) == (own_key, own_offset)


def test_what_was_read_once_comes_from_the_cache(both, proxy, tmp_path, machine):
    local, address = both
    machine("second")
    asked = []
    for _ in range(2):
        before = len([each for each in proxy.requests if each.range])
        assert equal(batches(address, cache=tmp_path / "kept"), batches(local))
        asked.append(len([each for each in proxy.requests if each.range]) - before)
    assert asked[0] > 0
    with loader(address, cache=tmp_path / "kept") as again:
        for _ in again:
            pass
        reader = again._reader
        assert isinstance(reader, RemoteReader)
        assert reader.fetched == (0, 0)


def test_bad_samples_are_counted_and_replaced_as_in_the_folder(
    s3, photographs, tmp_path, proxy, machine
):
    local = Path(shutil.copytree(photographs, tmp_path / "local"))
    address = uploaded(s3, photographs, "in-place/bad")
    assert make(local) == 0
    assert make(address) == 0
    for name in ("train/daisy/3.jpg", "train/daisy/4.jpg"):
        content = bytearray((local / name).read_bytes())
        content[200] ^= 0xFF
        (local / name).write_bytes(content)
        s3.put("in-place/bad", name, bytes(content))
    found = []
    for place in (local, address):
        with loader(place, max_corrupt_fraction=0.2) as made:
            found.append((taken(made), made.stats().bad_samples))
    assert equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1] == 2


@pytest.mark.parametrize("fault", ["slow down", "reset", "truncate", "corrupt"])
def test_what_fails_on_the_way_is_asked_for_again(both, proxy, machine, fault):
    local, address = both
    machine("second")
    seen = Counter[str]()

    def once(each):
        if not each.range or ".fastload" in each.path:
            return ""
        seen[each.path] += 1
        return fault if seen[each.path] == 1 else ""

    proxy.fault = once
    assert equal(batches(address), batches(local))


def test_a_second_run_reads_no_image_again_and_says_so(both, proxy, capsys):
    _, address = both
    capsys.readouterr()
    before = len(proxy.requests)
    assert make(address) == 0
    assert f"{address}/.fastload already holds this index" in capsys.readouterr().out
    asked = proxy.requests[before:]
    assert not [each for each in asked if each.path.endswith((".jpg", ".png"))]
    # Tars are listed anew, as labels are in them: their first bytes, and then all, once.
    read = Counter(each.path for each in asked if each.path.endswith(".tar"))
    assert all(count <= 2 for count in read.values())


def test_an_index_is_copied_once_and_found_by_every_command(
    both, proxy, machine, capsys, tmp_path, monkeypatch
):
    local, address = both
    machine("second")
    batches(address)
    before = len(proxy.gets("files.npy"))
    assert before == 1
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "BACKENDS", ("libjpeg",))
    assert verify.main([address]) == 0, capsys.readouterr().err
    assert inspect.main([address, "--size", "32", "--out", "there.html"]) == 0
    assert inspect.main([str(local), "--size", "32", "--out", "here.html"]) == 0
    broken = "broken.jpg" if (local / "train").is_dir() else "4.jpg"
    assert all(broken in Path(name).read_text() for name in ("there.html", "here.html"))
    assert doctor.main([address]) == 0
    tuning = ["--device", "cpu", "--seconds", "1", "--size", "32", "--model", "shufflenet_v2_x0_5"]
    assert tune.main([address, *tuning, "--out", "tuned.toml"]) == 0
    assert len(proxy.gets("files.npy")) == before


def test_training_gives_the_figures_of_the_folder(s3, tmp_path, proxy, machine):
    data = flower_tree(tmp_path / "data", {"daisy": 16, "rose 中文": 12, "st. john": 8})
    address = uploaded(s3, data, "in-place/trained")
    assert make(data) == 0
    assert make(address) == 0
    machine("second")
    local = trained(data, tmp_path / "local")
    remote = trained(address, tmp_path / "remote", "--cache", str(tmp_path / "cache"))
    for name in ("split", "loss", "top1", "images"):
        assert [row[name] for row in remote] == [row[name] for row in local]
    assert list((tmp_path / "cache").glob("*/photographs-0"))


def test_an_index_of_a_bucket_may_lie_in_a_folder(s3, tars, proxy, tmp_path, machine):
    address = uploaded(s3, tars, "in-place/out")
    assert make(address, "--out", str(tmp_path / "index")) == 0
    machine("second")
    assert len(batches(tmp_path / "index")) > 0
    assert not [name for name in s3.names("in-place/out") if ".fastload" in name]
    with pytest.raises(ShardError, match=r"no index; .*fastload\.index s3://tests/in-place/out"):
        Loader(address)


def test_where_the_bucket_takes_nothing_the_index_stays_in_the_cache(
    s3, tars, proxy, machine, capsys
):
    address = uploaded(s3, tars, "in-place/read-only")
    proxy.fault = lambda each: "forbid" if each.method in ("PUT", "POST", "DELETE") else ""
    assert make(address) == 0
    said = capsys.readouterr()
    assert f"{address}/.fastload cannot be written: the index stays in" in said.err
    assert "AccessDenied" in said.err
    assert len(batches(address)) > 0
    machine("second")
    with pytest.raises(ShardError, match="no index"):
        Loader(address)


def test_the_newer_of_two_indexes_counts(both, s3, machine):
    _, address = both
    prefix = address.removeprefix(f"s3://{BUCKET}/")
    first = len(TarDataset(address))
    machine("second")
    assert len(TarDataset(address)) == first
    s3.put(prefix, "train-9.tar" if "tars" in prefix else "train/daisy/new.jpg", new_file(prefix))
    assert make(address) == 0
    more = len(TarDataset(address))
    assert more > first
    machine("first")  # it has its own, older index
    assert len(TarDataset(address)) == more
    names = [name for name in s3.names(prefix) if name.endswith("files.npy")]
    assert len(names) == 1


def new_file(prefix: str) -> bytes:
    if "tars" not in prefix:
        return jpeg(9001)
    path = Path(os.environ["XDG_CACHE_HOME"]) / "new.tar"
    tar_of(path, {"0.jpg": jpeg(9001), "0.cls": b"0", "1.jpg": jpeg(9002), "1.cls": b"1"})
    return path.read_bytes()


def test_photographs_that_go_or_change_are_bad_samples_and_are_told(
    s3, photographs, proxy, machine, caplog
):
    address = uploaded(s3, photographs, "in-place/changing")
    assert make(address) == 0
    s3.delete("in-place/changing", "train/daisy/0.jpg")
    s3.put("in-place/changing", "train/daisy/1.jpg", jpeg(4711))
    s3.put("in-place/changing", "train/daisy/2.jpg", jpeg(2)[:-100])
    with loader(address, order="index", drop_last=False, max_corrupt_fraction=0.5) as made:
        rows = [row for _ in made for row in made.last_indices().tolist()]
    log = caplog.text
    assert "train/daisy/0.jpg is gone since it was indexed; run `" in log
    for name, reason in (
        ("0.jpg", "there is no such object"),
        ("1.jpg", "it changed since it was indexed"),
        ("2.jpg", "ends before byte"),
    ):
        line = next(one for one in log.splitlines() if f"/{name}: " in one and reason in one)
        assert f"fastload.index {address}" in line
    assert len(rows) == len(set(rows)) == len(TarDataset(address)) - 3
    assert verify.main([address]) == 1


def test_a_new_photograph_and_a_changed_one_are_told_and_a_run_takes_them_alone(
    s3, photographs, proxy, machine, caplog, capsys
):
    address = uploaded(s3, photographs, "in-place/growing")
    assert make(address) == 0
    before = len(TarDataset(address))
    assert caplog.text == ""
    s3.put("in-place/growing", "train/daisy/more.jpg", jpeg(4712))
    TarDataset(address)
    assert "train/daisy/more.jpg was added since" in caplog.text
    capsys.readouterr()
    assert make(address) == 0
    assert "1 were read" in capsys.readouterr().out
    assert len(TarDataset(address)) == before + 1


def test_a_tar_that_is_gone_or_another_is_an_error_that_names_the_command(
    s3, tars, proxy, machine, caplog
):
    address = uploaded(s3, tars, "in-place/replaced")
    assert make(address) == 0
    command = rf"run `.*fastload\.index {address} "
    content = (tars / "train-1.tar").read_bytes()
    with loader(address) as made:
        swapped = bytearray(content)
        with tarfile.open(tars / "train-1.tar") as tar:
            for member in tar.getmembers():
                swapped[member.offset_data + 40] ^= 0xFF
        time.sleep(1.1)  # times of objects are told in seconds
        s3.put("in-place/replaced", "train-1.tar", bytes(swapped))
        with pytest.raises(ShardError, match=rf"written again since it was indexed.*{command}"):
            list(made)
    TarDataset(address)
    assert "train-1.tar has changed since it was indexed, and labels in it" in caplog.text
    s3.put("in-place/replaced", "train-1.tar", content[:-1024])
    with pytest.raises(ShardError, match=rf"train-1.tar: has .* bytes, when.*{command}"):
        Loader(address)
    s3.delete("in-place/replaced", "train-1.tar")
    with pytest.raises(ShardError, match=rf"train-1.tar: is missing.*{command}"):
        Loader(address)
    assert verify.main([address]) == 1


def test_a_run_that_was_killed_goes_on(s3, proxy, machine, tmp_path, capsys):
    data = write_tree(
        tmp_path / "many",
        {f"train/{'ab'[i % 2]}/{i}.jpg": jpeg(20_000 + i, height=32) for i in range(1200)},
    )
    address = uploaded(s3, data, "in-place/killed")
    proxy.latency = 0.02
    process = subprocess.Popen(
        [sys.executable, "-m", "fastload.index", address, *SIDE],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    log = cache_folder(address) / "examined-0"
    deadline = time.monotonic() + 120
    block = BLOCK_FILES * FOUND.itemsize  # a part of one is lost
    while time.monotonic() < deadline and not (log.is_file() and log.stat().st_size >= block):
        assert process.poll() is None
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not [name for name in s3.names("in-place/killed") if name.endswith("index.json")]
    proxy.latency = 0.0
    assert make(address) == 0
    read = int(capsys.readouterr().out.partition(" images/s, ")[2].partition(" were read")[0])
    assert 0 < read < 1200
    assert len(TarDataset(address)) == 1200


@pytest.fixture
def indexed(s3, photographs, proxy, machine, request) -> tuple[str, str]:
    """Prefix and address of photographs with an index."""
    prefix = prefix_of(request)
    address = uploaded(s3, photographs, prefix)
    assert make(address) == 0
    machine("second")
    return prefix, address


def facts_of(s3: Server, prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(s3.contents(prefix)[".fastload/index.json"])
    return found


def forge(s3: Server, prefix: str, name: str, data: bytes) -> None:
    """Replace a file of an index, with a digest that fits."""
    facts = facts_of(s3, prefix)
    facts["digests"][name] = hashlib.blake2b(data, digest_size=16).hexdigest()
    s3.put(prefix, f".fastload/{facts['folder']}/{name}", data)
    s3.put(prefix, ".fastload/index.json", json.dumps(facts).encode())


def test_a_name_that_leads_out_of_the_address_is_refused(s3, indexed):
    prefix, address = indexed
    folder = facts_of(s3, prefix)["folder"]
    names = s3.contents(prefix)[f".fastload/{folder}/files"]
    first, _, rest = names.partition(b"\0")
    for wrong in (b"../" + first[3:], b"/" + first[1:], first[:5] + b"/../" + first[9:]):
        forge(s3, prefix, "files", wrong + b"\0" + rest)
        with pytest.raises(ShardError, match="has a path that leads out of the data"):
            Loader(address)


def test_rows_that_point_elsewhere_are_refused(s3, indexed):
    prefix, address = indexed
    folder = facts_of(s3, prefix)["folder"]
    rows = np.load(io.BytesIO(s3.contents(prefix)[f".fastload/{folder}/train.index.npy"]))
    for column, value, message in (
        ("offset", 1, "lies outside its file"),
        ("file", 10_000, "names file 10000"),
        ("seek", 1 << 60, "outside all seek tables"),
        ("label", 99, "has a label outside"),
    ):
        wrong = rows.copy()
        wrong[column][0] = value
        buffer = io.BytesIO()
        np.save(buffer, wrong)
        forge(s3, prefix, "train.index.npy", buffer.getvalue())
        with pytest.raises(ShardError, match=message):
            Loader(address)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("files", b"a\0" * 1_000_000, "expected at most"),
        ("train.index.npy", b"", "is not the one that index.json lists"),
        ("folders.npy", b"x" * 1_000_000, "expected at most"),
        ("index.json", b"{", "is not JSON"),
        ("index.json", b"[" * 100_000, "is not JSON|brackets"),
    ],
    ids=["many files", "no rows", "many folders", "cut off", "brackets"],  # not the bytes
)
def test_a_damaged_or_hostile_index_is_one_sentence_and_leaves_no_copy(
    s3, indexed, machine, tmp_path, name, content, message
):
    prefix, address = indexed
    folder = facts_of(s3, prefix)["folder"]
    place = name if name == "index.json" else f"{folder}/{name}"
    s3.put(prefix, f".fastload/{place}", content)
    with pytest.raises(ShardError, match=message) as caught:
        Loader(address)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("second/**/*.npy"))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "has 0 bytes, the index says"), (b"x" * 9_000_000, "")],
    ids=["none", "too many"],
)
def test_seek_tables_that_are_others_make_no_wrong_picture(s3, indexed, content, message):
    prefix, address = indexed
    folder = facts_of(s3, prefix)["folder"]
    s3.put(prefix, f".fastload/{folder}/points-0.seek", content)
    if message:
        with pytest.raises(ShardError, match=message):
            loader(address)
        return
    with pytest.raises(TooManyCorruptError, match="its seek table is damaged"):
        list(loader(address))


def test_an_index_that_was_copied_to_a_disk_does_not_pass_for_that_of_its_files(
    s3, indexed, tmp_path, capsys
):
    prefix, address = indexed
    copy = write_tree(tmp_path / "copy", s3.contents(prefix))
    with pytest.raises(ShardError, match=f"holds a copy of the index of {address}; .* run `"):
        loader(copy)
    assert make(copy) == 0
    assert equal(batches(copy), batches(address))


def test_a_copy_of_the_photographs_is_one_without_the_index(indexed, tmp_path):
    _, address = indexed
    assert fetch.main([address, str(tmp_path / "copy")]) == 0
    assert not (tmp_path / "copy/.fastload").exists()
    assert (tmp_path / "copy/train/daisy/0.jpg").is_file()


def test_without_the_right_to_list_an_index_is_found_all_the_same(indexed, proxy):
    _, address = indexed
    proxy.fault = lambda each: (
        "forbid" if each.path.endswith("manifest.json") or each.path.count("/") < 2 else ""
    )
    assert len(batches(address)) > 0
    proxy.fault = lambda each: "forbid" if each.path.endswith(".json") else ""
    with pytest.raises(ShardError, match=r"manifest\.json: permission was denied"):
        Loader(address)


def test_several_addresses_are_put_end_to_end(s3, indexed, machine):
    prefix, address = indexed
    machine("first")
    for name, data in s3.contents(prefix).items():
        if not name.startswith(".fastload"):
            s3.put(f"{prefix}-2", name, data)
    assert make(f"{address}-2") == 0
    one, both = len(TarDataset(address)), TarDataset([address, f"{address}-2"])
    assert len(both) == 2 * one
    assert np.array_equal(np.asarray(both[1][0]), np.asarray(both[one + 1][0]))
    assert both.locate(one + 1)[0] == both.locate(1)[0].replace(address, f"{address}-2")


def test_a_table_beside_photographs_is_indexed_too(s3, proxy, machine, caplog):
    files = {f"images/{i}.jpg": jpeg(300 + i) for i in range(12)}
    lines = [f"images/{i}.jpg,{'ab'[i % 2]},train\n" for i in range(12)]
    for name, data in files.items():
        s3.put("in-place/table", name, data)
    s3.put("in-place/table", "list.csv", ("path,label,split\n" + "".join(lines)).encode())
    address = f"s3://{BUCKET}/in-place/table/list.csv"
    assert make(address) == 0
    samples = TarDataset(address)  # as this machine has its index
    assert len(samples) == 12
    assert np.array_equal(
        np.asarray(samples[3][0]), np.asarray(TarDataset(cache_folder(address))[3][0])
    )
    assert [samples.targets.count(label) for label in range(2)] == [6, 6]
    s3.put("in-place/table", "list.csv", b"path,label,split\n")
    TarDataset(cache_folder(address))
    assert "list.csv has changed since it was indexed, and labels in it" in caplog.text


def test_a_file_of_the_index_that_is_missing_is_named_with_the_remedy(s3, indexed):
    prefix, address = indexed
    folder = facts_of(s3, prefix)["folder"]
    s3.delete(prefix, f".fastload/{folder}/files.npy")
    with pytest.raises(
        ShardError,
        match=rf"files.npy: is missing: .*remove {address}/.fastload and run `.*index {address}`",
    ):
        Loader(address)


def test_an_index_that_is_replaced_while_it_is_copied_is_read_anew(s3, indexed, proxy, machine):
    prefix, address = indexed

    def index_files() -> dict[str, bytes]:
        return {n: d for n, d in s3.contents(prefix).items() if n.startswith(".fastload/")}

    def replace(old: dict[str, bytes], new: dict[str, bytes]) -> None:
        for name in sorted(new, key=lambda name: name.endswith("index.json")):
            s3.put(prefix, name, new[name])
        for name in old.keys() - new.keys():
            s3.delete(prefix, name)

    former, before = index_files(), len(TarDataset(address))
    machine("first")
    s3.put(prefix, "train/daisy/more.jpg", jpeg(4713))
    assert make(address) == 0
    later = index_files()
    replace(later, former)
    machine("third")
    at: list[Request] = []

    def fault(each):
        if each.path.endswith("/folders") and not at:
            at.append(each)
            replace(former, later)
        return ""

    proxy.fault = fault
    assert len(TarDataset(address)) == before + 1
    assert at


def test_a_photograph_that_the_store_refuses_is_no_bad_sample(indexed, proxy):
    _, address = indexed
    proxy.fault = lambda each: "forbid" if each.path.endswith("/5.jpg") else ""
    with pytest.raises(ShardError, match=r"/5\.jpg.*permission was denied"):
        list(loader(address, max_corrupt_fraction=1.0))


def test_a_run_mends_an_index_of_the_bucket_that_lost_a_file(s3, indexed, machine):
    prefix, address = indexed
    folder = facts_of(s3, prefix)["folder"]
    s3.delete(prefix, f".fastload/{folder}/files.npy")
    machine("first")
    assert make(address) == 0
    machine("second")
    assert len(TarDataset(address)) > 0


def test_processes_that_open_an_index_at_once_copy_it_once(indexed, proxy):
    _, address = indexed
    program = f"from fastload import TarDataset; print(len(TarDataset({address!r})))"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    lengths = {each.communicate(timeout=120)[0] for each in started}
    assert len(lengths) == 1
    assert int(lengths.pop()) > 0
    assert len(proxy.gets("files.npy")) == 1


def test_data_in_place_are_not_mixed_with_those_of_a_disk(both):
    local, address = both
    with pytest.raises(ShardError, match="addresses alone, or folders alone"):
        loader([str(local), address])


def test_an_index_is_read_over_plain_http_too(s3, indexed, machine):
    prefix, address = indexed
    place = f"{s3.web}/{prefix}"
    options = {"storage_options": {"allow_http": "true"}}
    assert equal(batches(place, **options), batches(address))


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wrong", "the secret key is another than the server's"),
        ("AWS_ACCESS_KEY_ID", "nobody", "the server does not know the access key"),
    ],
)
def test_what_cannot_be_reached_is_one_sentence(
    indexed, monkeypatch, capsys, variable, value, said
):
    _, address = indexed
    monkeypatch.setenv(variable, value)
    with pytest.raises(FastloadError, match=said):
        Loader(address)
    assert make(address) == 1
    assert said in capsys.readouterr().err
