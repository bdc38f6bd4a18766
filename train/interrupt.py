"""SIGTERM, SIGHUP and Ctrl-C become a request, which training grants between two steps."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any


class InterruptedRunError(Exception):
    """The run was asked to stop; its state is on disk.

    Args:
        number: The number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number

    @property
    def status(self) -> int:
        """The exit status that shells expect: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + self.number


class Interrupt:
    """While entered, notes the first SIGTERM, SIGINT or SIGHUP.

    A second SIGTERM or SIGINT ends the process at once. A second SIGHUP does not: when a terminal
    is lost, shell and kernel send one each. What the process was started to ignore, by `nohup` or
    in the background of a script, stays ignored.

    Attributes:
        number: The number of the signal that came, 0 until then.
    """

    def __init__(self) -> None:
        self.number = 0
        self._former: dict[int, object] = {}

    @property
    def came(self) -> bool:
        """Whether a signal came to this process."""
        return self.number != 0

    def error(self) -> InterruptedRunError:
        """The exception that stops the run; SIGTERM where the signal came to another process."""
        return InterruptedRunError(self.number or signal.SIGTERM)

    def __enter__(self) -> Interrupt:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._former[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)  # type: ignore[arg-type]  # what signal() returned

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.number = number
        ends: dict[int, Any] = {
            signal.SIGINT: signal.default_int_handler,
            signal.SIGHUP: signal.SIG_IGN,
        }
        for each in self._former:
            signal.signal(each, ends.get(each, signal.SIG_DFL))
