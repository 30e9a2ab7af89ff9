"""The reference's protocol, with a clock that the generation itself moves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.benchmark.legacy import PUBLISHED, PUBLISHED_PEER, decompose, latency_at, legacy_run, legacy_runs
from inference.benchmark.meter import repeat, timed
from inference.benchmark.statistics import describe, differences, percentile, slope
from model.errors import InputError


class ManualClock:
    """Moves when work is awaited: work is given at once and done when the device is synchronised."""

    def __init__(self) -> None:
        self.time, self.pending = 100.0, 0.0

    def now(self) -> float:
        return self.time

    def sync(self) -> None:
        self.time += self.pending
        self.pending = 0.0

    def wait_until(self, t: float) -> None:
        self.time = max(self.time, t)


@given(
    first=st.floats(0.01, 3),
    step=st.floats(0.001, 0.2),
    tokens=st.integers(2, 400),
    stops_at=st.integers(2, 400),
    late=st.booleans(),
)
def test_one_run_by_the_references_formulas(first: float, step: float, tokens: int, stops_at: int, late: bool) -> None:
    clock = ManualClock()
    clock.pending = 5.0 if late else 0.0  # work from before must not count

    def generate(limit: int) -> int:
        count = min(limit, stops_at)
        clock.pending += first + (count - 1) * step
        return count

    run = legacy_run(generate, clock, tokens)
    count = min(tokens, stops_at)
    assert run.tokens == count
    assert run.ttft_s == pytest.approx(first)
    assert run.total_s == pytest.approx(2 * first + (count - 1) * step)
    assert run.tokens_per_second == pytest.approx(1 / step)
    again = decompose(run.ttft_s, run.tokens_per_second, run.total_s)
    assert again["tokens"] == pytest.approx(count) and again["latency_s"] == pytest.approx(first + (count - 1) * step)


def test_runs_are_averaged_and_the_warm_up_is_not_counted() -> None:
    clock, asked = ManualClock(), []
    firsts = iter([9.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0])

    def generate(limit: int) -> int:
        asked.append(limit)
        clock.pending += next(firsts) + (limit - 1) * 0.1
        return limit

    found = legacy_runs(generate, clock, 21, 3)
    assert asked == [10, 1, 21, 1, 21, 1, 21]
    assert found["ttft_s"] == pytest.approx(7 / 3) and found["ttft_p95_s"] == pytest.approx(np.percentile([1, 2, 4], 95))
    assert found["tokens_per_second"] == pytest.approx(10)
    assert [run["total_s"] for run in found["runs"]] == pytest.approx([4.0, 6.0, 10.0])


def test_what_the_published_figures_hold() -> None:
    ours = decompose(PUBLISHED["ttft_s"], PUBLISHED["tokens_per_second"], PUBLISHED["total_s"])
    assert round(ours["tokens"]) == 946 and ours["latency_s"] == pytest.approx(26.56, abs=0.005)
    peer = decompose(PUBLISHED_PEER["ttft_s"], PUBLISHED_PEER["tokens_per_second"], PUBLISHED_PEER["total_s"])
    assert round(peer["tokens"]) == 470 and peer["latency_s"] == pytest.approx(42.8, abs=0.05)
    assert latency_at(PUBLISHED["ttft_s"], PUBLISHED["tokens_per_second"], 256) == pytest.approx(8.6, abs=0.05)
    assert latency_at(PUBLISHED_PEER["ttft_s"], PUBLISHED_PEER["tokens_per_second"], 256) == pytest.approx(27.8, abs=0.05)


def test_a_timed_action_waits_for_the_device_before_and_after() -> None:
    clock = ManualClock()
    clock.pending = 7.0

    def action() -> None:
        clock.pending += 0.25

    assert timed(clock, action) == 0.25
    assert repeat(clock, action, 3, warm_up=2) == [0.25] * 3


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30), st.floats(0, 100))
def test_percentiles_are_numpys(values: list[float], percent: float) -> None:
    assert percentile(values, percent) == pytest.approx(float(np.percentile(values, percent)))
    found = describe(values)
    assert found["min"] <= found["p50"] <= found["p95"] <= found["p99"] <= found["max"]
    assert found["mean"] == pytest.approx(sum(values) / len(values), abs=1e-6)


def test_statistics_of_little() -> None:
    with pytest.raises(InputError, match="measure at least once"):
        percentile([], 95)
    assert differences([1.0, 1.5, 3.0]) == [0.5, 1.5] and differences([1.0]) == []
    assert slope([1.0, 1.0], [3.0, 4.0]) == 0.0
    assert slope([0.0, 1.0, 2.0], [5.0, 3.0, 1.0]) == pytest.approx(-2.0)
