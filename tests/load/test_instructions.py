"""The same orders, boxes, draws and states, whichever instructions the processor has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.shards import numbered

# Everything that is decided before a byte is read, as digests of its bits. "numpy" is what NumPy's
# own functions give: it shows whether the two processors differ at all.
PROGRAM = """
import hashlib, json, sys
import numpy as np
from fastload import Loader, Select
from fastload.load.augment import Augment, ColourJitter, Erasing, Mix, mixed, symmetric_beta
from fastload.load.auto_augment import RandAugment, TrivialAugment
from fastload.load.box import attempted_sides
from fastload.load.reweighting import class_weights
from tests.load.test_order import long_tail, order_of, rows_of

def digest(*arrays):
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()

draws = np.random.default_rng(0)
points, labels, found = draws.random(50_000), long_tail(), {}
found["numpy"] = digest(np.exp(points), np.log(points), points ** 0.2, np.expm1(points))
RULES = ["inverse", "sqrt", "effective:0", "effective:0.9", "effective:0.999", "effective:0.99999"]
for rule in RULES:
    found["weights " + rule] = digest(class_weights(np.bincount(labels), rule))
    for kind in ("shuffled", "sequential"):
        order = order_of(labels, rule, 1777, kind=kind, seed=3)
        found[f"order {rule} {kind}"] = digest(*(rows_of(order, e) for e in range(40)))
full = Augment(
    size=48, auto=RandAugment(operations=3), rotation=15,
    jitter=ColourJitter(brightness=0.4, contrast=0.3, saturation=0.2),
    erasing=Erasing(probability=0.9), mix=Mix(mixup=0.2, cutmix=1.0),
)
sizes = draws.integers(8, 5000, (20_000, 2))
choices = full.draw(5, 2, np.arange(20_000), sizes)
for size in (1, 64, 224, 331):
    found[f"strengths {size}"] = digest(
        RandAugment().strengths(size), TrivialAugment().strengths(size))
for name in choices.__slots__:
    if name != "windows":  # of other crops
        found[f"draw {name}"] = digest(getattr(choices, name))
for name, view in {"eval": Augment.eval(48), "plantnet": Augment.plantnet(48)}.items():
    found["views " + name] = digest(*view.views(5, 2, np.arange(20_000), sizes))
found["sides"] = digest(*attempted_sides(
    sizes, draws.random((20_000, 20)), area=(0.08, 1.0), ratio=(3 / 4, 4 / 3)))
for alpha in (0.01, 0.2, 0.4, 1.0, 1.5, 2.0, 8.0, 16.0, 100.0):
    found[f"beta {alpha}"] = digest(symmetric_beta(alpha, points))
    mix = Mix(mixup=alpha, cutmix=alpha)
    found[f"mix {alpha}"] = digest(*mixed(mix, 224, draws.random((9000, 4)), points[:9000]))
own = np.log(1.2 + np.arange(60)) / np.exp(np.arange(60) / 9)  # as a caller might compute them
for reweight in (None, own, *RULES):
    with Loader(sys.argv[1], batch_size=4, reweight=reweight, augment=full) as loader:
        name = "own" if reweight is own else reweight
        found[f"state {name}"] = loader.state_dict()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return numbered(tmp_path_factory.mktemp("instructions") / "shards", {"train": 60})


def decided(shards: Path, **environment: str) -> dict[str, object]:
    """What a process decides; its processor may seem to lack instructions."""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, str(shards)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    found: dict[str, object] = json.loads(result.stdout)
    return found


def dispatched() -> list[str]:
    """The sets of instructions that this processor has and NumPy chooses among when it starts."""
    code = (
        "try: from numpy._core import _multiarray_umath as u\n"
        "except ImportError: from numpy.core import _multiarray_umath as u  # before NumPy 2\n"
        "print(*[name for name in u.__cpu_dispatch__ if u.__cpu_features__.get(name)])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return result.stdout.split()


def test_nothing_that_is_decided_depends_on_the_processor(shards: Path):
    names = dispatched()
    if not names:
        pytest.skip("NumPy uses no instructions here that it could do without")
    here = decided(shards)
    # Without the newest ones, without any, and with a C library that has no FMA either.
    newest = [name for name in names if "512" in name or "V4" in name] or names[-1:]
    others = [
        decided(shards, NPY_DISABLE_CPU_FEATURES=" ".join(newest)),
        decided(shards, NPY_DISABLE_CPU_FEATURES=" ".join(names)),
        decided(
            shards,
            NPY_DISABLE_CPU_FEATURES=" ".join(names),
            GLIBC_TUNABLES="glibc.cpu.hwcaps=-AVX512F,-AVX2,-AVX,-FMA,-FMA4",
            FASTLOAD_SIMD="portable",
        ),
    ]
    if all(other["numpy"] == here["numpy"] for other in others):
        pytest.skip("NumPy's functions give the same bits on this processor with and without them")
    for other in others:
        assert other | {"numpy": ""} == here | {"numpy": ""}
