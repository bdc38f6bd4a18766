"""What does reading from an object store cost, against the local disk?

    python -m benchmarks.bench_remote [--images DIR] [--cores N ...] [--rounds N]
    pytest benchmarks/bench_remote.py              (fewer images, one round)

Method: SeaweedFS serves the shards over S3 on this machine, a relay of `distance.py` holds each
request back for 50 ms. A contestant reads one epoch in a process of its own, bound to its cores,
RandomResizedCrop to 224 pixels, batches of 128; images/s and CPU time are those from the second
batch on. Requests and bytes are counted by the relay, from the start of the process to its end.
Rounds are interleaved.

Server and relay are bound to the cores that the contestants leave free. Where none is left, they
take time from whoever fetches. `server_cpu_milliseconds_per_image` says how much: for a small range
SeaweedFS takes 1.7 ms of a core, more than the client. So in shuffled order images/s say here how
fast the server is, and the CPU time an image says what fetching costs. The contestants whose names
say nginx fetch the same objects from that (`light_server.py`): there images/s are the loader's. A
row says which server it was (`server`); `--only nginx "fastload, local disk"` measures these alone.

Answer: see docs/scale.md, the rows are in rows/remote.jsonl.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from benchmarks import images, peers
from benchmarks.compare import DATA
from benchmarks.conftest import Keep
from benchmarks.contenders.contract import Work, cpu_seconds, list_images
from benchmarks.distance import Relay, far
from benchmarks.harness import ROWS, Row, append_rows, interleave
from benchmarks.light_server import INSTALL, has_light_server, light_server
from benchmarks.peers import Contender
from fastload.console.command import run_command
from fastload.console.parser import CommandParser, whole_number
from fastload.errors import FastloadError
from tests.s3 import Server, running

EPOCH_IMAGES = 9000
FAR = 0.05  # seconds
SEAWEEDFS, NGINX = "SeaweedFS", "nginx"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """Somebody who reads an epoch from somewhere.

    Attributes:
        loader: Who, and which data; the same loader on the local disk is what it is compared with.
        how: What the loader is told beside the address.
        seconds: How far the server is; None for the local disk.
        server: Which server; nginx takes little of a core, and has neither lists nor signatures.
        cache: Whether it has a folder to keep what it fetched in: "", "empty", or "full", which is
            that of an epoch before.
    """

    loader: str
    how: str = ""
    seconds: float | None = None
    server: str = SEAWEEDFS
    cache: str = ""

    @property
    def name(self) -> str:
        """In rows and tables."""
        if self.seconds is None:
            return f"{self.loader}, local disk"
        more = f", {self.how}" if self.how == "sequential" else ""
        more += f", {self.cache} cache" if self.cache and self.loader == "fastload" else ""
        server = "" if self.server == SEAWEEDFS else f" by {self.server}"
        return f"{self.loader}, S3{server}, {self.seconds * 1e3:.0f} ms{more}"

    @property
    def contender(self) -> Contender:
        """Its module and its environment."""
        local = LOCAL[self.loader]
        if self.seconds is None or self.loader != "fastload":
            return local
        return replace(local, module="fastload_remote", data=local.data_name)


LOCAL = {
    "fastload": peers.named("fastload native"),
    "LitData": peers.named("LitData, v2 tensors"),
    "MosaicML Streaming": peers.named("MosaicML Streaming, v2 tensors"),
}
"""Who reads the prepared data from the disk."""
CONTESTANTS = (
    Contestant(loader="fastload"),
    Contestant(loader="fastload", how="shuffled", seconds=0.0),
    Contestant(loader="fastload", how="shuffled", seconds=FAR),
    Contestant(loader="fastload", how="shuffled", seconds=0.0, server=NGINX),
    Contestant(loader="fastload", how="shuffled", seconds=FAR, server=NGINX),
    Contestant(loader="fastload", how="sequential", seconds=FAR),
    Contestant(loader="fastload", how="cached", seconds=FAR, cache="empty"),
    Contestant(loader="fastload", how="cached", seconds=FAR, cache="full"),
    Contestant(loader="LitData"),
    Contestant(loader="LitData", seconds=FAR, cache="empty"),
    Contestant(loader="MosaicML Streaming"),
    Contestant(loader="MosaicML Streaming", seconds=FAR, cache="empty"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the data are.

    Attributes:
        data: What `peers.prepare` made, on the local disk.
        servers: The servers that have the same, by name.
        relays: How they are reached, by name and seconds.
        caches: Folder for caches.
        apart: Whether the servers have cores of their own.
    """

    data: Path
    servers: Mapping[str, Server]
    relays: Mapping[tuple[str, float], Relay]
    caches: Path
    apart: bool


@contextmanager
def served(
    folder: Path, data: Path, contestants: Sequence[Contestant], *, cores: int
) -> Iterator[Place]:
    """Prepare the images for each loader that is installed, and serve them.

    Args:
        folder: Class folders.
        data: Where prepared data are kept.
        contestants: Who will read them; a server that nobody reads from is not started.
        cores: How many the contestants use; the servers take the others, if there are any.
    """
    far_ones = [one for one in contestants if one.seconds is not None]
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=data)))
        servers, relays = {}, {}
        with _on_cores_from(cores) as apart:
            for name in dict.fromkeys(one.server for one in far_ones):
                (home := scratch / name).mkdir()
                if name == SEAWEEDFS:
                    servers[name] = stack.enter_context(running(home))
                elif has_light_server():
                    servers[name] = stack.enter_context(light_server(data, home))
            for name, seconds in dict.fromkeys((one.server, one.seconds) for one in far_ones):
                if name in servers and seconds is not None:
                    relay = far(servers[name].endpoint, seconds=seconds)
                    relays[name, seconds] = stack.enter_context(relay)
        for loader in dict.fromkeys(one.loader for one in contestants):
            made = peers.prepare(LOCAL[loader], folder, data, cores=2)
            if "failed" not in made and SEAWEEDFS in servers:
                name = LOCAL[loader].data_name
                servers[SEAWEEDFS].upload(data / name, name)
        yield Place(data=data, servers=servers, relays=relays, caches=scratch, apart=apart)


@contextmanager
def _on_cores_from(first: int) -> Iterator[bool]:
    """What is started here may use all cores but the first; False where there are no others."""
    mine = sorted(os.sched_getaffinity(0))
    try:
        if mine[first:]:
            os.sched_setaffinity(0, mine[first:])
        yield bool(mine[first:])
    finally:
        os.sched_setaffinity(0, mine)


def epoch(one: Contestant, place: Place, work: Work) -> Row:
    """One epoch of a contestant in a process of its own."""
    contender = one.contender
    folder = place.data / contender.data_name
    if one.seconds is None:
        return _run(contender, folder, replace(work, option=contender.option), {})
    if one.server not in place.servers:
        return {"failed": INSTALL}
    server, relay = place.servers[one.server], place.relays[one.server, one.seconds]
    cache = place.caches / one.name
    if one.cache != "full":
        shutil.rmtree(cache, ignore_errors=True)
    cache.mkdir(exist_ok=True)
    address = f"s3://tests/{contender.data_name}"
    asked = replace(work, option=f"{one.how} {address}".strip())
    before, spent, mine = relay.counts(), cpu_seconds(), time.process_time()
    variables = {**server.environment, "AWS_ENDPOINT_URL": relay.endpoint}
    row = _run(contender, cache, asked, {**variables, "S3_ENDPOINT_URL": relay.endpoint})
    # This process and its children that live: the servers, the relays, and nothing else by now.
    spent = cpu_seconds() - spent - (time.process_time() - mine)
    if "failed" in row:
        return row
    after, count = relay.counts(), row["images"] + work.batch_size
    return {
        **row,
        "requests": after.requests - before.requests,
        "bytes": after.bytes - before.bytes,
        "server_cpu_milliseconds_per_image": spent / count * 1e3,
    }


def _run(contender: Contender, folder: Path, work: Work, variables: dict[str, str]) -> Row:
    arguments = ["iterate", contender.module, str(folder), work.to_json()]
    row = peers.run(contender, arguments, variables)
    if "failed" not in row:
        row["cpu_milliseconds_per_image"] = row.pop("cpu_seconds_per_1000")
    return row


def measure(
    folder: Path,
    data: Path,
    contestants: Sequence[Contestant],
    *,
    cores: int,
    rounds: int,
    source: str = "",
) -> list[Row]:
    """Interleaved epochs of all contestants, behind one that warms up; one row for each."""
    data.mkdir(parents=True, exist_ok=True)
    work = Work(cores=cores, whole_epoch=True)
    with served(folder, data, contestants, cores=cores) as place:
        calls = {one.name: partial(epoch, one, place, work) for one in contestants}
        found = {name: rows[1:] for name, rows in interleave(calls, rounds=rounds + 1).items()}
        apart = place.apart
    rows = [
        {
            "benchmark": "remote",
            "name": one.name,
            "loader": one.loader,
            "package": one.contender.package,
            "version": peers.version(one.contender),
            "images_from": source or folder.name,
            "epoch_images": len(list_images(folder)),
            "used_cores": cores,
            "server_on_other_cores": apart,
            **({} if one.seconds is None else {"server": one.server}),
            "round": number,
            **row,
        }
        for one in contestants
        for number, row in enumerate(found[one.name])
    ]
    for row in rows:
        row.pop("stderr", None)
    return rows


def say(rows: Sequence[Row]) -> None:
    """Each row in a line."""
    for row in rows:
        if "failed" in row:
            print(f"{row['name']}: {row['failed']}")
            continue
        print(
            f"{row['name']}: {row['images_per_second']:,.0f} images/s,"
            f" first batch {row['first_batch_seconds']:.2f} s,"
            f" CPU {row['cpu_milliseconds_per_image']:.2f} ms an image"
            f" (server {row.get('server_cpu_milliseconds_per_image', 0.0):.2f}),"
            f" {row.get('requests', 0):,} requests, {row.get('bytes', 0) / 1e6:,.0f} MB,"
            f" {row['peak_memory_mib']:,.0f} MiB",
            flush=True,
        )


@pytest.mark.s3
def test_reading_from_an_object_store(photographs: Path, tmp_path: Path, keep: Keep) -> None:
    """Each way to read shards gives an epoch; what is in the cache is not asked for again."""
    folder = images.repeated(photographs, tmp_path / "images", times=1)
    there = [SEAWEEDFS, *([NGINX] if has_light_server() else [])]
    ours = [one for one in CONTESTANTS if one.loader == "fastload" and one.server in there]
    rows = measure(folder, tmp_path / "data", ours, cores=1, rounds=1)
    keep(rows)
    assert [row["name"] for row in rows] == [one.name for one in ours]
    assert min(row["images_per_second"] for row in rows) > 0
    requests = {row["name"]: row["requests"] for row in rows if "requests" in row}
    full = requests.pop("fastload, S3, 50 ms, full cache")
    assert 0 < full < min(requests.values())


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and append rows."""
    parser = CommandParser(description="What reading from an object store costs.")
    parser.add_argument("--images", type=Path, default=images.SAMPLE_DATA)
    parser.add_argument("--epoch", type=whole_number(256), default=EPOCH_IMAGES, metavar="IMAGES")
    parser.add_argument("--only", nargs="+", default=[""], metavar="NAME", help="or a part of one")
    parser.add_argument("--cores", type=whole_number(1), nargs="+", default=[1, 2], metavar="N")
    parser.add_argument("--rounds", type=whole_number(1), default=3)
    parser.add_argument("--output", type=Path, default=ROWS / "remote.jsonl")
    options = parser.read(argv)
    given = options.images.resolve()
    if not given.is_dir() or not (count := len(list_images(given))):
        raise FastloadError(f"{options.images}: holds no images in class folders; name another")
    times = max(1, round(options.epoch / count))
    data = DATA / "remote" / f"{given.parent.name}-{given.name}-x{times}"
    data.mkdir(parents=True, exist_ok=True)
    folder = images.repeated(given, data / "images", times=times)
    contestants = [one for one in CONTESTANTS if any(part in one.name for part in options.only)]
    for cores in options.cores:
        rows = measure(
            folder,
            data,
            contestants,
            cores=cores,
            rounds=options.rounds,
            source=f"{given.parent.name}/{given.name}, {count:,} photographs, {times} times",
        )
        say(rows)
        append_rows(options.output, rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(run_command("benchmarks.bench_remote", main))
