"""Requests a minute, by a clock of the test's own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.generator.backends.rate import RateLimit


@given(st.floats(1, 1000), st.lists(st.tuples(st.floats(0, 30), st.floats(0.1, 50)), min_size=1, max_size=40))
def test_no_minute_sees_more_than_allowed(per_minute: float, calls: list[tuple[float, float]]) -> None:
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    limit = RateLimit(per_minute, clock=lambda: now, sleep=sleep)
    passed: list[tuple[float, float]] = []
    for pause, units in calls:
        now += pause
        limit.wait(units)
        passed.append((now, units))
    for i, (start, _) in enumerate(passed):
        within = [units for t, units in passed[i:] if t < start + 60]
        # the last one may begin within the minute and be paid for behind it; a burst of a second may come first
        assert sum(within[:-1]) <= per_minute * 61 / 60 + 1e-6


def test_zero_means_any_number() -> None:
    limit = RateLimit(0, sleep=lambda seconds: (_ for _ in ()).throw(AssertionError))
    assert [limit.wait(1e9) for _ in range(100)] == [0.0] * 100
