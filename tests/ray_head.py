"""A Ray cluster in a process of its own: prints its address, and ends with its standard input.

    python tests/ray_head.py CPUS [VERSION]

CPUS of each node, such as 1,1. VERSION is what the cluster says that its Ray is.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import ray
from ray.cluster_utils import Cluster


def cut_off(raylet: int) -> None:
    """Kill what a node works with before it can tell anybody, as a machine that loses its power."""
    os.kill(raylet, signal.SIGSTOP)
    found = subprocess.run(["pgrep", "-P", str(raylet)], capture_output=True, text=True)
    for worker in found.stdout.split():
        os.kill(int(worker), signal.SIGKILL)


def main() -> None:
    """Start the nodes, wait for a line, which kills the last node, or for the end."""
    cpus = [int(word) for word in sys.argv[1].split(",")]
    if len(sys.argv) > 2:
        ray.__version__ = sys.argv[2]
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cpus[0]})
    try:
        nodes = [cluster.add_node(num_cpus=count) for count in cpus[1:]]
        print(cluster.address, flush=True)
        for _ in sys.stdin:
            node = nodes.pop()
            cut_off(node.all_processes["raylet"][0].process.pid)
            cluster.remove_node(node, allow_graceful=False)
            print("killed", flush=True)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
