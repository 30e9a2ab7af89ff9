"""A timeline as it becomes known, frame by frame."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from data_pipeline.timeline.timeline import Segment, Timeline


def unfold(timeline: Timeline, frame_times: Sequence[float]) -> Iterator[Timeline]:
    """`timeline.until(t)` for every frame, with what does not change from frame to frame made once."""
    order = sorted(range(len(timeline.segments)), key=lambda i: max(timeline.segments[i].begin, timeline.segments[i].known_from))
    known: dict[int, Segment] = {}
    ends: list[tuple[float, int]] = []
    arrived = 0
    seen: tuple[Segment, ...] = ()
    bare = dataclasses.replace(timeline, segments=(), questions=(), meta={})
    for t in frame_times:
        changed = False
        while arrived < len(order):
            index = order[arrived]
            segment = timeline.segments[index]
            if segment.begin > t or segment.known_from > t:
                break
            known[index] = dataclasses.replace(segment, end=None, evident=segment.known_from)
            if segment.end is not None:
                ends.append((segment.end, index))
            arrived, changed = arrived + 1, True
        over = [(end, index) for end, index in ends if end <= t]
        for end, index in over:
            known[index] = dataclasses.replace(known[index], end=end)
            changed = True
        if over:
            ends = [e for e in ends if e[0] > t]
        if changed:
            seen = tuple(known[index] for index in sorted(known))
        asked = tuple(q for q in timeline.questions if q.evidence is not None and q.evidence[1] <= t)
        yield dataclasses.replace(bare, duration=min(timeline.duration, t), segments=seen, questions=asked)
