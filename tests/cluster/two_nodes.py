"""A Ray cluster of two nodes on this machine, of 1 CPU, and of 2 CPUs and 1 GPU that is only counted: prints its address.

`kill` on standard input kills the second node, `add` adds another one.
"""

from __future__ import annotations

import os
import sys

from ray.cluster_utils import Cluster

SIZE = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 80 * 2**20, "include_dashboard": False}


def main() -> None:
    cluster = Cluster(initialize_head=True, head_node_args=SIZE)
    # Ray counts GPUs, which nobody uses here
    second = cluster.add_node(**SIZE | {"num_gpus": 1, "num_cpus": 2})
    cluster.wait_for_nodes()
    print(cluster.address, flush=True)
    for line in sys.stdin:
        if line.strip() == "kill":
            cluster.remove_node(second, allow_graceful=False)
        else:
            second = cluster.add_node(**SIZE | {"num_gpus": 1, "num_cpus": 2})
        print(line.strip(), flush=True)
    cluster.shutdown()
    os._exit(0)


if __name__ == "__main__":
    main()
