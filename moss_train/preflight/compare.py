"""Comparing what all nodes should have alike: those who differ from the most are named. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from moss_train.preflight.findings import OK, WARNING, Finding, Verdict

REMEDIES = {
    "Python": "start all nodes with the same environment (launcher.python)",
    "driver": "install the same NVIDIA driver, or leave the node out",
    "configuration": "give every node the same file: --config RUN/launch/config.yaml on a file system that all share",
    "source of moss-train": "install the same moss-train on all nodes, or put it on a file system that all share",
    "kernel": "update the node; most differences do no harm",
    "MTU": "set the same MTU; a smaller one than the others' loses large packets",
    "GPUs": "take nodes of one kind, or leave the node out",
}
"""What to do about a difference; anything else is a package."""
_PACKAGE = "install the same version on all nodes"
MILD = frozenset({"kernel", "MTU"})
"""Differences that are warned about only."""
_CHECKS = {"MTU": "network", "GPUs": "gpus"}


def majority(values: Mapping[int, str]) -> str | None:
    """The value that most nodes have; None where the first two are as frequent."""
    counts = Counter(values.values()).most_common(2)
    if len(counts) == 2 and counts[0][1] == counts[1][1]:
        return None
    return counts[0][0]


def judge_facts(verdict: Verdict, facts: Mapping[int, Mapping[str, str]]) -> None:
    """Hold the facts of all nodes that answered against each other.

    Args:
        facts: by the node's number; a node that lacks a fact has "none".
    """
    names = list(dict.fromkeys(name for found in facts.values() for name in found))
    differ: set[int] = set()
    for name in names:
        values = {node: found.get(name, "none") for node, found in facts.items()}
        if len(set(values.values())) > 1:
            differ |= _tell(verdict, name, values)
    for node, found in facts.items():
        if node not in differ:
            verdict.add(node, Finding("versions", OK, f"torch {found.get('torch', '?')}"))


def _tell(verdict: Verdict, name: str, values: Mapping[int, str]) -> set[int]:
    """Name the odd ones, or both sides; returns whom."""
    remedy, usual = REMEDIES.get(name, _PACKAGE), majority(values)
    if usual is None and name not in MILD:
        verdict.faults.append(f"{name} differs and no side is the larger: {_sides(verdict, values)}; {remedy}")
        return set(values)
    odd = [node for node, value in values.items() if value != usual]
    others = f"where most have {usual}" if usual is not None else f"the nodes differ: {_sides(verdict, values)}"
    for node in odd:
        why = f"{name} is {values[node]}, {others}; {remedy}"
        level = WARNING if name in MILD else "bad"
        verdict.add(node, Finding(_CHECKS.get(name, "versions"), level, f"{name} {values[node]}", why))
    return set(odd)


def _sides(verdict: Verdict, values: Mapping[int, str]) -> str:
    sides: dict[str, list[str]] = {}
    for node, value in values.items():
        sides.setdefault(value, []).append(verdict.names[node])
    return ", ".join(f"{value} on {', '.join(_few(nodes))}" for value, nodes in sides.items())


def _few(names: list[str]) -> list[str]:
    return names if len(names) <= 8 else [*names[:8], f"and {len(names) - 8} others"]
