"""Timelines as annotations really are: unsorted, overlapping, doubled, with states and cuts."""

from __future__ import annotations

from hypothesis import strategies as st

from data_pipeline.timeline.timeline import CHANGES, LEVELS, GivenQuestion, Segment, Timeline

SECONDS = st.integers(-4, 44).map(lambda n: n / 2)  # many equal times, so that ends and beginnings meet
TEXTS = st.sampled_from(["red ball appears", "Red ball  appears.", "a dog runs", "blue", "  ", "two objects"])


@st.composite
def rough_segments(draw: st.DrawFn) -> Segment:
    begin = draw(SECONDS)
    level = draw(st.sampled_from(LEVELS))
    stated = level == "state" or draw(st.booleans())
    return Segment(
        begin=begin,
        end=draw(st.none() | SECONDS.map(lambda s: max(s, begin))),
        text=draw(TEXTS),
        level=level,
        evident=draw(st.none() | SECONDS.map(lambda s: max(s, begin))),
        subject=draw(st.sampled_from(["count", "colour:ball"])) if stated else "",
        value=draw(st.sampled_from(["red", "blue", "Blue"])) if stated else "",
        entities=draw(st.sampled_from([(), ("ball",), ("ball", "dog")])),
        change=draw(st.sampled_from(["", "", "", *CHANGES])),
        salience=draw(st.sampled_from([0.0, 0.5, 1.0])),
        source=draw(st.sampled_from(["", "a", "b"])),
    )


@st.composite
def rough_timelines(draw: st.DrawFn) -> Timeline:
    spans = st.none() | st.tuples(SECONDS, SECONDS).map(lambda p: (max(min(p), 0.0), max(*p, 0.0)))
    asked = st.builds(GivenQuestion, text=TEXTS, answer=TEXTS, evidence=spans)
    return Timeline(
        id="v",
        duration=draw(st.sampled_from([0.5, 7.25, 16.0])),
        segments=tuple(draw(st.lists(rough_segments(), max_size=8))),
        questions=tuple(draw(st.lists(asked, max_size=3))),
        meta=draw(st.sampled_from([{}, {"summary": "the ball leaves at the end"}])),
    )
