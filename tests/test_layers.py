"""Guards of the structure: imports only upwards, a light import, no name that hides a module."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastload

PACKAGE = Path(fastload.__file__).parent

# From top to bottom: a wing, or a module beside the wings, imports only what stands above it. Those
# of one line stand side by side and do not import each other.
ORDER: list[tuple[str, ...]] = [
    ("arguments", "errors", "randomness", "cores", "runs", "stages", "installation"),
    ("calls",),
    ("files", "world"),
    ("console",),
    ("pixels",),
    ("store",),
    ("prepare", "load"),
    ("advise",),
    ("clean", "doctor", "fetch", "inspect", "sample", "tune", "verify"),
    ("shard", "index"),  # they clean too, and take the options of `clean`
    ("__main__",),
    ("__init__",),
]
LEVEL = {name: level for level, names in enumerate(ORDER) for name in names}

MODULES = sorted(PACKAGE.rglob("*.py"))


def wing_of(path: Path) -> str:
    """The wing that a file is in, or its own name."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    """The wings and modules of fastload that a file imports, at its top or inside a function."""
    found: set[str] = set()
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


def test_every_module_has_its_place():
    assert {wing_of(path) for path in MODULES} == set(LEVEL)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_what_stands_above_it(path: Path):
    wing = wing_of(path)
    others = (imports_of(path) & set(LEVEL)) - {wing}
    wrong = {name for name in others if LEVEL[name] >= LEVEL[wing]}
    assert not wrong, f"{path.relative_to(PACKAGE)} imports {wrong}, which do not stand above it"


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


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_in_a_module_has_the_name_of_a_module_beside_it(path: Path):
    """`from fastload.load import apply` must mean one thing."""
    defined = {
        node.name
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    beside = {other.stem for other in path.parent.iterdir() if other.suffix in (".py", "")}
    assert not defined & beside


def test_the_architecture_page_names_every_module_and_no_other():
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = page.partition("## The tree")[2].partition("\nnative/")[0]
    words = set(re.findall(r"[a-z_]+", tree))
    assert {path.stem for path in MODULES} - {"__init__"} <= words
    table = page.partition("## Where do I change")[2].partition("\n## ")[0]
    named = re.findall(r"`((?:\w+/)*\w+(?:\.\w+)?)`", table)
    assert len(named) > 20
    for name in named:
        if name[0].islower():  # the others are classes
            places = [PACKAGE.parent / name, PACKAGE / f"{name}.py"]
            assert any(place.exists() for place in places), name
