"""A proxy between a client and an HTTP server that adds latency and faults, and counts requests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

Fault = Literal["", "slow down", "reset", "truncate", "stall", "hang", "corrupt", "forbid"]
_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
_FORBIDDEN = b"<Error><Code>AccessDenied</Code><Message>Access Denied.</Message></Error>"


@dataclass(frozen=True)
class Request:
    """One request: its number from 0, what it asks for, and its Range header."""

    number: int
    method: str
    path: str
    range: str


@dataclass
class FaultyProxy:
    """Forwards to `upstream`.

    Attributes:
        upstream: Address of the server, http://HOST:PORT.
        latency: Seconds before each answer.
        fault: What happens to a request.
        requests: Those that came.
        most_at_once: How many were under way at a time, at most.
    """

    upstream: str
    latency: float = 0.0
    fault: Callable[[Request], Fault] = lambda _: ""
    requests: list[Request] = field(default_factory=list)
    most_at_once: int = 0
    sent: int = 0
    endpoint: str = ""
    _at_once: int = 0
    # asyncio forgets a task whose client has gone while it waits for the upstream.
    _tasks: set[asyncio.Task[None] | None] = field(default_factory=set)

    @contextmanager
    def serving(self) -> Iterator[FaultyProxy]:
        """Listen within the `with` block."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        starting = asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20)
        server = asyncio.run_coroutine_threadsafe(starting, loop).result()
        self.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(_end(server), loop).result(60)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(60)
            loop.close()

    def gets(self, name: str = ".tar") -> list[Request]:
        """The requests for parts of objects whose path ends so."""
        return [each for each in self.requests if each.method == "GET" and each.path.endswith(name)]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parts = urlsplit(self.upstream)
        writers = [writer]
        self._tasks.add(task := asyncio.current_task())
        try:
            up_reader, up_writer = await asyncio.open_connection(parts.hostname, parts.port)
            writers.append(up_writer)
            while head := await _head(reader):
                sent = await reader.readexactly(int(_header(head, "content-length") or 0))
                if not await self._answer(head, sent, writer, up_reader, up_writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            for one in writers:
                one.transport.abort()

    async def _answer(
        self,
        head: bytes,
        sent: bytes,
        writer: asyncio.StreamWriter,
        up_reader: asyncio.StreamReader,
        up_writer: asyncio.StreamWriter,
    ) -> bool:
        """Answer one request; False where the connection is to be cut."""
        method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        asked = Request(len(self.requests), method, path.split("?")[0], _header(head, "range"))
        self.requests.append(asked)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            await asyncio.sleep(self.latency)
            fault = self.fault(asked)
            if fault == "slow down":
                writer.write(_response(503, "Slow Down", _SLOW_DOWN))
                return True
            if fault == "forbid":
                writer.write(_response(403, "Forbidden", _FORBIDDEN))
                return True
            if fault == "hang":
                await asyncio.sleep(60)
            if fault in ("reset", "hang"):
                return False
            up_writer.write(head + sent)
            answer = await _head(up_reader)
            length = 0 if method == "HEAD" else int(_header(answer, "content-length") or 0)
            body = await up_reader.readexactly(length)
            writer.write(answer)
            if fault in ("truncate", "stall"):
                writer.write(body[: length // 2])
                await writer.drain()
                if fault == "stall":
                    await asyncio.sleep(60)
                return False
            if fault == "corrupt":
                body = body[:-20] + bytes([body[-20] ^ 1]) + body[-19:]
            writer.write(body)
            self.sent += len(body)
            await writer.drain()
            return True
        finally:
            self._at_once -= 1


def _response(status: int, reason: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/xml\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def _head(reader: asyncio.StreamReader) -> bytes:
    with suppress(asyncio.IncompleteReadError):
        return await reader.readuntil(b"\r\n\r\n")
    return b""


def _header(head: bytes, name: str) -> str:
    for line in head.decode("latin-1").split("\r\n")[1:]:
        key, _, value = line.partition(":")
        if key.strip().lower() == name:
            return value.strip()
    return ""


async def _end(server: asyncio.Server) -> None:
    server.close()
    await asyncio.sleep(0.01)  # a connection that was just taken has its task then
    while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # so that aborted connections close
