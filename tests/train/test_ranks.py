"""Ranks: what a process takes of its machine."""

from __future__ import annotations

import os
import subprocess
import sys


def test_torch_takes_no_more_threads_than_there_are_cores_for_the_process():
    program = (
        "import torch; from train.ranks import joined\n"
        "torch.set_num_threads(3)\n"
        "with joined('cpu'): print(torch.get_num_threads())"
    )
    # A share of a machine that nobody has: one core is left for each of so many ranks.
    environment = {**os.environ, "LOCAL_WORLD_SIZE": "100000"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    for name in ("RANK", "WORLD_SIZE"):
        environment.pop(name, None)
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout == "1\n"


# The threads of a group have just exchanged a tensor, and DistributedDataParallel outlives it.
LEFT = """
import gc, sys, torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from train.ranks import leave_group

for number in range(6):
    store = distributed.FileStore(f"{sys.argv[1]}/{number}", 1)
    distributed.init_process_group("gloo", store=store, world_size=1, rank=0)
    reducer = DistributedDataParallel(nn.Linear(2, 2)).reducer
    gc.collect()
    distributed.all_gather([torch.empty(1 << 22)], torch.ones(1 << 22), async_op=True).wait()
    leave_group()
    del reducer
"""


def test_a_group_is_left_when_its_threads_are_done(tmp_path):
    """Otherwise torch 2.5 may wait for ever."""
    command = [sys.executable, "-c", LEFT, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
