"""Disturbed pictures with exact truth: what cannot be seen is taken out of the timeline or moved to where it can be."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipeline.timeline.timeline import Segment, Timeline

Frames = np.ndarray[Any, np.dtype[np.uint8]]
"""[frames, height, width, 3]"""
STUTTERS = 0.2
"""Share of the frames of a stuttering clip that show the one before again."""


def draw_variant(rng: random.Random, weights: Mapping[str, float]) -> str:
    """One of the variants by weight."""
    return rng.choices(list(weights), list(weights.values()))[0]


def disturb(
    kind: str, timeline: Timeline, frames: Frames, frame_times: Sequence[float], rng: random.Random
) -> tuple[Timeline, Frames]:
    """The clip and its timeline after a variant: plain, frozen, stutter or black.

    Questions of the timeline are dropped where the picture is not what they were asked about.
    """
    if kind == "frozen" and len(frames) > 2:
        last = rng.randrange(1, len(frames) - 1)
        picture = frames.copy()
        picture[last:] = frames[last]
        return freeze(timeline, frame_times[last]), picture
    if kind == "stutter" and len(frames) > 2:
        drawn = rng.sample(range(1, len(frames) - 1), max(1, int(STUTTERS * (len(frames) - 2))))
        repeated = without_merging(timeline, frame_times, set(drawn))
        picture = frames.copy()
        for frame in sorted(repeated):
            picture[frame] = picture[frame - 1]
        return delay(timeline, frame_times, repeated), picture
    if kind == "black":
        picture = frames.copy()
        for frame, t in enumerate(frame_times):
            if _is_empty(timeline, t):
                picture[frame] = 0
        return timeline, picture
    return timeline, frames


def freeze(timeline: Timeline, t: float) -> Timeline:
    """As if time stood still from second `t` on: nothing begins any more, and what holds then holds to the end."""
    kept = tuple(
        s if s.end is not None and s.end <= t else dataclasses.replace(s, end=timeline.duration)
        for s in timeline.segments
        if s.begin <= t and s.known_from <= t
    )
    return dataclasses.replace(timeline, segments=kept, questions=())


def without_merging(timeline: Timeline, frame_times: Sequence[float], repeated: set[int]) -> set[int]:
    """The repeated frames but for those whose changes would come together with others at the next new frame.

    What appears in a repeated frame and is gone in the next one would never be seen, and yet be told.
    """
    told = [s for s in timeline.segments if s.level != "state"]  # of states the last one holds, which is what is seen
    times = {t for s in told for t in (s.begin, s.end, s.evident) if t is not None and t > frame_times[0]}
    changed = {next((i for i, x in enumerate(frame_times) if x >= t - 1e-9), len(frame_times)) for t in times}
    kept = set(repeated)
    run: list[int] = []
    for frame in range(len(frame_times)):
        run.append(frame)
        if frame in repeated:
            continue
        if sum(i in changed for i in run) > 1:
            kept -= set(run)
        run = []
    return kept


def _is_empty(timeline: Timeline, t: float) -> bool:
    """Whether a frame shows no object, nothing to read, and nothing that happens at it."""
    seen = timeline.state_at("visible", t)
    if seen is None or seen.value != "nothing":
        return False
    others = (s for s in timeline.segments if s.level == "text" or s.subject.split(":")[0] == "sign")
    return not any(s.begin <= t and (s.end is None or t < s.end) for s in others)


def delay(timeline: Timeline, frame_times: Sequence[float], repeated: set[int]) -> Timeline:
    """As it looks where some frames show the one before: what begins or ends there does so at the next frame that is new."""
    moved: dict[float, float] = {}
    for frame in sorted(repeated):
        new = next((i for i in range(frame + 1, len(frame_times)) if i not in repeated), None)
        moved[frame_times[frame]] = timeline.duration if new is None else frame_times[new]
        if new is not None:
            moved[frame_times[new]] = frame_times[new]  # what happens right before it comes with the rest

    def shown(t: float) -> float:
        """When what happens at `t`, or since the frame before it, can be seen."""
        first = next((x for x in frame_times if x >= t - 1e-9), None)
        return t if first is None or first not in moved else moved[first]

    moments = {id(s) for s in timeline.segments if s.end == s.begin}
    segments = [(_moved(s, shown), s.level == "event" or id(s) in moments) for s in timeline.segments]
    kept = sorted((s for s, stays in segments if stays or s.end is None or s.end > s.begin), key=lambda s: s.begin)
    return dataclasses.replace(timeline, segments=tuple(kept), questions=())


def _moved(segment: Segment, shown: Any) -> Segment:
    begin = shown(segment.begin)
    end = None if segment.end is None else max(begin, shown(segment.end))
    evident = None if segment.evident is None else max(begin, shown(segment.evident))
    return dataclasses.replace(segment, begin=begin, end=end, evident=evident)
