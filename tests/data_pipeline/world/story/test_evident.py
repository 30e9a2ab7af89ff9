"""What is told to have been seen was seen: hiding, coming out and turning on hand-made records, and over many stories."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from data_pipeline.world.story import build_story
from data_pipeline.world.story.evident import evident_at
from data_pipeline.world.story.record import Happening, Record


def record(
    share: list[float], *happenings: Happening, alive: list[bool] | None = None, colours: list[str] | None = None
) -> Record:
    """One ball in the middle of the picture, at one frame a second."""
    frames = len(share)
    return Record(
        times=tuple(float(i) for i in range(frames)),
        duration=float(frames),
        size=64,
        kinds=("ball",),
        colours=np.array([[c] for c in colours or ["red"] * frames]),
        x=np.full((frames, 1), 32.0),
        y=np.full((frames, 1), 32.0),
        share=np.array(share)[:, None],
        alive=np.array(alive or [True] * frames)[:, None],
        happenings=happenings,
    )


def happens(begin: float, rule: str, text: str = "") -> Happening:
    return Happening(begin=begin, end=begin, text=text or f"red ball {rule}s", rule=rule, verb=rule, actors=(0,))


HIDE, SHOW = happens(1.5, "hide"), happens(4.2, "show")
TURN = happens(2.5, "turn", "ball turns blue")
RED, BLUE = "red", "blue"


@pytest.mark.parametrize(
    ("share", "alive", "hidden", "shown"),
    [
        ([1, 1, 0, 0, 0, 1, 1], None, 2.0, 5.0),
        ([0, 0, 0, 0, 0, 1, 1], None, None, None),  # nobody saw it before it hid
        ([1, 1, 1, 1, 1, 1, 0], None, None, None),  # in sight all the time, and gone behind something else later
        ([1, 1, 0, 0, 0, 0, 0], [True] * 4 + [False] * 3, 2.0, None),
        ([1, 1, 1, 1, 1, 0, 0], [True] * 5 + [False] * 2, None, None),  # it is gone, not hidden
    ],
)
def test_who_goes_behind_a_wall_and_comes_out(
    share: list[float], alive: list[bool] | None, hidden: float | None, shown: float | None
) -> None:
    told = record(share, HIDE, SHOW, alive=alive)
    assert (evident_at(told, HIDE), evident_at(told, SHOW)) == (hidden, shown)


def test_what_was_out_of_sight_for_long_is_not_seen_to_hide() -> None:
    hide = happens(4.5, "hide")
    assert evident_at(record([1, 1, 0, 0, 0, 0, 0], hide), hide) is None
    assert evident_at(record([1, 1, 1, 0, 0, 0, 0], hide), hide) is None
    assert evident_at(record([1, 1, 1, 1, 0, 0, 0], hide), hide) == 5.0


def test_what_vanishes_beside_the_picture_is_not_seen_to_leave() -> None:
    leave = happens(2.5, "leave")
    told = record([1, 1, 1, 0, 0], leave, alive=[True] * 3 + [False] * 2)
    assert evident_at(told, leave) == 3.0
    told.x[3:] = 70.0  # the camera has moved on
    assert evident_at(told, leave) is None


@pytest.mark.parametrize(
    ("share", "colours", "evident"),
    [
        ([1] * 8, [RED] * 3 + [BLUE] * 5, 3.0),
        ([1, 1, 1, 0, 1, 1, 1, 1], [RED] * 3 + [BLUE] * 5, 4.0),
        ([1, 1, 1, 0, 1, 1, 1, 1], [RED] * 3 + [BLUE] + ["green"] * 4, None),  # blue was never seen
        ([1, 0, 0, 0, 0, 0, 0, 1], [RED] * 3 + [BLUE] * 5, None),  # it was out of sight when it turned
        ([0, 0, 0, 1, 1, 1, 1, 1], [RED] * 3 + [BLUE] * 5, None),
    ],
)
def test_a_turn_is_seen_where_both_colours_are(share: list[float], colours: list[str], evident: float | None) -> None:
    assert evident_at(record(share, TURN, colours=colours), TURN) == evident


@pytest.mark.parametrize("level", (3, 4, 5))
def test_what_stories_tell_is_what_their_frames_show(level: int) -> None:
    counted: dict[str, int] = {}
    for seed in range(15):
        story = build_story(level, seed, seconds=30)
        shown, timeline = story.record, story.timeline()
        told = {(s.begin, s.text): s.known_from for s in timeline.segments}
        hidden: dict[Any, bool] = {}
        for h in shown.happenings:
            if (evident := told.get((h.begin, h.text))) is None:
                hidden.update({h.actors: False} if h.rule == "hide" else {})
                continue
            frame, counted[h.rule] = shown.times.index(evident), counted.get(h.rule, 0) + 1
            if h.rule == "turn":
                seen = [i for i in range(frame) if shown.visible[i, h.actors[0]]]
                assert shown.colours[frame, h.actors[0]] == h.text.split()[-1] != shown.colours[seen[-1], h.actors[0]]
            if h.rule == "hide":
                assert shown.alive[frame, h.actors[0]]
                hidden[h.actors] = True
            if h.rule == "show":
                assert hidden[h.actors]
            if h.verb == "sign":
                assert shown.sign[frame] == h.text.removeprefix("the sign changes to ") != shown.sign[frame - 1]
    assert min(counted[rule] for rule in ("turn", "hide", "show", "picture")) > 5


def test_a_sign_changes_at_the_frame_that_the_event_names() -> None:
    for seed in (8, 38):  # a change lies within thousandths of a second of a frame
        story = build_story(3, seed, fps=2, seconds=30)
        for segment in story.timeline().segments:
            if segment.text.startswith("the sign changes to "):
                frame = story.record.times.index(segment.known_from)
                assert story.record.sign[frame] != story.record.sign[frame - 1]
