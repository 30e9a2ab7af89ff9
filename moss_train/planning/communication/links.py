"""Which link carries a call, and for how long: NVLink within a node, the network between nodes.

Ranks lie in megatron-core's order: tensor fastest, then context, data and pipeline. A ring over a group that spans nodes passes
every node's border once; the ranks that a node has in the group share that through their network cards. Nothing here is
measured but the share of NVLink that collectives reach (`moss_train.planning.hardware`); a call takes no time of its own beside
its bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from moss_train.config.schema import ParallelConfig
from moss_train.planning.communication.calls import Calls, Key, Traffic, on_wire
from moss_train.planning.hardware import LINK, NETWORK, Cluster

NVLINK, BETWEEN = "NVLink", "network"


@dataclass(frozen=True)
class Spread:
    """How a group lies over nodes."""

    ranks: int
    in_node: int
    """Of them in one node."""

    @property
    def crosses(self) -> bool:
        return self.in_node < self.ranks


def _strided(stride: int, ranks: int, node: int) -> Spread:
    return Spread(ranks, max(1, min(ranks, node // stride)) if stride < node else 1)


def spread_of(group: str, sizes: ParallelConfig, replicas: int, node: int) -> Spread:
    """How the groups of a role lie.

    Args:
        group: tensor | context | data | pipeline | model | replica | world.
        sizes: of the layout.
        replicas: data-parallel replicas.
        node: GPUs of a node.
    """
    tensor, context, pipeline = sizes.tensor, sizes.context, sizes.pipeline
    stage = tensor * context * replicas
    if group == "tensor":
        return _strided(1, tensor, node)
    if group == "context":
        return _strided(tensor, context, node)
    if group == "data":
        return _strided(tensor, context * replicas, node)
    if group == "pipeline":
        return _strided(stage, pipeline, node)
    if group in ("model", "replica"):
        block = tensor * (context if group == "replica" else 1)
        inside, stages = _strided(1, block, node), _strided(stage, pipeline, node)
        return Spread(block * pipeline, inside.in_node * (1 if inside.crosses else stages.in_node))
    return _strided(1, stage * pipeline, node)


@dataclass(frozen=True)
class Carried:
    """What the links of a rank carry of some calls, in bytes of the busier direction."""

    nvlink: float
    network: float

    @property
    def link(self) -> str:
        """Where the bytes go: over the network, if any of them do."""
        return BETWEEN if self.network else NVLINK if self.nvlink else "-"

    def seconds(self, cluster: Cluster) -> float:
        """Both at once, at the rates that collectives reach."""
        return max(self.nvlink / (cluster.gpu.link * LINK), self.network / (cluster.network_gbps * 1e9 / 8 * NETWORK))


def carried(key: Key, calls: Calls, sizes: ParallelConfig, replicas: int, node: int) -> Carried:
    """What of some calls passes which link; what a rank receives from a neighbour is on the neighbour's account."""
    if key.kind in ("receive", "barrier"):
        return Carried(0.0, 0.0)
    wire = on_wire(key, calls)
    # Frames stay in their replica as far as its ranks have room, so that is the group whose links they take.
    spread = spread_of("replica" if key.kind == "exchange" else key.group, sizes, replicas, node)
    if not spread.crosses:
        return Carried(wire, 0.0)
    if key.kind in ("all-to-all", "exchange"):
        outside = wire * (spread.ranks - spread.in_node) / (spread.ranks - 1)
        return Carried(wire - outside, outside)
    if key.kind == "send":
        return Carried(0.0, wire)
    return Carried(wire if spread.in_node > 1 else 0.0, wire / spread.in_node)


def seconds_of(traffic: Traffic, sizes: ParallelConfig, replicas: int, cluster: Cluster) -> dict[Key, float]:
    """Seconds of each kind of calls, one after the other."""
    return {key: carried(key, calls, sizes, replicas, cluster.gpus_a_node).seconds(cluster) for key, calls in traffic}
