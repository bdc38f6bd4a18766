"""A bucket of a real S3 server as a source: the same shards as from a folder, or one sentence."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fastload import clean, shard
from fastload.errors import FastloadError, LayoutError
from fastload.prepare import reading, tar_streams
from fastload.prepare.layout import LayoutOptions
from fastload.prepare.reading import read_bytes
from fastload.prepare.source import read_source
from fastload.store import object_paths
from tests.faulty_proxy import Fault, FaultyProxy, Request
from tests.pictures import encoded, jpeg, picture, write_tree
from tests.s3 import BUCKET, Server
from tests.servers import closed_port

pytestmark = [pytest.mark.s3, pytest.mark.slow]
pytest.importorskip("obstore", reason="needs obstore: pip install -e '.[dev]' in the checkout")

OPTIONS = ("--min-side", "16", "--shard-size", "20kB", "--workers", "1")
ODD_NAMES = ("花 图.jpg", "100%25 + #1.jpg", "a&b=c;d.jpg", "it's.JPG")


def class_folders() -> dict[str, bytes]:
    """Photographs in class folders, some of them no good, some of odd names."""
    files = {f"class {n % 3}/{n:02d}.jpg": jpeg(n) for n in range(30)}
    files |= {f"玫瑰/{name}": jpeg(100 + n) for n, name in enumerate(ODD_NAMES)}
    files["class 1/grey.jpg"] = encoded(picture(5, mode="L"))
    files["class 1/cut.jpg"] = jpeg(6)[:-500]
    files["class 2/copy.jpg"] = jpeg(1)
    files["class 2/empty.jpg"] = b""
    files["class 0/png.jpg"] = encoded(picture(7), "PNG")
    return files


def in_tar(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file.getvalue()


def plain(root: Path) -> str:
    names = json.dumps({"class 0": "Rosa canina", "class 1": "Tulipa"}).encode()
    write_tree(root, {**class_folders(), "plantnet300K_species_names.json": names})
    return ""


def splits(root: Path) -> str:
    files = {f"train/{path}": data for path, data in class_folders().items()}
    files |= {f"val/class {n}/{n}.jpg": jpeg(200 + n) for n in range(3)}
    files |= {f"val/玫瑰/{n}.jpg": jpeg(210 + n) for n in range(2)}
    write_tree(root, files)
    return ""


def webdataset(root: Path) -> str:
    write_tree(root, {"classes.txt": "rose\n玫瑰\ntulip\ndaisy\n".encode()})
    for tar in range(3):
        members = {}
        for n in range(12):
            members[f"{tar}{n:03d}.cls"] = str(n % 4).encode()
            members[f"{tar}{n:03d}.jpg"] = jpeg(20 * tar + n)
        write_tree(root, {f"train-{tar:04d}.tar": in_tar(members)})
    return "train-{0000..0002}.tar"


def tar_of_folders(root: Path) -> str:
    write_tree(root, {"data.tar": in_tar(class_folders())})
    return "data.tar"


def tars_in_folder(root: Path) -> str:
    webdataset(root / "deep")
    return ""


def table(root: Path) -> str:
    files = class_folders()
    rows = ["path,label,split"]
    for n, path in enumerate(files):
        rows.append(f'"images/{path}",{path.partition("/")[0]},{"val" if n % 5 == 4 else "train"}')
    files = {f"images/{path}": data for path, data in files.items()}
    write_tree(root, files | {"labels.csv": "\n".join(rows).encode()})
    return "labels.csv"


def lines(root: Path) -> str:
    files = class_folders()
    rows = [json.dumps({"file_name": path, "label": path.partition("/")[0]}) for path in files]
    write_tree(root, files | {"labels.jsonl": "\n".join(rows).encode()})
    return "labels.jsonl"


def catalogue(root: Path) -> str:
    files = {f"images/{n}.jpg": jpeg(n) for n in range(12)}
    held = {
        "images": [{"id": n, "file_name": f"images/{n}.jpg"} for n in range(12)],
        "annotations": [{"image_id": n, "category_id": n % 2} for n in range(12)],
        "categories": [{"id": 0, "name": "rose"}, {"id": 1, "name": "tulip"}],
    }
    write_tree(root, files | {"train.json": json.dumps(held).encode()})
    return "train.json"


LAYOUTS = (
    *(plain, splits, webdataset, tar_of_folders, tars_in_folder),
    *(table, lines, catalogue),
)


@pytest.fixture
def place() -> str:
    """A prefix of the test's own."""
    return f"sources/{uuid.uuid4().hex}"


def upload(s3: Server, folder: Path, place: str) -> str:
    """Copy a folder and all below it into the bucket; the address."""

    def put(path: Path) -> None:
        s3.put(place, path.relative_to(folder).as_posix(), path.read_bytes())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, filter(Path.is_file, folder.rglob("*"))))
    return f"s3://{BUCKET}/{place}"


def made(source: str, out: Path | str, *options: str) -> int:
    return shard.main([source, "--out", str(out), *OPTIONS, *options])


def content(folder: Path) -> dict[str, bytes]:
    """The files of a set of shards, without the digest of names and times in the manifest."""
    return without_recipe({path.name: path.read_bytes() for path in folder.iterdir()})


def without_recipe(files: dict[str, bytes]) -> dict[str, bytes]:
    manifest = json.loads(files["manifest.json"])
    assert manifest.pop("recipe")
    return files | {"manifest.json": json.dumps(manifest).encode()}


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: str(layout.__name__))
def test_the_shards_are_those_of_the_folder(
    layout: Callable[[Path], str], s3: Server, proxy: FaultyProxy, place: str, tmp_path: Path
):
    name = layout(tmp_path / "data")
    address = upload(s3, tmp_path / "data", place)
    end = f"/{name}" if name else ""
    assert made(f"{tmp_path / 'data'}{end}", tmp_path / "local") == 0
    assert made(f"{address}{end}", tmp_path / "remote") == 0
    assert content(tmp_path / "remote") == content(tmp_path / "local")
    assert len(list((tmp_path / "local").glob("*.tar"))) > 1


def test_a_bucket_to_a_bucket(
    s3: Server, proxy: FaultyProxy, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    splits(tmp_path / "data")
    address = upload(s3, tmp_path / "data", f"{place}/photos")
    out = f"s3://{BUCKET}/{place}/shards"
    assert made(str(tmp_path / "data"), tmp_path / "local", "--exclude", "val") == 0
    assert made(f"{address}/", out, "--exclude", "val") == 0
    assert without_recipe(s3.contents(f"{place}/shards")) == content(tmp_path / "local")
    capsys.readouterr()
    assert made(address, out, "--exclude", "val") == 0
    assert f"{out} already holds these shards, complete" in capsys.readouterr().out
    spelled = LayoutOptions(exclude=(f"{address}/val/",))
    assert list(read_source(address, options=spelled).folders) == ["train"]


def test_cleaning_reads_a_bucket_and_changes_nothing(
    s3: Server,
    proxy: FaultyProxy,
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    plain(tmp_path / "data")
    address = upload(s3, tmp_path / "data", place)
    before = s3.contents(place)
    arguments = ["--min-side", "16", "--workers", "1", "--report"]
    assert clean.main([address, *arguments, "remote.csv"]) == 0
    assert f" -m fastload.shard {address}" in capsys.readouterr().out
    assert clean.main(["data", *arguments, "local.csv"]) == 0
    assert Path("remote.csv").read_text() == Path("local.csv").read_text()
    assert "class 1/cut.jpg,truncated" in Path("remote.csv").read_text()
    assert s3.contents(place) == before
    for command in (clean, shard):
        assert command.main([address, "--quarantine", "aside"]) == 1
        assert "lies in an object store, which is not changed" in capsys.readouterr().err


def test_tars_are_streamed_and_their_images_asked_for_many_at_a_time(
    s3: Server, proxy: FaultyProxy, place: str, tmp_path: Path
):
    webdataset(tmp_path)
    address = upload(s3, tmp_path, place)
    source = read_source(f"{address}/*.tar")
    assert len(proxy.gets()) == 3  # of 36 samples
    images = reading.ImagesAhead(source.root)  # type: ignore[arg-type]  # it is an ObjectPath
    proxy.latency = 0.1
    images.ask(source.files)
    local = read_source(str(tmp_path / "*.tar"))
    assert [images.read(file) for file in source.files] == (
        [read_bytes(local.root, file) for file in local.files]
    )
    images.close()
    assert len(proxy.gets()) == 6  # neighbours come together


def test_a_tar_larger_than_the_window_is_read_once(
    s3: Server, proxy: FaultyProxy, place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr("fastload.store.streaming.PART_BYTES", 4096)
    monkeypatch.setattr(tar_streams, "_WINDOW_PARTS", 1)
    members = {}
    for n in range(20):
        members[f"{n:02d}.cls"] = b"%d" % (n % 2)
        members[f"{n:02d}.jpg"] = os.urandom(9_000)
    data = in_tar(members)
    s3.put(place, "x.tar", data)
    (tmp_path / "x.tar").write_bytes(data)
    remote, local = (
        read_source(f"{where}/x.tar") for where in (f"s3://{BUCKET}/{place}", tmp_path)
    )
    assert [file[:4] for file in map(_facts, remote.files)] == (
        [file[:4] for file in map(_facts, local.files)]
    )
    parts = [one for one in proxy.gets() if one.range]
    behind = len(parts) - -(-len(data) // 4096)
    assert behind == 20  # labels that lie before the window: here all of them


def _facts(file: object) -> tuple[object, ...]:
    return tuple(getattr(file, name) for name in ("path", "split", "label", "offset", "bytes"))


def test_hard_links_in_a_tar_are_followed(
    s3: Server, proxy: FaultyProxy, place: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("fastload.store.streaming.PART_BYTES", 4096)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for n in range(20):
            member = tarfile.TarInfo(f"{'ab'[n % 2]}/{n}.jpg")
            member.size = 3_000
            tar.addfile(member, io.BytesIO(bytes(3_000)))
        link = tarfile.TarInfo("a/linked.jpg")
        link.type, link.linkname = tarfile.LNKTYPE, "a/0.jpg"
        tar.addfile(link)
    s3.put(place, "x.tar", file.getvalue())
    source = read_source(f"s3://{BUCKET}/{place}/x.tar")
    offsets = {one.path: one.offset for one in source.files}
    assert offsets["x.tar/a/linked.jpg"] == offsets["x.tar/a/0.jpg"]


def test_more_objects_than_a_page_become_shards(
    s3: Server, proxy: FaultyProxy, place: str, tmp_path: Path
):
    files = {f"{n % 3}/{n:04d}.jpg": jpeg(n, height=16, width=16) for n in range(1_500)}
    write_tree(tmp_path / "data", files)
    address = upload(s3, tmp_path / "data", place)
    assert made(address, tmp_path / "remote") == 0
    assert made(str(tmp_path / "data"), tmp_path / "local") == 0
    assert content(tmp_path / "remote") == content(tmp_path / "local")


def test_a_run_that_was_killed_goes_on(s3: Server, proxy: FaultyProxy, place: str, tmp_path: Path):
    files = {f"{n % 3}/{n:03d}.jpg": jpeg(n) for n in range(120)}
    write_tree(tmp_path / "data", files)
    address = upload(s3, tmp_path / "data", place)
    assert made(str(tmp_path / "data"), tmp_path / "local") == 0
    proxy.latency = 0.05
    out = tmp_path / "remote"
    process = subprocess.Popen(
        [sys.executable, "-m", "fastload.shard", address, "--out", str(out), *OPTIONS],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    with process:
        deadline = time.monotonic() + 60
        while len(list((out / ".fastload").glob("*.tar.json"))) < 2:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
    assert not (out / "manifest.json").exists()
    before = len(proxy.gets(".jpg"))
    proxy.latency = 0.0
    assert made(address, out) == 0
    assert len(proxy.gets(".jpg")) - before < len(files)
    assert content(out) == content(tmp_path / "local")


@pytest.mark.parametrize("fault", ["slow down", "reset", "truncate", "stall"])
def test_passing_faults_change_no_byte(
    fault: Fault, s3: Server, proxy: FaultyProxy, place: str, tmp_path: Path
):
    write_tree(tmp_path / "data", {f"{n % 2}/{n}.jpg": jpeg(n) for n in range(8)})
    webdataset(tmp_path / "tars")
    upload(s3, tmp_path / "data", f"{place}/data")
    upload(s3, tmp_path / "tars", f"{place}/tars")
    every = 29 if fault == "stall" else 3
    proxy.fault = lambda request: fault if request.number % every == 1 else ""
    for name, source in (("data", "data"), ("tars", "tars/*.tar")):
        assert made(str(tmp_path / source), tmp_path / f"{name}-local") == 0
        assert made(f"s3://{BUCKET}/{place}/{source}", tmp_path / f"{name}-remote") == 0
        assert content(tmp_path / f"{name}-remote") == content(tmp_path / f"{name}-local")


@pytest.fixture
def photographs(s3: Server, place: str, tmp_path: Path) -> str:
    write_tree(tmp_path / "data", {f"{n % 2}/{n:02d}.jpg": jpeg(n) for n in range(20)})
    return upload(s3, tmp_path / "data", place)


def test_a_server_that_goes_away_is_no_set_of_bad_pictures(
    photographs: str,
    proxy: FaultyProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(reading, "TIMEOUT_SECONDS", 0.5)
    source = read_source(photographs)
    proxy.fault = lambda _: "reset"
    with pytest.raises(FastloadError, match="the storage is away, so run the same command again"):
        read_bytes(source.root, source.files[0])
    proxy.fault = lambda _: "forbid"
    with pytest.raises(FastloadError, match="permission was denied"):
        read_bytes(source.root, source.files[0])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (None, "0/10.jpg has vanished; run again when the bucket no longer changes"),
        (b"x", "0/10.jpg: had {size} bytes and has 1; run again when the bucket no longer changes"),
    ],
)
def test_an_object_that_changes_in_the_middle_ends_the_run(
    change: bytes | None,
    said: str,
    photographs: str,
    s3: Server,
    proxy: FaultyProxy,
    place: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    size = f"{(tmp_path / 'data/0/10.jpg').stat().st_size:,}"

    def change_first(request: Request) -> Fault:
        if request.path.endswith(".jpg") and not changed:
            changed.append(request)
            if change is None:
                s3.delete(place, "0/10.jpg")
            else:
                s3.put(place, "0/10.jpg", change)
        return ""

    changed: list[Request] = []
    proxy.fault = change_first
    assert made(photographs, tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert said.format(size=size) in error
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_tar_that_is_another_one_than_was_listed_is_refused(
    s3: Server, proxy: FaultyProxy, place: str, tmp_path: Path
):
    webdataset(tmp_path)
    source = read_source(f"{upload(s3, tmp_path, place)}/*.tar")
    time.sleep(1.1)  # answers tell whole seconds
    s3.put(place, "train-0000.tar", (tmp_path / "train-0001.tar").read_bytes())
    with pytest.raises(LayoutError, match=r"train-0000\.tar: was written again since it was"):
        read_bytes(source.root, next(one for one in source.files if "0000.tar" in one.path))


def test_a_tar_that_was_cut_off_is_refused(s3: Server, proxy: FaultyProxy, place: str):
    data = in_tar({f"{n % 2}/{n}.jpg": jpeg(n) for n in range(5)})
    s3.put(place, "x.tar", data[:4_000])
    with pytest.raises(LayoutError, match=r"x\.tar ends within .*: the tar was cut off"):
        read_source(f"s3://{BUCKET}/{place}/x.tar")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("s3://{bucket}/{place}", "{place} is not there; expected a folder of class folders"),
        ("s3://{bucket}/{place}/x-{{0..9}}.tar", "no file is there, such as s3://"),
        ("s3://{bucket}/{place}/*.tar", "matches no file"),
        ("s3://nowhere/{place}", "there is no such bucket"),
        ("https://host/{place}", "is no file here, and no address that can be listed"),
        ("s4://{bucket}/{place}", "s4://{bucket}/{place} is no file here, and no address that"),
        ("s3://", "s3:// names no bucket"),
        ("s3://{bucket}/{place}/a#b", "a#b: has # in it, which no folder of an address may have"),
    ],
)
def test_what_is_not_there_is_one_sentence(
    word: str,
    said: str,
    s3: Server,
    proxy: FaultyProxy,
    place: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    assert made(word.format(bucket=BUCKET, place=place), tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert said.format(bucket=BUCKET, place=place) in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_words_of_two_stores_are_refused(
    photographs: str, s3: Server, proxy: FaultyProxy, tmp_path: Path
):
    with pytest.raises(LayoutError, match="lies in an object store, and other files on a disk"):
        read_source([f"{photographs}/a.tar", str(tmp_path / "b.tar")])
    with pytest.raises(LayoutError, match="are not of one bucket"):
        read_source(["s3://one/a.tar", "s3://two/b.tar"])


def test_parquet_is_refused_with_the_command_that_copies_it(
    s3: Server, proxy: FaultyProxy, place: str
):
    s3.put(place, "train-0.parquet", b"PAR1")
    with pytest.raises(LayoutError, match="parquet files are not read in an object store; copy it"):
        read_source(f"s3://{BUCKET}/{place}")


def test_who_may_not_list_is_told_so(
    photographs: str, proxy: FaultyProxy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    proxy.fault = lambda _: "forbid"
    assert made(photographs, tmp_path / "out") == 1
    assert "need the right to list and get objects" in capsys.readouterr().err


def test_a_server_that_is_away_is_one_sentence(
    photographs: str,
    proxy: FaultyProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(object_paths, "OPENING_SECONDS", 0.5)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed_port()}")
    assert made(photographs, tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert "the server cannot be reached" in error
    assert error.count("\n") == 1


def test_shards_are_not_written_into_their_source_or_into_others(
    photographs: str,
    s3: Server,
    proxy: FaultyProxy,
    place: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    before = s3.names(place)
    for inner in (photographs, f"{photographs}/sub", f"S3://{BUCKET}/{place}/sub/"):
        assert made(photographs, inner) == 1
        assert f"lies within {photographs}; choose --out outside it" in capsys.readouterr().err
    assert made(photographs, f"s3://{BUCKET}/./{place}/sub") == 1
    assert "has an empty part, or . or .., in its path" in capsys.readouterr().err
    assert s3.names(place) == before
    shards = f"s3://{BUCKET}/{place}-shards"
    assert made(photographs, shards) == 0
    assert made(photographs, f"{shards}/deep/sub") == 1
    assert f"lies within the shards of {shards}" in capsys.readouterr().err
    assert not [name for name in s3.names(f"{place}-shards") if name.startswith("deep")]


def test_a_table_may_name_images_by_their_addresses(
    photographs: str, s3: Server, proxy: FaultyProxy, place: str
):
    rows = ["path,label", f"{photographs}/0/00.jpg,rose", "0/02.jpg,rose", "1/01.jpg,tulip"]
    s3.put(place, "labels.csv", "\n".join(rows).encode())
    source = read_source(f"{photographs}/labels.csv")
    assert sorted(file.path for file in source.files) == ["0/00.jpg", "0/02.jpg", "1/01.jpg"]
    s3.put(place, "labels.csv", b"path,label\n0/00.jpg,a\ns3://elsewhere/1.jpg,b\n")
    with pytest.raises(
        LayoutError, match=r"line 3: names 's3://elsewhere/1.jpg'; expected a file b"
    ):
        read_source(f"{photographs}/labels.csv")
