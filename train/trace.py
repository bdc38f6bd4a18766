"""A torch profiler trace of the first steps of a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch


@contextmanager
def traced(path: Path, steps: int, device: torch.device) -> Iterator[Callable[[], None]]:
    """Give a function to call after each step; write a trace of `steps` steps from the third on.

    Args:
        path: The file of the trace, for chrome://tracing or Perfetto.
        steps: How many steps are recorded; 0 records nothing.
        device: Where the model runs.
    """
    if not steps:
        yield lambda: None
        return
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cpu":
        # torch's profiler says on standard error that it finds no GPU, and when it starts. Level 6
        # is above all that it has to say (libkineto/src/ILoggerObserver.h); a GPU's faults remain.
        os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(
        activities=activities,
        schedule=torch.profiler.schedule(wait=1, warmup=1, active=steps, repeat=1),
        on_trace_ready=lambda profile: profile.export_chrome_trace(str(path)),
    ) as profile:
        yield profile.step
