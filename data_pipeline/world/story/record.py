"""What is known of a story before anybody speaks of it: who is where in every frame, how much of it is seen, what happens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

VISIBLE_SHARE = 0.3
"""An object counts as visible in a frame that shows at least this share of its pixels."""

RULES = ("appear", "leave", "turn", "contact", "landing", "lasting", "hide", "show", "picture")
"""How it becomes evident that something happened; see `data_pipeline.world.story.evident`."""


@dataclass(frozen=True, kw_only=True)
class Happening:
    """Something that happens at a moment or lasts; its times do not depend on the frames."""

    begin: float
    """Seconds."""
    end: float
    """Seconds; equal to `begin` for what happens at a moment."""
    text: str
    """Such as `red ball appears`, without full stop."""
    rule: str
    """One of `RULES`."""
    verb: str
    actors: tuple[int, ...] = ()
    """Indices into the record's actors; who does it comes first."""
    change: str = ""
    """One of `data_pipeline.timeline.timeline.CHANGES`."""
    salience: float = 1.0
    level: str = "event"
    """event | action"""


@dataclass(frozen=True, kw_only=True)
class Record:
    """The truth of T frames and N actors, in picture coordinates."""

    times: tuple[float, ...]
    """Seconds of the frames."""
    duration: float
    size: int
    """Height and width of a frame in pixels."""
    kinds: tuple[str, ...]
    """Kind of each actor, such as `ball`."""
    colours: Array
    """str [T, N]: colour of each actor; empty for a photo."""
    x: Array
    """float [T, N]: columns of the centres in pixels."""
    y: Array
    """float [T, N]: rows of the centres in pixels."""
    share: Array
    """float [T, N]: share of the actor's pixels that the frame shows; 0 where it is not there."""
    alive: Array
    """bool [T, N]: whether the actor is there, seen or not."""
    happenings: tuple[Happening, ...]
    """In order of `begin`."""
    sign: tuple[str, ...] = ()
    """Text of the sign in each frame; empty tuple where there is none."""
    depth: Array | None = None
    """float [T, N]: what has a higher value lies in front; None where nobody asks."""
    world: Array | None = None
    """float [T, N, 2]: columns and rows of the centres in world coordinates, where a camera looks at a part of the world."""
    counters: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Further states by subject, with the value of each frame (empty where there is none)."""

    @property
    def visible(self) -> Array:
        """bool [T, N]."""
        return np.asarray(self.share >= VISIBLE_SHARE)

    def name(self, frame: int, actor: int) -> str:
        """`red ball`; the kind alone for what has no colour."""
        return f"{self.colours[frame, actor]} {self.kinds[actor]}".strip()
