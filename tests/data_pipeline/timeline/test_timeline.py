"""Truncation: what is known at a second never depends on what comes later."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.timeline.normalise import normalise
from data_pipeline.timeline.timeline import GivenQuestion, Segment, Timeline, check_timeline
from data_pipeline.timeline.values import timeline_to_dict
from model.errors import InputError
from tests.data_pipeline.timeline.strategies import SECONDS, rough_timelines

MOMENTS = SECONDS.map(abs)
CLEAN = rough_timelines().map(normalise)


@given(CLEAN, MOMENTS, MOMENTS)
def test_known_stays_known_with_the_same_text(timeline: Timeline, first: float, second: float) -> None:
    early, late = timeline.until(min(first, second)), timeline.until(max(first, second))
    known_late = [(s.begin, s.level, s.text, s.subject, s.value, s.evident) for s in late.segments]
    for s in early.segments:
        assert (s.begin, s.level, s.text, s.subject, s.value, s.evident) in known_late
    assert set(early.questions) <= set(late.questions)


@given(CLEAN, MOMENTS, MOMENTS)
def test_cutting_twice_is_cutting_at_the_earlier(timeline: Timeline, first: float, second: float) -> None:
    earlier = timeline.until(min(first, second))
    assert timeline.until(first).until(second) == timeline.until(second).until(first) == earlier


@given(CLEAN, MOMENTS, st.sampled_from(["red", "green"]), st.floats(0.25, 5))
def test_another_future_gives_the_same_past(timeline: Timeline, t: float, value: str, later: float) -> None:
    """Whatever becomes known after t is replaced: other texts, other ends, more segments, other questions and meta."""
    long = dataclasses.replace(timeline, duration=timeline.duration + 100)
    extra = Segment(begin=t + later, end=None, text=f"{value} flag", level="event")
    lasting = Segment(begin=0.0, end=t + later, text="all of it", level="video")

    def changed(s: Segment) -> Segment:
        if s.known_from > t:
            return dataclasses.replace(s, text="secret", evident=s.known_from, entities=("secret",))
        return s if s.end is None or s.end <= t else dataclasses.replace(s, end=s.end + later, evident=s.known_from)

    told = tuple(
        dataclasses.replace(q, text="secret?", answer="secret") if q.evidence is None or q.evidence[1] > t else q
        for q in timeline.questions
    )
    other = dataclasses.replace(
        long, segments=(*(changed(s) for s in timeline.segments), extra, lasting), questions=told, meta={"plot": "secret"}
    )
    assert timeline_to_dict(other.until(t)) == timeline_to_dict(long.until(t))


@given(CLEAN, MOMENTS)
def test_no_second_beyond_the_moment_can_be_read_off(timeline: Timeline, t: float) -> None:
    known = timeline.until(t)
    assert known.duration <= t
    assert known.meta == {}
    for s in known.segments:
        assert s.begin <= t and s.evident is not None and s.evident <= t and (s.end is None or s.end <= t)
    assert all(q.evidence is not None and q.evidence[1] <= t for q in known.questions)


@given(CLEAN)
def test_at_the_end_everything_evident_is_known(timeline: Timeline) -> None:
    known = timeline.until(timeline.duration)
    assert len(known.segments) == sum(s.known_from <= timeline.duration for s in timeline.segments)


def test_an_action_is_known_at_its_end_and_an_event_at_once() -> None:
    action = Segment(begin=1.0, end=4.0, text="pours milk and spills it", level="action")
    event = Segment(begin=1.0, end=4.0, text="red ball appears")
    timeline = Timeline(id="v", duration=9.0, segments=(action, event))
    assert [s.text for s in timeline.until(3.9).segments] == ["red ball appears"]
    assert timeline.until(3.9).segments[0].end is None
    assert [s.text for s in timeline.until(4.0).segments] == ["pours milk and spills it", "red ball appears"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"evident": 0.5}, "segments[0].evident is 0.5; it must not lie before begin, 1 s"),
        ({"salience": 1.5}, "segments[0].salience is 1.5; it must lie within 0..1"),
        ({"begin": 12.0}, "segments[0].begin is 12; it must lie within 0..9 s"),
        ({"level": "scene"}, "segments[0].level is 'scene'; use one of video"),
        ({"change": "move"}, "segments[0].change is 'move'; use one of appear"),
        ({"level": "state"}, "segments[0] is a state without a subject or value"),
    ],
)
def test_unsound_segments_are_named(change: dict[str, object], message: str) -> None:
    segment = dataclasses.replace(Segment(begin=1.0, end=2.0, text="a"), **change)  # type: ignore[arg-type]
    with pytest.raises(InputError) as caught:
        check_timeline(Timeline(id="v", duration=9.0, segments=(segment,)), "x.jsonl line 3")
    assert str(caught.value).startswith("x.jsonl line 3 ") and message in str(caught.value)


def test_a_question_needs_rising_evidence() -> None:
    asked = GivenQuestion(text="q", answer="a", evidence=(3.0, 2.0))
    with pytest.raises(InputError, match=r"questions\[0\].evidence is \(3.0, 2.0\)"):
        check_timeline(Timeline(id="v", duration=9.0, questions=(asked,)))
