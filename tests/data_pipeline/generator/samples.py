"""Hand-made timelines, and shapes of random ones."""

from __future__ import annotations

from typing import Any

from data_pipeline.timeline.timeline import GivenQuestion, Segment, Timeline

FRAMES = tuple(float(i) for i in range(16))


def event(t: float, text: str, change: str = "appear", **more: Any) -> Segment:
    return Segment(begin=t, end=t, text=text, level="event", change=change, **more)


def state(begin: float, end: float | None, subject: str, value: str) -> Segment:
    return Segment(begin=begin, end=end, text=value, level="state", subject=subject, value=value)


def world() -> Timeline:
    """A red ball comes at 3 s, a blue flag at 6 s; the ball turns green at 9 s and leaves at 12 s."""
    segments = [
        event(3, "red ball appears"),
        event(6, "blue flag appears"),
        event(9, "ball turns green", "state"),
        event(12, "green ball leaves", "leave"),
        state(0, 3, "count", "no object"),
        state(3, 6, "count", "one object"),
        state(6, 12, "count", "two objects"),
        state(12, 16, "count", "one object"),
        state(0, 3, "visible", "nothing"),
        state(3, 6, "visible", "red ball"),
        state(6, 9, "visible", "red ball and blue flag"),
        state(9, 12, "visible", "green ball and blue flag"),
        state(12, 16, "visible", "blue flag"),
        state(3, 9, "colour:ball", "red"),
        state(9, 12, "colour:ball", "green"),
        state(6, 16, "colour:flag", "blue"),
        state(3, 12, "place:ball", "top left"),
    ]
    return Timeline(id="world-1", duration=16.0, segments=tuple(sorted(segments, key=lambda s: s.begin)), source="test")


def kitchen() -> Timeline:
    """Captions of a cook: actions that last, with one annotated question."""
    segments = (
        Segment(begin=0, end=4, text="A woman washes a tomato", level="event"),
        Segment(begin=4, end=9, text="She cuts the tomato", level="event"),
        Segment(begin=9, end=12, text="She washes her hands", level="event"),
        Segment(begin=12, end=16, text="She cuts the tomato", level="event"),
    )
    question = GivenQuestion(text="What does she cut?", answer="A tomato", evidence=(4.0, 6.0))
    return Timeline(id="kitchen", duration=16.0, segments=segments, questions=(question,), video="kitchen.mp4")
