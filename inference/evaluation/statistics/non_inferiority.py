"""Does the second run keep the first one's score: one-sided, within a margin."""

from __future__ import annotations

from dataclasses import dataclass

from inference.evaluation.statistics.comparison import Difference

KEPT, LOST, OPEN, UNKNOWN = "kept", "lost", "not shown", "not measured"
VERDICTS = {
    KEPT: "the loss is below the margin, with the confidence",
    LOST: "the loss is above the margin, with the confidence",
    OPEN: "neither: too few items, or a loss near the margin",
    UNKNOWN: "one of the two runs lacks it",
}


@dataclass(frozen=True)
class Kept:
    """What can be said of one metric."""

    verdict: str
    """One of `VERDICTS`."""
    loss: float | None
    """What the second run lost, in the metric's unit; below 0: it gained."""
    at_most: float | None
    """Upper confidence bound of the loss, one-sided; None where no interval can be given."""
    margin: float


def judge_kept(difference: Difference, margin: float, higher_is_better: bool = True) -> Kept:
    """Whether the loss is below the margin with the confidence of the comparison.

    The usual test of non-inferiority: kept where the one-sided bound of the loss lies below the margin. A difference that is
    not significant is no proof that nothing was lost, so this asks for more than that.

    Args:
        margin: the largest loss that does not matter, in the metric's unit.
        higher_is_better: False for errors and delays.
    """
    if difference.difference is None:
        return Kept(UNKNOWN, None, None, margin)
    if higher_is_better:
        loss, bounds = 0.0 - difference.difference, (difference.upper, difference.lower)
        least, most = (None if bound is None else 0.0 - bound for bound in bounds)
    else:
        loss, least, most = difference.difference, difference.lower, difference.upper
    if most is not None and most < margin:
        return Kept(KEPT, loss, most, margin)
    if least is not None and least > margin:
        return Kept(LOST, loss, most, margin)
    return Kept(OPEN, loss, most, margin)
