"""Fixtures that every test module may use."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faulty_proxy import FaultyProxy
from tests.s3 import Server, running

# A shell ignores Ctrl-C for what it starts in the background, and so would what the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# As in train/run.py: on a busy machine torch's threads would spin on cores that others need. Torch
# is loaded after this.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what is marked `gpu` where there is none, and `gpu(2)` where there are not two."""
    mark = item.get_closest_marker("gpu")
    if mark is None:
        return
    import torch  # after the settings above

    needed: int = mark.args[0] if mark.args else 1
    if torch.cuda.device_count() < needed:
        what = "a GPU" if needed == 1 else f"{needed} GPUs"
        pytest.skip(f"needs {what}: run `pytest -m gpu` on a machine with {what}")


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real S3 server."""
    with running(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def proxy(s3: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """What stands before the server, and makes what faults a test asks for; all clients take it."""
    with FaultyProxy(s3.endpoint).serving() as one:
        for name, value in {**s3.environment, "AWS_ENDPOINT_URL": one.endpoint}.items():
            monkeypatch.setenv(name, value)
        yield one


SHARED = Path(__file__).parents[2] / "shared" / "data"


def _shared(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"needs the images of {name}, expected in ../shared/data/{name}")
    return folder


@pytest.fixture(scope="session")
def flowers_dir() -> Path:
    """2,800 photographs of 102 flowers, in train, val and test."""
    return _shared("flowers-longtail")


@pytest.fixture(scope="session")
def awkward_dir() -> Path:
    """206 odd or broken image files, with INDEX.tsv."""
    return _shared("awkward-images")
