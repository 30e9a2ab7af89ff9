"""Metrics out of sums of items, for suites whose `aggregate` only adds values up.

Of such a suite one item that holds the sums of a thousand gives the same metrics as the thousand do. Whether a suite is one is
found out by trying: the metrics of some resamples are computed in both ways.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from inference.evaluation.items import Item, Metrics
from inference.evaluation.statistics.sample import Counts, Floats, Sample, as_number

_NUMBER = re.compile(r"\d+")
_TRIES = 8
_Kind = tuple[str, str, str, str]


class Layout:
    """Which sums there are: of each value of each kind of items (task, mode, name without its number).

    Every value has two columns, its sum and how many items have it; a kind has one that counts its items.
    """

    def __init__(self, items: Iterable[Item]) -> None:
        self._values: dict[_Kind, dict[str, int]] = {}
        self._count: dict[_Kind, int] = {}
        self.width = 0
        for item in items:
            kind = _kind(item)
            if kind not in self._count:
                self._count[kind] = self._add(1)
                self._values[kind] = {}
            for name in item.values:
                if name not in self._values[kind]:
                    self._values[kind][name] = self._add(2)

    def _add(self, columns: int) -> int:
        self.width += columns
        return self.width - columns

    def sums(self, groups: Sequence[Sequence[Item]]) -> Floats:
        """One row for each group of items."""
        table = np.zeros((len(groups), self.width))
        for row, group in enumerate(groups):
            for item in group:
                kind = _kind(item)
                table[row, self._count[kind]] += 1
                for name, value in item.values.items():
                    place = self._values[kind][name]
                    table[row, place] += value
                    table[row, place + 1] += 1
        return table

    def items(self, sums: Floats) -> list[Item]:
        """One item of each kind that has any, with the sums as its values."""
        row = sums.tolist()
        found = []
        for kind, count in self._count.items():
            if row[count]:
                values = {name: row[place] for name, place in self._values[kind].items() if row[place + 1]}
                suite, task, mode, name = kind
                found.append(Item(suite=suite, scenario_id="", item=name, task=task, mode=mode, values=values))
        return found


def condense(samples: Sequence[Sample], aggregate: Callable[[Sequence[Item]], Metrics], seed: int = 0) -> bool:
    """Let samples compute their metrics from sums, where that gives the same; returns whether it does.

    Args:
        samples: of one suite, with the same clusters; all or none are changed.
    """
    if any(sample.columns is not None for sample in samples):
        return False
    layout = Layout(item for sample in samples for group in sample.groups for item in group)
    tables = [layout.sums(sample.groups) for sample in samples]
    generator = np.random.default_rng(seed)
    clusters = len(samples[0])
    tries = [np.ones(clusters, dtype=np.int64)]
    tries += [np.bincount(generator.integers(0, clusters, clusters), minlength=clusters) for _ in range(_TRIES)]
    try:
        same = all(
            _same(sample.metrics(counts), aggregate(layout.items(_total(counts, table))))
            for sample, table in zip(samples, tables, strict=True)
            for counts in tries
        )
    except (LookupError, ValueError, TypeError, ArithmeticError, AttributeError):
        return False  # the suite needs more of an item than its values
    if same:
        for sample, table in zip(samples, tables, strict=True):
            sample.use(table, lambda sums: aggregate(layout.items(sums)))
    return same


def _kind(item: Item) -> _Kind:
    return item.suite, item.task, item.mode, _NUMBER.sub("", item.item)


def _total(counts: Counts, table: Floats) -> Floats:
    total: Floats = counts.astype(np.float64) @ table
    return total


def _same(a: Metrics, b: Metrics) -> bool:
    if a.keys() != b.keys():
        return False
    pairs = [(as_number(value), as_number(b[name])) for name, value in a.items()]
    return all((math.isnan(x) and math.isnan(y)) or math.isclose(x, y, rel_tol=1e-9, abs_tol=1e-12) for x, y in pairs)
