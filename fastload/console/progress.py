"""How far a long command is: a bar on a terminal and in a notebook, lines elsewhere.

There is a line at least every ten seconds.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm

from fastload.console.notebook import draws_bars
from fastload.console.terminal import say

QUIET_SECONDS = 8.0  # ten seconds, less what one count may take longer than the count before it


class Progress:
    """Counts what is done of `total`; shows rate and time left on standard error.

    Args:
        total: How much there is to do.
        unit: What is counted, such as "images".
        done: How much was done before this run. It is not part of the rate.
        what: What is under way, such as "epoch 3". A bar with such a name is removed at its end.
        quiet_seconds: The longest time between two lines where there is no terminal, provided that
            counts come more often; 0 prints a line for each count.
        silent: Print nothing.
    """

    def __init__(
        self,
        total: int,
        unit: str,
        *,
        done: int = 0,
        what: str = "",
        quiet_seconds: float = QUIET_SECONDS,
        silent: bool = False,
    ) -> None:
        self.total = total
        self.unit = unit
        self.done = done
        self.what = what
        self.quiet_seconds = quiet_seconds
        self.silent = silent
        self.began = self.said = self.counted = time.monotonic()
        self.count = 0
        self.note = ""
        tqdm.monitor_interval = 0  # no thread: we update often enough
        in_notebook = not silent and draws_bars()
        self.bar = (_notebook_bar() if in_notebook else tqdm)(
            total=total,
            initial=done,
            unit=f" {unit}",
            desc=what or None,
            leave=not what,
            disable=silent or not (in_notebook or _on_terminal()),
            dynamic_ncols=True,
            smoothing=0.1,
        )

    def add(self, count: int = 1, *, note: str = "") -> None:
        """Count `count` more as done; `note` is shown behind the rate."""
        self.count += count
        if self.silent:
            return
        if not self.bar.disable:
            if note != self.note:
                self.bar.set_postfix_str(note, refresh=False)
                self.note = note
            self.bar.update(count)
            return
        now = time.monotonic()
        # The next count may take as long as this count did. A line there would come too late.
        if now + (now - self.counted) - self.said >= self.quiet_seconds:
            self.said = now
            self._say(note)
        self.counted = now

    def _say(self, note: str) -> None:
        rate = self.count / max(self.said - self.began, 1e-9)
        left = (self.total - self.done - self.count) / max(rate, 1e-9)
        line = f"{self.what}: " if self.what else ""
        line += f"{self.done + self.count:,} of {self.total:,} {self.unit}, "
        line += f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s"
        line += f", {left:,.0f} s left" + (f", {note}" if note else "")
        say(line, error=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()


def _on_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _notebook_bar() -> Any:  # noqa: ANN401  tqdm has no types
    from tqdm.notebook import tqdm as notebook_bar

    return notebook_bar
