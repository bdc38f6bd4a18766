"""Fixtures that every test module may use."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

# A shell ignores Ctrl-C for what it starts in the background, and so would what the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# As in train/run.py: on a busy machine torch's threads would spin on cores that others need. Torch
# is loaded after this.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

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
