"""A server that is far away: a relay in front of one that is near, which holds each request back.

    with far("http://127.0.0.1:8333", seconds=0.05) as relay: relay.endpoint, relay.counts()

    client ──► requests, held back for `seconds` ──► server
    client ◄── answers, as they come ◄────────────── server

The relay is a process of its own and looks into nothing but the first bytes of what a client sends,
so that it takes little of the cores: some 0.1 ms for 40 kB. A connection of its own to the server
belongs to each connection of a client. As a program it says its endpoint, and then answers each
line of its standard input with its counts so far; it ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from benchmarks.environment import ROOT

_METHODS = (b"GET ", b"HEAD ", b"PUT ", b"POST ", b"DELETE ")


@dataclass(slots=True)
class Counts:
    """What has come through so far: requests, and bytes of answers with their heads."""

    requests: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Relay:
    """A relay that runs.

    Attributes:
        endpoint: Where it listens, http://HOST:PORT.
        process: Which process it is.
    """

    endpoint: str
    process: subprocess.Popen[str]

    def counts(self) -> Counts:
        """What has come through so far."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return Counts(**json.loads(self.process.stdout.readline()))


@contextmanager
def far(upstream: str, *, seconds: float) -> Iterator[Relay]:
    """A relay to `upstream`; it ends with the `with` block, or with this process.

    Args:
        upstream: Address of a server, http://HOST:PORT.
        seconds: How long each request is held back.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.distance", upstream, str(seconds)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        endpoint = process.stdout.readline().strip()
        if not endpoint:
            raise RuntimeError(f"the relay to {upstream} did not start")
        try:
            yield Relay(endpoint, process)
        finally:
            process.terminate()


@dataclass(slots=True, eq=False)
class _Line:
    """What both halves of a connection share: how far the server is, and the counts."""

    host: str
    port: int
    seconds: float
    counts: Counts = field(default_factory=Counts)


class _Half(asyncio.Protocol):
    """One side of a connection: what comes in here goes out at the other side."""

    def __init__(self) -> None:
        self.here: asyncio.Transport | None = None
        self.other: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)
        self.here = transport

    def connection_lost(self, _error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        if self.other is not None:
            self.other.close()

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        if self.other is not None:
            self.other.pause_reading()

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        if self.other is not None:
            self.other.resume_reading()


class _Client(_Half):
    """The side of a client: its bytes are held back, and its requests are counted."""

    def __init__(self, line: _Line) -> None:
        super().__init__()
        self._line = line
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._opening = asyncio.get_running_loop().create_task(self._open())

    async def _open(self) -> None:
        assert self.here is not None
        line, client = self._line, self.here
        try:
            self.other, _ = await asyncio.get_running_loop().create_connection(
                lambda: _Server(line.counts, client), line.host, line.port
            )
        except OSError:
            client.close()
            return
        self.other.writelines(self._early)
        if client.is_closing():
            self.other.close()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._line.counts.requests += data.startswith(_METHODS)
        asyncio.get_running_loop().call_later(self._line.seconds, self._send, data)

    def _send(self, data: bytes) -> None:
        if self.other is None:
            self._early.append(data)
        else:
            self.other.write(data)


class _Server(_Half):
    """The side of the server: its bytes are counted."""

    def __init__(self, counts: Counts, client: asyncio.Transport) -> None:
        super().__init__()
        self._counts, self._client = counts, client
        self.other = client

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._counts.bytes += len(data)
        self._client.write(data)


async def _relay(upstream: str, seconds: float) -> None:
    loop, parts = asyncio.get_running_loop(), urlsplit(upstream)
    assert parts.hostname is not None
    assert parts.port is not None
    line = _Line(parts.hostname, parts.port, seconds)
    server = await loop.create_server(lambda: _Client(line), "127.0.0.1", 0, backlog=512)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    ended = loop.create_future()

    def answer() -> None:
        if sys.stdin.readline():
            counts = {"requests": line.counts.requests, "bytes": line.counts.bytes}
            print(json.dumps(counts), flush=True)
        elif not ended.done():
            ended.set_result(None)

    loop.add_reader(sys.stdin.fileno(), answer)
    await ended


if __name__ == "__main__":
    asyncio.run(_relay(sys.argv[1], float(sys.argv[2])))
