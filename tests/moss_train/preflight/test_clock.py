"""Clocks: the estimate is never wrong by more than it says, the exchange over a real store finds an offset, who is blamed."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moss_train.parallel.ports import hold_port
from moss_train.preflight.clock import Skew, ask_clock, judge_clocks, serve_clock
from moss_train.preflight.exchange import Exchange, NoAnswerError
from moss_train.preflight.findings import Verdict
from moss_train.preflight.place import Place

DELAYS = st.floats(0, 5)


@given(st.floats(-1e4, 1e4), st.lists(st.tuples(DELAYS, DELAYS, DELAYS), min_size=1, max_size=10))
def test_estimate_is_within_its_own_bound(offset: float, delays: list[tuple[float, float, float]]) -> None:
    """Whatever a trip takes there, at the first node and back, each way by itself."""
    trips, now = [], 1000.0
    for there, meanwhile, back in delays:
        at_first = now + there
        trips.append((now + offset, at_first, now + there + meanwhile + back + offset))
        now += there + meanwhile + back + 1
    skew = Skew.of(trips)
    assert abs(skew.seconds - offset) <= skew.within + 1e-6
    assert skew.within <= min(sum(delay) for delay in delays) / 2 + 1e-6


def _exchange(node: int, port: int) -> Exchange:
    return Exchange(Place(name=str(node), node=node, nodes=2, host="127.0.0.1", port=port), port, 20.0)


def test_exchange_over_a_store_finds_an_offset() -> None:
    with hold_port() as port:
        first = _exchange(0, port)
        server = threading.Thread(target=serve_clock, args=(first, 1, time.time, 20.0))
        server.start()
        skew = ask_clock(_exchange(1, port), 1, lambda: time.time() - 34.25, 20.0)
        server.join()
        with pytest.raises(NoAnswerError):
            serve_clock(first, 2, time.time, 0.1)
    assert abs(skew.seconds + 34.25) <= skew.within + 1e-6
    assert 0 < skew.within < 2


def _verdict(seconds: list[float], within: float = 0.001) -> Verdict:
    verdict = Verdict([f"gpu-{node}" for node in range(len(seconds))])
    judge_clocks(verdict, {node: {"seconds": s, "within": within} for node, s in enumerate(seconds)}, 2.0)
    return verdict


@given(st.integers(3, 12), st.data())
def test_minority_of_wrong_clocks_is_named(nodes: int, data: st.DataObject) -> None:
    wrong = data.draw(st.sets(st.integers(0, nodes - 1), max_size=(nodes - 1) // 2))
    seconds = [
        data.draw(st.sampled_from([-60.0, 5.0, 3600.0]) if node in wrong else st.floats(-0.9, 0.9)) for node in range(nodes)
    ]
    first = seconds[0]  # all are told less the first node's
    verdict = _verdict([second - first for second in seconds])
    assert {name for name, _ in verdict.bad} == {f"gpu-{node}" for node in wrong} and not verdict.faults


def test_of_two_clocks_neither_is_right() -> None:
    verdict = _verdict([0.0, -3.0])
    assert verdict.bad == [] and len(verdict.faults) == 1
    assert verdict.faults[0].startswith("node gpu-1: clock is 3.0 s behind the other node (more than 2 s); set it right")


def test_trips_too_slow_to_tell_are_a_warning() -> None:
    verdict = _verdict([0.0, 3.0, 0.1], within=2.5)
    assert verdict.bad == [] and [name for name, _ in verdict.warnings] == ["gpu-0", "gpu-1", "gpu-2"]
