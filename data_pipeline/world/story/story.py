"""A story from a level and a seed: its frames, its timeline and everything that is true of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from typing import Any

import numpy as np

from data_pipeline.timeline.timeline import Timeline
from data_pipeline.world.story.direct import write_script
from data_pipeline.world.story.first import first_clip, first_frames, first_record
from data_pipeline.world.story.later import Drawn
from data_pipeline.world.story.level import Level, check_number, level_with
from data_pipeline.world.story.questions import questions
from data_pipeline.world.story.record import Array, Record
from data_pipeline.world.story.script import Script
from data_pipeline.world.story.truth import segments
from model.errors import InputError

LICENSE = "Apache-2.0"
LIMITS = {"level": (1, 5), "fps": (1, 8), "seconds": (8, 120), "size": (64, 448)}


@dataclass(frozen=True)
class Story:
    """A clip that is a pure function of its fields. The frames are samples of a story that goes on between them."""

    level: int
    seed: int
    fps: float
    seconds: float
    size: int
    knobs: Level | None = None
    """None at level 1."""

    @cached_property
    def frame_times(self) -> tuple[float, ...]:
        """Seconds of the frames."""
        return tuple(i / self.fps for i in range(max(1, round(self.seconds * self.fps))))

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.frame_times) / self.fps

    @cached_property
    def script(self) -> Script | None:
        """What happens in continuous time; None at level 1."""
        return None if self.knobs is None else write_script(self.knobs, self.seed, self.seconds)

    @cached_property
    def _drawn(self) -> Drawn | None:
        return None if self.script is None else Drawn(self.script, self.frame_times, self.duration, self.size)

    @cached_property
    def record(self) -> Record:
        """Who is where in every frame, how much of it is seen, and what happens."""
        if self._drawn is None:
            return first_record(first_clip(self.seed, self.seconds, self.size), self.frame_times, self.duration)
        return self._drawn.record

    def frames(self) -> Iterator[Array]:
        """uint8 [S, S, 3] RGB of each frame in order, without holding all of them."""
        if self._drawn is None:
            yield from first_frames(first_clip(self.seed, self.seconds, self.size), self.frame_times)
        else:
            yield from self._drawn.frames()

    def render(self) -> Array:
        """uint8 [T, S, S, 3] RGB."""
        return np.stack(list(self.frames()))

    def timeline(self) -> Timeline:
        """All that can be known of the story."""
        told = segments(self.record)
        return Timeline(
            id=f"story-{self.level}-{self.seed}",
            duration=self.duration,
            segments=told,
            questions=questions(self.record, told),
            source=f"moss-train world, level {self.level}, seed {self.seed}",
            license=LICENSE,
            split_key=f"story-{self.seed}",
            meta={"level": self.level, "seed": self.seed, "fps": self.fps, "seconds": self.seconds, "size": self.size},
        )


def build_story(level: int, seed: int, fps: float = 1.0, seconds: float = 16, size: int = 64, **knobs: Any) -> Story:
    """The story of a level and a seed.

    Args:
        seed: any integer from 0 on; `data_pipeline.world.story.seeds` says which belong to which split.
        fps: frames a second, 1 to 8.
        seconds: length, 8 to 120.
        size: height and width in pixels, 64 to 448, an even number.
        knobs: fields of `Level` that differ from those of the level.

    Raises:
        InputError: an argument that lies outside, or a knob that there is not.
    """
    for name, value in {"level": level, "fps": fps, "seconds": seconds, "size": size}.items():
        check_number(f"{name} of a story", value, *LIMITS[name], whole=name in ("level", "size"))
    if size % 2:
        raise InputError(f"size of a story is {size}; take an even number, since H.264 needs one")
    if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
        raise InputError(f"seed of a story is {seed!r}; use an integer from 0 on")
    return Story(level, seed, fps, seconds, size, level_with(level, **knobs))
