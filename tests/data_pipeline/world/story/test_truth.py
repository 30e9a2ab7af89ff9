"""The truth of a story against its pixels."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.world.palette import COLOUR_RGB, COLOURS, cell_words
from data_pipeline.world.story import build_story
from data_pipeline.world.story.draw import Painter
from data_pipeline.world.story.later import seen_share
from data_pipeline.world.story.record import VISIBLE_SHARE
from data_pipeline.world.story.signs import corner, plate
from data_pipeline.world.story.words import PHOTOS, SIGN_WORDS, count_words, listed, times_words

SEEDS = st.integers(0, 10**6)
LATER = st.integers(2, 5)


def painted(level: int, seed: int, seconds: float = 12) -> tuple[object, Painter]:
    story = build_story(level, seed, seconds=seconds, size=96)
    assert story.script is not None
    return story, Painter(story.script, np.asarray(story.frame_times), 96)


@given(level=LATER, seed=SEEDS)
@settings(max_examples=6, deadline=None)
def test_pixels_that_an_actor_owns_are_those_that_change_without_it(level: int, seed: int) -> None:
    _, painter = painted(level, seed)
    frame = len(painter.times) - 1
    picture, owner, whole = painter.paint(frame)
    for n in np.flatnonzero(whole):
        bare = Painter(painter.script, painter.times, painter.size, frozenset({int(n)}))
        without, others, _ = bare.paint(frame)
        own = owner == n
        assert not (others == n).any()
        changed = (picture.astype(int) != without.astype(int)).any(2)
        # outside its pixels only their soft edge is different, which is longer at thin tips
        near = own.copy()
        for _ in range(3):
            near |= np.roll(near, 1, 0) | np.roll(near, -1, 0) | np.roll(near, 1, 1) | np.roll(near, -1, 1)
        assert (changed & ~near).sum() <= 2 + 0.05 * own.sum() or not own.any()
        # a dark part may happen to have the colour of what is behind it
        assert (changed & own).sum() >= 0.6 * own.sum()


@given(level=LATER, seed=SEEDS)
@settings(max_examples=8, deadline=None)
def test_share_count_and_visible_come_from_the_masks(level: int, seed: int) -> None:
    story, painter = painted(level, seed)
    timeline, record = story.timeline(), story.record  # type: ignore[attr-defined]
    for i in (0, len(painter.times) // 2, len(painter.times) - 1):
        _, owner, whole = painter.paint(i)
        shown = [n for n in range(len(whole)) if whole[n] and (owner == n).sum() >= VISIBLE_SHARE * whole[n]]
        assert np.allclose(record.share[i], seen_share(owner, whole))
        t = record.times[i]
        assert timeline.state_at("count", t).value == count_words(len(shown))
        assert timeline.state_at("visible", t).value == (listed([record.name(i, n) for n in shown]) or "nothing")
        for n in shown:
            same = [m for m in shown if record.kinds[m] == record.kinds[n]]
            state = timeline.state_at(f"place:{record.kinds[n]}", t)
            if len(same) > 1:
                assert state is None
                continue
            rows, columns = np.nonzero(owner == n)
            assert state is not None
            x, y = (min(max(int(v[i, n]), 0), 95) for v in (record.x, record.y))
            assert state.value == cell_words(x, y, 96)
            if record.share[i, n] == 1:
                # a figure's pixels lie around its centre
                assert abs(columns.mean() - record.x[i, n]) < 0.35 * (np.ptp(columns) + 1)
                assert abs(rows.mean() - record.y[i, n]) < 0.35 * (np.ptp(rows) + 1)


@given(level=st.integers(2, 3), seed=SEEDS)
@settings(max_examples=6, deadline=None)
def test_the_colour_that_is_told_is_the_one_that_is_seen(level: int, seed: int) -> None:
    story, painter = painted(level, seed)
    record = story.record  # type: ignore[attr-defined]
    frame = len(painter.times) - 1
    picture, owner, _ = painter.paint(frame)
    for n in np.flatnonzero(record.share[frame] > 0.9):
        blinking = any(b <= record.times[frame] < e for b, e in painter.script.actors[n].blinks)
        if record.kinds[n] in PHOTOS or blinking:
            continue
        pixels = picture[owner == n].astype(float)
        bright = pixels[pixels.max(1) >= np.quantile(pixels.max(1), 0.8)].mean(0)
        cosine = COLOUR_RGB @ bright / np.linalg.norm(COLOUR_RGB, axis=1) / np.linalg.norm(bright)
        assert COLOURS[int(cosine.argmax())] == record.colours[frame, n]


@given(level=st.integers(3, 5), seed=SEEDS, size=st.sampled_from((64, 96, 128)))
@settings(max_examples=10, deadline=None)
def test_the_sign_that_is_drawn_is_the_state(level: int, seed: int, size: int) -> None:
    story = build_story(level, seed, seconds=12, size=size)
    frames, timeline = story.render(), story.timeline()
    texts = {*story.record.sign, *SIGN_WORDS, "0", "8", "11", "10:08", "10:09"}
    for t, frame in zip(story.frame_times, frames, strict=True):
        state = timeline.state_at("sign", t)
        assert state is not None
        fits = {text for text in texts if _drawn(frame, text)}
        assert state.value in fits
        # a text that fits too is at most a part of the plate of a longer one
        assert all(plate(text, size).shape[1] <= plate(state.value, size).shape[1] for text in fits)


def _drawn(frame: np.ndarray, text: str) -> bool:
    letters = plate(text, frame.shape[0])
    row, column = corner(text, frame.shape[0])
    area = frame[row : row + letters.shape[0], column : column + letters.shape[1]]
    return area.shape == letters.shape and bool((area == letters.astype(np.uint8)).all())


@pytest.mark.parametrize("text", [*SIGN_WORDS, "0", "17", "12:59"])
@pytest.mark.parametrize("size", (64, 224))
def test_signs_fit_and_differ(text: str, size: int) -> None:
    letters = plate(text, size)
    assert letters.shape[1] <= size - 2
    assert 8 <= letters.shape[0] <= 0.3 * size
    assert letters.max() > 200  # bright strokes, not grey smears
    for other in SIGN_WORDS:
        assert other == text or plate(other, size).shape != letters.shape or (plate(other, size) != letters).any()


def test_behind_the_wall_nobody_is_seen_and_events_there_are_not_evident() -> None:
    found = 0
    for seed in range(12):
        story = build_story(3, seed, fps=2, seconds=20, activities=("hide", "turn"), pace=1.0)
        record, timeline = story.record, story.timeline()
        told = {(s.begin, s.text): s for s in timeline.segments}
        for h in record.happenings:
            if h.rule != "hide" or (h.begin, h.text) not in told:
                continue
            found += 1
            evident = told[h.begin, h.text].known_from
            frame = record.times.index(evident)
            assert not record.visible[frame, h.actors[0]] and record.alive[frame, h.actors[0]]
            assert record.name(frame, h.actors[0]) not in timeline.state_at("visible", evident).value.replace(",", " and").split(
                " and "
            )
            back = next(x for x in record.happenings if x.rule == "show" and x.actors == h.actors and x.begin > h.begin)
            if (back.begin, back.text) in told:
                seen = record.times.index(told[back.begin, back.text].known_from)
                assert record.visible[seen, h.actors[0]] and not record.visible[frame:seen, h.actors[0]].any()
    assert found >= 5


@given(level=st.integers(1, 5), seed=SEEDS)
@settings(max_examples=10, deadline=None)
def test_states_and_questions_follow_from_the_frames(level: int, seed: int) -> None:
    story = build_story(level, seed, seconds=16)
    timeline, record = story.timeline(), story.record
    counts = timeline.states("count")
    assert counts[0].begin == 0 and counts[-1].end == timeline.duration
    assert all(a.end == b.begin and a.value != b.value for a, b in pairwise(counts))
    asked = {q.text: q.answer for q in timeline.questions}
    seen = record.visible.sum(1)
    assert asked["How many objects can be seen at the end?"] == count_words(int(seen[-1]))
    assert asked["What is the largest number of objects seen at once?"] == count_words(int(seen.max()))
    for kind in record.kinds:
        if answer := asked.get(f"How often does the {kind} bounce?"):
            told = [s for s in timeline.segments if s.text.endswith(f"{kind} bounces")]
            assert answer == times_words(len(told))
    if answer := asked.get("How many different objects entered the box?"):
        told = [s for s in timeline.segments if s.level == "event" and s.text.endswith("enters the box")]
        assert answer == count_words(len({s.entities for s in told}))
    for question in timeline.questions:
        if question.kind == "order":
            one, other = question.text.removeprefix("What happens first: ").removesuffix("?").split(", or ")
            times = {s.text: s.begin for s in timeline.segments}
            assert question.answer == (one if times[one] < times[other] else other)


@given(seed=SEEDS)
@settings(max_examples=6, deadline=None)
def test_the_camera_maps_the_world_to_the_picture_and_back(seed: int) -> None:
    story = build_story(4, seed, seconds=10)
    record = story.record
    painter = Painter(story.script, np.asarray(story.frame_times), 64)  # type: ignore[arg-type]
    assert record.world is not None
    for i in range(len(record.times)):
        back, _ = painter.view.world(i, record.x[i] - 0.5)
        _, down = painter.view.world(i, record.y[i] - 0.5)
        assert np.allclose(back, record.world[i, :, 0]) and np.allclose(down, record.world[i, :, 1])


def test_a_bounce_is_told_only_where_a_frame_shows_it_in_the_air() -> None:
    told = untold = 0
    for seed in range(30):
        story = build_story(3, seed, seconds=20, activities=("bounce",), pace=1.0)
        record = story.record
        known = {(s.begin, s.text) for s in story.timeline().segments}
        for h in record.happenings:
            if h.verb != "bounce":
                continue
            aloft = [i for i, t in enumerate(record.times) if 0.6 <= h.begin - t <= 2.4]
            if h.begin > record.times[-1]:
                continue
            seen = any(record.visible[i, h.actors[0]] for i in aloft)
            told += (h.begin, h.text) in known
            untold += not seen
            assert (h.begin, h.text) not in known or seen
            assert record.world is not None and story.script is not None
            ground = story.script.actors[h.actors[0]].y.now(h.begin)
            assert aloft and all(record.world[i, h.actors[0], 1] < ground - 0.05 for i in aloft)
    assert told > 20 and untold > 0


def test_what_blinks_in_the_dark_is_dimmer_but_still_to_be_seen() -> None:
    found = 0
    for seed in range(40):
        story = build_story(4, seed, seconds=20, activities=("blink",), photos=0)
        assert story.script is not None
        painter = Painter(story.script, np.asarray(story.frame_times), 64)
        for i, n in zip(*np.nonzero(story.record.share > 0.95), strict=True):
            t, dark = story.record.times[i], painter.lights[i] < 0.5
            if not dark or not any(b <= t < e and int(t - b) % 2 == 0 for b, e in story.script.actors[n].blinks):
                continue
            picture, owner, _ = painter.paint(int(i))
            bright = picture[owner == n][picture[owner == n].sum(1) >= np.quantile(picture[owner == n].sum(1), 0.8)].mean(0)
            lit = COLOUR_RGB[COLOURS.index(str(story.record.colours[i, n]))].sum() * painter.lights[i]
            assert np.linalg.norm(bright - picture[owner < 0].mean(0)) > 20 and bright.sum() < 0.75 * lit
            found += 1
    assert found > 5
