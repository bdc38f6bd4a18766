"""Whether code may wait for the GPU."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch


def forbidden_to_wait() -> AbstractContextManager[None]:
    """Within it, an operation that waits for the GPU raises RuntimeError."""
    return _mode("error")


def allowed_to_wait() -> AbstractContextManager[None]:
    """Within it, such an operation is as it always is."""
    return _mode("default")


@contextmanager
def _mode(name: str) -> Iterator[None]:
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls the mode a prototype
        torch.cuda.set_sync_debug_mode(name)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
