"""A billion samples: the first batch comes at once, and no memory goes with them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.sparse import fill, sparse_shards
from fastload.load.order import Windowed
from fastload.load.sampling import order_of
from fastload.load.selection import SampleTable, Select
from fastload.store.collection import open_collection
from tests.pictures import encoded, picture

SAMPLES = 1_000_000_000
FILLED = 8192  # positions from the first: more than what is planned and read ahead

PROGRAM = """
import json, sys, time
from fastload import Augment, Loader

def anonymous():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) / 1024

options = json.loads(sys.argv[2])
before, began = anonymous(), time.perf_counter()
loader = Loader(sys.argv[1], batch_size=8, augment=Augment.train(32), num_threads=1, **options)
if len(sys.argv) > 3:
    loader.load_state_dict({**loader.state_dict(), "position": int(sys.argv[3])})
batches = iter(loader)
next(batches)
seconds = time.perf_counter() - began
for _ in range(20):
    next(batches)
rows = loader.last_indices().tolist()
print(json.dumps({"seconds": seconds, "mib": anonymous() - before, "steps": len(loader),
                  "rows": rows, "state": loader.state_dict()}))
"""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    jpeg = encoded(picture(0, height=48, width=64), quality=90)
    out = sparse_shards(tmp_path_factory.mktemp("scale") / "shards", SAMPLES, jpeg)
    table = SampleTable.of(open_collection(out, "train"))
    for kind in ("shuffled", "sequential"):
        order = order_of(table, kind=kind, select=Select(), reweight=None, epoch_size=None, seed=0)
        for first in (0, SAMPLES // 2):
            positions = np.arange(first, first + FILLED)
            epoch = order.epoch(0)
            rows = epoch.rows(positions)
            if isinstance(epoch, Windowed):
                begin = max(0, first - epoch.window)
                rows = np.append(rows, epoch.stream(begin, first + 2 * FILLED))
            fill(out, SAMPLES, rows, jpeg)
    return out


def facts(shards: Path, options: dict[str, str], *more: str) -> dict[str, Any]:
    command = [sys.executable, "-c", PROGRAM, str(shards), json.dumps(options), *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("order", ["shuffled", "sequential"])
def test_a_billion_samples_are_opened_and_resumed_without_reading_them(shards, order):
    found = facts(shards, {"order": order})
    assert found["steps"] == SAMPLES // 8
    assert found["mib"] < 100
    assert found["seconds"] < 30  # under one on a machine of its own: benchmarks/bench_scale.py
    middle = facts(shards, {"order": order}, str(SAMPLES // 2))
    assert middle["state"]["position"] == SAMPLES // 2 + 21 * 8
    assert middle["mib"] < 100
    assert set(middle["rows"]).isdisjoint(found["rows"])
