"""What happens in a story of level 2 and up, in continuous time: who does what when, drawn from a seed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from data_pipeline.world.palette import COLOURS, KINDS
from data_pipeline.world.story.level import Level
from data_pipeline.world.story.record import Happening
from data_pipeline.world.story.tracks import Actor, Steps, Track
from data_pipeline.world.story.words import FIGURES, PHOTOS

SETTLE = 1.6
"""Seconds that an object rests after something has happened to it: every frame rate from 1 on shows what it led to."""
WALL = 0.17
"""Half the width and height of the wall."""
BOX = 0.155
"""Half the width and height of the box."""
SIGN_ROOM = 0.2
"""Share of the picture's height that a sign takes at the top."""


@dataclass
class Shot:
    """A scene between two cuts."""

    begin: float
    end: float
    look: int
    """Seed of its background."""
    actors: list[int] = field(default_factory=list)
    """Indices into the script's actors."""
    wall: tuple[float, float] | None = None
    """Centre of the wall."""
    box: tuple[float, float] | None = None
    box_free: float = 0.0
    """Second from which on nobody is in the box."""
    wall_free: float = 0.0
    slots: list[tuple[float, float]] = field(default_factory=list)
    """Places at which objects live, far enough from each other not to touch."""


@dataclass
class Script:
    """A whole story."""

    level: Level
    seed: int
    duration: float
    shots: list[Shot] = field(default_factory=list)
    actors: list[Actor] = field(default_factory=list)
    happenings: list[Happening] = field(default_factory=list)
    sign: Steps = field(default_factory=lambda: Steps([], []))
    pan_x: Track = field(default_factory=lambda: Track([0.0], [0.5]))
    pan_y: Track = field(default_factory=lambda: Track([0.0], [0.5]))
    zoom: Track = field(default_factory=lambda: Track([0.0], [1.0]))
    light: Track = field(default_factory=lambda: Track([0.0], [1.0]))
    shakes: list[tuple[float, float]] = field(default_factory=list)

    def tell(self, begin: float, end: float, text: str, rule: str, verb: str, *actors: int, **more: object) -> None:
        """Write down that something happens."""
        values = {"begin": round(begin, 3), "end": round(end, 3), "text": text, "rule": rule, "verb": verb}
        self.happenings.append(Happening(**values, actors=actors, **more))  # type: ignore[arg-type]

    def alive(self, shot: Shot, t: float) -> list[int]:
        """Actors of a shot that are there at `t`."""
        return [n for n in shot.actors if self.actors[n].born <= t < self.actors[n].dies]

    def free_slots(self, shot: Shot, t: float) -> list[int]:
        """Places that nobody lives at."""
        taken = {self.actors[n].slot for n in shot.actors if self.actors[n].dies > t - 0.5}
        return [i for i in range(len(shot.slots)) if i not in taken]


def new_shot(rng: np.random.Generator, level: Level, begin: float, end: float) -> Shot:
    """An empty scene: nine cells, of which the wall and the box take one each."""
    top = SIGN_ROOM if level.signs else 0.0
    height = 1 - top
    cells = [(c / 3 + 1 / 6, top + height * (r / 3 + 1 / 6)) for r in range(3) for c in range(3)]
    shot = Shot(begin, end, int(rng.integers(2**31)))
    corners = rng.permutation(np.array([rng.choice((3, 6)), rng.choice((5, 8))]))  # never one above the other
    if level.wall:
        shot.wall = cells[int(corners[0])]
    if level.box:
        shot.box = cells[int(corners[1])]
    used = [c for c, wanted in zip(corners, (level.wall, level.box), strict=True) if wanted]
    for i, (x, y) in enumerate(cells):
        if i not in used:
            dx, dy = rng.uniform(-0.02, 0.02, 2)
            shot.slots.append((x + float(dx), y + float(dy)))
    shot.box_free = shot.wall_free = begin
    return shot


def new_actor(script: Script, shot: Shot, rng: np.random.Generator, t: float) -> int | None:
    """Another object at a free place, of a kind that nobody else has had lately; None where there is no room."""
    free = script.free_slots(shot, t)
    if not free:
        return None
    slot = free[int(rng.integers(len(free)))]
    level = script.level
    draw = rng.random()
    family = PHOTOS if draw < level.photos else FIGURES if draw < level.photos + level.drawn else KINDS
    recent = [a.kind for a in script.actors if a.dies > t - 6]
    kinds = [k for k in family if k not in recent] or [k for k in (*KINDS, *FIGURES) if k not in recent]
    kind = str(kinds[int(rng.integers(len(kinds)))])
    colour = "" if kind in PHOTOS else free_colour(script, shot, rng, t)
    x, y = shot.slots[slot]
    radius = float(rng.uniform(*level.radius))
    begin = Track([0.0], [0.0])
    script.actors.append(
        Actor(
            kind=kind,
            radius=radius,
            born=t,
            dies=math.inf if shot.end >= script.duration else shot.end,
            x=Track([t], [x]),
            y=Track([t], [y]),
            colour=Steps([0.0], [colour]),
            angle=begin,
            scale=Track([t], [1.0]),
            slot=slot,
            busy=t + SETTLE,
        )
    )
    shot.actors.append(len(script.actors) - 1)
    return shot.actors[-1]


def free_colour(script: Script, shot: Shot, rng: np.random.Generator, t: float, without: str = "") -> str:
    """A colour that no other object has, unless similar ones are wanted."""
    taken = [] if script.level.similar else [script.actors[n].colour.now(t) for n in script.alive(shot, t)]
    left = [c for c in COLOURS if c not in taken and c != without] or [c for c in COLOURS if c != without]
    return left[int(rng.integers(len(left)))]
