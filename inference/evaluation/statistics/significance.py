"""p values: of a difference under swaps, of answers that changed, and of many at once."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.evaluation.items import Item
from inference.evaluation.statistics.sample import Floats

_SAME = 1e-12
RIGHT = ("right", "correct", "hit", "accuracy", "exact", "official", "strict", "answer_", "time_")
"""A value whose name begins with one of these, and which is 0 or 1 in all items, says whether an item was right."""


def swaps(differing: Sequence[int], clusters: int, most: int, seed: int) -> tuple[bool, int, Iterator[npt.NDArray[np.bool_]]]:
    """Which clusters two runs exchange, swap by swap.

    Under the null hypothesis that both runs are equally good, exchanging what they did in any cluster changes nothing.
    Clusters in which they did the same need no exchange.

    Args:
        differing: indices of the clusters in which the runs differ.
        clusters: how many there are.
        most: all 2 ** len(differing) exchanges where they are no more than this, else this many at random.

    Returns:
        Whether the exchanges are all that there are, how many they are, and the exchanges.
    """
    exact = len(differing) < 63 and 2 ** len(differing) <= most
    return exact, 2 ** len(differing) if exact else most, _swaps(differing, clusters, exact, most, seed)


def _swaps(
    differing: Sequence[int], clusters: int, exact: bool, most: int, seed: int
) -> Iterator[npt.NDArray[np.bool_]]:  # fmt: skip
    generator = np.random.default_rng(seed + 1)  # not the draws of the bootstrap
    chosen = (
        itertools.product((False, True), repeat=len(differing))
        if exact
        else (generator.random(len(differing)) < 0.5 for _ in range(most))
    )
    for values in chosen:
        mask = np.zeros(clusters, dtype=bool)
        mask[list(differing)] = values
        yield mask


def swap_p_value(difference: float, swapped: Floats, exact: bool) -> float | None:
    """Two-sided p value: the share of exchanges with a difference at least as large.

    Args:
        difference: of the runs as they are.
        swapped: of the exchanges; NaN where the metric was not defined.
        exact: whether `swapped` holds all exchanges, that of nothing among them; else that one is counted besides.
    """
    known = swapped[np.isfinite(swapped)]
    if not math.isfinite(difference) or not len(known):
        return None
    large = int(np.sum(np.abs(known) >= abs(difference) - _SAME * max(1.0, abs(difference))))
    return large / len(known) if exact else (large + 1) / (len(known) + 1)


def holm(p_values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Holm's step-down correction: with these, the chance of any false alarm among all is below the level.

    The i-th smallest of m values is multiplied by m - i + 1, and none may fall below the one before it. None stays None.
    """
    ordered = sorted((p, name) for name, p in p_values.items() if p is not None)
    corrected: dict[str, float | None] = dict.fromkeys(p_values)
    floor = 0.0
    for place, (p, name) in enumerate(ordered):
        floor = max(floor, min(1.0, (len(ordered) - place) * p))
        corrected[name] = floor
    return corrected


@dataclass(frozen=True)
class Changed:
    """Items that were right or wrong in both runs, and McNemar's exact test of those that changed.

    It takes items for independent, also those of one cluster.
    """

    both: int
    only_a: int
    """Right in the first run only."""
    only_b: int
    neither: int

    @property
    def p(self) -> float:
        """Two-sided: of `only_a + only_b` fair coins, the chance of a split at least as uneven."""
        return mcnemar(self.only_a, self.only_b)


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p value of McNemar's test: min(1, 2 P(X <= the smaller)), X binomial of n = only_a + only_b and 1/2."""
    n, smaller = only_a + only_b, min(only_a, only_b)
    if n == 0:
        return 1.0
    log_half = n * math.log(2)
    tail = sum(
        math.exp(math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - log_half) for k in range(smaller + 1)
    )  # fmt: skip
    return min(1.0, 2 * tail)


def changed(pairs: Sequence[tuple[Item, Item]]) -> dict[str, Changed]:
    """By `TASK.VALUE`, and `all.VALUE` where there are several tasks: how many items became right or wrong.

    A task whose items were run in several modes is split by them: `TASK.MODE.VALUE`.
    """
    modes: dict[str, set[str]] = {}
    for a, _ in pairs:
        modes.setdefault(a.task, set()).add(a.mode)
    names = {name for a, b in pairs for name in a.values.keys() & b.values.keys() if name.startswith(RIGHT)}
    found: dict[str, Changed] = {}
    for name in sorted(names):
        rows = [
            (a.task if len(modes[a.task]) == 1 else f"{a.task}.{a.mode}", a.values[name], b.values[name])
            for a, b in pairs
            if name in a.values and name in b.values
        ]
        if any(value not in (0.0, 1.0) for _, *values in rows for value in values):
            continue
        tasks = list(dict.fromkeys(task for task, _, _ in rows))
        for task in [*tasks, *(["all"] if len(tasks) > 1 else [])]:
            found[f"{task}.{name}"] = _count([(a, b) for owner, a, b in rows if task in (owner, "all")])
    return found


def _count(rows: Sequence[tuple[float, float]]) -> Changed:
    return Changed(rows.count((1.0, 1.0)), rows.count((1.0, 0.0)), rows.count((0.0, 1.0)), rows.count((0.0, 0.0)))
