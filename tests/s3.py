"""A real S3 server on this machine: SeaweedFS, started once for all tests of a process."""

from __future__ import annotations

import hashlib
import hmac
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

import pytest

from tests.servers import serving

KEY, SECRET, BUCKET = "tester", "secret-of-the-tests", "tests"
_SERVICES = ("master", "volume", "filer", "s3", "admin")
_MORE = (
    *("s3.port.iceberg", "s3.port.lance", "s3.port.grpc", "master.port.grpc"),
    *("volume.port.grpc", "filer.port.grpc", "admin.port.grpc"),
)


@dataclass(frozen=True)
class Server:
    """Where the server listens, and what a client needs to know."""

    endpoint: str
    web: str
    """The same objects over plain HTTP, without signatures or lists."""

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

    def make_folder(self, path: str) -> None:
        """Write the empty object "PATH/", as the stores' consoles do; the client cannot."""
        when = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        headers = {
            "host": urlsplit(self.endpoint).netloc,
            "x-amz-content-sha256": hashlib.sha256(b"").hexdigest(),
            "x-amz-date": when,
        }
        names, target = ";".join(headers), quote(f"/{BUCKET}/{path}/")
        listed = "".join(f"{name}:{value}\n" for name, value in headers.items())
        request = f"PUT\n{target}\n\n{listed}\n{names}\n{headers['x-amz-content-sha256']}"
        scope = f"{when[:8]}/us-east-1/s3/aws4_request"
        digest = hashlib.sha256(request.encode()).hexdigest()
        key = f"AWS4{SECRET}".encode()
        for part in (*scope.split("/"), f"AWS4-HMAC-SHA256\n{when}\n{scope}\n{digest}"):
            key = hmac.digest(key, part.encode(), "sha256")
        signed = f"AWS4-HMAC-SHA256 Credential={KEY}/{scope}, SignedHeaders={names}"
        headers["authorization"] = f"{signed}, Signature={key.hex()}"
        urlopen(Request(self.endpoint + target, b"", headers, method="PUT")).close()

    def contents(self, prefix: str) -> dict[str, bytes]:
        """The objects below a prefix."""
        import obstore

        store = self._store(prefix)
        return {name: bytes(obstore.get(store, name).bytes()) for name in self.names(prefix)}

    def names(self, prefix: str) -> list[str]:
        """Names of the objects below a prefix."""
        import obstore

        return [one["path"] for page in obstore.list(self._store(prefix)) for one in page]

    def delete(self, prefix: str, name: str) -> None:
        """Remove an object."""
        import obstore

        obstore.delete(self._store(prefix), name)

    def _store(self, prefix: str, **more: Any) -> Any:
        from obstore.store import S3Store

        options = self.options(client_options={"allow_http": True}, **more)
        del options["allow_http"]
        return S3Store(BUCKET, prefix=prefix, **options)

    def answer(self) -> None:
        """Use each service once; raises where one does not answer."""
        import obstore

        store = self._store("ready", retry_config={"max_retries": 0})
        obstore.put(store, "ready", b"1")
        assert bytes(obstore.get(store, "ready").bytes()) == b"1"
        assert [one["path"] for page in obstore.list(store) for one in page] == ["ready"]
        with urlopen(f"{self.web}/ready/ready", timeout=10) as answer:
            assert answer.read() == b"1"


@contextmanager
def running(folder: Path) -> Iterator[Server]:
    """The server, with its data in a folder; it is ended with the `with` block, or with us."""
    program = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        pytest.skip("needs SeaweedFS: pip install -e '.[dev]' in the checkout")
    names = [f"{name}.port" for name in _SERVICES] + [*_MORE]

    def command(ports: Sequence[int]) -> list[str]:
        flags = [f"-{name}={port}" for name, port in zip(names, ports, strict=True)]
        flags += ["-master.telemetry=false", "-webdav=false", "-admin.ui=false"]
        return [program, "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", *flags]

    with serving(
        command,
        ports=len(names),
        folder=folder,
        ready=lambda ports: _server(ports).answer(),
        environment={
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "S3_BUCKET": BUCKET,
        },
    ) as ports:
        yield _server(ports)


def _server(ports: Sequence[int]) -> Server:
    s3, filer = (ports[_SERVICES.index(name)] for name in ("s3", "filer"))
    return Server(f"http://127.0.0.1:{s3}", f"http://127.0.0.1:{filer}/buckets/{BUCKET}")
