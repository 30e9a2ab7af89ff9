"""Calls hold every frame once, in sizes that are ready."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from inference.vision.chunks import split_frames

SIZES = st.sets(st.integers(1, 12), max_size=4)


@given(frames=st.integers(0, 70), chunk=st.integers(1, 16), sizes=SIZES, fixed=st.booleans())
def test_every_frame_is_in_one_call(frames: int, chunk: int, sizes: set[int], fixed: bool) -> None:
    pieces = list(split_frames(frames, chunk, sorted(sizes), fixed=fixed))
    assert [i for p in pieces for i in range(p.begin, p.begin + p.frames)] == list(range(frames))
    assert all(0 < p.frames <= p.size <= chunk for p in pieces)
    if fixed:
        assert {p.size for p in pieces} <= sizes | {chunk}
    else:
        assert sum(p.size for p in pieces) == frames
        assert len(pieces) == -(-frames // chunk)


@given(frames=st.integers(1, 70), chunk=st.integers(8, 32))
def test_captured_sizes_waste_less_than_half_a_chunk(frames: int, chunk: int) -> None:
    pieces = list(split_frames(frames, chunk, (1, 2, 4, 8), fixed=True))
    assert sum(p.size - p.frames for p in pieces) < chunk / 2
    assert len(pieces) <= frames // chunk + 4 + chunk // 16


def test_a_clip_of_256_frames_is_eight_calls() -> None:
    assert [p.size for p in split_frames(256, 32, (1, 2, 4, 8), fixed=True)] == [32] * 8
    assert [p.size for p in split_frames(45, 32, (1, 2, 4, 8), fixed=True)] == [32, 8, 4, 1]
