"""What is installed here: fastload, its libraries, the processor, the GPU and its driver."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import torch

from fastload import installation
from fastload.console.terminal import counted
from fastload.cores import explain_cores, usable_cores
from fastload.pixels import native

_SIMD = {"portable": "portable, without AVX2", "avx2": "AVX2", "avx512": "AVX-512"}


def installed_versions() -> list[tuple[str, str]]:
    """What is installed, as (name, what) for each line of the report."""
    simd = "not built"
    if native.is_available():
        asked = os.environ.get("FASTLOAD_SIMD")
        level = native.set_simd(asked if asked in native.SIMD_LEVELS else native.SIMD_LEVELS[-1])
        simd = _SIMD[level]
    return [
        ("fastload", f"{_version(installation.DISTRIBUTION)}, native core: {simd}"),
        ("Python", f"{platform.python_version()} on {platform.platform(terse=True)}"),
        ("processor", f"{_processor()}, {counted(usable_cores(), 'core')} usable"),
        *([("cores", limit)] if (limit := explain_cores()) else []),
        ("PyTorch", f"{torch.__version__}, built for {_built_for()}"),
        ("DALI", _dali_versions()),
        ("driver", _driver()),
        ("GPU", _gpu()),
    ]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _dali_versions() -> str:
    wanted = ("nvidia-dali", "nvidia-nvimgcodec", "nvidia-nvjpeg-")
    found = {each.metadata["Name"]: each.version for each in metadata.distributions()}
    named = [f"{name} {found[name]}" for name in sorted(found) if name.startswith(wanted)]
    return ", ".join(named) or "not installed"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text("utf-8", "replace").splitlines() if cpuinfo.exists() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _built_for() -> str:
    if torch.version.hip:
        return f"ROCm {torch.version.hip}"
    return f"CUDA {torch.version.cuda or 'none'}"


def _driver() -> str:
    if torch.version.hip:
        return "of AMD, which ROCm needs"
    command = shutil.which("nvidia-smi")
    if command is None:
        return "nvidia-smi is not there"
    query = [command, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        run = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return f"nvidia-smi failed: {error}"
    return (run.stdout.split() or ["none"])[0]


def _gpu() -> str:
    if not torch.cuda.is_available():
        return "none that PyTorch can use"
    facts = torch.cuda.get_device_properties(0)
    return f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB"
