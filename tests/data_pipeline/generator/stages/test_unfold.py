from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.generator.stages.unfold import unfold
from data_pipeline.timeline.timeline import Timeline
from tests.data_pipeline.generator.randoms import timelines


@settings(max_examples=150, deadline=None)
@given(timelines(), st.sampled_from((0.5, 1.0, 1.25)))
def test_it_is_the_truncated_timeline_at_every_frame(timeline: Timeline, gap: float) -> None:
    times = [i * gap for i in range(int(12 / gap) + 1)]
    assert list(unfold(timeline, times)) == [timeline.until(t) for t in times]


def test_what_a_source_keeps_is_not_shown() -> None:
    timeline = Timeline(id="v", duration=2.0, meta={"ends": "with a goal"})
    assert [seen.meta for seen in unfold(timeline, (0.0, 1.0))] == [{}, {}]
