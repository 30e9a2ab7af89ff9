"""Which nodes a run keeps away from, and how many of those that are left it can use."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from model.errors import InputError
from moss_train.config.schema import RunConfig
from moss_train.guards.ending import Ending
from moss_train.launching.folder import job_dir
from moss_train.parallel.sizes import check_world

FILE = "bad_nodes.jsonl"
STRIKES = 2
"""A node is kept away from when its entries count so many: a node that was lost counts that much at once, one on which a
process failed counts 1, since the process may have failed of itself."""


class BadNodes:
    """`RUN/launch/bad_nodes.jsonl`: a line for each time that a node was to blame. Delete lines to use a node again."""

    def __init__(self, run_dir: str | Path) -> None:
        self._path = job_dir(run_dir) / FILE

    def names(self) -> list[str]:
        """Nodes that are kept away from, in the order in which they became so.

        Raises:
            InputError: a line that is none of ours.
        """
        counts: Counter[str] = Counter()
        text = self._path.read_text(encoding="utf-8") if self._path.is_file() else ""
        for number, line in enumerate(text.splitlines(), 1):
            try:
                entry = json.loads(line)
                counts[str(entry["node"])] += int(entry["strikes"])
            except (ValueError, KeyError, TypeError):
                raise InputError(f"{self._path}:{number} is {line[:80]!r}, no entry of a node; delete the line") from None
        return [node for node, count in counts.items() if count >= STRIKES]

    def add(self, found: Mapping[str, str], *, strikes: int, job: str) -> None:
        """Enter nodes with the reason of each."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            for node, why in found.items():
                when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                file.write(json.dumps({"time": when, "job": job, "node": node, "strikes": strikes, "why": why}) + "\n")


def usable_nodes(config: RunConfig, available: int) -> int:
    """The most nodes, of `available`, on which the run can go on; 0 where `launcher.min_nodes` or more are not possible.

    The world must hold whole models, and the replicas must share the global batch and the readers evenly.
    """
    launcher = config.launcher
    for nodes in range(min(available, launcher.nodes), launcher.least_nodes - 1, -1):
        try:
            check_world(config, nodes * launcher.nproc_per_node)
        except InputError:
            continue
        return nodes
    return 0


def check_node_counts(config: RunConfig) -> None:
    """Refuses a launcher whose nodes, or whose fewest nodes, cannot hold the run.

    Raises:
        InputError: the reason, with the counts that would do.
    """
    launcher = config.launcher
    for name, nodes in (("nodes", launcher.nodes), ("min_nodes", launcher.least_nodes)):
        try:
            check_world(config, nodes * launcher.nproc_per_node)
        except InputError as error:
            ranks = f"launcher.{name} {nodes} x launcher.nproc_per_node {launcher.nproc_per_node} ranks"
            fitting = [str(count) for count in range(1, 2 * launcher.nodes + 1) if _fits(config, count)]
            raise InputError(f"{ranks}: {error} (launcher.{name} may be {', '.join(fitting) or 'none'})") from None


def _fits(config: RunConfig, nodes: int) -> bool:
    try:
        check_world(config, nodes * config.launcher.nproc_per_node)
    except InputError:
        return False
    return True


def nodes_to_blame(ending: Ending, nodes: Sequence[str], ranks_a_node: int, in_order: bool = True) -> dict[str, int]:
    """Node -> strikes against it, for a run that failed on `nodes`.

    Args:
        in_order: ranks whose hosts are not known are numbered node by node; where torchrun numbers the nodes itself
            (`launcher.elastic`, `launcher.max_restarts`) they are not, and nobody is blamed.
    """
    found: Counter[str] = Counter()
    for place, rank in enumerate(ending.ranks):
        name = ending.hosts[place] if ending.hosts else _node_of(rank, nodes if in_order else (), ranks_a_node)
        found[name] += 1
    strikes = {name: STRIKES if count >= ranks_a_node and len(nodes) > 1 else 1 for name, count in found.items()}
    if ending.author >= 0:
        strikes.setdefault(ending.host or _node_of(ending.author, nodes if in_order else (), ranks_a_node), 1)
    return {name: count for name, count in strikes.items() if name in nodes}


def _node_of(rank: int, nodes: Sequence[str], ranks_a_node: int) -> str:
    return nodes[rank // ranks_a_node] if rank // ranks_a_node < len(nodes) else ""
