"""Processor cores: how many this process may use, by its affinity, its cgroups and its neighbours.

A container or a job of a cluster is often given a share of the processor's time instead of cores of
its own. More threads than that share only wait for each other.
"""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

_PROC = Path("/proc/self")
_TABLES = ("cgroup", "mountinfo")  # they hold paths: any bytes, and all line breaks but one


def usable_cores() -> int:
    """Processor cores that this process may use, at least 1.

    Those of its affinity, or of the quota of its cgroups where that is less; a part of a core
    counts as one. The ranks that torchrun started on this machine (LOCAL_WORLD_SIZE) share them
    evenly.

    Raises:
        ValueError: If LOCAL_WORLD_SIZE is set, but not to an integer of at least 1.
    """
    return _limits()[-1][0]


def explain_cores() -> str:
    """What keeps this process from the machine's cores, in one line; "" where nothing does.

    "2 of 64 cores: the container's quota"

    Raises:
        ValueError: As `usable_cores`.
    """
    limits = _limits()
    found = [
        (cores, what) for (before, _), (cores, what) in itertools.pairwise(limits) if cores < before
    ]
    said = [what if len(found) == 1 else f"{what} ({cores})" for cores, what in found]
    return f"{limits[-1][0]} of {limits[0][0]} cores: {', '.join(said)}" if said else ""


def _limits() -> list[tuple[int, str]]:
    """Cores that are left after each limit, and its words; the first are the machine's."""
    total = os.cpu_count() or 1
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else total
    cores = affinity
    with suppress(OSError, ValueError):
        cgroups, mounts = (os.fsdecode((_PROC / name).read_bytes()) for name in _TABLES)
        quotas = map(quota_of, cgroup_folders(cgroups, mounts))
        cores = min([cores, *(math.ceil(quota) for quota in quotas if quota is not None)])
    ranks = _local_ranks()
    return [
        (total, ""),
        (affinity, "the process's affinity"),
        (max(1, cores), "the container's quota"),
        (max(1, cores // ranks), f"shared by {ranks} ranks"),
    ]


def _local_ranks() -> int:
    ranks = os.environ.get("LOCAL_WORLD_SIZE", "1")
    if not (ranks.isdecimal() and int(ranks) > 0):
        raise ValueError(
            f"LOCAL_WORLD_SIZE of the environment must be an integer of at least 1, got {ranks!r}"
        )
    return int(ranks)


def cgroup_folders(cgroups: str, mounts: str) -> Iterator[Path]:
    """Folders of the cgroups that limit a process's time: its own and those above, as far as seen.

    Args:
        cgroups: The text of /proc/PID/cgroup.
        mounts: The text of /proc/PID/mountinfo.
    """
    groups = [line.split(":", 2)[1:] for line in cgroups.strip("\n").split("\n")]
    for line in mounts.strip("\n").split("\n"):
        mount, _, system = line.partition(" - ")
        kind, _, options = system.split(" ", 2)
        root, folder = map(_unescaped, mount.split(" ")[3:5])
        for controllers, path in groups:
            if (kind == "cgroup2" and not controllers) or (
                kind == "cgroup" and "cpu" in controllers.split(",") and "cpu" in options.split(",")
            ):
                yield from _chain(Path(folder), root, PurePosixPath(path))


def _chain(folder: Path, root: str, path: PurePosixPath) -> Iterator[Path]:
    """The folders from the process's cgroup up to the mount's; the mount's alone where it differs.

    A container often sees its own cgroup mounted, under a path that is the host's.
    """
    yield folder
    if path.is_relative_to(root) and ".." not in path.parts:
        for part in path.relative_to(root).parts:
            folder /= part
            yield folder


def _unescaped(path: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), path)


def quota_of(cgroup: Path) -> float | None:
    """How many cores' time one cgroup may use; None for no limit of its own."""
    with suppress(OSError, ValueError):  # version 2: "max 100000" or "150000 100000"
        quota, _, period = (cgroup / "cpu.max").read_text("ascii").strip().partition(" ")
        return _cores(quota, period or "100000")
    with suppress(OSError, ValueError):  # version 1: -1 for no limit
        quota = (cgroup / "cpu.cfs_quota_us").read_text("ascii")
        return _cores(quota, (cgroup / "cpu.cfs_period_us").read_text("ascii"))
    return None


def _cores(quota: str, period: str) -> float | None:
    if quota == "max" or int(quota) <= 0 or int(period) <= 0:
        return None
    return int(quota) / int(period)
