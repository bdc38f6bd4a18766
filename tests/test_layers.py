"""Guards of the structure: imports only upwards, a light import, no name that hides a module."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fastload

PACKAGE = Path(fastload.__file__).parent

# From top to bottom: a module imports only what stands above it.
LAYERS = [
    *("errors", "installation", "world", "draw", "terminal", "stats"),
    *("box", "jpeg", "native", "decode"),
    *("progress", "workers", "index", "tar", "source", "transcode", "clean", "journal"),
    *("shard", "verify", "sample"),
    *("sampler", "augment", "reader", "device", "batch", "dali"),
    *("loader", "dataset"),
    *("lettering", "sheet", "inspect", "doctor", "tune"),
    *("__init__",),
]


def imports_of(path: Path) -> set[str]:
    """The fastload modules that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "fastload":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fastload."):
            found.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {
                name.name.split(".")[1] for name in node.names if name.name.startswith("fastload.")
            }
    return found


MODULES = sorted(PACKAGE.glob("*.py"))


def test_every_module_has_its_layer():
    assert {path.stem for path in MODULES} <= set(LAYERS)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_imports_only_what_stands_above_it(path: Path):
    place = LAYERS.index(path.stem)
    # A command with worker processes imports itself, to run under its own name.
    others = (imports_of(path) & set(LAYERS)) - {path.stem}
    below = [name for name in others if LAYERS.index(name) > place]
    assert not below, f"{path.stem} imports {below}, which stand below it"


def test_importing_fastload_is_light():
    heavy = ("nvidia.dali", "torchvision")
    program = f"import sys, fastload; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_all_is_sorted_short_and_importable():
    names = list(vars(fastload)["__all__"])
    assert names == sorted(names)
    assert 0 < len(names) <= 15
    for name in names:
        assert getattr(fastload, name) is not None


def test_no_public_name_hides_a_module():
    assert not set(vars(fastload)["__all__"]) & {path.stem for path in MODULES}
