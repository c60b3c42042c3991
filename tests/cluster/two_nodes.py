"""A Ray cluster of two nodes on this machine: prints its address; `kill` on standard input kills the second node, `add` adds one."""

from __future__ import annotations

import os
import sys

from ray.cluster_utils import Cluster

SIZE = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 80 * 2**20, "include_dashboard": False}


def main() -> None:
    cluster = Cluster(initialize_head=True, head_node_args=SIZE)
    second = cluster.add_node(**SIZE)
    cluster.wait_for_nodes()
    print(cluster.address, flush=True)
    for line in sys.stdin:
        if line.strip() == "kill":
            cluster.remove_node(second, allow_graceful=False)
        else:
            second = cluster.add_node(**SIZE)
        print(line.strip(), flush=True)
    cluster.shutdown()
    os._exit(0)


if __name__ == "__main__":
    main()
