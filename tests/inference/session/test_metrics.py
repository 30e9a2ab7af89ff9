"""Figures of a session, against values worked out by hand."""

from __future__ import annotations

import math
import random

import pytest

from inference.evaluation.schema import TraceEvent
from inference.session.metrics import Distribution, SessionMetrics

EVENTS = (
    TraceEvent(t=0.0, kind="frame_in", frame=0),
    TraceEvent(t=0.2, kind="frame_done", frame=0),
    TraceEvent(t=0.2, kind="silence", frame=0, token=9),
    TraceEvent(t=1.0, kind="frame_in", frame=1),
    TraceEvent(t=1.1, kind="frame_in", frame=2),
    TraceEvent(t=1.1, kind="frame_dropped", frame=1, reason="coalesced"),
    TraceEvent(t=1.2, kind="prompt", text="what ?"),
    TraceEvent(t=1.5, kind="token", frame=0, token=1, text="a"),  # frame 2 has come, frame 0 is seen: 1.1 s stale
    TraceEvent(t=1.6, kind="frame_done", frame=2),
    TraceEvent(t=1.9, kind="token", frame=2, token=1, text="b"),
    TraceEvent(t=2.0, kind="stop"),
    TraceEvent(t=2.1, kind="turn_interrupted", frame=2, reason="stop"),
)


def test_by_hand() -> None:
    metrics = SessionMetrics()
    for event in EVENTS:
        metrics.add(event)
    metrics.busy = 0.5
    summary = metrics.summary(2.5, {"submitted": 3})
    assert summary["frame_latency"] == {"p50": pytest.approx(0.2, rel=0.01), "p95": 0.5, "p99": 0.5, "max": 0.5, "mean": 0.35}
    assert summary["staleness"]["max"] == pytest.approx(1.1) and summary["staleness"]["p50"] == 0.0
    assert summary["first_token"]["max"] == pytest.approx(0.3) and summary["barge_in"]["max"] == pytest.approx(0.1)
    assert summary["slot_tokens"]["max"] == 2 and summary["longest_stall"] == pytest.approx(0.4)
    assert (summary["text_tokens"], summary["silences"], summary["real_time_factor"]) == (2, 1, 0.2)
    assert SessionMetrics().summary(0.0, {})["frame_latency"] is None


@pytest.mark.parametrize("t", [math.inf, math.nan, 1e9])
def test_a_rejected_frame_makes_nobody_stale(t: float) -> None:
    metrics = SessionMetrics()
    for event in EVENTS[:3]:
        metrics.add(event)
    metrics.add(TraceEvent(t=t, kind="frame_in", frame=1))
    metrics.add(TraceEvent(t=t, kind="frame_rejected", frame=1, reason="time"))
    metrics.add(TraceEvent(t=0.5, kind="token", frame=0, token=1, text="a"))
    assert metrics.staleness.largest == 0.0 and metrics.staleness.count == 2


def test_quantiles_are_within_one_per_cent_in_bounded_memory() -> None:
    values = sorted(random.Random(1).lognormvariate(-4, 2) for _ in range(5000))
    found = Distribution()
    for value in values:
        found.add(value)
    for share in (0.5, 0.95, 0.99, 1.0):
        assert found.quantile(share) == pytest.approx(values[int(share * 5000) - 1], rel=0.01)
    assert len(found._buckets) < 1500 and found.largest == values[-1]
