"""What every node does: answers for itself, takes part in trials, and ends with the exit code that the first node gives."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moss_train.config.schema import RunConfig
from moss_train.preflight.clock import Clock, ask_clock
from moss_train.preflight.data_folders import read_data
from moss_train.preflight.exchange import Exchange, LostFirstNodeError, NoAnswerError
from moss_train.preflight.findings import as_answer
from moss_train.preflight.folders import SharedToken, check_folder, mount_of
from moss_train.preflight.gpus import Gpu, check_gpus, list_gpus
from moss_train.preflight.machine import check_machine
from moss_train.preflight.network import check_interface, read_ports
from moss_train.preflight.place import Place
from moss_train.preflight.rank_processes import RankProcesses
from moss_train.preflight.rank_work import work
from moss_train.preflight.report import EXIT_BAD_NODE
from moss_train.preflight.versions import version_facts

SECONDS_TO_SEE = 10.0
"""For a file of another node to appear, at most."""


@dataclass(kw_only=True)
class Request:
    """What is to be checked."""

    config: RunConfig
    out: Path
    """Folder of the report."""
    run_dir: Path
    """Has to be one and the same on all nodes."""
    data: bool
    """Whether the configuration names data."""
    processes: int | None
    """Of each node; None takes its GPUs, or one."""
    clock: Clock = field(default=time.time)

    @property
    def seconds(self) -> float:
        """Longest wait for a node in one phase."""
        return self.config.launcher.preflight.timeout_seconds


class Node:
    """One node, the first as well.

    Args:
        port: of the store.
    """

    def __init__(self, place: Place, request: Request, exchange: Exchange, port: int, processes: RankProcesses) -> None:
        self.place, self.request, self.exchange = place, request, exchange
        self._port, self._processes = port, processes
        self._device, self._ranks = "cpu", 0

    def answer(self, token: str, skew: Mapping[str, float]) -> dict[str, Any]:
        """Everything that can be checked here.

        Args:
            token: of the check, for the files by which nodes see that they share a folder.
            skew: of the clock.
        """
        config, request, number = self.request.config, self.request, self.place.node
        preflight = config.launcher.preflight
        gpus, trouble = list_gpus() if config.device != "cpu" else ([], "")
        processes = request.processes or max(1, len(gpus))
        findings = [*check_machine(processes, preflight.min_memory_gib), *check_gpus(gpus, trouble, processes, self._wanted())]
        findings += check_folder(request.run_dir, preflight.min_disk_gib, "run_dir")
        if config.launcher.cache.folder:
            findings += check_folder(Path(config.launcher.cache.folder), preflight.min_disk_gib, "launcher.cache.folder")
        interface, network = check_interface()
        products = self._multiply(gpus, processes)
        self._device = "cuda" if gpus else "cpu"
        self._ranks = 0 if trouble or any("error" in p for p in products) else min(processes, len(gpus) or processes)
        shared = SharedToken(request.run_dir, token)
        wrote = number == 0 or shared.write(number)
        return as_answer(
            [*findings, *interface],
            facts=version_facts(config, gpus) | network,
            skew=dict(skew),
            ports=read_ports(),
            data=read_data(config) if request.data else {},
            products=products,
            ranks=self._ranks,
            wrote=wrote,
            sees=number == 0 or shared.see(0, min(SECONDS_TO_SEE, request.seconds / 6)),
            mount=mount_of(request.run_dir),
        )

    def _wanted(self) -> str:
        config = self.request.config
        if config.device == "cuda":
            return "device is cuda"
        return f"launcher.gpu is {config.launcher.gpu}" if config.launcher.gpu and config.device != "cpu" else ""

    def _multiply(self, gpus: list[Gpu], processes: int) -> list[dict[str, Any]]:
        common = {"kind": "matmul", "device": "cuda", "environment": dict(self.request.config.launcher.env)}
        jobs = [common | {"local_rank": rank} for rank in range(min(processes, len(gpus)))]
        return self._processes.run(jobs, self.request.seconds)

    def take_part(self, plan: Mapping[str, Any]) -> list[dict[str, Any]] | None:
        """The all-reduce of this node's group; of each rank what `reduce_all` returned, or `error`. None: in no group.

        Args:
            plan: `groups` of nodes, `ranks` of every node, `seconds`, and a `name` that no other trial has.
        """
        own = self.place.node
        index = next((i for i, group in enumerate(plan["groups"]) if own in group), None)
        if index is None:
            return None
        group, counts = plan["groups"][index], plan["ranks"]
        first = sum(counts[str(node)] for node in group[: group.index(own)])
        common = {
            "kind": "allreduce",
            "device": self._device,
            "environment": dict(self.request.config.launcher.env),
            "host": self.place.host,
            "port": self._port,
            "prefix": f"{plan['name']}/{index}",
            "world": sum(counts[str(node)] for node in group),
            "mib": self.request.config.launcher.preflight.allreduce_mib,
            "seconds": plan["seconds"],
        }
        jobs = [common | {"rank": first + local, "local_rank": local} for local in range(self._ranks)]
        failed = f"{common['prefix']}/failed"
        done = self._processes.run(jobs, plan["seconds"], together=True, is_vain=lambda: self.exchange.has(failed))
        if any("error" in result for result in done):
            self.exchange.put(failed, True)
        return done


def check_node(place: Place, request: Request, port: int) -> int:
    """Check this node together with the others; returns the exit code, which all nodes get.

    Args:
        port: of the store; free on the first node.
    """
    from moss_train.preflight.first_node import FirstNode

    with ExitStack() as stack:
        processes = stack.enter_context(RankProcesses(work))
        try:
            exchange = Exchange(place, port, request.seconds)
            node = Node(place, request, exchange, port, processes)
            return FirstNode(node).run() if place.node == 0 else _follow(node)
        except (LostFirstNodeError, NoAnswerError) as error:
            print(f"moss: preflight: node {place.name}: {_lost(place, error)}", file=sys.stderr, flush=True)
            return EXIT_BAD_NODE


def _lost(place: Place, error: Exception) -> str:
    first = f"node 0 ({place.expected_name(0)}) at {place.host}"
    if isinstance(error, NoAnswerError):
        return f"{first} gave no answer in time ({error}); look at that node, and start all nodes at the same time"
    return (
        f"{first} cannot be reached, or has ended ({error}); look at that node, at --master (MASTER_ADDR, MASTER_PORT) and at "
        "firewalls between nodes"
    )


def _follow(node: Node) -> int:
    exchange, own, seconds = node.exchange, node.place.node, node.request.seconds
    exchange.put(f"here/{own}", node.place.name)
    roster = exchange.get("roster", 1.5 * seconds + 10)
    if own not in roster["nodes"]:
        print(f"moss: preflight: node {node.place.name}: came after the check had begun without it", file=sys.stderr, flush=True)
        return EXIT_BAD_NODE
    skew = ask_clock(exchange, own, node.request.clock, seconds)
    exchange.put(f"answer/{own}", node.answer(roster["token"], vars(skew)))
    number = 0
    while True:
        plan = exchange.get(f"plan/{number}", 3 * seconds + 60)
        if "end" in plan:
            SharedToken(node.request.run_dir, roster["token"]).clear(own)
            exchange.put(f"left/{own}", True)
            return int(plan["end"])
        done = node.take_part(plan)
        if done is not None:
            exchange.put(f"{plan['name']}/of/{own}", done)
        number += 1
