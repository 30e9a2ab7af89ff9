"""Dealing frames over ranks: complete, balanced, at home where possible."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moss_train.frames.assignment import assign_frames
from moss_train.frames.plan import plan_frames
from moss_train.parallel.layout import RankPlace

frame_counts = st.lists(st.integers(0, 40), min_size=1, max_size=5)


def _members(replicas: int, size: int) -> list[list[int]]:
    return [list(range(r * size, (r + 1) * size)) for r in range(replicas)]


@given(frame_counts, st.integers(1, 4))
def test_every_frame_once_and_ranks_balanced(frames: list[int], size: int) -> None:
    members = _members(len(frames), size)
    spans = assign_frames(frames, members)
    for replica, count in enumerate(frames):
        covered = [i for s in spans if s.replica == replica for i in range(s.begin, s.end)]
        assert covered == list(range(count))
    loads = {rank: 0 for ranks in members for rank in ranks}
    for span in spans:
        loads[span.rank] += span.size
    assert max(loads.values()) - min(loads.values()) <= 1


@given(frame_counts, st.integers(1, 4))
def test_frames_stay_home_as_far_as_balance_allows(frames: list[int], size: int) -> None:
    members = _members(len(frames), size)
    at_home = sum(s.size for s in assign_frames(frames, members) if s.rank in members[s.replica])
    base, extra = divmod(sum(frames), len(frames) * size)
    # The best any balanced assignment can do: each replica keeps base frames a rank, the odd ones where frames are left.
    surplus = sum(min(size, max(0, n - base * size)) for n in frames)
    assert at_home == sum(min(n, base * size) for n in frames) + min(extra, surplus)


@given(frame_counts, st.integers(1, 3), st.integers(1, 3))
def test_plan_reaches_every_attending_rank_and_returns_one_copy_a_stage(frames: list[int], tensor: int, pipeline: int) -> None:
    replicas = len(frames)
    places = [
        RankPlace(data=d, tensor=t, pipeline=p, context=0)
        for p in range(pipeline)
        for d in range(replicas)
        for t in range(tensor)
    ]
    attends = [place.pipeline != 0 or pipeline == 1 for place in places]
    plan = plan_frames([[n] for n in frames], places, attends).windows[0]
    for rank, place in enumerate(places):
        got = sorted((t.span.begin, t.span.end) for t in plan.features if t.target == rank)
        wanted = sorted((s.begin, s.end) for s in plan.spans if s.replica == place.data)
        assert got == (wanted if attends[rank] else [])
    stages = sum(attends[r] for r, place in enumerate(places) if place.tensor == 0 and place.data == 0)
    for span in plan.spans:
        assert sum(t.span == span for t in plan.gradients) == stages
    for transfer in plan.pixels:
        source = places[transfer.source]
        assert (source.data, source.tensor, source.pipeline, source.context) == (transfer.span.replica, 0, 0, 0)
        assert transfer.target == transfer.span.rank != transfer.source
    readers = {rank: place.data for rank, place in enumerate(places) if place.tensor == place.pipeline == 0}
    held = [s for s in plan.spans if readers.get(s.rank) == s.replica]
    assert sorted([*held, *(t.span for t in plan.pixels)], key=str) == sorted(plan.spans, key=str)  # each once


@pytest.mark.parametrize("frames", [[0, 0], [1, 0], [0, 7]])
def test_nothing_or_little_to_do(frames: list[int]) -> None:
    spans = assign_frames(frames, [[0, 1], [2, 3]])
    assert sum(span.size for span in spans) == sum(frames)
    assert all(span.size > 0 for span in spans)
