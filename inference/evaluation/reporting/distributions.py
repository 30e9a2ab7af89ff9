"""Distributions of what was measured many times: every list of numbers that items hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from inference.evaluation.items import Item

JsonObject = dict[str, Any]
BINS = 24


def pooled(items: Iterable[Item]) -> dict[str, list[float]]:
    """All finite numbers of each series, by `SUITE/NAME`."""
    found: dict[str, list[float]] = {}
    for item in items:
        for name, values in item.series.items():
            found.setdefault(f"{item.suite}/{name}", []).extend(value for value in values if np.isfinite(value))
    return {name: values for name, values in found.items() if values}


def distributions(by_model: dict[str, Sequence[Item]]) -> dict[str, JsonObject]:
    """Of each series: `edges` of its histogram, and by model its `count`, `p50`, `p95`, `p99`, `max` and share in each bin.

    The bins are the same for all models and go from the smallest value to the 99.5 % quantile of all; the last holds what is
    above. Where all values are whole and few, each has a bin of its own.
    """
    values = {model: pooled(items) for model, items in by_model.items()}
    found: dict[str, JsonObject] = {}
    for name in dict.fromkeys(name for pools in values.values() for name in pools):
        pools = {model: np.asarray(own[name]) for model, own in values.items() if name in own}
        edges = _edges(np.concatenate(list(pools.values())))
        found[name] = {"edges": edges.tolist(), "models": {model: _describe(pool, edges) for model, pool in pools.items()}}
    return found


def _edges(values: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    low, high = float(values.min()), float(np.quantile(values, 0.995))
    whole = bool(np.all(values == np.round(values))) and high - low < BINS
    if whole:
        return np.arange(low - 0.5, round(high) + 1.0)
    return np.linspace(low, high, BINS + 1) if high > low else np.array([low - 0.5, low + 0.5])


def _describe(values: np.ndarray[Any, np.dtype[np.float64]], edges: np.ndarray[Any, np.dtype[np.float64]]) -> JsonObject:
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), bins=edges)
    p50, p95, p99 = np.quantile(values, (0.5, 0.95, 0.99)).tolist()
    shares = (counts / len(values)).tolist()
    return {"count": len(values), "p50": p50, "p95": p95, "p99": p99, "max": float(values.max()), "shares": shares}
