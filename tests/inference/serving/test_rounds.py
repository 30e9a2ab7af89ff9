"""What a round feeds: speakers always, the rest in turn and within bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.serving.rounds import RoundLimits, is_light, plan_round, split_passes
from model.errors import InputError

LIMITS = st.builds(RoundLimits, light_rows=st.integers(1, 4), heavy_rows=st.integers(1, 12), frames=st.integers(1, 4))
REQUESTS = st.lists(st.lists(st.booleans(), min_size=1, max_size=30), min_size=1, max_size=12)


@given(requests=REQUESTS, limits=LIMITS)
def test_everything_is_fed_once_and_in_order_and_nobody_waits_for_ever(requests: list[list[bool]], limits: RoundLimits) -> None:
    line = [(number, list(rows)) for number, rows in enumerate(requests)]
    fed: dict[int, list[bool]] = {number: [] for number in range(len(requests))}
    passed_over = dict.fromkeys(fed, 0)
    while line:
        heavy = sum(not is_light(rows, limits) for _, rows in line)
        plan = plan_round([rows for _, rows in line], limits)
        served = {portion.request: portion for portion in plan}
        assert len(served) == len(plan) and [portion.request for portion in plan] == sorted(served)
        heavy_rows = frames = 0
        for place, (number, rows) in enumerate(line):
            portion = served.get(place)
            if is_light(rows, limits):
                assert portion is not None and portion.rows == len(rows)
            if portion is None:
                passed_over[number] += 1
                assert passed_over[number] < heavy + len(requests)
                continue
            passed_over[number] = 0
            assert portion.frames == sum(rows[: portion.rows])
            frames += portion.frames
            heavy_rows += 0 if is_light(rows, limits) else portion.rows
            fed[number] += rows[: portion.rows]
        assert heavy_rows <= limits.heavy_rows and frames <= limits.frames
        first_heavy = next((place for place, (_, rows) in enumerate(line) if not is_light(rows, limits)), None)
        assert first_heavy is None or first_heavy in served
        after = [(number, rows[served[i].rows if i in served else 0 :]) for i, (number, rows) in enumerate(line)]
        unserved = [entry for i, entry in enumerate(after) if i not in served]
        line = unserved + [entry for i, entry in enumerate(after) if i in served and entry[1]]
    assert [fed[number] for number in range(len(requests))] == requests


def test_a_long_prompt_does_not_hold_up_a_speaker() -> None:
    limits = RoundLimits(heavy_rows=256, frames=8)
    plan = plan_round([[False] * 5000, [False], [False, True], [True] * 300], limits)
    assert [(p.request, p.rows, p.frames) for p in plan] == [(0, 256, 0), (1, 1, 0)]
    assert [(p.request, p.rows) for p in plan_round([[False, True], [True] * 300, [False]], limits)] == [(0, 2), (1, 7), (2, 1)]


@given(portions=st.lists(st.tuples(st.integers(1, 80), st.integers(0, 9), st.booleans()), min_size=1, max_size=70))
def test_speakers_go_through_a_graph_whatever_else_is_fed(portions: list[tuple[int, int, bool]]) -> None:
    passes = split_passes(portions)
    assert sorted(number for part in passes for number in part) == list(range(len(portions)))
    assert len(passes) <= 2 and all(passes)
    speakers = [number for number, (rows, frames, asks) in enumerate(portions) if rows == 1 and not frames and asks]
    if speakers:
        rows, frames, asks = zip(*(portions[number] for number in passes[0]), strict=True)
        assert sum(rows) <= 64 and sum(frames) <= 8 and all(asks)
        assert set(speakers[:64]) <= set(passes[0])


def test_bounds_below_one_are_refused() -> None:
    with pytest.raises(InputError, match="frames of a round is 0"):
        RoundLimits(frames=0)
