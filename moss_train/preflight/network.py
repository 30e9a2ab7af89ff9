"""Network ports as the kernel shows them: InfiniBand and RoCE ports, the interface of the default route. Imports no torch."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping
from pathlib import Path

from moss_train.preflight.findings import BAD, OK, WARNING, Finding, Verdict

Ports = dict[str, tuple[bool, float]]
"""By name, such as mlx5_0/1: whether it is active, and its rate in Gb/s."""


def read_ports(classes: Path = Path("/sys/class")) -> Ports:
    """All InfiniBand and RoCE ports of this node; none where there are none."""
    ports: Ports = {}
    for port in sorted((classes / "infiniband").glob("*/ports/*")):
        rate = re.match(r"[\d.]+", _line(port / "rate"))
        active = _line(port / "state").endswith("ACTIVE") and "INACTIVE" not in _line(port / "state")
        ports[f"{port.parent.parent.name}/{port.name}"] = (active, float(rate.group()) if rate else 0.0)
    return ports


def check_interface(
    classes: Path = Path("/sys/class"), routes: Path = Path("/proc/net/route")
) -> tuple[list[Finding], dict[str, str]]:
    """Whether the interface of the default route is up; its MTU is a fact that nodes are compared by."""
    name = _default_interface(routes)
    if name is None:
        return [Finding("network", OK, "no default route")], {}
    state, mtu = _line(classes / "net" / name / "operstate"), _line(classes / "net" / name / "mtu")
    facts = {"MTU": mtu} if mtu else {}
    if state in ("down", "lowerlayerdown", "notpresent"):
        why = f"{name}, the interface of the default route, is {state}; bring it up (ip link set {name} up) or leave the node out"
        return [Finding("network", BAD, f"{name} {state}", why)], facts
    return [Finding("network", OK, f"{name} MTU {mtu or '?'}")], facts


def _default_interface(routes: Path) -> str | None:
    """Of the default route with the least metric."""
    try:
        rows = [line.split() for line in routes.read_text().splitlines()[1:]]
    except OSError:
        return None
    default = [row for row in rows if len(row) > 7 and row[1] == "00000000" and row[7] == "00000000"]
    return min(default, key=lambda row: int(row[6]))[0] if default else None


def _line(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def judge_ports(verdict: Verdict, ports: Mapping[int, Mapping[str, tuple[bool, float]]]) -> None:
    """A port has to be active, and as fast, where it is so on half of the nodes or more: many machines have unused ones."""
    for name in sorted({name for found in ports.values() for name in found}):
        active = {node: found[name][1] for node, found in ports.items() if name in found and found[name][0]}
        if 2 * len(active) < len(ports) or not active:
            continue
        usual = statistics.median_high(active.values())
        for node, found in ports.items():
            if name not in found:
                why = (
                    f"has no network port {name}, as {len(active)} of {len(ports)} nodes have; look at its cards (ibstat, lspci)"
                )
                verdict.add(node, Finding("network", WARNING, f"{name} missing", why))
            elif node not in active:
                why = (
                    f"network port {name} is not active, as it is on {len(active)} of {len(ports)} nodes; look at cable, switch "
                    "and subnet manager (ibstat), or leave the node out"
                )
                verdict.add(node, Finding("network", BAD, f"{name} down", why))
            elif active[node] < usual:
                why = (
                    f"network port {name} runs at {active[node]:g} Gb/s, others at {usual:g}; look at cable and switch (ibstat), "
                    "or leave the node out"
                )
                verdict.add(node, Finding("network", BAD, f"{name} {active[node]:g} Gb/s", why))
