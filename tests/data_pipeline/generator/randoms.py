"""Random timelines for properties."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import strategies as st

from data_pipeline.timeline.timeline import GivenQuestion, Segment, Timeline
from tests.data_pipeline.generator.samples import event, state

VALUES = {
    "count": ("no object", "one object", "two objects"),
    "visible": ("nothing", "red ball", "red ball and blue flag"),
    "colour:ball": ("red", "green", "blue"),
    "mood:cook": ("calm", "angry"),
}
EVENTS = (
    "red ball appears",
    "blue ball appears",
    "red ball leaves",
    "ball turns green",
    "red ball hits blue flag",
    "She cuts it",
)
DURATION = 12.0


@st.composite
def timelines(draw: st.DrawFn, begin: float = 0.0) -> Timeline:
    """Events and states that begin at `begin` or later, some of them known later than they begin, and annotated questions."""
    moments = st.integers(int(begin * 4), int(DURATION * 4)).map(lambda i: i / 4)
    segments: list[Segment] = []
    for text in draw(st.lists(st.sampled_from(EVENTS), max_size=5)):
        start = draw(moments)
        end = draw(st.none() | st.just(start) | st.just(min(DURATION, start + 2)))
        late = draw(st.none() | st.just(min(DURATION, start + 1.5)))
        segments.append(
            dataclasses.replace(event(start, text), end=end, evident=late, level=draw(st.sampled_from(("event", "action"))))
        )
    for subject in draw(st.sets(st.sampled_from(sorted(VALUES)))):
        cuts = sorted(draw(st.sets(moments, min_size=1, max_size=5)))
        for start, end in zip(cuts, [*cuts[1:], None], strict=True):
            if draw(st.integers(0, 3)):
                segments.append(state(start, end, subject, draw(st.sampled_from(VALUES[subject]))))
    questions = [
        GivenQuestion(text=f"What is it, {i}?", answer="A cook", evidence=(max(0.0, t - 1), t))
        for i, t in enumerate(draw(st.lists(moments, max_size=2)))
    ]
    return Timeline(
        id="random", duration=DURATION, segments=tuple(sorted(segments, key=lambda s: s.begin)), questions=tuple(questions)
    )


def with_other_future(timeline: Timeline, t: float, other: Timeline) -> Timeline:
    """The same until second `t`, and afterwards what `other` holds: another video with the same past."""
    kept: list[Segment] = []
    for s in timeline.until(t).segments:
        kept.append(s if s.end is not None else dataclasses.replace(s, end=None, evident=s.known_from))
    covered: set[Any] = {s.subject for s in kept if s.level == "state" and s.end is None}
    later = [s for s in other.segments if s.begin > t and not (s.level == "state" and s.subject in covered)]
    questions = timeline.until(t).questions + tuple(q for q in other.questions if q.evidence and q.evidence[1] > t)
    return dataclasses.replace(timeline, segments=(*kept, *later), questions=questions)
