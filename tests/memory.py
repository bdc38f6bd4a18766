"""The memory that a process has taken at most."""

from __future__ import annotations

import re
import resource
from pathlib import Path


def peak_bytes() -> int:
    """Resident bytes at most, so far; not what the process that started this one had taken."""
    status = Path("/proc/self/status")  # `ru_maxrss` counts that too, through the fork
    if found := status.exists() and re.search(r"VmHWM:\s+(\d+) kB", status.read_text()):
        return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
