"""All-reduces over groups of nodes, as the first node orders them, and who is to blame where they fail."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moss_train.config.cluster import PreflightConfig
from moss_train.preflight.exchange import NoAnswerError
from moss_train.preflight.findings import BAD, OK, Finding, Verdict
from moss_train.preflight.rank_processes import OF_ANOTHER
from moss_train.preflight.search import Pair, find_bad

if TYPE_CHECKING:
    from moss_train.preflight.node import Node

_REMEDY = "look at its network (cables, ibstat, NCCL_DEBUG=INFO) or leave the node out"


@dataclass(frozen=True)
class Outcome:
    """Of one group."""

    gbytes: float | None
    """Bus bandwidth in GB/s; None where the all-reduce failed."""
    trouble: str
    """What is wrong; "" where nothing is."""
    culprits: tuple[int, ...] = ()
    """Nodes that failed by themselves, and not since others did."""


class Trials:
    """Orders trials over the store, one after another; in each, groups of nodes work at the same time.

    Args:
        ranks: of every node that can take part.
        verdict: has the nodes' names.
    """

    def __init__(self, node: Node, ranks: Mapping[int, int], verdict: Verdict) -> None:
        self._node, self._ranks, self._names = node, dict(ranks), verdict.names
        self._preflight = node.request.config.launcher.preflight
        self.nodes = sorted(self._ranks)
        self.count = 0
        self.silent: set[int] = set()
        """Nodes that were given a trial and did not answer."""
        self.gbytes: float | None = None
        """Bus bandwidth over all nodes that work."""

    def ranks(self, nodes: Sequence[int]) -> int:
        """Of these nodes together."""
        return sum(self._ranks[node] for node in nodes)

    def try_groups(self, groups: Sequence[Sequence[int]], seconds: float) -> list[Outcome]:
        """One all-reduce in each group; groups have no node in common."""
        name = f"trial/{self.count}"
        ranks = {str(node): count for node, count in self._ranks.items()}
        plan = {"name": name, "groups": [list(group) for group in groups], "ranks": ranks, "seconds": seconds}
        self._node.exchange.put(f"plan/{self.count}", plan)
        self.count += 1
        done: dict[int, list[dict[str, Any]]] = {}
        if (own := self._node.take_part(plan)) is not None:
            done[0] = own
        end = time.monotonic() + seconds + 10.0
        for node in (node for group in groups for node in group if node != 0):
            try:
                done[node] = self._node.exchange.get(f"{name}/of/{node}", max(0.0, end - time.monotonic()))
            except NoAnswerError:
                self.silent.add(node)
                done[node] = [{"error": "no answer"}]
        return [self._outcome({node: done[node] for node in group}) for group in groups]

    def _outcome(self, done: Mapping[int, Sequence[Mapping[str, Any]]]) -> Outcome:
        results = [(node, result) for node, found in done.items() for result in found]
        errors = [(node, result["error"]) for node, result in results if "error" in result]
        if errors:
            own = [(node, error) for node, error in errors if not _is_of_another(error)]
            node, error = (own or errors)[0]
            culprits = tuple(dict.fromkeys(node for node, _ in own))
            return Outcome(None, f"it failed on node {self._names[node]} with {error!r}", culprits)
        if not all(result["right"] for _, result in results):
            return Outcome(None, "its sums are wrong")
        seconds, world = max(result["seconds"] for _, result in results), len(results)
        gbytes = 2 * (world - 1) / world * self._preflight.allreduce_mib * 2**20 / seconds / 1e9
        least = self._preflight.min_allreduce_gbytes
        slow = f"it reaches {gbytes:.3g} GB/s, less than launcher.preflight.min_allreduce_gbytes, which is {least:g}"
        return Outcome(gbytes, slow if gbytes < least else "")


def _is_of_another(error: str) -> bool:
    """Whether a rank fails since another one does."""
    words = ("closed by peer", "Connection reset", "not done within", "no answer", "imed out", OF_ANOTHER)
    return any(word in error for word in words)


def judge_allreduce(trials: Trials, verdict: Verdict, preflight: PreflightConfig) -> None:
    """All ranks together; where that fails nodes by themselves, then pairs, and all that are left again."""
    nodes, first, short = list(trials.nodes), "", max(5.0, preflight.timeout_seconds / 4)
    while nodes and trials.ranks(nodes) > 1:
        outcome = trials.try_groups([nodes], preflight.timeout_seconds if not first else short)[0]
        if not outcome.trouble:
            trials.gbytes = outcome.gbytes
            for node in nodes:
                verdict.add(node, Finding("all-reduce", OK, f"{outcome.gbytes:.3g} GB/s"))
            return
        first = first or outcome.trouble
        bad = _silent(trials, nodes) or _alone(trials, nodes, outcome, short) or _in_pairs(trials, nodes, outcome, short, verdict)
        if not bad:
            return
        for node, why in bad.items():
            verdict.add(node, Finding("all-reduce", BAD, "fails", f"{why}; {_REMEDY}"))
        nodes = [node for node in nodes if node not in bad]


def _silent(trials: Trials, nodes: Sequence[int]) -> dict[int, str]:
    return {node: "started an all-reduce and then gave no answer" for node in nodes if node in trials.silent}


def _alone(trials: Trials, nodes: Sequence[int], outcome: Outcome, seconds: float) -> dict[int, str]:
    """Nodes on which an all-reduce of their own ranks fails; none where it fails on all, and so in all pairs."""
    if len(nodes) == 1:
        return {nodes[0]: f"an all-reduce of its own ranks: {outcome.trouble}"}
    groups = [[node] for node in nodes if trials.ranks([node]) > 1]
    found = trials.try_groups(groups, seconds) if groups else []
    bad = {group[0]: f"an all-reduce of its own ranks: {a.trouble}" for group, a in zip(groups, found, strict=True) if a.trouble}
    return bad if len(bad) < len(nodes) else {}


def _in_pairs(trials: Trials, nodes: Sequence[int], outcome: Outcome, seconds: float, verdict: Verdict) -> dict[int, str]:
    """Nodes whose pairs fail with partners that work elsewhere; a fault of no single node goes to the verdict."""
    troubles: dict[Pair, str] = {}

    def try_pairs(pairs: Sequence[Pair]) -> dict[Pair, bool]:
        found = trials.try_groups(pairs, seconds) if pairs else []
        troubles.update({pair: tried.trouble for pair, tried in zip(pairs, found, strict=True)})
        return {pair: not troubles[pair] for pair in pairs}

    names = verdict.names
    bad, good = find_bad(nodes, try_pairs)
    if not good and 0 < len(outcome.culprits) < len(nodes):  # no pair works, but not all fail by themselves
        return dict.fromkeys(outcome.culprits, f"an all-reduce over all nodes: {outcome.trouble}")
    if not bad:
        shown = ", ".join(names[node] for node in nodes[:8]) + (f" and {len(nodes) - 8} others" if len(nodes) > 8 else "")
        how = (
            "every pair of nodes that was tried works by itself: look at what they share, switches and their links"
            if good
            else "so it is in every pair of nodes that was tried: look at the network as a whole (firewalls, NCCL_SOCKET_IFNAME, "
            "GLOO_SOCKET_IFNAME, NCCL_IB_HCA), or lower a bound that it cannot reach"
        )
        verdict.faults.append(f"all-reduce over nodes {shown}: {outcome.trouble}; {how}")
        return {}
    return {node: _pairs_sentence(node, troubles, names) for node in bad}


def _pairs_sentence(node: int, troubles: Mapping[Pair, str], names: Sequence[str]) -> str:
    own = [pair for pair, trouble in troubles.items() if node in pair and trouble]
    partners = [names[a if b == node else b] for a, b in own]
    return f"an all-reduce fails or is slow in all its pairs, with {', '.join(partners)}: {troubles[own[-1]]}"
