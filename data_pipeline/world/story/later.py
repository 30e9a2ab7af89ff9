"""Levels 2 to 5: the record of a script, read from the frames that are drawn of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from data_pipeline.world.story.draw import Painter
from data_pipeline.world.story.evident import evident_at
from data_pipeline.world.story.record import Array, Record
from data_pipeline.world.story.script import Script
from data_pipeline.world.story.words import count_words

KEPT_BYTES = 2**26
"""Size of the frames up to which those that were drawn for a record are kept."""


class Drawn:
    """Frames and record of a script. Whoever asks for the frames first has their record for free."""

    def __init__(self, script: Script, times: Sequence[float], duration: float, size: int) -> None:
        self.painter = Painter(script, np.asarray(times), size)
        self.duration = duration
        self._record: Record | None = None
        self._kept: list[Array] = []

    def frames(self) -> Iterator[Array]:
        """uint8 [S, S, 3] of each frame, in order."""
        kept, self._kept = self._kept, []
        if kept:
            yield from kept
            return
        painter = self.painter
        shares = np.zeros((len(painter.times), len(painter.script.actors)))
        for i in range(len(painter.times)):
            picture, owner, whole = painter.paint(i)
            shares[i] = seen_share(owner, whole)
            yield picture
        self._record = self._write(shares)

    @property
    def record(self) -> Record:
        """What is true of the frames; draws them if nobody has yet, and keeps them for whoever asks next, if they are small."""
        if self._record is None:
            few = len(self.painter.times) * self.painter.size**2 * 3 <= KEPT_BYTES
            kept = [picture for picture in self.frames() if few]
            self._kept = kept
        assert self._record is not None
        return self._record

    def _write(self, share: Array) -> Record:
        painter, script = self.painter, self.painter.script
        times, size = painter.times, painter.size
        world = painter.positions
        columns, rows = zip(*(painter.view.pixels(i, world[i, :, 0], world[i, :, 1]) for i in range(len(times))), strict=True)
        alive = np.stack([a.there(times) for a in script.actors], 1)
        order = np.tile(np.arange(len(script.actors), dtype=float), (len(times), 1))
        record = Record(
            times=tuple(float(t) for t in times),
            duration=self.duration,
            size=size,
            kinds=tuple(a.kind for a in script.actors),
            colours=np.array([[a.colour.now(float(t)) for a in script.actors] for t in times]),
            x=np.stack(columns),
            y=np.stack(rows),
            share=share,
            alive=alive,
            happenings=tuple(script.happenings),
            sign=tuple(script.sign.now(float(t)) for t in times) if script.sign.times else (),
            depth=order,
            world=world,
        )
        return dataclasses.replace(record, counters=_counters(record))


def _counters(record: Record) -> dict[str, tuple[str, ...]]:
    """How many different objects have been seen to enter the box by each frame."""
    first: dict[int, float] = {}
    for happening in record.happenings:
        if happening.verb == "enter" and (t := evident_at(record, happening)) is not None:
            first.setdefault(happening.actors[0], t)
    if not first:
        return {}
    seen = list(first.values())
    return {"entered": tuple(count_words(sum(e <= t + 1e-9 for e in seen)) for t in record.times)}


def seen_share(owner: Array, whole: Array) -> Array:
    """float [N]: pixels that each actor owns in a picture, over those that it would have alone."""
    own = np.bincount(owner[(owner >= 0) & (owner < len(whole))].astype(np.int64), minlength=len(whole))
    return np.asarray(own / np.maximum(whole, 1))
