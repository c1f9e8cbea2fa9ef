"""A cluster of Ray on this machine: a head without cores, and as many nodes as is said, each of
which has `cores`. Prints its address and the process of each node; ends with its stdin.

python cluster.py NODES CORES
"""

import json
import sys

from ray.cluster_utils import Cluster

ADDRESS = "127.0.0.2"  # 127.0.0.1 would become the address of this machine in a network
LEAST_STORE = 80 * 2**20  # bytes; Ray wants 75 MiB


def main(nodes: int, cores: int) -> None:
    given = {"node_ip_address": ADDRESS, "object_store_memory": LEAST_STORE}
    cluster = Cluster()
    cluster.add_node(num_cpus=0, include_dashboard=False, **given)
    raylets = []
    for _ in range(nodes):
        node = cluster.add_node(num_cpus=cores, **given)
        (raylet,) = node.all_processes["raylet"]
        raylets.append(raylet.process.pid)
    print(json.dumps({"address": cluster.address, "raylets": raylets}), flush=True)
    sys.stdin.read()
    cluster.shutdown()


main(*map(int, sys.argv[1:]))
