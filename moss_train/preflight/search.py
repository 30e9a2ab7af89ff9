"""Which node is to blame where an all-reduce over all of them fails: pairs of nodes are tried. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

Pair = tuple[int, int]
TryPairs = Callable[[Sequence[Pair]], Mapping[Pair, bool]]
"""Tries pairs that have no node in common, at the same time: whether each is good."""
ROUNDS = 3


def pair_rounds(nodes: Sequence[int], most: int = ROUNDS) -> list[list[Pair]]:
    """Rounds of pairs, in each of which a node occurs at most once, and no pair twice."""
    ring: list[int | None] = [*nodes, None] if len(nodes) % 2 else [*nodes]
    half, rounds = len(ring) // 2, []
    for _ in range(min(most, len(ring) - 1)):
        pairs = [(ring[i], ring[-1 - i]) for i in range(half)]
        rounds.append([(min(a, b), max(a, b)) for a, b in pairs if a is not None and b is not None])
        ring = [ring[0], ring[-1], *ring[1:-1]]
    return rounds


def find_bad(nodes: Sequence[int], try_pairs: TryPairs) -> tuple[list[int], list[int]]:
    """The nodes that fail with a partner which is known to be good, and those that are good.

    A node in one good pair is good. Those without one are tried once more, each with a good node.

    Returns:
        bad nodes and good nodes. No good nodes: no pair worked, and nobody can be told apart. No bad ones: every node works in
        some pair, so the fault shows only over all of them.
    """
    results: dict[Pair, bool] = {}
    for pairs in pair_rounds(nodes):
        results |= try_pairs(pairs)
    good = {node for pair, works in results.items() if works for node in pair}
    suspects = [node for node in nodes if node not in good]
    partners = sorted(good)
    bad = []
    while suspects and partners:
        now, suspects = suspects[: len(partners)], suspects[len(partners) :]
        pairs = [(min(a, b), max(a, b)) for a, b in zip(now, partners, strict=False)]
        works = {**results, **try_pairs([pair for pair in pairs if pair not in results])}
        bad += [node for node, pair in zip(now, pairs, strict=True) if not works[pair]]
    return bad, [node for node in nodes if node in good or (partners and node not in bad)]
