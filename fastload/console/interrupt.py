"""Ctrl-C in the seconds in which a command imports NumPy and torch: it ends the process at once.

As an exception it would be a traceback of an import, or some library that torch loads would catch
it and go on with half of a module.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


def leave_to_system() -> None:
    """Let Ctrl-C end the process, as it ends programs in C; nothing has begun yet."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def take_back() -> None:
    """Make Ctrl-C a KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def left_to_system() -> Iterator[None]:
    """Both, around the imports of a process that has begun."""
    leave_to_system()
    try:
        yield
    finally:
        take_back()
