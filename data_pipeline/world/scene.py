"""The story of a clip: which objects are where in every frame, and what happens when. Integer seed in, exact truth out."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from data_pipeline.world.palette import COLOURS, DIRECTIONS, KINDS

FRAME_SIZE = 64
"""Height and width of a frame in pixels."""

STEP = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


@dataclass
class Thing:
    """One object over the T frames of its clip."""

    kind: int
    radius: int
    x: np.ndarray
    """int [T] centre column in pixels."""
    y: np.ndarray
    """int [T] centre row in pixels."""
    colour: np.ndarray
    """int [T] index into COLOURS."""
    visible: np.ndarray
    """bool [T]."""

    def name(self, frame: int) -> str:
        return f"{COLOURS[int(self.colour[frame])]} {KINDS[self.kind]}"


@dataclass(frozen=True)
class Event:
    """Something that is first true in frame `frame`."""

    frame: int
    kind: str
    """appear | leave | turn | bounce | collide"""
    thing: int
    """Index into `Clip.things`."""


@dataclass
class Clip:
    """T frames of `size` x `size` pixels; one frame stands for one second."""

    seed: int
    size: int
    num_frames: int
    things: list[Thing]
    events: list[Event] = field(default_factory=list)
    """In order of frame."""

    def count(self, frame: int) -> int:
        """Objects to be seen in a frame."""
        return sum(bool(thing.visible[frame]) for thing in self.things)

    def seen(self, frame: int) -> list[Thing]:
        return [thing for thing in self.things if thing.visible[frame]]


def _radius(rng: np.random.Generator, size: int) -> int:
    return int(rng.integers(round(0.15 * size), round(0.21 * size) + 1))


def _fixed(kind: int, radius: int, x: int, y: int, colour: int) -> Thing:
    return Thing(kind, radius, np.array([x]), np.array([y]), np.array([colour]), np.array([True]))


def still(seed: int, size: int = FRAME_SIZE, two: float = 0.3) -> Clip:
    """One frame with one object, or with probability `two` two objects that do not touch."""
    rng = np.random.default_rng(seed)
    things: list[Thing] = []
    wanted = 1 + int(rng.random() < two)
    while len(things) < wanted:
        radius = _radius(rng, size)
        x, y = (int(v) for v in rng.integers(radius, size - radius, 2))
        if any(max(abs(x - t.x[0]), abs(y - t.y[0])) <= radius + t.radius for t in things):
            things.clear()  # no room: draw the pair again
            continue
        things.append(_fixed(int(rng.integers(len(KINDS))), radius, x, y, int(rng.integers(len(COLOURS)))))
    things.sort(key=lambda t: (3 * int(t.y[0]) // size, int(t.x[0])))
    return Clip(seed, size, 1, things)


def moving(seed: int, num_frames: int = 8, size: int = FRAME_SIZE) -> tuple[Clip, str]:
    """One object that moves steadily; returns the clip and the direction's word.

    First and last frame lie in different thirds along the direction, at least two pixels inside their third.
    """
    rng = np.random.default_rng(seed)
    radius = _radius(rng, size)
    direction = str(rng.choice(DIRECTIONS))
    low, high, third = radius, size - 1 - radius, size / 3
    span = np.arange(low, high + 1)
    safe = span[np.abs((span[:, None] - np.array([third, 2 * third])).T).min(0) >= 2]
    across = int(rng.choice(safe))
    while True:
        begin, end = sorted(int(v) for v in rng.choice(safe, 2, replace=False))
        if int(begin // third) != int(end // third) and end - begin >= size // 4:
            break
    if direction in ("left", "up"):
        begin, end = end, begin
    along = np.rint(np.linspace(begin, end, num_frames)).astype(np.int64)
    sway = np.full(num_frames, across)
    x, y = (along, sway) if direction in ("left", "right") else (sway, along)
    colour = np.full(num_frames, int(rng.integers(len(COLOURS))))
    thing = Thing(int(rng.integers(len(KINDS))), radius, x, y, colour, np.ones(num_frames, dtype=bool))
    return Clip(seed, size, num_frames, [thing]), direction


def eventful(seed: int, num_frames: int = 16, size: int = FRAME_SIZE, two: float = 0.25) -> Clip:
    """Objects come, change colour and go at random times while they drift, bounce off the walls and collide.

    With probability `two` a second object is there at the same time.
    """
    rng = np.random.default_rng(seed)
    lives = _lives(rng, num_frames, first=int(rng.integers(1, 4)))
    if rng.random() < two:
        lives += _lives(rng, num_frames, first=int(rng.integers(4, num_frames // 2 + 1)))[:1]
    radii = [_radius(rng, size) for _ in lives]
    x, y, touches = _paths(rng, lives, radii, num_frames, size)
    clip = Clip(seed, size, num_frames, [])
    for i, (birth, death, turns) in enumerate(lives):
        colours = np.full(num_frames, int(rng.integers(len(COLOURS))))
        for frame in turns:
            colours[frame:] = (colours[frame - 1] + int(rng.integers(1, len(COLOURS)))) % len(COLOURS)
        visible = np.zeros(num_frames, dtype=bool)
        visible[birth:death] = True
        clip.things.append(Thing(int(rng.integers(len(KINDS))), radii[i], x[i], y[i], colours, visible))
        clip.events.append(Event(birth, "appear", i))
        clip.events += [Event(frame, "turn", i) for frame in turns]
        if death < num_frames:
            clip.events.append(Event(death, "leave", i))
    clip.events += touches
    clip.events.sort(key=lambda e: (e.frame, e.thing, e.kind))
    return clip


def _lives(rng: np.random.Generator, num_frames: int, first: int) -> list[tuple[int, int, list[int]]]:
    """(first frame, first frame after, frames of colour changes) of objects that follow each other."""
    lives = []
    birth = first
    while birth < num_frames - 2:
        death = birth + int(rng.integers(3, 10))
        turns = []
        if min(death, num_frames) - birth >= 3 and rng.random() < 0.6:
            turns.append(int(rng.integers(birth + 1, min(death, num_frames) - 1)))
        lives.append((birth, min(death, num_frames), turns))
        birth = death + int(rng.integers(1, 5))
    return lives


def _paths(
    rng: np.random.Generator, lives: list[tuple[int, int, list[int]]], radii: list[int], num_frames: int, size: int
) -> tuple[np.ndarray, np.ndarray, list[Event]]:
    """Drift with bounces and collisions: int [things, T] columns and rows, and the frames of contact."""
    n = len(lives)
    r = np.array(radii, dtype=np.float64)
    pos = np.stack([rng.uniform(r, size - 1 - r), rng.uniform(r, size - 1 - r)], 1)
    angle = rng.uniform(0, 2 * np.pi, n)
    vel = np.stack([np.cos(angle), np.sin(angle)], 1) * rng.uniform(1.5, 4.0, (n, 1))
    alive = np.zeros((n, num_frames), dtype=bool)
    for i, (birth, death, _) in enumerate(lives):
        alive[i, birth:death] = True
    out = np.zeros((2, n, num_frames), dtype=np.int64)
    events: list[Event] = []
    touching: set[tuple[int, int]] = set()
    for frame in range(num_frames):
        for i in range(n):
            if not alive[i, frame]:
                continue
            others = [j for j in range(n) if j != i and alive[j, frame]]
            if frame == lives[i][0]:
                _make_room(rng, pos, r, i, [j for j in others if lives[j][0] < frame or j < i], size)
                continue
            pos[i] += vel[i]
            wall = (pos[i] < r[i]) | (pos[i] > size - 1 - r[i])
            if wall.any():
                vel[i][wall] *= -1
                pos[i] = np.clip(pos[i], r[i], size - 1 - r[i])
                events.append(Event(frame, "bounce", i))
        for i in range(n):
            for j in range(i):
                near = alive[i, frame] and alive[j, frame] and np.abs(pos[i] - pos[j]).max() <= r[i] + r[j]
                if near and (j, i) not in touching:
                    vel[[i, j]] = vel[[j, i]]
                    events.append(Event(frame, "collide", i))
                    touching.add((j, i))
                elif not near:
                    touching.discard((j, i))
        out[0, :, frame], out[1, :, frame] = np.rint(pos[:, 0]), np.rint(pos[:, 1])
    return out[0], out[1], events


def _make_room(rng: np.random.Generator, pos: np.ndarray, r: np.ndarray, i: int, others: list[int], size: int) -> None:
    """Move a newborn object to a place where it covers nobody; after 20 tries the place stays as drawn."""
    for _ in range(20):
        if all(np.abs(pos[i] - pos[j]).max() > r[i] + r[j] + 1 for j in others):
            return
        pos[i] = rng.uniform(r[i], size - 1 - r[i], 2)
