"""A story from a level and a seed: its frames, its timeline and everything that is true of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from data_pipeline.timeline.timeline import Timeline
from data_pipeline.world.story.first import first_clip, first_frames, first_record
from data_pipeline.world.story.record import Array, Record
from data_pipeline.world.story.truth import segments
from model.errors import InputError

LICENSE = "Apache-2.0"


@dataclass(frozen=True)
class Story:
    """A clip that is a pure function of its fields. The frames are samples of a story that goes on between them."""

    level: int
    seed: int
    fps: float
    seconds: float
    size: int

    @cached_property
    def frame_times(self) -> tuple[float, ...]:
        """Seconds of the frames."""
        return tuple(i / self.fps for i in range(max(1, round(self.seconds * self.fps))))

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.frame_times) / self.fps

    @cached_property
    def record(self) -> Record:
        """Who is where in every frame, and what happens."""
        return first_record(first_clip(self.seed, self.seconds, self.size), self.frame_times, self.duration)

    def render(self) -> Array:
        """uint8 [T, S, S, 3] RGB."""
        return first_frames(first_clip(self.seed, self.seconds, self.size), self.frame_times)

    def timeline(self) -> Timeline:
        """All that can be known of the story."""
        return Timeline(
            id=f"story-{self.level}-{self.seed}",
            duration=self.duration,
            segments=segments(self.record),
            source=f"moss-train world, level {self.level}, seed {self.seed}",
            license=LICENSE,
            split_key=f"story-{self.seed}",
            meta={"level": self.level, "seed": self.seed, "fps": self.fps, "seconds": self.seconds, "size": self.size},
        )


def build_story(level: int, seed: int, fps: float = 1.0, seconds: float = 16, size: int = 64) -> Story:
    """The story of a level and a seed.

    Args:
        seed: any integer from 0 on; `data_pipeline.world.story.seeds` says which belong to which split.
        fps: frames a second, 1 to 8.
        seconds: length, 8 to 120.
        size: height and width in pixels, 64 to 448.

    Raises:
        InputError: an argument that lies outside.
    """
    for name, value, low, high in (
        ("level", level, 1, 5),
        ("fps", fps, 1, 8),
        ("seconds", seconds, 8, 120),
        ("size", size, 64, 448),
    ):
        if not (math.isfinite(value) and low <= value <= high):
            raise InputError(f"{name} of a story is {value}; it must lie within {low}..{high}")
    if seed < 0:
        raise InputError(f"seed of a story is {seed}; use an integer from 0 on")
    return Story(level, seed, fps, seconds, size)
