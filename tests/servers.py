"""Servers that the tests start: on ports that nobody takes from them, and never left behind."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_START_SECONDS = 180.0  # SeaweedFS takes 3 s on an idle machine
_STARTS = 3
# Below those that systems give to the clients' ends of connections: such a one could be taken
# between the moment that it is found free and the one that the server listens.
_PORTS = range(20_000, 32_000)


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens at."""
    with ExitStack() as stack:
        found: list[int] = []
        while len(found) < count:
            one = stack.enter_context(socket.socket())
            with suppress(OSError):
                one.bind(("127.0.0.1", random.choice(_PORTS)))
                found.append(int(one.getsockname()[1]))
        return found


def closed_port() -> int:
    """A port that nothing listens at."""
    return free_ports(1)[0]


@contextmanager
def web_server(
    handler: type[BaseHTTPRequestHandler],
    certificate: tuple[Path, Path] | None = None,
    **arguments: Any,
) -> Iterator[str]:
    """Run a web server of this process within the `with` block; nothing of it outlives the block.

    Args:
        handler: Answers the requests.
        certificate: The files of a certificate and its key, for https.
        arguments: Of the handler, such as `directory`.

    Yields:
        Its address.
    """
    quiet = type("Quiet", (handler,), {"timeout": 10, "log_message": lambda *_: None})
    with _WebServer(("127.0.0.1", 0), partial(quiet, **arguments)) as server:
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            origin = "https://localhost" if certificate else "http://127.0.0.1"
            yield f"{origin}:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class _WebServer(ThreadingHTTPServer):
    """Whose threads end with it, rather than in the middle of a later test's output."""

    daemon_threads = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # clients may go when they like
            super().handle_error(request, client_address)


@contextmanager
def serving(
    command: Callable[[Sequence[int]], Sequence[str]],
    *,
    ports: int,
    folder: Path,
    ready: Callable[[Sequence[int]], object],
    environment: Mapping[str, str] | None = None,
) -> Iterator[list[int]]:
    """Run a server within the `with` block; it ends with the block, or with this process.

    One that ends at once is started again on other ports.

    Args:
        command: Of its ports, the words that start it.
        ports: How many it needs.
        folder: Its working directory, with its log.
        ready: Of its ports, raises until each service of it answers.
        environment: Variables beside those of this process.

    Yields:
        Its ports.
    """
    with ExitStack() as stack:
        for left in reversed(range(_STARTS)):
            chosen, log = free_ports(ports), folder / "log"
            process = stack.enter_context(_process(command(chosen), folder, log, environment))
            if _is_ready(process, partial(ready, chosen)):
                break
            if not left:
                said = log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"the server did not start: {said}")
        yield chosen


@contextmanager
def _process(
    command: Sequence[str], folder: Path, log: Path, environment: Mapping[str, str] | None
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
    try:
        yield process
    finally:
        _end(process)


def _is_ready(process: subprocess.Popen[bytes], ready: Callable[[], object]) -> bool:
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(Exception):
            ready()
            return process.poll() is None  # else it was another server that answered
        time.sleep(0.2)
    return False


def _end_with_parent() -> None:
    """Let the kernel end the server if the tests are killed (prctl(2), PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
