"""Windows stay within their memory; plans over windows and context-parallel ranks lose and repeat nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from model.rows import frame_share
from moss_train.frames.plan import FramePlan, plan_frames
from moss_train.frames.windows import WindowBound, cut_windows
from moss_train.parallel.layout import RankPlace

counts = st.integers(1, 4).flatmap(
    lambda n: st.lists(st.lists(st.integers(0, 20), min_size=n, max_size=n), min_size=1, max_size=4)
)


def _bound(limit: float, replica_ranks: int = 2, context: int = 1) -> WindowBound:
    return WindowBound(limit, pixels=30, features=20, replica_ranks=replica_ranks, context=context, stages=2)


def _needed(bound: WindowBound, rows: list[list[int]], begin: int, end: int) -> int:
    return bound.needed([sum(row[begin:end]) for row in rows])


@given(counts, st.integers(0, 4000))
def test_windows_follow_each_other_and_are_as_long_as_memory_allows(rows: list[list[int]], limit: int) -> None:
    bound = _bound(limit)
    windows = cut_windows(rows, bound)
    assert [i for begin, end in windows for i in range(begin, end)] == list(range(len(rows[0])))
    for begin, end in windows:
        assert end - begin == 1 or _needed(bound, rows, begin, end) <= limit
    for begin, end in windows[:-1]:
        assert _needed(bound, rows, begin, end + 1) > limit, "the next micro-batch would have fitted"


def test_bytes_of_a_window_by_hand() -> None:
    # 2 replicas of 2 ranks, 8 and 0 frames: each rank encodes 2; in the first replica it holds 8, and one rank sends them.
    encoding = 2 * 2 * (30 + 20) + 8 * 30 + 2 * 8 * 20
    assert _bound(0).needed([8, 0]) == encoding == 760
    assert _bound(0, context=2).needed([8, 0]) == encoding - 2 * 4 * 20
    assert cut_windows([[8, 8], [0, 0]], _bound(1519)) == [(0, 1), (1, 2)]
    assert cut_windows([[8, 8], [0, 0]], _bound(1520)) == [(0, 2)]
    assert cut_windows([[8, 8], [0, 0]], None) == [(0, 2)]


def _plan(
    rows: list[list[int]], tensor: int, context: int, stages: int, limit: float, rank: int | None = None
) -> tuple[FramePlan, list[RankPlace]]:
    places = [
        RankPlace(data=d, tensor=t, pipeline=p, context=c)
        for p in range(stages)
        for d in range(len(rows))
        for c in range(context)
        for t in range(tensor)
    ]
    bound = _bound(limit, tensor * context * stages, context)
    return plan_frames(rows, places, [p.pipeline > 0 or stages == 1 for p in places], bound, rank), places


@given(counts, st.integers(1, 2), st.integers(1, 2), st.integers(0, 4000))
def test_a_step_is_balanced_over_all_its_windows(rows: list[list[int]], tensor: int, stages: int, limit: int) -> None:
    plan, places = _plan(rows, tensor, 1, stages, limit)
    assert plan.frames == sum(map(sum, rows))
    encoded = plan.encoded_by_rank(len(places))
    assert sum(encoded) == plan.frames and max(encoded) - min(encoded) <= 1
    for window in plan.windows:
        for replica, row in enumerate(rows):
            covered = [i for s in window.spans if s.replica == replica for i in range(s.begin, s.end)]
            assert covered == list(range(sum(row[window.first : window.last])))


@given(counts, st.integers(1, 2), st.integers(2, 3), st.integers(0, 4000))
def test_context_parallel_ranks_hold_their_share_of_each_micro_batch(
    rows: list[list[int]], tensor: int, context: int, limit: int
) -> None:
    plan, places = _plan(rows, tensor, context, 1, limit)
    for window in plan.windows:
        returned: dict[tuple[int, int], int] = {}
        for rank, place in enumerate(places):
            wanted, first = [], 0
            for count in rows[place.data][window.first : window.last]:
                begin, end = frame_share(count, context, place.context)
                wanted += list(range(first + begin, first + end))
                first += count
            pieces = [t.span for t in window.features if t.target == rank]
            assert [i for piece in pieces for i in range(piece.begin, piece.end)] == wanted
            assert window.held[place.data, place.context].size == len(wanted)
            row = 0
            for piece in pieces:  # they arrive in the order of the rows that they are for
                assert window.held[place.data, place.context].place(piece) == slice(row, row + piece.size)
                row += piece.size
            for transfer in window.gradients:
                if transfer.source == rank:
                    for frame in range(transfer.span.begin, transfer.span.end):
                        returned[place.data, frame] = returned.get((place.data, frame), 0) + 1
        assert all(times == 1 for times in returned.values()) and len(returned) == sum(window.frames)


def test_rows_of_a_piece() -> None:
    plan, _ = _plan([[4, 3], [5, 0]], 1, 1, 1, float("inf"))
    window = plan.windows[0]
    for rank in range(2):
        owned, row = window.owned(rank), 0
        for span in window.spans:
            if span.rank == rank:
                assert owned.place(span) == slice(row, row + span.size)
                row += span.size
        assert owned.size == row == 6


@given(counts, st.integers(1, 2), st.integers(1, 2), st.integers(1, 2), st.integers(0, 4000))
def test_a_rank_lists_its_own_transfers_and_knows_whether_there_are_others(
    rows: list[list[int]], tensor: int, context: int, stages: int, limit: int
) -> None:
    whole, places = _plan(rows, tensor, context, stages, limit)
    for rank in range(len(places)):
        own, _ = _plan(rows, tensor, context, stages, limit, rank)
        for mine, world in zip(own.windows, whole.windows, strict=True):
            assert mine.spans == world.spans
            for name in ("pixels", "features", "gradients"):
                some, every = getattr(mine, name), list(getattr(world, name))
                assert list(some) == [t for t in every if rank in (t.source, t.target)]
                assert some.crosses == any(t.source != t.target for t in every)
