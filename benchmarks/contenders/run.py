"""Runs one contender in this process: `python -m benchmarks.contenders.run MODULE TASK ...`.

    prepare MODULE IMAGES OUT WORK    prints {"prepare_seconds": ...}
    iterate MODULE DATA WORK          prints {"images_per_second": ..., ...}

The process binds itself to `work.cores` cores before the contender is imported, so that every
thread pool sizes itself for them. The last line of standard output is the result.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path

from benchmarks.contenders.contract import Work, measure


def main(arguments: list[str]) -> int:
    """Do one task and print its result as the last line of standard output."""
    task, module, *places, work_json = arguments
    work = Work(**json.loads(work_json))
    bind(work.cores)
    began = time.perf_counter()
    contender = importlib.import_module(f"benchmarks.contenders.{module}")
    result = {"import_seconds": time.perf_counter() - began}
    began = time.perf_counter()
    if task == "prepare":
        contender.prepare(Path(places[0]), Path(places[1]), work)
        result["prepare_seconds"] = time.perf_counter() - began
    else:
        result.update(measure(contender.open_loader, Path(places[0]), work))
    print("\n" + json.dumps(result), flush=True)
    # Some loaders' threads wait for ever when told to end, and the result is out.
    os._exit(0)


def bind(cores: int) -> None:
    """Use the first `cores` of the cores that this process may use."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
