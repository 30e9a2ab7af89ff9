"""What a check says about a node, and all of it together. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

OK, WARNING, BAD = "ok", "warning", "bad"
CHECKS = ("answer", "versions", "clock", "machine", "folders", "data", "network", "gpus", "all-reduce")
"""Names of all checks, in the order in which they are shown."""


@dataclass(frozen=True)
class Finding:
    """Of one check on one node."""

    check: str
    """One of `CHECKS`."""
    level: str
    """ok | warning | bad"""
    value: str
    """What was measured, in a few words."""
    why: str = ""
    """A sentence with the remedy; empty where all is well."""

    @classmethod
    def of(cls, content: Mapping[str, str]) -> Finding:
        """From what `as_dict` gave."""
        return cls(**content)

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return asdict(self)


class Verdict:
    """Findings of all nodes, and faults that are no single node's.

    Args:
        names: of the nodes, by their number.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self.findings: dict[int, list[Finding]] = {node: [] for node in range(len(names))}
        self.faults: list[str] = []
        self._everywhere: set[str] = set()

    def add(self, node: int, *findings: Finding) -> None:
        self.findings[node] += findings

    def blame(
        self, nodes: Sequence[int], among: Sequence[int], check: str, value: Mapping[int, str], why: Mapping[int, str]
    ) -> None:
        """These nodes are bad; but where they are half of those compared, or more, nobody knows which side is wrong.

        Args:
            nodes: that differ.
            among: all that were compared.
            value: of the nodes that differ.
            why: likewise, a sentence each.
        """
        if nodes and 2 * len(nodes) >= len(among):
            self.faults.append("; ".join(f"node {self.names[node]}: {why[node]}" for node in nodes))
            return
        for node in nodes:
            self.add(node, Finding(check, BAD, value[node], why[node]))

    def level(self, node: int, check: str | None = None) -> str:
        """The worst of a node's findings; "" where there is none."""
        levels = {f.level for f in self.findings[node] if check in (None, f.check)}
        return next((level for level in (BAD, WARNING, OK) if level in levels), "")

    def find_common(self) -> None:
        """What is bad on all nodes that answered is no single node's fault, unless there is but one."""
        nodes = [node for node in self.findings if self.level(node, "answer") == OK]
        for check in CHECKS if len(nodes) > 1 else ():
            if check not in self._everywhere and all(self.level(node, check) == BAD for node in nodes):
                why = next(f.why for f in self.findings[nodes[0]] if (f.check, f.level) == (check, BAD))
                self._everywhere.add(check)
                self.faults.append(f"on all nodes, of which {self.names[nodes[0]]} says: {why}")

    @property
    def bad(self) -> list[tuple[str, str]]:
        """Name of a node and sentence, for everything that is bad there and not everywhere."""
        return self._of(BAD)

    @property
    def warnings(self) -> list[tuple[str, str]]:
        """Likewise, for everything that may stay as it is."""
        return self._of(WARNING)

    def _of(self, level: str) -> list[tuple[str, str]]:
        return [(self.names[node], f.why) for node, found in self.findings.items() for f in found if self._is(f, level)]

    def _is(self, finding: Finding, level: str) -> bool:
        return finding.level == level and (level != BAD or finding.check not in self._everywhere)


def as_answer(findings: Sequence[Finding], **further: Any) -> dict[str, Any]:
    """What a node tells the first one."""
    return {"findings": [finding.as_dict() for finding in findings], **further}
