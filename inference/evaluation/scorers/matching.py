"""Pairing points with intervals, one to one, as many as can be."""

from __future__ import annotations

import heapq
from collections.abc import Sequence


def match_points(points: Sequence[int], intervals: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """A largest set of pairs (point index, interval index) in which each occurs once and the point lies in the interval.

    Points go in ascending order to the open interval that ends first, which is optimal for intervals.

    Args:
        points: positions, in any order.
        intervals: (first, last), both inclusive.
    """
    order = sorted(range(len(points)), key=lambda i: points[i])
    starts = sorted(range(len(intervals)), key=lambda j: intervals[j][0])
    pairs: list[tuple[int, int]] = []
    open_intervals: list[tuple[int, int]] = []  # heap of (last, index)
    used = 0
    for i in order:
        while used < len(starts) and intervals[starts[used]][0] <= points[i]:
            j = starts[used]
            heapq.heappush(open_intervals, (intervals[j][1], j))
            used += 1
        while open_intervals and open_intervals[0][0] < points[i]:
            heapq.heappop(open_intervals)
        if open_intervals:
            pairs.append((i, heapq.heappop(open_intervals)[1]))
    return pairs


def match_nearest(points: Sequence[int], intervals: Sequence[tuple[int, int]], most: int) -> list[tuple[int, int]]:
    """Pairs with exact ones first, then those one off, and so on up to `most` off."""
    free_points, free_intervals = list(range(len(points))), list(range(len(intervals)))
    pairs: list[tuple[int, int]] = []
    for slack in range(most + 1):
        widened = [(intervals[j][0] - slack, intervals[j][1] + slack) for j in free_intervals]
        found = [(free_points[i], free_intervals[j]) for i, j in match_points([points[i] for i in free_points], widened)]
        pairs += found
        free_points = [i for i in free_points if i not in {p for p, _ in found}]
        free_intervals = [j for j in free_intervals if j not in {q for _, q in found}]
    return pairs
