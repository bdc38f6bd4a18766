"""Real processes under torchrun: even to the batch, each sample exactly once."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fastload.load.augment import Augment
from fastload.load.loader import Loader
from tests.places import NUMBERED

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:fastload's native core")]

GLOBAL_BATCH = 8

# Each rank trains some steps from the state it is given, evaluates, and rank 0 writes what all saw.
PROGRAM = """
import json, os, sys, warnings
warnings.simplefilter("ignore")
import torch
from torch import distributed
from fastload.load.augment import Augment
from fastload.load.loader import Loader
from train.ranks import leave_group

directory, state, steps, result, backend = sys.argv[1:]
torch.set_num_threads(1)
device = "cpu"
if backend == "nccl":  # a GPU for each rank
    device = f"cuda:{os.environ['RANK']}"
    torch.cuda.set_device(device)
distributed.init_process_group(backend)
size = distributed.get_world_size()

def gathered(value):
    values = [None] * size
    distributed.all_gather_object(values, value)
    return values

options = {"augment": Augment.train(16), "drop_last": False, "device": device}
train = Loader(directory, batch_size=8 // size, **options)
if state != "-":
    train.load_state_dict(json.loads(state))
batches = []
for step, (images, labels) in enumerate(train):
    # Would hang, were ranks not even to the batch.
    distributed.all_reduce(labels.sum())
    batches.append(gathered(train.last_indices().tolist()))
    if step + 1 == int(steps):
        break
states = gathered(train.state_dict())
evaluation = Loader(directory, split="val", batch_size=5, augment=Augment.eval(16), device=device)
seen = []
for images, labels in evaluation:
    seen += gathered(evaluation.last_indices().tolist())
if distributed.get_rank() == 0:
    facts = {"world": size, "batches": batches, "states": states, "seen": seen}
    with open(result, "w") as file:
        json.dump(facts, file)
train.close()
evaluation.close()
leave_group()
"""


def run(
    size: int, directory: Path, state: str, steps: int, folder: Path, backend: str
) -> dict[str, Any]:
    """Run the program on `size` ranks; torchrun starts two, four get what torchrun would set."""
    program, result = folder / "program.py", folder / f"{size}.json"
    program.write_text(PROGRAM)
    arguments = [str(program), str(directory), state, str(steps), str(result), backend]
    shared = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    if size == 2:
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"]
        commands = [([sys.executable, *launch, *arguments], shared)]
    else:
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        commands = [
            (
                [sys.executable, *arguments],
                {**shared, **meeting, "RANK": str(rank), "WORLD_SIZE": str(size)},
            )
            for rank in range(size)
        ]
    processes = [
        subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        for command, environment in commands
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=600)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
    facts: dict[str, Any] = json.loads(result.read_text())
    return facts


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.mark.parametrize(
    ("kind", "backend", "sizes"),
    [
        *((kind, "gloo", (2, 4)) for kind in NUMBERED),
        pytest.param("shards", "nccl", (2, 2), marks=pytest.mark.gpu(2)),
    ],
)
def test_a_run_moves_from_one_rank_to_several_and_evaluation_is_exact(
    tmp_path, kind, backend, sizes
):
    directory = NUMBERED[kind](tmp_path / "shards", {"train": 61, "val": 43})
    options: dict[str, Any] = {"augment": Augment.train(16), "drop_last": False}
    with Loader(directory, batch_size=GLOBAL_BATCH, **options) as loader:
        whole = [loader.last_indices().tolist() for _ in loader]
    with Loader(directory, batch_size=GLOBAL_BATCH, **options) as loader:
        batches = []
        for _ in loader:
            batches.append(loader.last_indices().tolist())
            if len(batches) == 2:
                break
        state = json.dumps(loader.state_dict())
    for size, steps in zip(sizes, (3, 100), strict=True):
        facts = run(size, directory, state, steps, tmp_path, backend)
        assert facts["world"] == size
        assert all(other == facts["states"][0] for other in facts["states"])
        state = json.dumps(facts["states"][0])
        for parts in facts["batches"]:
            sizes = [len(part) for part in parts]
            assert max(sizes) - min(sizes) <= 1
            batches.append([row for part in parts for row in part])
        assert sorted(row for part in facts["seen"] for row in part) == list(range(43))
    assert batches == whole
    assert json.loads(state)["epoch"] == 1
