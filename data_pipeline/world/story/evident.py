"""From which frame on somebody who watches can know that something has happened: read from what the frames show."""

from __future__ import annotations

import numpy as np

from data_pipeline.world.story.record import Array, Happening, Record

RECOGNISED_AFTER = 1.0
"""Seconds that an action must have lasted before it can be told from standing still."""


SOON = 2.0
"""Seconds within which a newcomer must be visible to be told from something that was there and comes into sight; likewise the new
colour of what turns."""

HOP = 3.0
"""Seconds of one bounce: at one frame a second at least one frame shows it in the air."""


def evident_at(record: Record, happening: Happening) -> float | None:
    """Second of the first frame that shows it; None where no frame ever does.

    appear: the actor is visible, `SOON` seconds later or sooner; what comes into sight later did not appear there.
    show: it is visible, and was seen to hide before.
    leave: it is gone from a place within the picture, and the frame before showed it.
    hide: it was visible within `SOON` before, and is not any more although it is there, its centre lies within the picture and it
        has not come out yet.
    turn: it is visible with its new colour, and was so with another one, both within `SOON`; what turns unseen is told by its
        state alone.
    contact: all actors are visible at once, while it lasts (for a second at least).
    landing: the actor is visible, and was so in a frame that shows it well above the ground.
    lasting: the second frame within it that shows all actors, `RECOGNISED_AFTER` seconds after its begin or later.
    picture: the first frame after its end, since it concerns the whole picture.
    """
    times = np.asarray(record.times)
    if happening.rule == "picture":
        return _first(record, np.flatnonzero(times >= happening.end - 1e-9))
    frames = np.flatnonzero(times >= happening.begin - 1e-9)
    seen: Array = np.asarray(record.visible[:, list(happening.actors)].all(axis=1))
    within = frames[times[frames] <= max(happening.end, happening.begin + 1.0) + 1e-9]
    earlier = seen[times < happening.begin - 1e-9]
    if happening.rule == "appear":
        return _first(record, frames[seen[frames] & (times[frames] <= happening.begin + SOON)])
    if happening.rule == "show":
        return _first(record, frames[seen[frames]]) if _hidden(record, happening) else None
    if happening.rule == "leave":
        gone = _inside(record, happening.actors[0])[frames[:1]].any()
        return _first(record, frames) if gone and earlier.size and earlier[-1] else None
    if happening.rule == "hide":
        lately = seen & (times < happening.begin - 1e-9) & (times >= happening.begin - SOON)
        return _first(record, _behind(record, happening, frames)) if lately.any() else None
    if happening.rule == "turn":
        return _first(record, _turned(record, happening, frames))
    if happening.rule == "landing":
        aloft = (times >= happening.begin - 0.8 * HOP) & (times <= happening.begin - 0.2 * HOP)
        return _first(record, within[seen[within]]) if seen[aloft].any() else None
    if happening.rule == "contact":
        return _first(record, within[seen[within]])
    shown = within[seen[within]]
    return _first(record, shown[1:][times[shown[1:]] >= happening.begin + RECOGNISED_AFTER - 1e-9])


def _behind(record: Record, happening: Happening, frames: Array) -> Array:
    """Frames in which an actor is there, in the picture and not visible, before it comes out again."""
    who = happening.actors[0]
    out = min(
        (h.begin for h in record.happenings if h.rule == "show" and h.actors == happening.actors and h.begin > happening.begin),
        default=np.inf,
    )
    early = frames[np.asarray(record.times)[frames] <= out + 1e-9]
    return np.asarray(early[~record.visible[early, who] & record.alive[early, who] & _inside(record, who)[early]])


def _hidden(record: Record, happening: Happening) -> bool:
    """Whether the actor that comes out was seen to hide."""
    hidden = [h for h in record.happenings if h.rule == "hide" and h.actors == happening.actors and h.begin < happening.begin]
    return bool(hidden) and evident_at(record, hidden[-1]) is not None


def _turned(record: Record, happening: Happening, frames: Array) -> Array:
    """Frames that show an actor in its new colour, if the last one that showed it before had another."""
    who, colour = happening.actors[0], happening.text.rsplit(" ", 1)[-1]
    times = np.asarray(record.times)
    earlier = np.flatnonzero(record.visible[:, who] & (times < happening.begin - 1e-9) & (times >= happening.begin - SOON))
    if not earlier.size or record.colours[earlier[-1], who] == colour:
        return frames[:0]
    shown = frames[record.visible[frames, who] & (times[frames] <= happening.begin + SOON)]
    return np.asarray(shown[record.colours[shown, who] == colour])


def _inside(record: Record, actor: int) -> np.ndarray:
    """bool [T]: whether an actor's centre lies within the picture."""
    x, y = record.x[:, actor], record.y[:, actor]
    return np.asarray((x >= 0) & (x < record.size) & (y >= 0) & (y < record.size))


def _first(record: Record, frames: np.ndarray) -> float | None:
    return float(record.times[int(frames[0])]) if frames.size else None
