"""Two runs of which only totals with standard errors are known."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from statistics import NormalDist

from inference.evaluation.statistics.bootstrap import BootstrapSettings
from inference.evaluation.statistics.comparison import Comparison, Difference
from inference.evaluation.statistics.significance import holm

Totals = Mapping[str, tuple[float, float | None]]
"""Value and standard error of each metric; None where there is none."""
_NORMAL = NormalDist()


def compare_totals(a: Totals, b: Totals, settings: BootstrapSettings | None = None) -> Comparison:
    """Differences of the metrics that both have, with normal intervals.

    The runs are taken for independent, although they answered the same questions: intervals are wider than those of `compare`,
    and p values larger.
    """
    settings = settings or BootstrapSettings()
    metrics = {name: _difference(a[name], b[name], settings.confidence) for name in a if name in b}
    corrected = holm({name: found.p for name, found in metrics.items()})
    return Comparison(
        items=0,
        clusters=0,
        only_a=0,
        only_b=0,
        metrics={name: dataclasses.replace(found, p_holm=corrected[name]) for name, found in metrics.items()},
        changed={},
        exact=False,
        exchanges=0,
        settings=settings,
    )


def _difference(a: tuple[float, float | None], b: tuple[float, float | None], confidence: float) -> Difference:
    """Standard errors add in squares."""
    value = b[0] - a[0]
    if a[1] is None or b[1] is None or not a[1] + b[1] > 0:
        return Difference(a=a[0], b=b[0], difference=value, low=None, high=None, lower=None, upper=None, p=None)
    error = math.hypot(a[1], b[1])
    both, one = (_NORMAL.inv_cdf(share) * error for share in ((1 + confidence) / 2, confidence))
    p = 2 * _NORMAL.cdf(-abs(value) / error)
    return Difference(
        a=a[0], b=b[0], difference=value, low=value - both, high=value + both, lower=value - one, upper=value + one, p=p
    )  # fmt: skip
