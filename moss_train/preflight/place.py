"""Which node this process is, how many there are and where they meet: from options, torchrun's variables or Slurm's."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from model.errors import InputError
from moss_train.parallel.node_name import node_name

_LIST = re.compile(r"(?:[^,\[]|\[[^\]]*\])+")


@dataclass(frozen=True)
class Place:
    """One node among those that are checked."""

    name: str
    node: int
    """Its number; node 0 keeps the store and writes the report."""
    nodes: int
    host: str
    """Where node 0 is."""
    port: int
    """0 lets a node that is alone choose a free one."""
    expected: tuple[str, ...] = ()
    """Names of all nodes, where Slurm tells them: for those that never answer."""

    def expected_name(self, node: int) -> str:
        """What a node is called that has not said it."""
        return self.expected[node] if node < len(self.expected) else f"rank {node}"


def find_place(
    nodes: int | None, node: int | None, master: str | None, port: int, environment: Mapping[str, str] = os.environ
) -> Place:
    """The place of this process.

    Args:
        nodes: option --nodes; None takes NNODES, or those of the Slurm step.
        node: option --node-rank; None takes NODE_RANK, or SLURM_NODEID.
        master: option --master, HOST or HOST:PORT; None takes MASTER_ADDR and MASTER_PORT, or the first of Slurm's nodes.
        port: where none is given.

    Raises:
        InputError: numbers that do not fit each other, or several nodes and no way to meet.
    """
    count = _number("--nodes", nodes, environment, ("NNODES", "SLURM_STEP_NUM_NODES", "SLURM_NNODES"), 1)
    own = _number("--node-rank", node, environment, ("NODE_RANK", "SLURM_NODEID"), 0)
    if count < 1 or not 0 <= own < count:
        raise InputError(f"--node-rank is {own} with --nodes {count}; it must be at least 0 and below --nodes")
    listed = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "")
    expected = tuple(expand_node_list(listed))
    expected = expected if len(expected) == count else ()
    host, port = _meeting_point(master, port, expected, environment) if count > 1 else ("127.0.0.1", 0)
    return Place(name=node_name(environment), node=own, nodes=count, host=host, port=port, expected=expected)


def _number(option: str, given: int | None, environment: Mapping[str, str], names: tuple[str, ...], default: int) -> int:
    if given is not None:
        return given
    name = next((name for name in names if environment.get(name)), None)
    if name is None:
        return default
    if not environment[name].isdecimal():
        raise InputError(f"{name} is {environment[name]!r} in the environment; it must be a whole number, or give {option}")
    return int(environment[name])


def _meeting_point(master: str | None, port: int, expected: tuple[str, ...], environment: Mapping[str, str]) -> tuple[str, int]:
    if master is None and environment.get("MASTER_ADDR"):
        master = f"{environment['MASTER_ADDR']}:{environment.get('MASTER_PORT') or port}"
    if master is None and expected:
        master = f"{expected[0]}:{port}"
    if master is None:
        raise InputError("several nodes are checked but --master is not given; give HOST:PORT of node 0, the same on every node")
    host, colon, number = master.rpartition(":")
    if not colon:
        return master, port
    if not host or not number.isdecimal() or not 0 < int(number) < 65536:
        raise InputError(f"--master is {master!r}; write HOST:PORT, such as gpu-01:29500")
    return host.strip("[]"), int(number)


def expand_node_list(text: str) -> list[str]:
    """Names of nodes from Slurm's way of writing them: `gpu-[01-03,07],login1`."""
    return [name for part in _LIST.findall(text) for name in _expand(part)]


def _expand(text: str) -> list[str]:
    before, bracket, rest = text.partition("[")
    if not bracket:
        return [text] if text else []
    inside, _, after = rest.partition("]")
    ends = _expand(after) or [""]
    numbers: list[str] = []
    for part in inside.split(","):
        first, _, last = part.partition("-")
        if not first.isdecimal() or (last and not last.isdecimal()):
            return []  # no list that we know: nobody is named wrongly
        numbers += [str(number).zfill(len(first)) for number in range(int(first), int(last or first) + 1)]
    return [before + number + end for number in numbers for end in ends]
