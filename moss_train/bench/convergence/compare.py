"""Curves of two ways held against each other: is their difference larger than that of seeds?

For each way the seeds' means over a window of steps have a mean and a deviation. The difference of the two means is taken in
standard errors, Welch's: sqrt(s1^2 / n1 + s2^2 / n2). Within Student's 97.5 % quantile of them it is noise, as far as so few
seeds can tell. Two seeds tell little (the quantile is 12.7 with one degree of freedom), so that the plain comparison is told
too: the difference is within the spread if it is no larger than the seeds of one way are apart.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

from moss_train.bench.convergence.configs import PAIRS
from moss_train.bench.convergence.runs import Run

WINDOWS = 10
ENOUGH = 0.5
"""Of the longest run's steps: shorter ones are left out, since all are compared over the steps that each has done."""
_QUANTILES = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)
"""Of Student's distribution, 97.5 %, with 1 to 10 degrees of freedom."""


def window_means(curves: Sequence[Sequence[float]], steps: int) -> list[list[float]]:
    """Mean loss of each curve in tenths of the first `steps` steps: [curves][windows]."""
    edges = [round(index * steps / WINDOWS) for index in range(WINDOWS + 1)]
    windows = [(a, b) for a, b in itertools.pairwise(edges) if b > a]
    return [[fmean(curve[a:b]) for a, b in windows] for curve in curves]


def held_against(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float | None]:
    """Means, deviations, difference, and the difference in standard errors; None where one seed alone tells no deviation.

    Args:
        ours: one value for each seed.
        theirs: of the way that it is held against.
    """
    difference = fmean(ours) - fmean(theirs)
    found: dict[str, float | None] = {
        "mean": fmean(ours), "against": fmean(theirs), "difference": difference, "relative": difference / fmean(theirs),
        "deviation": None, "deviation_against": None, "standard_errors": None, "bound": None,
    }  # fmt: skip
    if min(len(ours), len(theirs)) < 2:
        return found
    parts = [stdev(values) ** 2 / len(values) for values in (ours, theirs)]
    error = math.sqrt(sum(parts))
    freedom = 1
    if error > 0:  # Welch and Satterthwaite
        freedom = int(sum(parts) ** 2 / sum(p * p / (len(v) - 1) for p, v in zip(parts, (ours, theirs), strict=True)))
    found |= {
        "deviation": stdev(ours), "deviation_against": stdev(theirs),
        "standard_errors": difference / error if error > 0 else (0.0 if difference == 0 else math.copysign(math.inf, difference)),
        "bound": _QUANTILES[min(max(freedom, 1), len(_QUANTILES)) - 1],
    }  # fmt: skip
    return found


def spread(*sides: Sequence[float]) -> float | None:
    """How far the seeds of one way are apart, the largest of the ways; None where no way has two."""
    return max((max(side) - min(side) for side in sides if len(side) > 1), default=None)


def agrees_to(windows: Sequence[dict[str, float | None]], steps: int) -> int:
    """Steps from the first on over whose windows the difference was always within the spread of seeds."""
    count = 0
    for window in windows:
        difference, apart = window["difference"], window["spread"]
        if difference is None or apart is None or abs(difference) > apart:
            break
        count += 1
    return round(count * steps / len(windows))


def compare(pair: str, runs: Sequence[Run]) -> dict[str, Any]:
    """A pair by name, over the steps that all its runs have done.

    Returns:
        `steps` over which they are compared of `asked`, `seeds` of both, `left_out`, `last` (the last tenth), `windows`,
        `distance` between the mean curves and `distance_of_seeds` (the mean of each seed's curve from that of the other seeds of
        its way), `within_noise` in standard errors, `within_spread` of the seeds, `agrees_to` a step, `paired` (the difference
        of the last tenth for each seed that both have); or `failed`, a sentence.
    """
    sides = [[run for run in runs if run.way.name == name and run.losses] for name in PAIRS[pair]]
    for name, side in zip(PAIRS[pair], sides, strict=True):
        if not side:
            trouble = next((run.trouble for run in runs if run.way.name == name and run.trouble), "no step was done")
            return {"pair": pair, "failed": f"{name}: {trouble}"}
    longest = max(len(run.losses) for side in sides for run in side)
    done = [[run for run in side if len(run.losses) >= ENOUGH * longest] for side in sides]
    left_out = [run.name for side in sides for run in side if len(run.losses) < ENOUGH * longest]
    if not all(done):
        return {"pair": pair, "failed": f"of one side no run came as far as half of the other's: {', '.join(left_out)}"}
    sides, steps = done, min(len(run.losses) for side in done for run in side)
    curves = [[run.losses[:steps] for run in side] for side in sides]
    values = [value for side in curves for curve in side for value in curve]
    if not all(map(math.isfinite, values)):
        return {"pair": pair, "failed": "a loss is no finite number"}
    ours, theirs = (window_means(side, steps) for side in curves)
    windows = [
        {**held_against(a, b), "spread": spread(a, b)}
        for a, b in zip(zip(*ours, strict=True), zip(*theirs, strict=True), strict=True)
    ]
    last = windows[-1]
    asked = max(run.steps for side in sides for run in side)
    apart, difference = last["spread"], last["difference"]
    lasts = [
        {run.seed: means[-1] for run, means in zip(*pairs, strict=True)} for pairs in zip(sides, (ours, theirs), strict=True)
    ]
    errors, bound = last["standard_errors"], last["bound"]
    return {
        "pair": pair, "of": PAIRS[pair][0], "against": PAIRS[pair][1], "steps": steps, "asked": asked,
        "seeds": [len(side) for side in sides],
        "left_out": left_out, "last": last, "windows": windows, "distance": distance(_mean(curves[0]), _mean(curves[1])),
        "distance_of_seeds": [_of_seeds(side) for side in curves],
        "within_spread": None if apart is None or difference is None else abs(difference) <= apart,
        "agrees_to": agrees_to(windows, steps),
        "paired": [lasts[0][seed] - lasts[1][seed] for seed in sorted(lasts[0].keys() & lasts[1].keys())],
        "within_noise": None if errors is None or bound is None else abs(errors) <= bound,
        "windows_within_noise": sum(
            w["standard_errors"] is not None and w["bound"] is not None and abs(w["standard_errors"]) <= w["bound"]
            for w in windows
        ),
    }  # fmt: skip


def distance(one: Sequence[float], other: Sequence[float]) -> float:
    """Mean absolute difference of two curves."""
    return fmean(abs(a - b) for a, b in zip(one, other, strict=True))


def _mean(curves: Sequence[Sequence[float]]) -> list[float]:
    return [fmean(values) for values in zip(*curves, strict=True)]


def _of_seeds(curves: Sequence[Sequence[float]]) -> float | None:
    """Mean distance of a seed's curve from the mean of the others'."""
    if len(curves) < 2:
        return None
    return fmean(distance(curve, _mean([other for other in curves if other is not curve])) for curve in curves)
