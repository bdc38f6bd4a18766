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
