"""A Ray cluster: join it, or say in one sentence why it cannot be joined.

Ray itself waits for minutes where nothing answers, and ends the process where a stranger does. So a
process beside this one tries first, and has a limit. The machine that runs the command must be a
node of the cluster, as for every program that Ray runs.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from fastload.errors import BackendUnavailableError, FastloadError
from fastload.installation import install_command

ANSWER_SECONDS = 60.0  # to join; 1.5 s on two idle cores
CONNECT_SECONDS = 10.0  # to reach the port
_START = "start one with `ray start --head`, and join others with `ray start --address HOST:PORT`"
_VERSIONS = re.compile(r"Ray: (\S+)\s+Python: (\S+)")
_TRY = """
import json, sys
sys.path[:] = json.loads(sys.argv[2])
import ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level="critical")
except Exception as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""


def is_address(text: str) -> bool:
    """Whether a text names a cluster: "auto" for the one that this machine is in, or HOST:PORT."""
    host, _, port = text.rpartition(":")
    return text == "auto" or (bool(host) and "/" not in host and port.isdecimal())


def load_ray() -> Any:  # noqa: ANN401  it is not always installed, and has types in part
    """The module `ray`, which takes a third of a second to import."""
    return import_module("ray")


@contextmanager
def joined(address: str) -> Iterator[None]:
    """Be a driver of a Ray cluster; at the end, whatever it still runs for this process stops.

    Args:
        address: See `is_address`.

    Raises:
        BackendUnavailableError: If Ray is not installed.
        FastloadError: If there is no such cluster, or it does not take this process.
    """
    if find_spec("ray") is None:
        raise BackendUnavailableError(
            f"ray is not installed, which --engine ray takes: {install_command('ray')}"
        )
    address = _found(address)
    if address != "auto":
        _reach(address)
    _try(address)
    ray = load_ray()
    ray.init(address=address, logging_level="error")
    try:
        yield
    finally:
        ray.shutdown()


def _found(address: str) -> str:
    """The address that Ray takes for "auto" where RAY_ADDRESS is set, which it lets nobody see."""
    named = os.environ.get("RAY_ADDRESS", "")
    return named if address == "auto" and is_address(named) else address


def _reach(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise FastloadError(f"no Ray cluster answers at {address} ({why}); {_START}") from error


def _try(address: str) -> None:
    """Join and leave in another process.

    Raises:
        FastloadError: If that fails, or takes longer than `ANSWER_SECONDS`.
    """
    command = [sys.executable, "-c", _TRY, address, json.dumps(sys.path)]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=ANSWER_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise FastloadError(
            f"no Ray cluster answers at {address} within {ANSWER_SECONDS:g} seconds; {_START}"
        ) from error
    if done.returncode < 0 or (done.returncode and not done.stdout):
        last = (done.stderr.decode(errors="replace").strip() or "no word of it").splitlines()[-1]
        raise FastloadError(f"Ray cannot join the cluster at {address} ({last[:120]}); {_START}")
    if done.stdout:
        raise FastloadError(_explained(address, *json.loads(done.stdout.splitlines()[-1])))


def _explained(address: str, kind: str, text: str) -> str:
    """What Ray's error means, in one sentence."""
    versions = _VERSIONS.findall(text)
    if len(versions) == 2:
        (ray, python), (own_ray, own_python) = versions
        return (
            f"the cluster at {address} runs Ray {ray} on Python {python}, and this process Ray "
            f"{own_ray} on Python {own_python}; install the same versions on all machines"
        )
    if kind == "ConnectionError" and address == "auto":
        return f"this machine is in no Ray cluster; {_START}, or say which: --address HOST:PORT"
    first = (text.strip() or kind).splitlines()[0][:120]
    return (
        f"the Ray cluster at {address} does not take this process ({first}); run the command on a "
        "node of the cluster, which `ray start --address HOST:PORT` makes of this machine"
    )
