"""Does everything that this project claims of a GPU hold on this one? `scripts/gpu OUT`.

    photographs -> shards -> part, part, part ... -> table, rows, log

Each part (`parts.py`) is a process of its own with a time limit, so that one which fails, crashes
or hangs does not end the rest. A part prints what it finds, and in its last line a figure. Its
exit status is the verdict: 0 holds, 77 skipped, anything else fails.

OUT holds afterwards `table.txt`, `rows.jsonl` (measurements, with the card's name), and what each
part printed in `log-PART.txt`. The exit status is 0 where no part failed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from benchmarks.environment import ROOT, gpus
from benchmarks.proof.part import SKIPPED, Place
from benchmarks.proof.parts import PARTS, Part
from fastload.console.parser import CommandParser
from fastload.console.terminal import table
from fastload.store.manifest import MANIFEST_NAME

VERDICTS = {0: "holds", SKIPPED: "skipped"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a part."""

    name: str
    verdict: str
    seconds: float
    figure: str


def prepared(place: Place) -> None:
    """Shards in the place, from its photographs, or from drawn ones where it has none.

    Raises:
        SystemExit: If they cannot be made.
    """
    if (place.shards / MANIFEST_NAME).exists():
        return
    commands = [
        [sys.executable, "-m", "fastload.shard", str(place.pictures), "--out", str(place.shards)],
    ]
    if place.images is None:
        count = "200" if place.dry else "1200"
        draw = [sys.executable, "-m", "fastload.sample", str(place.pictures), "--images", count]
        commands.insert(0, draw)
    for command in commands:
        if run(command, limit_seconds=300.0 * place.patience, log=place.log("prepare")):
            raise SystemExit(
                f"scripts/gpu: {' '.join(command[1:])} failed; see {place.log('prepare')}"
            )


def run(command: Sequence[str], *, limit_seconds: float, log: Path) -> int | None:
    """The exit status of a command, whose words go to the log; None if it ran out of time.

    The command and all that it started are ended then.
    """
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {' '.join(command)}\n")
        file.flush()
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        return process.wait(limit_seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def prove(part: Part, place: Place) -> Outcome:
    """Run one part, and print what became of it."""
    outcome = _prove(part, place)
    print(
        f"{outcome.verdict:8} {part.name}: {outcome.figure} ({outcome.seconds:.0f} s)", flush=True
    )
    return outcome


def _prove(part: Part, place: Place) -> Outcome:
    if part.needs_gpu and place.dry:
        return Outcome(part.name, "skipped", 0.0, "needs a GPU")
    log = place.log(part.name)
    log.unlink(missing_ok=True)
    began = time.perf_counter()
    limit_seconds = part.limit_seconds * place.patience
    status = run(part.command(place), limit_seconds=limit_seconds, log=log)
    seconds = time.perf_counter() - began
    if status is None:
        return Outcome(part.name, "FAILS", seconds, f"no end within {limit_seconds:g} s")
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")[1:]
    said = [line.strip() for line in lines if line.strip()]
    return Outcome(part.name, VERDICTS.get(status, "FAILS"), seconds, said[-1] if said else "")


def prove_all(parts: Sequence[Part], place: Place) -> list[Outcome]:
    """Run the parts in their order; those that measure nothing beside one another, on a GPU."""
    outcomes: list[Outcome] = []
    for alone, group in groupby(parts, key=lambda part: part.alone or place.dry):
        together = list(group)
        with ThreadPoolExecutor(1 if alone else len(together)) as pool:
            outcomes += pool.map(lambda part: prove(part, place), together)
    return outcomes


def main(argv: Sequence[str] | None = None) -> int:
    """The command; prints the table."""
    parser = CommandParser(
        prog="scripts/gpu", description="Prove the GPU side on this machine, in some minutes."
    )
    parser.add_argument("out", type=Path, nargs="?", default=Path("gpu-proof"), metavar="OUT")
    parser.add_argument("--images", type=Path, help="photographs: {train,val}/CLASS/*.jpg")
    parser.add_argument("--only", nargs="+", choices=[part.name for part in PARTS], default=[])
    parser.add_argument(
        "--dry-run", action="store_true", help="the same on the CPU, parts for a GPU skipped"
    )
    options = parser.read(argv)
    cards = gpus()
    if not cards and not options.dry_run:
        print(
            "scripts/gpu: no GPU of NVIDIA or AMD was found; --dry-run does what a CPU can",
            file=sys.stderr,
        )
        return 2
    images = options.images.resolve() if options.images else None
    place = Place(out=options.out.resolve(), images=images, dry=options.dry_run)
    place.out.mkdir(parents=True, exist_ok=True)
    print(
        f"{'dry run on the CPU' if place.dry else cards[0]}; all goes to {options.out}", flush=True
    )
    prepared(place)
    asked = [part for part in PARTS if not options.only or part.name in options.only]
    outcomes = prove_all(asked, place)
    rows = [("part", "verdict", "seconds", "figure")]
    rows += [(each.name, each.verdict, f"{each.seconds:.0f}", each.figure) for each in outcomes]
    text = "\n".join(table(rows))
    (place.out / "table.txt").write_text(text + "\n", encoding="utf-8")
    print(f"\n{text}")
    return 1 if any(each.verdict == "FAILS" for each in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
