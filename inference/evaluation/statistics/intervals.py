"""Bootstrap confidence intervals out of replicates (Efron & Tibshirani, An Introduction to the Bootstrap, chapters 13 and 14)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from inference.evaluation.statistics.sample import Floats

_NORMAL = NormalDist()
_LEAST_REPLICATES = 0.5
"""Share of resamples in which a metric must be defined."""


@dataclass(frozen=True)
class Interval:
    """A metric with what is known of its error."""

    estimate: float | None
    """Of all items; None where nothing was asked."""
    low: float | None
    high: float | None
    """None where no interval can be given; `note` says why."""
    method: str
    """bca | percentile | none"""
    note: str = ""


def interval(estimate: float | None, replicates: Floats, jackknife: Floats, confidence: float, method: str) -> Interval:
    """Two-sided interval, which always holds the estimate.

    Args:
        estimate: of the sample.
        replicates: of the resamples; NaN where the metric was not defined.
        jackknife: of the sample without each cluster, for BCa; may be empty.
        confidence: such as 0.95.
        method: bca or percentile; where BCa is not defined (every replicate on one side of the estimate) the percentiles
            are taken, and the result says so.
    """
    if estimate is None or not math.isfinite(estimate):
        return Interval(estimate, None, None, "none", "nothing was asked")
    known = replicates[np.isfinite(replicates)]
    if len(known) == 0 or len(known) < _LEAST_REPLICATES * len(replicates):
        return Interval(estimate, None, None, "none", "too few clusters have it")
    if known.max() == known.min():
        note = "" if known[0] == estimate else "one cluster has nearly all of it"
        return Interval(estimate, min(estimate, known[0]), max(estimate, known[0]), "percentile", note or "all resamples alike")
    outer = (1 - confidence) / 2
    shares = _bca_shares(estimate, known, jackknife, outer) if method == "bca" else None
    low, high = np.quantile(known, shares or (outer, 1 - outer))
    used = "bca" if shares else "percentile"
    return Interval(estimate, min(float(low), estimate), max(float(high), estimate), used)


def _bca_shares(estimate: float, known: Floats, jackknife: Floats, outer: float) -> tuple[float, float] | None:
    """Quantiles of the replicates at which the bias-corrected and accelerated interval ends."""
    below = (np.sum(known < estimate) + 0.5 * np.sum(known == estimate)) / len(known)
    if not 0 < below < 1:
        return None
    bias = _NORMAL.inv_cdf(float(below))
    acceleration = _acceleration(jackknife[np.isfinite(jackknife)])
    ends = []
    for share in (outer, 1 - outer):
        z = bias + _NORMAL.inv_cdf(share)
        if acceleration * z >= 1:
            return None
        ends.append(_NORMAL.cdf(bias + z / (1 - acceleration * z)))
    return ends[0], ends[1]


def _acceleration(jackknife: Floats) -> float:
    """Skewness of the jackknife values, over six; 0 where they do not differ."""
    if len(jackknife) < 2:
        return 0.0
    from_mean = jackknife.mean() - jackknife
    squares = float(np.sum(from_mean**2))
    return float(np.sum(from_mean**3)) / (6 * squares**1.5) if squares > 0 else 0.0
