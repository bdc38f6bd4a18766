"""Preparation on a cluster of two nodes on this machine: the same bytes, whatever dies."""

from __future__ import annotations

import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import util
from pathlib import Path

import pytest

import fastload
from tests.pictures import encoded, flower_tree, jpeg, picture, write_tree
from tests.s3 import BUCKET

ROOT = Path(__file__).parents[2]
LIMIT_SECONDS = 120.0  # for whatever a cluster does here in some seconds
OPTIONS = ("--min-side", "16", "--shard-size", "16kB")

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.skipif(
        util.find_spec("ray") is None, reason="needs ray: pip install -e '.[ray]' in the checkout"
    ),
]


@contextmanager
def head(
    *words: str, python: str = sys.executable, path: tuple[Path, ...] = (ROOT,)
) -> Iterator[subprocess.Popen[str]]:
    """A cluster; its address is in `args[-1]`."""
    program = [python, str(ROOT / "tests" / "ray_head.py"), *words]
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, path)),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    with subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, cwd="/"
    ) as process:
        try:
            assert process.stdout
            address = process.stdout.readline().strip()
            assert address, "no cluster starts"
            process.args = [*program, address]
            yield process
        finally:
            assert process.stdin
            process.stdin.close()
            process.wait(LIMIT_SECONDS)


def address_of(process: subprocess.Popen[str]) -> str:
    return str(list(process.args)[-1])  # type: ignore[arg-type]  # a list, see `head`


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with head("1,1") as process:
        yield address_of(process)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs for a dozen shards, among them duplicates in different shards, and bad ones."""
    root = tmp_path_factory.mktemp("source") / "data"
    flower_tree(root)
    twin, stranger = jpeg(2001), jpeg(2002)
    more = {f"train/daisy/more{number:03d}.jpg": jpeg(3000 + number) for number in range(72)}
    return write_tree(
        root,
        {
            **more,
            "train/daisy/grey.jpg": encoded(picture(1, mode="L")),
            "train/daisy/empty.jpg": b"",
            "train/daisy/twin.jpg": twin,
            "val/daisy/twin.jpg": twin,
            "train/daisy/stranger.jpg": stranger,
            "train/st. john/stranger.jpg": stranger,
            "train/rose 中文/lossless.png": encoded(picture(4), "PNG"),
        },
    )


def command(door: str, *words: object) -> list[str]:
    return [sys.executable, "-m", f"fastload.{door}", *map(str, words)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def run(folder: Path, door: str, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(door, *words),
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )


@contextmanager
def started(folder: Path, *words: object) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        command("shard", *words),
        cwd=folder,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def journals(out: Path) -> list[Path]:
    return list((out / ".fastload").glob("*.tar.json"))


def tries(out: Path) -> list[Path]:
    """What is being written now."""
    return list((out / ".fastload").glob("run-*/*"))


def snapshot(folder: Path) -> dict[str, bytes]:
    """Name -> bytes of all files; the name that an index draws for its folder does not count."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    drawn = re.compile(rb"index-[0-9a-f]{8}")
    return {
        drawn.sub(b"index-*", os.fsencode(path.relative_to(folder))).decode(): drawn.sub(
            b"index-*", path.read_bytes()
        )
        for path in files
    }


@pytest.fixture(scope="module")
def expected(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The shards that this machine alone makes."""
    out = tmp_path_factory.mktemp("alone") / "shards"
    done = run(root.parent, "shard", root, "--out", out, *OPTIONS)
    assert done.returncode == 0, done.stderr
    assert sum(path.suffix == ".tar" for path in out.iterdir()) >= 10
    files = snapshot(out)
    assert files["cleaning.csv"].count(b"two-") == 3, "no duplicate lies in another shard"
    return files


def on_nodes(address: str) -> tuple[str, ...]:
    return ("--engine", "ray", "--address", address)


def images_by_node(text: str) -> dict[str, int]:
    found = re.findall(r"^  node (\S+ \(\w+\)): ([\d,]+) images$", text, re.MULTILINE)
    return {node: int(count.replace(",", "")) for node, count in found}


def test_two_nodes_write_the_shards_that_one_machine_writes(root, address, expected, tmp_path):
    done = run(tmp_path, "shard", root, "--out", "shards", *OPTIONS, *on_nodes(address))
    assert done.returncode == 0, done.stderr
    assert snapshot(tmp_path / "shards") == expected
    nodes = images_by_node(done.stderr)
    assert len(nodes) == 2
    assert sum(nodes.values()) == sum(path.is_file() for path in root.rglob("*"))


@pytest.mark.s3
def test_the_nodes_upload_their_shards_to_a_bucket(
    s3, root, address, expected, tmp_path, monkeypatch
):
    pytest.importorskip("obstore", reason="needs obstore: pip install -e '.[dev]' in the checkout")
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    place = f"nodes/{uuid.uuid4().hex}"
    words = (root, "--out", f"s3://{BUCKET}/{place}", *OPTIONS)
    done = run(tmp_path, "shard", *words, *on_nodes(address))  # nodes without the environment
    assert done.returncode == 1
    assert re.search(r"node \S+ \(\w+\): s3://.*: no credentials were found", done.stderr)
    with head("1,1") as cluster:
        done = run(tmp_path, "shard", *words, *on_nodes(address_of(cluster)))
    assert done.returncode == 0, done.stderr
    assert len(images_by_node(done.stderr)) == 2
    assert s3.contents(place) == expected


@pytest.mark.s3
def test_the_nodes_read_a_bucket(s3, root, expected, tmp_path, monkeypatch):
    pytest.importorskip("obstore", reason="needs obstore: pip install -e '.[dev]' in the checkout")
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    place = f"nodes/{uuid.uuid4().hex}"
    for path in root.rglob("*"):
        if path.is_file():
            s3.put(place, path.relative_to(root).as_posix(), path.read_bytes())
    source = f"s3://{BUCKET}/{place}"
    with head("1,1") as cluster:
        nodes = on_nodes(address_of(cluster))
        done = run(tmp_path, "shard", source, "--out", "shards", *OPTIONS, *nodes)
        spread = run(tmp_path, "index", source, "--out", "spread", "--min-side", "16", *nodes)
    assert done.returncode == 0, done.stderr
    assert len(images_by_node(done.stderr)) == 2
    alone = run(tmp_path, "index", source, "--out", "alone", "--min-side", "16")
    assert spread.returncode == alone.returncode == 0, spread.stderr + alone.stderr
    assert images_by_node(spread.stderr)
    assert snapshot(tmp_path / "spread") == snapshot(tmp_path / "alone")
    found = snapshot(tmp_path / "shards")
    named = {"manifest.json"}  # it holds a digest of the files, with their times
    assert {name: found[name] for name in found.keys() - named} == (
        {name: expected[name] for name in expected.keys() - named}
    )


def test_two_nodes_index_what_one_machine_indexes(root, address, tmp_path):
    for name, words in (("alone", ()), ("spread", on_nodes(address))):
        done = run(tmp_path, "index", root, "--out", name, "--min-side", "16", *words)
        assert done.returncode == 0, done.stderr
    assert images_by_node(done.stderr)
    # The lock is empty; the paths in the index are relative to the same source.
    assert snapshot(tmp_path / "spread") == snapshot(tmp_path / "alone")


def test_parts_of_a_node_that_dies_are_done_elsewhere(root, expected, tmp_path):
    out = tmp_path / "shards"
    with head("1,1") as cluster:
        words = (root, "--out", out, *OPTIONS, *on_nodes(address_of(cluster)))
        with started(tmp_path, *words) as driver:
            # Each node has one CPU, so two parts at a time are one on each.
            wait_until(lambda: len(tries(out)) == 2 or driver.poll() is not None)
            assert cluster.stdin
            assert cluster.stdout
            cluster.stdin.write("\n")
            cluster.stdin.flush()
            assert driver.poll() is None
            assert len(journals(out)) < len([name for name in expected if name.endswith(".tar")])
            assert cluster.stdout.readline() == "killed\n"
            _, said = driver.communicate(timeout=LIMIT_SECONDS)
            assert driver.returncode == 0, said
    assert snapshot(out) == expected


def test_a_driver_that_is_killed_goes_on(root, address, expected, tmp_path):
    out = tmp_path / "shards"
    words = (root, "--out", out, *OPTIONS, *on_nodes(address))
    with started(tmp_path, *words) as driver:
        wait_until(lambda: len(journals(out)) >= 3 or driver.poll() is not None)
        driver.kill()
        driver.wait()
    assert not (out / "manifest.json").exists()
    done = run(tmp_path, "shard", *words)
    assert done.returncode == 0, done.stderr
    assert sum(images_by_node(done.stderr).values()) < sum(p.is_file() for p in root.rglob("*"))
    assert snapshot(out) == expected


def test_ctrl_c_stops_the_work_of_the_nodes(root, address, expected, tmp_path):
    out = tmp_path / "shards"
    words = (root, "--out", out, *OPTIONS, *on_nodes(address))
    with started(tmp_path, *words) as driver:
        wait_until(lambda: len(journals(out)) >= 1 or driver.poll() is not None)
        driver.send_signal(signal.SIGINT)
        _, said = driver.communicate(timeout=LIMIT_SECONDS)
    assert driver.returncode == 130, said
    assert said.splitlines()[-1] == "fastload.shard: stopped by Ctrl-C"
    assert not list((out / ".fastload").glob("run-*"))
    program = "import sys, time, ray; ray.init(address=sys.argv[1], log_to_driver=False)\n"
    program += "while ray.available_resources().get('CPU') != 2: time.sleep(0.1)"
    subprocess.run([sys.executable, "-c", program, address], check=True, timeout=LIMIT_SECONDS)
    # What is there goes on without the cluster too.
    done = run(tmp_path, "shard", root, "--out", out, *OPTIONS)
    assert done.returncode == 0, done.stderr
    assert snapshot(out) == expected


@pytest.mark.parametrize("door", ["shard", "index"])
def test_a_source_that_a_node_cannot_see_is_one_sentence(door, root, address, tmp_path):
    if not Path("/proc/self/cwd").exists():
        pytest.skip("needs /proc")
    (tmp_path / "data").symlink_to(root)
    # A path that leads elsewhere in each process, as a local disk does on each machine.
    done = run(tmp_path, door, "/proc/self/cwd/data", "--out", tmp_path / "out", *on_nodes(address))
    assert done.returncode == 1
    assert re.fullmatch(
        rf"fastload\.{door}: node \S+ \(\w+\): /proc/self/cwd/data/\S+ is not there, but where the "
        r"command runs; the source must lie on a file system that all nodes share, under the same "
        r"path",
        done.stderr.splitlines()[-1],
    )


def test_a_target_that_a_node_cannot_see_is_one_sentence(root, address, tmp_path):
    if not Path("/proc/self/cwd").exists():
        pytest.skip("needs /proc")
    done = run(tmp_path, "shard", root, "--out", "/proc/self/cwd/out", *on_nodes(address))
    assert done.returncode == 1
    assert "; --out must lie on a file system that all nodes share" in done.stderr


def test_another_version_of_ray_is_one_sentence(root, tmp_path):
    with head("1", "2.0.0") as cluster:
        words = (root, "--out", tmp_path / "out", *on_nodes(address_of(cluster)))
        done = run(tmp_path, "shard", *words)
    assert done.returncode == 1
    assert " runs Ray 2.0.0 on Python " in done.stderr.splitlines()[-1]
    assert "; install the same versions on all machines" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def other_python() -> tuple[str, str]:
    """A Python that loads the packages of this one and is of another patch; its version."""
    name, ours = f"python{sys.version_info[0]}.{sys.version_info[1]}", platform.python_version()
    places = [*os.environ["PATH"].split(os.pathsep), "/usr/bin", "/usr/local/bin"]
    for folder in places:
        ask = [f"{folder}/{name}", "-c", "import platform; print(platform.python_version())"]
        with suppress(OSError):
            said = subprocess.run(ask, capture_output=True, text=True).stdout.strip()
            if said not in {"", ours}:
                return ask[0], said
    pytest.skip(f"needs another {name} than {ours}, such as that of the system")


def test_another_patch_of_python_is_one_sentence(root, tmp_path):
    python, version = other_python()
    spec = util.find_spec("ray")
    assert spec
    assert spec.origin
    with head("1", python=python, path=(Path(spec.origin).parents[1],)) as cluster:
        words = (root, "--out", tmp_path / "out", *on_nodes(address_of(cluster)))
        done = run(tmp_path, "shard", *words)
    assert done.returncode == 1
    last, ours = done.stderr.splitlines()[-1], platform.python_version()
    assert re.search(rf"runs Ray (\S+) on Python {version}, and this process Ray \1 on", last)
    assert f" on Python {ours}; install the same versions on all machines" in last
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A Python that has all packages of this one but fastload, and the folder of the packages."""
    spec = util.find_spec("ray")
    assert spec
    assert spec.origin
    packages = Path(spec.origin).parents[1]
    if (packages / "fastload").exists():
        pytest.skip("needs fastload installed from a checkout: pip install -e .")
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, symlinks=True)
    return str(folder / "bin" / "python"), packages  # a .pth file there does not count


def test_a_node_without_fastload_is_one_sentence(root, bare, tmp_path):
    python, packages = bare
    with head("1", python=python, path=(packages,)) as cluster:
        words = (root, "--out", tmp_path / "out", *on_nodes(address_of(cluster)))
        done = run(tmp_path, "shard", *words)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "cannot run this fastload (ModuleNotFoundError: No module named 'fastload')" in last
    assert "install the same version" in last


def test_a_node_with_another_fastload_is_one_sentence(root, bare, tmp_path):
    python, packages = bare
    copy = tmp_path / "other" / "fastload"
    shutil.copytree(Path(fastload.__file__).parent, copy)
    with (copy / "prepare" / "transcode.py").open("a") as file:
        file.write("# changed\n")
    with head("1", python=python, path=(copy.parent, packages)) as cluster:
        words = (root, "--out", tmp_path / "out", *on_nodes(address_of(cluster)))
        done = run(tmp_path, "shard", *words)
    assert done.returncode == 1
    assert "fastload is " in done.stderr.splitlines()[-1]
    assert "; install the same on all nodes" in done.stderr.splitlines()[-1]
