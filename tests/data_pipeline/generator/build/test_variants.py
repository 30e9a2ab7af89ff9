"""Disturbed pictures: the timeline says what their pixels show, and nothing else."""

from __future__ import annotations

import random
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.generator.build.config import VARIANTS
from data_pipeline.generator.build.variants import Frames, delay, disturb, draw_variant, without_merging
from data_pipeline.timeline.timeline import Segment, Timeline, check_timeline
from data_pipeline.world.story import build_story
from tests.data_pipeline.generator.randoms import timelines
from tests.data_pipeline.generator.samples import FRAMES, event, state, world

SEEDS = range(40)
SEEN = ("visible", "count", "colour:", "place:")
"""Subjects that a single frame answers."""


@cache
def story(seed: int) -> tuple[Timeline, Frames]:
    made = build_story(1, seed, fps=1.0, seconds=16, size=64)
    return made.timeline(), made.render()


def disturbed(kind: str, seed: int) -> tuple[Timeline, Frames, Timeline, Frames]:
    timeline, frames = story(seed)
    before = frames.copy()
    new, picture = disturb(kind, timeline, frames, FRAMES, random.Random(seed))
    assert (frames == before).all()  # whoever else has them sees what was drawn
    check_timeline(new)
    return timeline, frames, new, picture


def states_at(timeline: Timeline, t: float) -> dict[str, str]:
    found = {s: timeline.state_at(s, t) for s in timeline.subjects() if s.startswith(SEEN)}
    return {subject: state.value for subject, state in found.items() if state is not None}


def shown(frames: Frames, picture: Frames, frame: int) -> int:
    """The original frame that is to be seen, among equal ones the latest not behind it."""
    return next(i for i in range(frame, -1, -1) if (frames[i] == picture[frame]).all())


@pytest.mark.parametrize("kind", ["frozen", "stutter"])
def test_states_are_those_of_the_frame_that_is_shown(kind: str) -> None:
    changed = 0
    for seed in SEEDS:
        timeline, frames, new, picture = disturbed(kind, seed)
        for frame, t in enumerate(FRAMES):
            source = shown(frames, picture, frame)
            changed += source != frame
            assert states_at(new, t) == states_at(timeline, FRAMES[source]), (seed, frame)
    assert changed > len(SEEDS)


@pytest.mark.parametrize("kind", ["frozen", "stutter"])
def test_events_are_known_only_where_the_picture_changes(kind: str) -> None:
    told = 0
    for seed in SEEDS:
        _, _, new, picture = disturbed(kind, seed)
        for s in new.segments:
            if s.level in ("event", "action") and 0 < s.known_from < FRAMES[-1]:
                frame = next(i for i, t in enumerate(FRAMES) if t >= s.known_from)
                assert (picture[frame] != picture[frame - 1]).any(), (seed, s)
                told += 1
    assert told > 2 * len(SEEDS)


def test_whatever_is_told_to_appear_is_there_then() -> None:
    for seed in SEEDS:
        for kind in ("frozen", "stutter"):
            _, _, new, _ = disturbed(kind, seed)
            for s in new.segments:
                if s.level == "event" and s.text.endswith(" appears") and s.known_from <= FRAMES[-1]:
                    seen = new.state_at("visible", s.known_from)
                    assert seen is not None and s.text.removesuffix(" appears") in seen.value, (seed, kind, s)


def test_black_where_nothing_is_to_be_seen() -> None:
    blackened = 0
    for seed in SEEDS:
        timeline, frames, new, picture = disturbed("black", seed)
        assert new == timeline
        for frame, t in enumerate(FRAMES):
            seen = timeline.state_at("visible", t)
            if seen is not None and seen.value == "nothing":
                assert not picture[frame].any()
                blackened += 1
            else:
                assert (picture[frame] == frames[frame]).all() and picture[frame].any()
    assert blackened > len(SEEDS)


def test_what_is_to_be_read_is_not_made_black() -> None:
    segments = (
        state(0, 16, "visible", "nothing"),
        state(4, 8, "sign", "stop"),
        Segment(begin=10, end=12, text="open", level="text"),
    )
    timeline = Timeline(id="x", duration=16.0, segments=segments)
    _, picture = disturb("black", timeline, np.full((16, 4, 4, 3), 9, np.uint8), FRAMES, random.Random(0))
    assert [i for i in range(16) if picture[i].any()] == [4, 5, 6, 7, 10, 11]


def test_plain_is_left_alone_and_variants_come_by_weight() -> None:
    timeline, frames, new, picture = disturbed("plain", 0)
    assert new is timeline and picture is frames
    rng = random.Random(0)
    drawn = [draw_variant(rng, {"plain": 3.0, "frozen": 1.0, "black": 0.0}) for _ in range(4000)]
    assert set(drawn) == {"plain", "frozen"} and abs(drawn.count("frozen") / 4000 - 0.25) < 0.03
    assert set(VARIANTS) == {"plain", "frozen", "stutter", "black"}


def test_what_was_shown_for_one_repeated_frame_alone_is_not_told() -> None:
    segments = (event(5, "red ball appears"), event(6, "red ball leaves", "leave"))
    timeline = Timeline(id="x", duration=16.0, segments=segments)
    assert without_merging(timeline, FRAMES, {5, 9}) == {9}
    assert without_merging(timeline, FRAMES, {4, 5, 6}) == set()
    assert without_merging(timeline, FRAMES, {6, 7}) == {6, 7}
    assert without_merging(world(), FRAMES, {3, 9}) == {3, 9}


@settings(max_examples=30)
@given(timelines(), st.sets(st.integers(1, 10)))
def test_delays_keep_timelines_sound(timeline: Timeline, repeated: set[int]) -> None:
    times = FRAMES[:12]
    new = delay(timeline, times, repeated)
    check_timeline(new)
    for s in new.segments:
        frame = next((i for i, t in enumerate(times) if t >= s.begin), None)
        assert frame is None or frame not in repeated or frame == 0
    assert delay(timeline, times, set()).segments == timeline.segments
