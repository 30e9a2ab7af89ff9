"""Which frames of a scenario a question or a poll is shown."""

from __future__ import annotations

import math

from inference.evaluation.running.settings import RunSettings
from inference.evaluation.schema import Scenario

_SLACK = 1e-6


def clip_frames(scenario: Scenario, until: float | None, since: float | None, settings: RunSettings) -> range | list[int]:
    """Numbers of the frames shown, increasing, at least one.

    The clip ends with the last frame at or before `until`. It begins at `since`, or `context_seconds` before its end where that
    is later. Of more than `max_frames` frames evenly spaced ones are taken, always with the last, which is what is asked about.

    Args:
        until: seconds of the stream; None: the last frame.
        since: seconds of the stream; None: the first frame.
    """
    last = scenario.num_frames - 1
    if until is not None:
        last = min(last, max(0, math.floor(until * scenario.fps + _SLACK)))
    begin = since or 0.0
    if settings.context_seconds is not None:
        end = last / scenario.fps if until is None else until
        begin = max(begin, end - settings.context_seconds)
    first = min(last, max(0, math.ceil(begin * scenario.fps - _SLACK)))
    count = last - first + 1
    most = settings.max_frames
    if most is None or count <= most:
        return range(first, last + 1)
    if most == 1:
        return [last]
    return [first + round(place * (count - 1) / (most - 1)) for place in range(most)]


def poll_moments(begin: float, end: float, step: float) -> list[float]:
    """begin, begin + step, …, the last not after `end`."""
    count = math.floor((end - begin) / step + _SLACK) + 1
    return [begin + place * step for place in range(count)]
