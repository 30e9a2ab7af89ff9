"""Items grouped into clusters, and the metrics of any multiset of clusters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.evaluation.items import Item, Metrics

Aggregate = Callable[[Sequence[Item]], Metrics]
Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Key = tuple[str, str, str, str, str]


@dataclass(frozen=True)
class Sums:
    """A suite's metrics as a function of sums over items; then a resample costs one small matrix product.

    A suite whose metrics only need sums may offer it as `extra["sums"]`.
    """

    columns: Callable[[Sequence[Item]], Floats]
    """One row of numbers for each item."""
    finish: Callable[[Floats], Metrics]
    """Metrics of the rows' sums; the same as `aggregate` of the items."""


def key_of(item: Item) -> Key:
    """What an item is called; two runs over the same scenarios have items of the same keys."""
    return item.suite, item.scenario_id, item.item, item.task, item.mode


def group_by_cluster(items: Iterable[Item]) -> dict[str, list[Item]]:
    """Items by cluster, both sorted by name, so that nothing depends on the order in which items were written."""
    groups: dict[str, list[Item]] = {}
    for item in sorted(items, key=key_of):
        groups.setdefault(item.cluster, []).append(item)
    return dict(sorted(groups.items()))


class Sample:
    """One run's items, cluster by cluster.

    Args:
        groups: the items of each cluster.
        aggregate: the suite's.
        sums: the same as sums, where the suite has them.
    """

    def __init__(self, groups: Sequence[Sequence[Item]], aggregate: Aggregate, sums: Sums | None = None) -> None:
        self.groups = groups
        self._aggregate = aggregate
        self._finish: Callable[[Floats], Metrics] | None = None
        self.columns: Floats | None = None
        """Sums of each cluster, where metrics are made of sums."""
        if sums is not None and groups:
            self.use(np.stack([sums.columns(group).sum(axis=0) for group in groups]), sums.finish)

    def use(self, columns: Floats, finish: Callable[[Floats], Metrics]) -> None:
        """Make metrics of sums over clusters from now on."""
        self.columns, self._finish = columns, finish

    def __len__(self) -> int:
        return len(self.groups)

    def metrics(self, counts: Counts) -> Metrics:
        """Metrics where cluster i is taken `counts[i]` times."""
        if self.columns is not None and self._finish is not None:
            return self._finish(counts.astype(np.float64) @ self.columns)
        items: list[Item] = []
        for place in np.flatnonzero(counts):
            items.extend(list(self.groups[int(place)]) * int(counts[place]))
        return self._aggregate(items)

    def mixed(self, other: Sample, swapped: npt.NDArray[np.bool_]) -> Metrics:
        """Metrics where the swapped clusters are taken from the other sample, the rest from this one."""
        if self.columns is not None and other.columns is not None and self._finish is not None:
            return self._finish(np.where(swapped[:, None], other.columns, self.columns).sum(axis=0))
        items: list[Item] = []
        for place, swap in enumerate(swapped):
            items.extend(other.groups[place] if swap else self.groups[place])
        return self._aggregate(items)

    def whole(self) -> Metrics:
        """Metrics of all items."""
        return self.metrics(np.ones(len(self), dtype=np.int64))


def draws(clusters: int, resamples: int, seed: int) -> Iterator[Counts]:
    """How often each cluster occurs among as many as there are, drawn with replacement; the same for the same seed."""
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.bincount(generator.integers(0, clusters, clusters), minlength=clusters)


def left_out(clusters: int, most: int = 200) -> Iterator[Counts]:
    """Every cluster left out once, for the jackknife; where there are many, neighbours are left out together."""
    for members in np.array_split(np.arange(clusters), min(clusters, most)):
        counts = np.ones(clusters, dtype=np.int64)
        counts[members] = 0
        yield counts


def as_number(value: float | None) -> float:
    """A metric as a number; NaN where it is None or no finite number."""
    return value if value is not None and math.isfinite(value) else math.nan
