"""Which readers of the data run on a node. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping

from model.errors import InputError
from moss_train.config.schema import RunConfig
from moss_train.parallel.sizes import check_sizes

_NAMES = ("NODE_RANK", "NNODES", "NPROC_PER_NODE")


def node_readers(config: RunConfig, environment: Mapping[str, str]) -> frozenset[int] | None:
    """Numbers of the readers whose replica's first rank, the one that reads, is on this node; None where that is not known.

    It is known from launch/torchrun.sh's variables NODE_RANK, NNODES and NPROC_PER_NODE, while the ranks of the nodes are
    fixed: a run whose world may form anew gives a node other ranks then.

    Raises:
        InputError: the variables are no numbers, or the layout or the readers do not fit them.
    """
    launcher = config.launcher
    if launcher.elastic or "NODE_RANK" not in environment:
        return None
    values = {
        "NNODES": str(launcher.nodes),
        "NPROC_PER_NODE": str(launcher.nproc_per_node),
        **{name: environment[name] for name in _NAMES if name in environment},
    }
    for name in _NAMES:
        if not values[name].isdecimal():
            raise InputError(f"{name} is {values[name]!r}; it must be a whole number")
    node, nodes, processes = (int(values[name]) for name in _NAMES)
    if node >= nodes or processes < 1:
        raise InputError(f"NODE_RANK is {node} with NNODES={nodes} and NPROC_PER_NODE={processes}; it must be below NNODES")
    if nodes > 1 and (launcher.max_restarts or environment.get("MAX_RESTARTS", "0") != "0" or "MIN_NODES" in environment):
        return None
    sizes = config.parallel
    replicas = check_sizes(sizes, nodes * processes)
    here = range(node * processes, (node + 1) * processes)
    ours = {replica for replica in range(replicas) if reading_rank(replica, sizes.tensor, sizes.context) in here}
    return frozenset(number for number in range(config.data.global_data_workers) if number % replicas in ours)


def reading_rank(replica: int, tensor: int, context: int) -> int:
    """The rank of a replica that reads for all of it: its first tensor, context and pipeline rank."""
    return replica * tensor * context
