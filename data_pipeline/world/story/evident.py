"""From which frame on somebody who watches can know that something has happened: read from what the frames show."""

from __future__ import annotations

import numpy as np

from data_pipeline.world.story.record import Happening, Record

RECOGNISED_AFTER = 1.0
"""Seconds that an action must have lasted before it can be told from standing still."""


def evident_at(record: Record, happening: Happening) -> float | None:
    """Second of the first frame that shows it; None where no frame ever does.

    appear, show: the actor is visible. leave, hide: it was visible before and is not any more; what leaves unseen is never
    evident. turn: the actor was seen before, and now with its new colour. contact: all actors are visible at once, while it
    lasts. lasting: the second frame within it that shows all actors, `RECOGNISED_AFTER` seconds after its begin or more.
    picture: the first frame, since it concerns the whole picture.
    """
    times = np.asarray(record.times)
    frames = np.flatnonzero(times >= happening.begin - 1e-9)
    if happening.rule == "picture":
        return _first(record, frames)
    seen = record.visible[:, list(happening.actors)].all(1)
    within = frames[times[frames] <= max(happening.end, happening.begin + 1.0) + 1e-9]
    earlier = seen[times < happening.begin - 1e-9]
    if happening.rule in ("appear", "show"):
        return _first(record, frames[seen[frames]])
    if happening.rule in ("leave", "hide"):
        return _gone(record, happening, frames, seen, earlier)
    if happening.rule == "turn":
        return _first(record, frames[seen[frames]]) if earlier.any() else None
    if happening.rule == "contact":
        return _first(record, within[seen[within]])
    shown = within[seen[within]]
    return _first(record, shown[1:][times[shown[1:]] >= happening.begin + RECOGNISED_AFTER - 1e-9])


def _gone(record: Record, happening: Happening, frames: np.ndarray, seen: np.ndarray, earlier: np.ndarray) -> float | None:
    if happening.rule == "leave":
        return _first(record, frames) if earlier.size and earlier[-1] else None
    return _first(record, frames[~seen[frames]]) if earlier.any() else None


def _first(record: Record, frames: np.ndarray) -> float | None:
    return float(record.times[int(frames[0])]) if frames.size else None
