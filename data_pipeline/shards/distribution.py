"""How a quantity is spread over many samples, in a few hundred numbers whatever their count."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

QUANTILES = {"p10": 0.1, "p50": 0.5, "p90": 0.9, "p99": 0.99}


class Distribution:
    """Counts of values rounded to two significant digits; sum, least and most are exact. Values are not negative."""

    def __init__(self) -> None:
        self.counts: Counter[float] = Counter()
        self.count = 0
        self.total = 0.0
        self.least = math.inf
        self.most = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[_rounded(value)] += 1
        self.count += 1
        self.total += value
        self.least, self.most = min(self.least, value), max(self.most, value)

    def merge(self, other: Distribution) -> None:
        """Add what another one counted."""
        self.counts.update(other.counts)
        self.count += other.count
        self.total += other.total
        self.least, self.most = min(self.least, other.least), max(self.most, other.most)

    def quantile(self, share: float) -> float:
        """The value that `share` of all values do not exceed, to two significant digits."""
        owed = math.ceil(share * self.count)
        for value in sorted(self.counts):
            owed -= self.counts[value]
            if owed <= 0:
                return min(max(value, self.least), self.most)
        return self.most

    def summary(self) -> dict[str, float]:
        """Count, mean, least, quantiles and most; empty if nothing was counted."""
        if not self.count:
            return {}
        quantiles = {name: self.quantile(share) for name, share in QUANTILES.items()}
        return {"count": self.count, "mean": self.total / self.count, "min": self.least, **quantiles, "max": self.most}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        least = self.least if self.count else 0.0
        return {"total": self.total, "min": least, "max": self.most, "counts": sorted(self.counts.items())}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Distribution:
        """The inverse of `to_dict`."""
        out = cls()
        out.counts.update({float(value): count for value, count in values["counts"]})
        out.count = sum(out.counts.values())
        out.total, out.most = values["total"], values["max"]
        out.least = values["min"] if out.count else math.inf
        return out


def _rounded(value: float) -> float:
    return float(f"{value:.2g}")
