"""Ctrl-C in the seconds in which a command imports NumPy and torch: no traceback of an import."""

from __future__ import annotations

import signal


def leave_to_system() -> None:
    """Let Ctrl-C end the process at once, as it ends programs in C; nothing has begun yet."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def take_back() -> None:
    """Make Ctrl-C a KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
