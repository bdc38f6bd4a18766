"""How far a long command is: a bar on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from tqdm import tqdm

QUIET_SECONDS = 10.0


class Progress:
    """Counts what is done of `total`; shows rate and time left on standard error.

    Args:
        total: How much there is to do.
        unit: What is counted, such as "images".
        done: How much was done before this run; not part of the rate.
    """

    def __init__(self, total: int, unit: str, *, done: int = 0) -> None:
        self.total = total
        self.unit = unit
        self.done = done
        self.began = self.said = time.monotonic()
        self.count = 0
        self.note = ""
        tqdm.monitor_interval = 0  # no thread: we update often enough
        self.bar = tqdm(
            total=total,
            initial=done,
            unit=f" {unit}",
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
            smoothing=0.1,
        )

    def add(self, count: int = 1, *, note: str = "") -> None:
        """Count; `note` is shown behind the rate."""
        self.count += count
        if not self.bar.disable:
            if note != self.note:
                self.bar.set_postfix_str(note, refresh=False)
                self.note = note
            self.bar.update(count)
        elif time.monotonic() - self.said >= QUIET_SECONDS:
            self.said = time.monotonic()
            self._say(note)

    def _say(self, note: str) -> None:
        rate = self.count / (self.said - self.began)
        left = (self.total - self.done - self.count) / max(rate, 1e-9)
        line = f"{self.done + self.count:,} of {self.total:,} {self.unit}, {rate:,.0f}/s"
        line += f", {left:,.0f} s left" + (f", {note}" if note else "")
        print(line, file=sys.stderr, flush=True)  # noqa: T201  a command's own words

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.close()
