"""Level 1: the eventful clip of `data_pipeline.world.scene`, pixel for pixel, with the truth of a story."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil

import numpy as np

from data_pipeline.world.palette import COLOURS, KINDS
from data_pipeline.world.render import masks, render
from data_pipeline.world.scene import Clip, Event, Thing, eventful
from data_pipeline.world.story.record import Array, Happening, Record
from data_pipeline.world.tasks.realtime import sentence

FAINT = 0.3
"""Salience of bounces and collisions, which single frames hardly show."""


def first_clip(seed: int, seconds: float, size: int) -> Clip:
    """The clip moves once a second, whatever the frame rate."""
    return eventful(seed, ceil(seconds), size)


def first_record(clip: Clip, times: Sequence[float], duration: float) -> Record:
    """Truth of the frames at the given seconds."""
    steps = np.array([min(int(t + 1e-9), clip.num_frames - 1) for t in times])
    return Record(
        times=tuple(times),
        duration=duration,
        size=clip.size,
        kinds=tuple(KINDS[thing.kind] for thing in clip.things),
        colours=_stack([np.array(COLOURS)[thing.colour] for thing in clip.things], steps),
        x=_stack([thing.x.astype(float) for thing in clip.things], steps),
        y=_stack([thing.y.astype(float) for thing in clip.things], steps),
        share=_shares(clip)[steps],
        alive=_stack([thing.visible for thing in clip.things], steps),
        happenings=tuple(_happening(clip, event) for event in clip.events if event.frame < duration),
        depth=np.tile(np.arange(len(clip.things), dtype=float), (len(steps), 1)),
    )


def first_frames(clip: Clip, times: Sequence[float]) -> Iterator[Array]:
    """uint8 [S, S, 3] of each frame; the clip, with one frame a second, is all that is held."""
    pixels: Array = render(clip)
    for t in times:
        yield pixels[min(int(t + 1e-9), clip.num_frames - 1)]


def _stack(rows: list[Array], steps: Array) -> Array:
    return np.stack(rows, 1)[steps]


def _shares(clip: Clip) -> Array:
    """float [T, N]: pixels that are seen over those of the whole object."""
    shown = np.stack([mask.sum((1, 2)) for mask in masks(clip)], 1).astype(float)
    whole = np.array([_area(thing) for thing in clip.things], dtype=float)
    return np.asarray(shown / whole)


def _area(thing: Thing) -> int:
    offsets = np.arange(-thing.radius, thing.radius + 1)
    if thing.kind:
        return int(offsets.size**2)
    return int((offsets[:, None] ** 2 + offsets[None, :] ** 2 <= thing.radius**2).sum())


def _happening(clip: Clip, event: Event) -> Happening:
    rule = {"bounce": "contact", "collide": "contact"}.get(event.kind, event.kind)
    actors = [event.thing]
    if event.kind == "collide":
        actors.append(next(n for n, t in enumerate(clip.things) if n != event.thing and t.visible[event.frame]))
    t = float(event.frame)
    return Happening(
        begin=t,
        end=t,
        text=sentence(clip, event),
        rule=rule,
        verb=event.kind,
        actors=tuple(actors),
        change={"appear": "appear", "leave": "leave", "turn": "state"}.get(event.kind, "action"),
        salience=FAINT if rule == "contact" else 1.0,
    )
