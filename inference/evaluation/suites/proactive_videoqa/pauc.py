"""PAUC: how early and how well something was said within the time in which it is worth saying."""

from __future__ import annotations

from collections.abc import Sequence

START_SCORE = 0.5
"""Of a judge's scale from 0, before anything was said."""
MOST = 2.0
"""The scale's end: verdicts 1 to 3 become 0 to 2."""


def pauc(
    points: Sequence[tuple[float, float]],
    seconds: float,
    omega: float = 0.5,
    start_score: float = START_SCORE,
    most: float = MOST,
) -> float:
    """Area under the steps of the score over the span, as a part of all that there could be.

    Official formula: `_area_under_line_ratio` and `_stat_metric` of the benchmark's pauc/judge_llm_scores_openai.py. The score is
    `start_score` until the first reply, then the last reply's. Times of replies are multiplied by 1 - omega, so that the last
    score holds for a part omega of the span whenever it was reached.

    Args:
        points: (seconds since the span's beginning, score from 0 to `most`) of each reply, in any order.
        seconds: of the span.
        omega: 0 to 1; the benchmark's main figure has 0.5.
        start_score: before anything was said, on the scale of the scores.
        most: the scale's end: 2 of a judge that says 1 to 3, 4 of one that says 1 to 5.
    """
    if not points:
        return start_score / most
    if seconds <= 0:
        return 0.0
    area, reached, score = 0.0, 0.0, start_score
    for t, next_score in sorted(points, key=lambda point: point[0]):
        x = t * (1 - omega)
        area += (x - reached) * score
        reached, score = x, next_score
    return (area + (seconds - reached) * score) / (seconds * most)


def without_late_losses(points: Sequence[tuple[float, float]], related_end: float) -> list[tuple[float, float]]:
    """Replies, less those behind `related_end` whose score is below that of the last one before it.

    What belongs to the evidence is over then, and what is said next may be about something else. With one reply nothing is left
    out. Times are of the same clock as `related_end`.
    """
    if len(points) <= 1:
        return list(points)
    kept: list[tuple[float, float]] = []
    reached = 0.0
    for t, score in sorted(points, key=lambda point: point[0]):
        if t <= related_end:
            reached = score
        elif score < reached:
            continue
        kept.append((t, score))
    return kept
