"""Stories: the same bytes for the same seed, the same story at any frame rate, errors that name the argument."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from data_pipeline.timeline.timeline import check_timeline
from data_pipeline.world.render import render
from data_pipeline.world.scene import eventful
from data_pipeline.world.seeds import SPLITS, TASKS, first_seed
from data_pipeline.world.story import build_story
from data_pipeline.world.story.seeds import STORY_SPAN, first_story_seed
from data_pipeline.world.tasks.realtime import NARRATED, sentence
from model.errors import InputError

LEVELS = (1, 2, 3, 4, 5)


@pytest.mark.parametrize("seed", range(5))
def test_level_one_is_the_eventful_clip_with_its_sentences(seed: int) -> None:
    story, clip = build_story(1, seed), eventful(seed)
    assert (story.render() == render(clip)).all()
    told = [(s.begin, s.text) for s in story.timeline().segments if s.level == "event" and s.salience >= 0.5]
    assert told == [(float(e.frame), sentence(clip, e)) for e in clip.events if e.kind in NARRATED]


@pytest.mark.parametrize("level", LEVELS)
def test_a_story_is_a_function_of_level_and_seed(level: int) -> None:
    first, again, other = (build_story(level, seed, seconds=10) for seed in (3, 3, 4))
    assert (first.render() == again.render()).all()
    assert first.timeline() == again.timeline()
    assert (first.render() != other.render()).any()
    # the truth does not depend on whether somebody has looked at the frames before
    assert build_story(level, 3, seconds=10).timeline() == first.timeline()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("seed", (1, 2))
def test_more_frames_a_second_show_the_same_happenings_no_later(level: int, seed: int) -> None:
    slow, quick = (build_story(level, seed, fps=fps, seconds=16) for fps in (1, 4))
    assert slow.record.happenings == quick.record.happenings
    late = {(s.begin, s.text): s.known_from for s in slow.timeline().segments if s.level != "state"}
    soon = {(s.begin, s.text): s.known_from for s in quick.timeline().segments if s.level != "state"}
    both = late.keys() & soon.keys()
    assert len(both) >= 0.8 * len(late)
    assert all(soon[key] <= late[key] for key in both)
    shared = (slow.render(), quick.render()[::4])
    assert (shared[0] == shared[1]).all()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("seed", range(3))
def test_timelines_are_sound_and_nothing_is_known_before_a_frame_shows_it(level: int, seed: int) -> None:
    story = build_story(level, seed, fps=2, seconds=20)
    timeline = story.timeline()
    check_timeline(timeline)
    frames = set(story.frame_times)
    for segment in timeline.segments:
        assert segment.known_from >= segment.begin
        assert segment.known_from in frames
    for question in timeline.questions:
        assert question.evidence is not None and question.evidence[1] <= timeline.duration
        assert not question.choices or question.answer in question.choices, question


def test_long_large_and_short_stories_keep_their_limits() -> None:
    assert build_story(5, 1, fps=1, seconds=8, size=448).render().shape == (8, 448, 448, 3)
    story = build_story(5, 1, fps=1, seconds=120)
    check_timeline(story.timeline())
    assert len(story.frame_times) == 120


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"level": 6}, "level"),
        ({"fps": 0.5}, "fps"),
        ({"seconds": 5}, "seconds"),
        ({"size": 32}, "size"),
        ({"size": 65}, "size"),
        ({"seed": -1}, "seed"),
        ({"wall": True}, "wall"),
        ({"level": 3, "walls": 1}, "walls"),
        ({"level": 3, "objects": 9}, "objects"),
        ({"level": 3, "camera": ("fly",)}, "camera"),
        ({"level": 3, "texture": "velvet"}, "texture"),
        ({"level": 3, "radius": (0.2, 0.1)}, "radius"),
        ({"level": 3, "idle": 4}, "idle"),
        ({"level": 2.5}, "level"),
        ({"level": "3"}, "level"),
        ({"level": True}, "level"),
        ({"seed": 1.5}, "seed"),
        ({"size": 64.0}, "size"),
        ({"fps": "one"}, "fps"),
        ({"seconds": None}, "seconds"),
        ({"level": 3, "objects": 2.5}, "objects"),
        ({"level": 3, "cuts": "1"}, "cuts"),
        ({"level": 3, "pace": None}, "pace"),
        ({"level": 3, "radius": 0.1}, "radius"),
        ({"level": 3, "radius": ("a", "b")}, "radius"),
        ({"level": 3, "signs": None}, "signs"),
        ({"level": 3, "activities": ()}, "activities"),
        ({"level": 3, "activities": "turn"}, "activities"),
        ({"level": 3, "wall": "no"}, "wall"),
        ({"level": 3, "texture": ["plain"]}, "texture"),
    ],
)
def test_an_argument_outside_its_range_is_named(arguments: dict[str, object], named: str) -> None:
    with pytest.raises(InputError, match=named):
        build_story(**({"level": 1, "seed": 0} | arguments))  # type: ignore[arg-type]


def test_knobs_can_be_set_on_their_own() -> None:
    quiet = build_story(5, 2, cuts=0, signs=(), camera=(), lights=False, activities=("turn",))
    verbs = {h.verb for h in quiet.record.happenings}
    assert verbs <= {"appear", "turn"}
    assert quiet.record.sign == ()
    signed = build_story(2, 2, signs=("clock",))
    assert all(":" in text for text in signed.record.sign)


def test_stories_share_no_seed_between_splits_or_with_other_tasks() -> None:
    ranges = sorted((first_story_seed(split, world), STORY_SPAN) for split in SPLITS for world in range(10))
    assert all(a + span <= b for (a, span), (b, _) in pairwise(ranges))
    assert ranges[0][0] > max(first_seed(split, task, 9) for split in SPLITS for task in TASKS)
    with pytest.raises(InputError, match="split"):
        first_story_seed("dev")
    with pytest.raises(InputError, match="world"):
        first_story_seed("train", 10)


def test_frames_one_by_one_are_those_of_the_whole() -> None:
    story = build_story(4, 5, seconds=8)
    assert (np.stack(list(story.frames())) == story.render()).all()


def test_the_frames_of_level_one_are_not_held_at_once() -> None:
    frames = build_story(1, 5, fps=8, seconds=8).frames()
    first = next(frames)
    assert all(np.shares_memory(first, next(frames)) for _ in range(7))  # the clip moves once a second


def test_a_story_in_which_nobody_would_appear_holds_one_object() -> None:
    objects = [len(build_story(2, seed, seconds=8, objects=1, pace=20).record.kinds) for seed in range(60)]
    assert min(objects) == 1
