"""Which frames are taken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.media.sampling import VideoInfo, event_counts, indices_at, sample_indices
from model.errors import InputError


def info(fps: float, num_frames: int, duration: float | None = None) -> VideoInfo:
    return VideoInfo(width=8, height=8, fps=fps, duration=duration or num_frames / fps, num_frames=num_frames)


def test_fixed_rate_takes_a_frame_at_each_tick() -> None:
    assert sample_indices(info(25.0, 243, 9.72), 1.0, 8, 256) == [0, 25, 50, 75, 100, 125, 150, 175, 200, 225]


def test_a_clip_too_short_for_the_minimum_is_spread_evenly() -> None:
    assert sample_indices(info(24.0, 146, 6.088), 1.0, 8, 16) == [0, 20, 41, 62, 82, 103, 124, 145]


def test_a_clip_too_long_is_spread_from_end_to_end() -> None:
    taken = sample_indices(info(30.0, 3000), 1.0, 8, 16)
    assert len(taken) == 16 and taken[0] == 0 and taken[-1] == 2999


def test_the_minimum_may_ask_for_more_frames_than_the_rate_gives() -> None:
    # 97.56 s at 1 frame a second are 98; a minimum of 256 spreads 256 over the clip
    assert len(sample_indices(info(30.0, 2927, 97.56), 1.0, 256, 256)) == 256


@given(
    frames=st.integers(1, 2000),
    rate=st.sampled_from([1.0, 7.5, 24000 / 1001, 25.0, 30000 / 1001, 60.0]),
    share=st.floats(0.01, 1.0),
    bounds=st.tuples(st.integers(1, 64), st.integers(0, 300)),
)
def test_indices_stay_in_the_clip_and_never_go_back(frames: int, rate: float, share: float, bounds: tuple[int, int]) -> None:
    least, most = bounds[0], bounds[0] + bounds[1]
    taken = sample_indices(info(rate, frames), rate * share, least, most)
    assert all(0 <= i < frames for i in taken)
    assert taken == sorted(taken)
    assert min(least, frames) <= len(taken) <= min(most, frames)
    if len(taken) > 1 and len(taken) == min(most, frames) and frames > most:
        assert taken[-1] <= frames - 1


@given(frames=st.integers(1, 500), rate=st.sampled_from([24000 / 1001, 25.0, 30000 / 1001, 8.0]))
def test_sampling_at_the_clip_s_own_rate_takes_every_frame_once(frames: int, rate: float) -> None:
    assert sample_indices(info(rate, frames), rate, 1, 1000) == list(range(frames))


def test_a_rate_above_the_clip_s_is_refused() -> None:
    with pytest.raises(InputError, match="clip 7 has 8 frames a second; fps is 9"):
        sample_indices(info(8.0, 16), 9.0, 1, 64, "clip 7")


def test_frames_at_times_cut_towards_zero() -> None:
    assert indices_at(info(24000 / 1001, 146), [0, 1, 2, 3.5]) == [0, 23, 47, 83]


def test_a_time_behind_the_end_is_refused() -> None:
    with pytest.raises(InputError, match="there is no frame at 2 s"):
        indices_at(info(8.0, 16), [0, 1, 2])


def test_each_event_takes_the_frames_up_to_its_end() -> None:
    assert event_counts([0, 1, 2, 3, 4, 5], [1, 2, 4.5]) == [2, 1, 3]


def test_an_event_without_a_frame_is_refused() -> None:
    with pytest.raises(InputError, match=r"event 1 ends at 1\.5 s"):
        event_counts([0, 1, 2, 3], [1, 1.5, 3])
