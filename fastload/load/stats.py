"""Counts and seconds of a loader, measured where its parts join: who waits for whom.

    plan, read, decode, resize        the loader's threads; `idle` where they have no work
          |  (ready batches)
    wait, copy, finish                the caller's thread; `wait` where no batch was ready
          |
    the caller

`print(loader.stats())` shows a table of the stages, and names the bottleneck; so does a notebook.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from fastload.console.page import escaped
from fastload.console.page import table as cells_as_html
from fastload.console.shell import program
from fastload.console.terminal import counted, table
from fastload.cores import usable_cores
from fastload.pixels import native
from fastload.stages import Stages

ENOUGH = 0.05  # share of the time spent waiting for data, up to which no change is worth while
NOTICEABLE_SECONDS = 1.0  # of waiting; less is not worth a sentence, whatever its share

_WHAT = {
    "plan": "which samples, which boxes",
    "read": "from the shards, and CRC-32",
    "decode": "bytes to pixels",
    "resize": "to the size of the batch",
    "idle": "as much as may be is ready or in work",
    "wait": "for a batch that was not ready",
    "copy": "to the device",
    "finish": "colours, dtype, `transform`",
}
_REMEDIES = {
    "plan": "larger batches would help",
    "read": (
        "a faster disk, or memory enough to keep the shards in, would help; where the disk is far"
        " away more threads than cores do too"
    ),
    "resize": "more cores would help",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """A snapshot of a loader, from its creation or its last `reset_stats()`.

    Attributes:
        images: Images that the caller was given.
        batches: Batches that the caller was given.
        seconds: From the first request for a batch to the last delivery, over all iterations; the
            time between iterations is left out.
        waiting_seconds: Part of `seconds` that the caller waited in the loader: for a batch that
            was not ready, and for what the caller's own thread does there (colours and
            `transform`, on the CPU).
        starting_seconds: Part of `waiting_seconds` for the first batch of each iteration.
        ready_batches: Batches that were ready at a request, on average; 0 means that the caller is
            always faster.
        most_ready: Batches that may be ready or in work at a time.
        stalls: Requests for which no batch was ready; the first of each epoch counts too.
        longest_wait: Seconds of the longest stall.
        bad_samples: Samples that could not be read or decoded: replaced, or left out in evaluation.
        num_threads: Threads of the loader.
        backend: Name of the back-end.
        stages: Seconds by stage.
    """

    images: int = 0
    batches: int = 0
    seconds: float = 0.0
    waiting_seconds: float = 0.0
    starting_seconds: float = 0.0
    ready_batches: float = 0.0
    most_ready: int = 0
    stalls: int = 0
    longest_wait: float = 0.0
    bad_samples: int = 0
    num_threads: int = 0
    backend: str = ""
    stages: Stages = field(default_factory=Stages)

    @property
    def images_per_second(self) -> float:
        """Images per second of iteration; the caller's own work counts as time."""
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def waiting_fraction(self) -> float:
        """Share of the time that the caller spent waiting for data, in [0, 1]."""
        return min(1.0, self.waiting_seconds / self.seconds) if self.seconds else 0.0

    @property
    def held_up(self) -> bool:
        """Whether waiting for data is worth a change.

        It is after the first batch of each epoch too, longer than NOTICEABLE_SECONDS and more than
        the share ENOUGH of the time.
        """
        waiting = self.waiting_seconds - self.starting_seconds
        return waiting > max(NOTICEABLE_SECONDS, ENOUGH * self.seconds)

    @property
    def bottleneck(self) -> str:
        """One sentence: which part limits the speed, and what would change that."""
        if not self.images:
            return "nothing was loaded yet"
        waiting = f"{self.waiting_fraction:.0%} of the time goes to waiting for data"
        if self.waiting_fraction <= ENOUGH:
            return f"the caller: {waiting}; a faster loader would change nothing"
        if self.waiting_seconds - self.starting_seconds <= ENOUGH * self.seconds:
            return (
                f"the first batch of each epoch, nearly alone; longer epochs would help ({waiting})"
            )
        return f"{self.remedy} ({waiting})"

    @property
    def remedy(self) -> str:
        """One sentence: which stage limits the loader, and what would change that."""
        stages = self.stages
        if stages.finish > stages.wait:
            return (
                "finish: colours and `transform` run in the caller's thread; a device that does"
                " them, or doing less, would help, more threads would not"
            )
        if stages.copy > self.seconds / 2:
            return "copy: batches take this long to the device; smaller images would help"
        if stages.wait + stages.finish < self.waiting_seconds / 2:
            return (
                "the processor: batches were ready, and the caller's thread got no turn to take"
                " them; larger batches, fewer threads or less other work would help"
            )
        if self._idle_while_waiting() > 1 / 2:
            return (
                "too few batches: the threads had nothing to do while the caller waited, as at both"
                " ends of an epoch; smaller batches or longer epochs would help"
            )
        work = {name: spent for name, spent in stages.of_threads.items() if name != "idle"}
        slowest = max(work, key=lambda name: work[name])
        return f"{slowest}: {_REMEDIES.get(slowest) or self._faster_decoding()}"

    def _idle_while_waiting(self) -> float:
        """The least share of the caller's waiting in which the threads had nothing to do.

        While the caller works the threads may be idle, and that says nothing about the loader.
        """
        present = sum(self.stages.of_threads.values())
        waiting = present * self.waiting_fraction
        return (self.stages.idle - (present - waiting)) / waiting if waiting else 0.0

    def _faster_decoding(self) -> str:
        if self.backend == "libjpeg":
            here = native.is_available()
            how = 'take it with backend="native"' if here else native.how_to_mend()
            return f"the back-end native is several times faster: {how}"
        if self.num_threads < usable_cores():
            cores = counted(usable_cores(), "core")
            return f"more threads would help: there are {self.num_threads:,} for {cores}"
        return (
            f"more cores, smaller images (`{program('fastload.shard')} --max-side`) or a GPU that"
            " decodes (the back-end dali) would help"
        )

    def __str__(self) -> str:
        """A table of the stages, then speed, queue, stalls and bottleneck."""
        facts = [f"{head:<12}{said}" for head, said in self._facts()]
        return "\n".join([*self.table(), "", *facts])

    def _facts(self) -> list[tuple[str, str]]:
        speed = f"{self.images_per_second:,.0f} images/s: {self.images:,} in {self.seconds:,.1f} s"
        stalls = f"{self.stalls:,} of {self.batches:,} requests"
        return [
            ("speed", f"{speed}, back-end {self.backend}"),
            ("queue", f"{self.ready_batches:.1f} of {self.most_ready} batches ready at a request"),
            ("stalls", f"{stalls}; the longest {self.longest_wait * 1000:,.0f} ms"),
            ("bottleneck", self.bottleneck),
        ]

    def _repr_html_(self) -> str:
        heads, *rows = [[escaped(cell) for cell in row] for row in self._rows()]
        facts = "".join(f"<p><b>{head}</b> {escaped(said)}</p>" for head, said in self._facts())
        return cells_as_html(heads, rows, numbers=(2, 3)) + facts

    def table(self) -> list[str]:
        """The stages, as lines of text."""
        return [line.rstrip() for line in table(self._rows(), left={0, 1, 4})]

    def _rows(self) -> list[tuple[str, str, str, str, str]]:
        """The stages, the line of heads first."""
        per_image = 1e6 / max(1, self.images)  # seconds to milliseconds of 1,000 images
        threads, caller = self.stages.of_threads, self.stages.of_caller
        wholes = dict.fromkeys(threads, sum(threads.values())) | dict.fromkeys(caller, self.seconds)
        rows = [("stage", "of", "ms / 1,000 images", "share", "")]
        for name, spent in {**threads, **caller}.items():
            many = counted(self.num_threads, "thread")
            who = many if name in threads else "the caller"
            share = spent / wholes[name] if wholes[name] else 0.0
            rows.append((name, who, f"{spent * per_image:,.0f}", f"{share:.0%}", _WHAT[name]))
        return rows


class DeliveryCounter:
    """Counts the batches that the caller is given, and the caller's seconds. Not thread-safe."""

    def __init__(self, *, most_ready: int = 0) -> None:
        self.stages, self.most_ready = Stages(), most_ready
        self._images = self._batches = self._bad = self._ready = self._stalls = 0
        self._seconds = self._waiting = self._starting = self._longest = 0.0
        self._begun = False
        self._since = time.perf_counter()

    def begin(self, *, most_ready: int) -> None:
        """An iteration begins: time counts from here."""
        self.most_ready = most_ready
        self._begun = True
        self._since = time.perf_counter()

    def delivered(self, *, images: int, waited: float, ready: int, bad: int) -> None:
        """One batch goes to the caller.

        Args:
            images: Images of the batch.
            waited: Seconds since the caller asked for the batch.
            ready: Batches that were ready when the caller asked.
            bad: Samples of the batch that were replaced or left out.
        """
        now = time.perf_counter()
        self._seconds += now - self._since
        self._since = now
        self._images += images
        self._batches += 1
        self._waiting += waited
        if self._begun:
            self._starting += waited
            self._begun = False
        self._ready += ready
        self._bad += bad
        if not ready:
            self._stalls += 1
            self._longest = max(self._longest, waited)

    def snapshot(self, stages: Stages, *, num_threads: int, backend: str) -> Stats:
        """All that was counted so far.

        Args:
            stages: Seconds by stage of the threads and of the caller.
            num_threads: Threads of the loader.
            backend: Name of the back-end.
        """
        return Stats(
            images=self._images,
            batches=self._batches,
            seconds=self._seconds,
            waiting_seconds=self._waiting,
            starting_seconds=self._starting,
            ready_batches=self._ready / self._batches if self._batches else 0.0,
            most_ready=self.most_ready,
            stalls=self._stalls,
            longest_wait=self._longest,
            bad_samples=self._bad,
            num_threads=num_threads,
            backend=backend,
            stages=stages,
        )
