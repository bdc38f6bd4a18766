"""A light server of objects: nginx, which sends ranges of files as they are.

    with light_server(data, scratch) as server: server.environment, server.endpoint

nginx gives the files of a folder as objects of the bucket to a client of S3, but looks at no
signature, lists nothing and takes nothing. For a range of 43 kB nginx and the relay before it take
some 0.1 ms of a core, SeaweedFS and the relay 1.7 ms (bench_remote.py on two cores of a Xeon), so
what is measured is who fetches. The client signs its requests as it does for any bucket.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.s3 import BUCKET, Server
from tests.servers import closed_port

INSTALL = "nginx is not installed; apt-get install nginx-light"
_START_SECONDS = 10.0
# One process, without rights of its own, that writes nowhere but into its own folder.
_SETTINGS = """\
daemon off;
master_process off;
pid pid;
error_log log;
events { worker_connections 1024; }
http {
    access_log off;
    default_type application/octet-stream;
    sendfile on;
    keepalive_requests 1000000;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {
        listen 127.0.0.1:PORT;
        location /BUCKET/ { alias "DATA/"; }
    }
}
"""


def has_light_server() -> bool:
    """Whether nginx is installed."""
    return _program() is not None


@contextmanager
def light_server(data: Path, scratch: Path) -> Iterator[Server]:
    """The server; it ends with the `with` block.

    Args:
        data: Folder; `data/PREFIX/NAME` is the object NAME of s3://tests/PREFIX.
        scratch: An empty folder for what nginx writes.

    Raises:
        RuntimeError: If nginx is not installed, or does not start.
    """
    program = _program()
    if program is None:
        raise RuntimeError(INSTALL)
    port = closed_port()
    settings = _SETTINGS.replace("PORT", str(port)).replace("BUCKET", BUCKET)
    (scratch / "conf").write_text(settings.replace("DATA", str(data.resolve())), encoding="utf-8")
    arguments = ["-p", str(scratch.resolve()), "-c", "conf", "-e", "log"]
    with subprocess.Popen([program, *arguments], stderr=subprocess.DEVNULL) as process:
        try:
            if not _listens(port, process):
                raise RuntimeError(f"nginx did not start: {(scratch / 'log').read_text()[-2000:]}")
            yield Server(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port}/{BUCKET}")
        finally:
            process.terminate()


def _program() -> str | None:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def _listens(port: int, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
            return True
        time.sleep(0.05)
    return False
