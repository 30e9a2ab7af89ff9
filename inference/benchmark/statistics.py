"""Means, percentiles and slopes of lists of measurements."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from model.errors import InputError


def percentile(values: Sequence[float], percent: float) -> float:
    """The percentile by linear interpolation between neighbours, numpy's default and the reference's rule.

    Raises:
        InputError: there are no values.
    """
    if not len(values):
        raise InputError("a percentile of no values was asked for; measure at least once")
    return float(np.percentile(np.asarray(values, dtype=np.float64), percent))


def describe(values: Sequence[float]) -> dict[str, float]:
    """count, mean, min, p50, p95, p99 and max of at least one value, in the values' own unit."""
    return {
        "count": float(len(values)),
        "mean": float(np.mean(np.asarray(values, dtype=np.float64))) if len(values) else percentile(values, 50),
        "min": percentile(values, 0),
        "p50": percentile(values, 50),
        "p95": percentile(values, 95),
        "p99": percentile(values, 99),
        "max": percentile(values, 100),
    }


def differences(times: Sequence[float]) -> list[float]:
    """What lies between each moment and the next."""
    return [after - before for before, after in itertools.pairwise(times)]


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Rise of the least-squares line through the points, in units of `y` for one of `x`; 0 for fewer than two different `x`."""
    if len(set(x)) < 2:
        return 0.0
    return float(np.polynomial.polynomial.polyfit(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64), 1)[1])
