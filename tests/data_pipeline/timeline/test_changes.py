"""Changes found by rules."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given

from data_pipeline.timeline.changes import detect_changes
from data_pipeline.timeline.normalise import normalise
from data_pipeline.timeline.timeline import CHANGES, Segment, Timeline
from tests.data_pipeline.timeline.strategies import SECONDS, rough_timelines

CLEAN = rough_timelines().map(normalise)


def of(*segments: Segment) -> list[tuple[float, str, str, str]]:
    timeline = normalise(Timeline(id="v", duration=10.0, segments=segments))
    return [(c.t, c.kind, c.before, c.after) for c in detect_changes(timeline)]


def state(begin: float, end: float, subject: str, value: str) -> Segment:
    return Segment(begin=begin, end=end, text=value, level="state", subject=subject, value=value)


@given(CLEAN)
def test_sorted_unique_and_of_known_kinds(timeline: Timeline) -> None:
    found = detect_changes(timeline)
    assert [c.t for c in found] == sorted(c.t for c in found)
    assert len({c.id for c in found}) == len(found)
    for c in found:
        assert c.kind in CHANGES and 0 <= c.salience <= 1 and 0 <= c.t <= timeline.duration
        assert c.before or c.after


@given(CLEAN, SECONDS.map(abs))
def test_a_change_is_seen_without_what_comes_later(timeline: Timeline, t: float) -> None:
    """What changed by t is the same where the rest of the video is cut off, so no change rests on the future."""
    whole = {(c.id, c.t, c.after) for c in detect_changes(timeline) if c.t <= t and c.after}
    cut = timeline.until(t)
    assert {(c.id, c.t, c.after) for c in detect_changes(cut) if c.t <= t and c.after} <= whole


@given(CLEAN)
def test_ids_rest_on_the_change_alone(timeline: Timeline) -> None:
    other = Segment(begin=timeline.duration, end=timeline.duration, text="a bell rings", level="event")
    more = normalise(dataclasses.replace(timeline, segments=(*timeline.segments, other)))
    assert {c.id for c in detect_changes(timeline)} <= {c.id for c in detect_changes(more)}


@given(CLEAN)
def test_what_is_said_is_no_change(timeline: Timeline) -> None:
    said = Segment(begin=0.25, end=0.5, text="a bomb explodes", level="speech")
    more = normalise(dataclasses.replace(timeline, segments=(*timeline.segments, said)))
    assert not any("bomb" in c.after for c in detect_changes(more))


def test_states() -> None:
    assert of(
        state(0.0, 2.0, "count", "one object"), state(2.0, 9.0, "count", "two objects"),
        state(0.0, 3.0, "colour:ball", "red"), state(3.0, 9.0, "colour:ball", "blue"),
        state(0.0, 4.0, "visible", "nothing"), state(4.0, 6.0, "visible", "red ball"), state(6.0, 9.0, "visible", "nothing"),
        state(5.0, 9.0, "sign", "STOP"),
    ) == [
        (2.0, "count", "one object", "two objects"),
        (3.0, "state", "red", "blue"),
        (4.0, "appear", "nothing", "red ball"),
        (5.0, "text", "", "STOP"),
        (6.0, "leave", "red ball", "nothing"),
    ]  # fmt: skip


def test_the_same_state_behind_a_cut_or_gap_is_no_change() -> None:
    cut = Segment(begin=4.0, end=4.0, text="another room", change="scene")
    assert of(state(0.0, 8.0, "count", "one"), cut) == [(4.0, "scene", "", "another room")]
    assert of(state(0.0, 2.0, "count", "one"), state(5.0, 8.0, "count", "one")) == []


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("red ball appears", "appear"),
        ("A man walks in and leaves again", "action"),
        ("the dog leaves", "leave"),
        ("a bus disappears behind the house", "leave"),
        ("a woman enters the room, then leaves", "appear"),
        ("球出现", "appear"),
        ("ball hits flag", "action"),
    ],
)
def test_kind_of_an_event_by_its_verb(text: str, kind: str) -> None:
    assert of(Segment(begin=3.0, end=4.0, text=text)) == [(3.0, kind, "", text)]


def test_onset_waits_for_the_text() -> None:
    assert of(Segment(begin=3.0, end=5.0, text="a man jumps", level="action")) == [(5.0, "action", "", "a man jumps")]
    assert of(Segment(begin=3.0, end=5.0, text="a man jumps", level="action", evident=3.5)) == [
        (3.5, "action", "", "a man jumps")
    ]


def test_what_the_video_begins_with_is_no_change_unless_it_is_said_to_be() -> None:
    begins = Segment(begin=0.0, end=2.0, text="red ball appears")
    assert of(begins) == []
    assert of(dataclasses.replace(begins, change="appear")) == [(0.0, "appear", "", "red ball appears")]


def test_texts_in_the_picture() -> None:
    shown = [Segment(begin=b, end=e, text=t, level="text") for b, e, t in [(1.0, 3.0, "OPEN"), (3.0, 5.0, "CLOSED")]]
    assert of(*shown) == [(1.0, "text", "", "OPEN"), (3.0, "text", "OPEN", "CLOSED"), (5.0, "text", "CLOSED", "")]


def test_what_is_known_later_is_neither_what_held_before_nor_what_follows() -> None:
    late = Segment(begin=2, end=5, text="green", level="state", subject="light", value="green", evident=7)
    assert (5, "state", "red", "blue") in of(state(0, 2, "light", "red"), late, state(5, 10, "light", "blue"))

    hidden = Segment(begin=1, end=5, text="EXIT", level="text", evident=7)
    assert (5, "text", "", "STOP") in of(hidden, Segment(begin=5, end=10, text="STOP", level="text"))

    blurred = Segment(begin=4, end=9, text="EXIT", level="text", evident=8)
    assert (5, "text", "STOP", "") in of(Segment(begin=1, end=5, text="STOP", level="text"), blurred)
