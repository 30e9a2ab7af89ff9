"""Matching against exhaustive search and its own mirror image."""

from __future__ import annotations

from functools import cache

from hypothesis import given
from hypothesis import strategies as st

from inference.evaluation.scorers.matching import match_nearest, match_points

POINTS = st.lists(st.integers(-1, 9), max_size=6)
INTERVALS = st.lists(st.tuples(st.integers(-1, 9), st.integers(0, 3)).map(lambda p: (p[0], p[0] + p[1])), max_size=6)


def _best(points: list[int], intervals: list[tuple[int, int]]) -> int:
    @cache
    def solve(i: int, used: int) -> int:
        if i == len(points):
            return 0
        found = solve(i + 1, used)
        for j, (a, b) in enumerate(intervals):
            if not used >> j & 1 and a <= points[i] <= b:
                found = max(found, 1 + solve(i + 1, used | 1 << j))
        return found

    return solve(0, 0)


@given(POINTS, INTERVALS)
def test_as_many_pairs_as_can_be(points: list[int], intervals: list[tuple[int, int]]) -> None:
    pairs = match_points(points, intervals)
    assert len(pairs) == _best(points, intervals)
    assert len({p for p, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
    assert all(intervals[j][0] <= points[p] <= intervals[j][1] for p, j in pairs)


@given(POINTS, POINTS, st.integers(0, 2))
def test_points_and_truth_are_interchangeable(left: list[int], right: list[int], slack: int) -> None:
    there = match_points(left, [(x - slack, x + slack) for x in right])
    back = match_points(right, [(x - slack, x + slack) for x in left])
    assert len(there) == len(back)


@given(POINTS, INTERVALS)
def test_nearest_pairs_exact_hits_first(points: list[int], intervals: list[tuple[int, int]]) -> None:
    pairs = match_nearest(points, intervals, 3)
    exact = [pair for pair in pairs if intervals[pair[1]][0] <= points[pair[0]] <= intervals[pair[1]][1]]
    assert len(exact) >= _best(points, intervals)
    assert len({p for p, _ in pairs}) == len(pairs)
