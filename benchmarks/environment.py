"""The machine and the versions that a measurement was taken with, for every row of results."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from fastload.cores import usable_cores

PACKAGES = (
    *("numpy", "torch", "torchvision", "simplejpeg", "pillow", "webdataset"),
    *("nvidia-dali-cuda120", "nvidia-nvimgcodec-cu12"),
    *("nvidia-dali-cuda130", "nvidia-nvimgcodec-cu13", "nvidia-nvjpeg"),
)
ROOT = Path(__file__).resolve().parents[1]


def describe() -> dict[str, Any]:
    """Commit, time, versions, CPU, GPU, storage and load: JSON's types, no path, no host name."""
    return {
        **_lasting(),
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "load_average": round(os.getloadavg()[0], 2),
    }


@functools.cache
def _lasting() -> dict[str, Any]:
    return {
        "commit": commit(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "versions": versions(PACKAGES),
        "cpu": cpu(),
        "cores": usable_cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": gpus(),
        "storage": storage(ROOT),
    }


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Installed versions, of those that are installed."""
    return {
        package: importlib.metadata.version(package)
        for package in packages
        if next(iter(importlib.metadata.distributions(name=package)), None)
    }


def commit() -> str:
    """The checkout's commit, with "+" where tracked files were changed; "unknown" outside git."""
    try:
        name = _git("rev-parse", "--short=10", "HEAD")
        return name + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()


def cpu() -> str:
    """The processor's name; family and model where the name alone says little."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    name = facts.get("model name", platform.machine())
    return f"{name}, family {facts.get('cpu family', '?')} model {facts.get('model', '?')}"


def gpus() -> list[str]:
    """Name, memory and driver of each GPU of NVIDIA or AMD; empty where there is none."""
    return _gpus_of_nvidia() or _gpus_of_amd()


def _gpus_of_amd() -> list[str]:
    import torch  # takes seconds: only where there is no GPU of NVIDIA

    if not torch.version.hip or not torch.cuda.is_available():
        return []
    cards = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return [
        f"{card.name}, {card.total_memory >> 20} MiB, ROCm {torch.version.hip}" for card in cards
    ]


def _gpus_of_nvidia() -> list[str]:
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, check=True, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()]


def storage(path: Path) -> str:
    """File system and kind of the device that holds `path`: "ext4 on vda (rotational: 1)"."""
    try:
        mounts = [line.split()[:3] for line in Path("/proc/mounts").read_text("utf-8").splitlines()]
    except OSError:
        return "unknown"
    holders = [
        (len(place), kind, device)
        for device, place, kind in mounts
        if path == Path(place) or Path(place) in path.parents
    ]
    if not holders:
        return "unknown"
    _, kind, device = max(holders)
    name = Path(device).name
    flag = Path(f"/sys/block/{name.rstrip('0123456789')}/queue/rotational")
    turning = f" (rotational: {flag.read_text('utf-8').strip()})" if flag.exists() else ""
    return f"{kind} on {name}{turning}"
