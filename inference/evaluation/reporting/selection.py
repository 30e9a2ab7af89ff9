"""Which scenarios a page shows: where the first model does best, worst, and as usual."""

from __future__ import annotations

from collections.abc import Sequence

from inference.evaluation.items import Item
from inference.evaluation.results import is_higher_better
from inference.evaluation.suites.suite import Suite

Chosen = list[tuple[str, str, float | None]]
"""Scenario id, why it was chosen (best | worst | typical | first), and its main metric."""


def scenario_scores(suite: Suite, items: Sequence[Item]) -> dict[str, float]:
    """The suite's main metric of each scenario by itself, where it has one."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item.scenario_id, []).append(item)
    scores = {}
    for scenario, own in sorted(groups.items()):
        value = suite.aggregate(own).get(suite.main)
        if value is not None:
            scores[scenario] = value
    return scores


def choose(suite: Suite, items: Sequence[Item], many: int) -> Chosen:
    """`many` scenarios: a third of the best, of the worst, and of those around the median, each once.

    Where fewer scenarios have the main metric, others follow in the order of their names.
    """
    scores = scenario_scores(suite, items)
    sign = 1 if is_higher_better(suite, suite.main) else -1
    ordered = sorted(scores, key=lambda name: (-sign * scores[name], name))
    third = -(-many // 3)
    middle = max(0, len(ordered) // 2 - third // 2)
    wanted = [("worst", list(reversed(ordered))[:third]), ("best", ordered[:third]), ("typical", ordered[middle:])]
    chosen: Chosen = []
    taken: set[str] = set()
    for why, names in wanted:
        free = [name for name in names if name not in taken][: min(third, many - len(chosen))]
        taken |= set(free)
        chosen += [(name, why, scores[name]) for name in free]
    others = sorted({item.scenario_id for item in items} - taken)
    chosen += [(name, "first" if name not in scores else "typical", scores.get(name)) for name in others[: many - len(chosen)]]
    return chosen
