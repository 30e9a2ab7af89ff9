"""Confidence intervals of a suite's metrics by resampling clusters of items with replacement."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from inference.evaluation.items import Item, Metrics
from inference.evaluation.statistics.condensed import condense
from inference.evaluation.statistics.intervals import Interval, interval
from inference.evaluation.statistics.sample import Aggregate, Floats, Sample, Sums, as_number, draws, group_by_cluster, left_out
from model.errors import InputError

METHODS = ("bca", "percentile")
Report = Callable[[int, int], None]
"""Called with (aggregations done, aggregations in all)."""


@dataclass(frozen=True, kw_only=True)
class BootstrapSettings:
    """How intervals are made.

    Raises:
        InputError: a value is out of range.
    """

    resamples: int = 1000
    seed: int = 0
    confidence: float = 0.95
    method: str = "bca"

    def __post_init__(self) -> None:
        if self.resamples < 1:
            raise InputError(f"resamples is {self.resamples}; it must be at least 1, 1000 is usual")
        if not 0 < self.confidence < 1:
            raise InputError(f"confidence is {self.confidence}; give a share between 0 and 1, such as 0.95")
        if self.method not in METHODS:
            raise InputError(f"method is {self.method!r}; use one of {', '.join(METHODS)}")
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}; it must be 0 or more")


def bootstrap(
    items: Sequence[Item],
    aggregate: Aggregate,
    settings: BootstrapSettings | None = None,
    sums: Sums | None = None,
    on_done: Report | None = None,
) -> dict[str, Interval]:
    """The interval of each metric of a suite.

    Items of one cluster (`Item.cluster`: the same video, unless the suite says otherwise) are taken or left together, for
    their errors are not independent. The result does not depend on the order of the items.

    Args:
        aggregate: the suite's.
        sums: the suite's `extra["sums"]`, where it has them.
        on_done: progress.
    """
    settings = settings or BootstrapSettings()
    sample = Sample(list(group_by_cluster(items).values()), aggregate, sums)
    if not len(sample):
        return {}
    condense([sample], aggregate)
    whole = sample.whole()
    if len(sample) == 1:
        return {name: Interval(value, None, None, "none", "one cluster only") for name, value in whole.items()}
    counts = list(draws(len(sample), settings.resamples, settings.seed))
    without = list(left_out(len(sample))) if settings.method == "bca" else []
    table = Table(whole, len(counts) + len(without))
    for number, drawn in enumerate([*counts, *without], 1):
        table.add(sample.metrics(drawn))
        if on_done is not None:
            on_done(number, len(counts) + len(without))
    return {
        name: interval(
            value, table.of(name)[: len(counts)], table.of(name)[len(counts) :], settings.confidence, settings.method
        )
        for name, value in whole.items()
    }  # fmt: skip


class Table:
    """Metrics of many resamples, one column for each name.

    Args:
        names: those that the whole sample has; others are left out.
        rows: how many are to come.
    """

    def __init__(self, names: Iterable[str], rows: int) -> None:
        self._places = {name: place for place, name in enumerate(names)}
        self._values = np.full((rows, len(self._places)), np.nan)
        self._next = 0

    def add(self, metrics: Metrics) -> None:
        """The next row."""
        for name, value in metrics.items():
            place = self._places.get(name)
            if place is not None:
                self._values[self._next, place] = as_number(value)
        self._next += 1

    def of(self, name: str) -> Floats:
        """One column."""
        return self._values[:, self._places[name]]
