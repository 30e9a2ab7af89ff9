"""Windows of long videos, and which split a video falls into."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.generator.build.config import RowsConfig
from data_pipeline.generator.build.sources import cut, split_of, windows
from data_pipeline.timeline.timeline import Segment, Timeline, check_timeline
from data_pipeline.world.seeds import SPLITS
from tests.data_pipeline.generator.randoms import DURATION, timelines
from tests.data_pipeline.generator.samples import event, kitchen, state

SHARES = {"train": 0.9, "validation": 0.05, "test": 0.05}


@given(timelines(), st.integers(2, 9), st.sampled_from((0.5, 1.0, 2.0)))
def test_frames_of_all_windows_are_those_of_the_video(timeline: Timeline, max_frames: int, fps: float) -> None:
    found = windows(timeline, fps, max_frames)
    every = [i / fps for i in range(math.ceil(DURATION * fps))]
    shown = [t for clip in found for t in clip.frame_times]
    assert shown == every[: len(shown)] and len(every) - len(shown) < 2
    assert [clip.whole for clip in found] == [i == 0 for i in range(len(found))]
    assert all(2 <= len(clip.frame_times) <= max_frames for clip in found)
    if len(every) <= max_frames:
        assert found[0].timeline == timeline


@given(timelines(), st.integers(0, 40), st.integers(1, 20))
def test_a_window_knows_nothing_that_it_has_not_seen(timeline: Timeline, first: int, length: int) -> None:
    begin, end = first / 4, min(DURATION, (first + length) / 4)
    part = cut(timeline, begin, end)
    check_timeline(part)
    last = end >= DURATION
    for s in part.segments:
        assert begin <= s.begin <= s.known_from and s.begin < end
        assert s.known_from < end or (last and s.known_from <= end)
        assert s.end is None or s.begin <= s.end <= end
        originals = [o for o in timeline.segments if (o.text, o.level, o.subject) == (s.text, s.level, s.subject)]
        assert any(o.begin <= s.begin and o.known_from <= s.known_from for o in originals)
        if s.level != "state":
            assert any(o.begin == s.begin and o.known_from == s.known_from for o in originals)
    for q in part.questions:
        assert q in timeline.questions and q.evidence is not None and begin <= q.evidence[0] <= q.evidence[1] <= end


@given(timelines(), st.integers(0, 40), st.integers(1, 20))
def test_states_are_clipped_and_hold_what_they_held(timeline: Timeline, first: int, length: int) -> None:
    begin, end = first / 4, min(DURATION, (first + length) / 4)
    part = cut(timeline, begin, end)
    for i in range(first, math.ceil(end * 4)):
        for subject in timeline.subjects():
            before, now = timeline.state_at(subject, i / 4), part.state_at(subject, i / 4)
            assert (before and before.value) == (now and now.value), (subject, i)


def test_what_ends_behind_the_window_is_not_told_as_if_it_ended_with_it() -> None:
    action = Segment(begin=2, end=9, text="she cooks a meal", level="action")  # known at 9 s
    video = Segment(begin=0, end=12, text="a day", level="video")
    shown = dataclasses.replace(kitchen(), duration=12.0, segments=(video, action, event(3, "a bell rings")), questions=())
    assert [s.text for s in cut(shown, 0, 6).segments] == ["a bell rings"]
    assert [s.text for s in cut(shown, 0, 12).segments] == ["a day", "she cooks a meal", "a bell rings"]


def test_a_state_known_before_the_window_is_known_at_its_begin() -> None:
    light = dataclasses.replace(state(1, 9, "light", "red"), evident=2.0, change="state")
    (part,) = cut(Timeline(id="x", duration=10.0, segments=(light,)), 4, 8).segments
    assert (part.begin, part.end, part.known_from, part.change) == (4, 8, 4, "")


@given(st.text(), st.integers(0, 5), st.permutations(list(SPLITS)))
def test_a_split_hangs_on_the_key_alone(key: str, seed: int, order: list[str]) -> None:
    assert split_of(key, SHARES, seed) == split_of(key, {name: SHARES[name] for name in order}, seed)
    assert split_of(key, {"train": 0.0, "validation": 2.0, "test": 0.0}, seed) == "validation"


def test_shares_come_out_about_right_and_the_seed_moves_videos() -> None:
    keys = [f"video {i}" for i in range(6_000)]
    for seed in range(3):
        counts = Counter(split_of(key, SHARES, seed) for key in keys)
        assert all(abs(counts[name] / len(keys) - share) < 0.015 for name, share in SHARES.items())
    moved = sum(split_of(key, SHARES, 0) != split_of(key, SHARES, 1) for key in keys) / len(keys)
    assert 0.1 < moved < 0.3  # as if they were drawn anew: 1 - (0.9 ** 2 + 2 * 0.05 ** 2) = 0.185


def test_a_larger_share_takes_videos_over_and_gives_none_back() -> None:
    keys = [f"video {i}" for i in range(2_000)]
    small, large = ({"train": share, "validation": 0.0, "test": 1 - share} for share in (0.5, 0.7))
    first = {key for key in keys if split_of(key, small, 0) == "train"}
    assert first < {key for key in keys if split_of(key, large, 0) == "train"}


def test_weights_are_in_one_order_however_they_are_written() -> None:
    a = RowsConfig(shares={"test": 0.1, "train": 0.9})
    assert list(a.shares) == list(RowsConfig(shares={"train": 0.9, "test": 0.1}).shares)
