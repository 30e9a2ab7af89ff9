"""Counts of numbers in fixed bins, and counts of texts with a bound on how many are told apart."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from model.errors import InputError


@dataclass
class Histogram:
    """Bin i holds values from `edges[i]` up to, not including, `edges[i + 1]`; the last one all from the last edge on.

    Values below the first edge are counted in `below`.
    """

    edges: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    below: int = 0
    total: float = 0.0
    """Sum of all values."""
    low: float = math.inf
    high: float = -math.inf

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * len(self.edges)

    @property
    def n(self) -> int:
        return sum(self.counts) + self.below

    @property
    def mean(self) -> float | None:
        """None where nothing was counted."""
        return self.total / self.n if self.n else None

    def add(self, value: float, times: int = 1) -> None:
        """Count a value."""
        place = bisect.bisect_right(self.edges, value + 1e-9) - 1
        if place < 0:
            self.below += times
        else:
            self.counts[place] += times
        self.total += value * times
        self.low, self.high = min(self.low, value), max(self.high, value)

    def merge(self, other: Histogram) -> None:
        """Add the counts of another one with the same edges."""
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.below += other.below
        self.total += other.total
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)

    def share_point(self, share: float) -> float | None:
        """Lower edge of the bin that holds the value below which this share lies, such as 0.5 for the median."""
        left = share * self.n - self.below
        if not self.n:
            return None
        if left < 0:
            return self.low
        for edge, count in zip(self.edges, self.counts, strict=True):
            left -= count
            if left < 0 or (left == 0 and share >= 1):
                return edge
        return self.high

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        values: dict[str, Any] = {"edges": list(self.edges), "counts": self.counts, "below": self.below, "sum": self.total}
        return {**values, "low": self.low, "high": self.high} if self.n else values

    def load(self, values: Mapping[str, Any], where: str) -> None:
        """Add counts as `to_dict` gave them.

        Raises:
            InputError: they were counted in other bins.
        """
        if list(values["edges"]) != list(self.edges):
            raise InputError(f"{where} has bins that this version does not count in; build it again, or use the version it is of")
        low, high = values.get("low", math.inf), values.get("high", -math.inf)
        self.merge(Histogram(self.edges, list(values["counts"]), values["below"], values["sum"], low, high))


@dataclass
class Counts:
    """How often each text occurred: exact as long as there are at most `most` of them, then the frequent ones stay."""

    most: int = 400
    values: dict[str, int] = field(default_factory=dict)
    other: int = 0
    """Occurrences of texts that were dropped."""

    @property
    def n(self) -> int:
        return sum(self.values.values()) + self.other

    def add(self, text: str, times: int = 1) -> None:
        """Count a text."""
        self.values[text] = self.values.get(text, 0) + times
        if len(self.values) > 2 * self.most:
            self._shrink()

    def merge(self, other: Counts) -> None:
        """Add the counts of another one."""
        for text, times in other.values.items():
            self.add(text, times)
        self.other += other.other

    def ranked(self) -> list[tuple[str, int]]:
        """Texts with their counts, the most frequent first, then by text."""
        return sorted(self.values.items(), key=lambda item: (-item[1], item[0]))

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        self._shrink()
        return {"values": dict(self.ranked()), "other": self.other}

    def load(self, values: Mapping[str, Any]) -> None:
        """Add counts as `to_dict` gave them."""
        self.merge(Counts(self.most, dict(values["values"]), values["other"]))

    def _shrink(self) -> None:
        kept = self.ranked()[: self.most]
        self.other += sum(self.values.values()) - sum(times for _, times in kept)
        self.values = dict(kept)
