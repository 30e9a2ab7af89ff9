"""Two runs over the same items: differences of metrics with intervals and p values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from inference.evaluation.items import Item, Metrics
from inference.evaluation.statistics.bootstrap import BootstrapSettings, Report, Table
from inference.evaluation.statistics.condensed import condense
from inference.evaluation.statistics.intervals import interval
from inference.evaluation.statistics.sample import Aggregate, Key, Sample, Sums, draws, group_by_cluster, key_of, left_out
from inference.evaluation.statistics.significance import Changed, changed, holm, swap_p_value, swaps
from model.errors import InputError

MOST_EXCHANGES = 5000
"""More are made only where as many resamples are asked for."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One metric of two runs over the items that both have."""

    a: float | None
    b: float | None
    difference: float | None
    """b - a."""
    low: float | None
    high: float | None
    """Of the two-sided interval of the difference; None where none can be given."""
    lower: float | None
    upper: float | None
    """One-sided bounds: each is right with the confidence by itself."""
    p: float | None
    """Of the exchange test."""
    p_holm: float | None = None
    """The same after correction for all metrics of the comparison."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two runs of one suite."""

    exchanges: int
    """Behind each p value."""
    items: int
    """That both have."""
    clusters: int
    only_a: int
    """Items that the second run lacks; they are left out."""
    only_b: int
    metrics: dict[str, Difference]
    changed: dict[str, Changed]
    exact: bool
    """Whether the p values count every exchange; else a sample of them."""
    settings: BootstrapSettings


def compare(
    a: Sequence[Item],
    b: Sequence[Item],
    aggregate: Aggregate,
    settings: BootstrapSettings | None = None,
    sums: Sums | None = None,
    on_done: Report | None = None,
) -> Comparison:
    """Compare over the items that both runs have.

    Intervals: clusters are resampled with replacement, both runs with the same draw, and the difference is taken. p values:
    what the runs did in a cluster is exchanged, see `swaps`.

    Raises:
        InputError: no item is common, or one run has two items of one key.
    """
    settings = settings or BootstrapSettings()
    ours, theirs = _by_key(a, "first"), _by_key(b, "second")
    keys = [key for key in ours if key in theirs]
    if not keys:
        raise InputError("the two runs have no item in common; compare runs over the same scenarios and modes")
    pairs = [(ours[key], theirs[key]) for key in keys]
    groups = group_by_cluster(item for item, _ in pairs)
    first = Sample(list(groups.values()), aggregate, sums)
    second = Sample([[theirs[key_of(item)] for item in group] for group in groups.values()], aggregate, sums)
    condense([first, second], aggregate)
    differing = [place for place in range(len(first)) if not _same(first.groups[place], second.groups[place])]
    tables = _Tables(first, second, settings, differing, on_done)
    metrics = {name: tables.difference(name) for name in tables.names}
    corrected = holm({name: found.p for name, found in metrics.items()})
    return Comparison(
        items=len(keys),
        clusters=len(first),
        only_a=len(ours) - len(keys),
        only_b=len(theirs) - len(keys),
        metrics={name: dataclasses.replace(found, p_holm=corrected[name]) for name, found in metrics.items()},
        changed=changed(pairs),
        exact=tables.exact,
        exchanges=tables.exchanges,
        settings=settings,
    )


def check_same_scenarios(a: Mapping[str, str], b: Mapping[str, str], names: tuple[str, str]) -> None:
    """Refuse to compare runs whose scenarios have the same ids and say other things.

    Args:
        a, b: fingerprints by id.
        names: of the runs.

    Raises:
        InputError: a scenario differs.
    """
    other = sorted(key for key in a.keys() & b.keys() if a[key] != b[key])
    if other:
        raise InputError(
            f"{len(other)} of {len(a.keys() & b.keys())} common scenarios differ between {names[0]} and {names[1]}, the first is "
            f"{other[0]!r}: its truth, prompts, questions or frame rate were changed; evaluate both on the same scenario file"
        )


def _by_key(items: Sequence[Item], which: str) -> dict[Key, Item]:
    found: dict[Key, Item] = {}
    for item in items:
        key = key_of(item)
        if key in found:
            raise InputError(f"the {which} run has item {'/'.join(key)} twice; run `moss eval score` again")
        found[key] = item
    return found


def _same(a: Sequence[Item], b: Sequence[Item]) -> bool:
    return all(x.values == y.values and x.series == y.series for x, y in zip(a, b, strict=True))


class _Tables:
    """All aggregations of a comparison."""

    def __init__(
        self, a: Sample, b: Sample, settings: BootstrapSettings, differing: Sequence[int], on_done: Report | None
    ) -> None:  # fmt: skip
        self._settings, self._clusters = settings, len(a)
        self._whole_a, self._whole_b = a.whole(), b.whole()
        self.names = [name for name in self._whole_a if name in self._whole_b]
        several = len(a) > 1
        counts = list(draws(len(a), settings.resamples, settings.seed)) if several else []
        without = list(left_out(len(a))) if several and settings.method == "bca" else []
        self.exact, number, exchanges = swaps(differing, len(a), self._exchanges(), settings.seed)
        self.exchanges = number
        total, done = len(counts) + len(without) + number, 0

        def tell() -> None:
            nonlocal done
            done += 1
            if on_done is not None:
                on_done(done, total)

        self._draws, self._left, self._swaps = (Table(self.names, rows) for rows in (len(counts), len(without), number))
        for table, rows in ((self._draws, counts), (self._left, without)):
            for drawn in rows:
                table.add(_minus(b.metrics(drawn), a.metrics(drawn)))
                tell()
        for mask in exchanges:
            self._swaps.add(_minus(b.mixed(a, mask), a.mixed(b, mask)))
            tell()

    def _exchanges(self) -> int:
        """At least so many that one clear difference among all metrics passes Holm's correction: the least p is 1 / (n + 1)."""
        tested = sum(value is not None for value in _minus(self._whole_b, self._whole_a).values())
        needed = 2 * tested / (1 - self._settings.confidence)
        return max(self._settings.resamples, min(MOST_EXCHANGES, math.ceil(needed)))

    def difference(self, name: str) -> Difference:
        a, b = self._whole_a[name], self._whole_b[name]
        value = _minus(self._whole_b, self._whole_a)[name]
        drawn, left = self._draws.of(name), self._left.of(name)
        settings = self._settings
        both = interval(value, drawn, left, settings.confidence, settings.method)
        sided = interval(value, drawn, left, 2 * settings.confidence - 1, settings.method) if settings.confidence > 0.5 else both
        p = None if value is None else swap_p_value(value, self._swaps.of(name), self.exact)
        return Difference(
            a=a, b=b, difference=value, low=both.low, high=both.high, lower=sided.low, upper=sided.high, p=p
        )  # fmt: skip


def _minus(b: Metrics, a: Metrics) -> Metrics:
    """b - a of the metrics that both have; None where one is not defined."""
    found: Metrics = {}
    for name, value in b.items():
        other = a.get(name)
        known = value is not None and other is not None and math.isfinite(value) and math.isfinite(other)
        found[name] = value - other if known and value is not None and other is not None else None
    return found
