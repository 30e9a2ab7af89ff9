"""What objects do: each function writes one activity into the script, or returns False where it does not fit."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from data_pipeline.world.story.evident import HOP
from data_pipeline.world.story.script import SETTLE, WALL, Script, Shot, free_colour
from data_pipeline.world.story.words import PHOTOS

Activity = Callable[[Script, Shot, np.random.Generator, float, int, list[int]], bool]
"""(script, shot, rng, second, who, others that are free) -> whether it takes place."""

BLINK = 2.0
"""Seconds of dim and bright together."""


def turn(script: Script, shot: Shot, rng: np.random.Generator, t: float, who: int, others: list[int]) -> bool:
    """Change colour."""
    actor = script.actors[who]
    if actor.kind in PHOTOS or t - actor.born < SETTLE:
        return False
    colour = free_colour(script, shot, rng, t, without=actor.colour.now(t))
    actor.colour.add(t, colour)
    actor.busy = t + SETTLE
    script.tell(t, t, f"{actor.kind} turns {colour}", "turn", "turn", who, change="state")
    return True


def move(script: Script, shot: Shot, rng: np.random.Generator, t: float, who: int, others: list[int]) -> bool:
    """Go to another place, which is seen in its state alone."""
    actor, free = script.actors[who], script.free_slots(shot, t)
    if not free or t + 2.5 > shot.end:
        return False
    actor.slot = free[int(rng.integers(len(free)))]
    actor.go(t, t + 2.0, *shot.slots[actor.slot])
    actor.busy = t + 2.0
    return True


def leave(script: Script, shot: Shot, rng: np.random.Generator, t: float, who: int, others: list[int]) -> bool:
    """Be gone."""
    actor = script.actors[who]
    if t - actor.born < 3 or t + SETTLE > shot.end:
        return False
    actor.dies = t
    script.tell(t, t, f"{actor.name(t)} leaves", "leave", "leave", who, change="leave")
    return True


def _last(script: Script, shot: Shot, t: float, seconds: float, verb: str, who: int, *others: int) -> bool:
    """Whether there is time for an action; if so, write it down."""
    if t + seconds + 0.5 > shot.end:
        return False
    text = " ".join([script.actors[who].name(t), verb, *(script.actors[n].name(t) for n in others)])
    script.tell(t, t + seconds, text, "lasting", verb, who, *others, change="action", level="action", salience=0.8)
    for n in (who, *others):
        script.actors[n].busy = t + seconds + SETTLE
    return True


def spin(script: Script, shot: Shot, rng: np.random.Generator, t: float, who: int, others: list[int]) -> bool:
    """Turn around its centre, 0.3 times a second; a ball looks the same from all sides."""
    actor, seconds = script.actors[who], float(rng.uniform(3, 6))
    if actor.kind in ("ball", "ring") or not _last(script, shot, t, seconds, "spins", who):
        return False
    first = actor.angle.hold(t)
    actor.angle.add(t + seconds, first + 0.3 * seconds * 2 * math.pi * (1 if rng.random() < 0.5 else -1))
    return True


def blink(script: Script, shot: Shot, rng: np.random.Generator, t: float, who: int, others: list[int]) -> bool:
    """Go dim and bright."""
    seconds = BLINK * int(rng.integers(2, 4))
    if not _last(script, shot, t, seconds, "blinks", who):
        return False
    script.actors[who].blinks.append((t, t + seconds))
    return True


def grow(script: Script, shot: Shot, rng: np.random.Generator, t: float, who: int, others: list[int]) -> bool:
    """Become larger and stay so."""
    return _resize(script, shot, t, who, "grows", 1.3)


def shrink(script: Script, shot: Shot, rng: np.random.Generator, t: float, who: int, others: list[int]) -> bool:
    """Become smaller and stay so."""
    return _resize(script, shot, t, who, "shrinks", 0.72)


def _resize(script: Script, shot: Shot, t: float, who: int, verb: str, to: float) -> bool:
    actor = script.actors[who]
    if abs(actor.scale.values[-1] - to) < 0.1 or (to - actor.scale.values[-1]) * (to - 1) < 0:
        return False
    if not _last(script, shot, t, 2.5, verb, who):
        return False
    actor.scale.ease(t, t + 2.5, to)
    return True


def bounce(script: Script, shot: Shot, rng: np.random.Generator, t: float, who: int, others: list[int]) -> bool:
    """Hop up and down, once to three times."""
    actor, times = script.actors[who], int(rng.integers(1, 4))
    if t + times * HOP + 0.5 > shot.end:
        return False
    ground = actor.y.hold(t)
    for i in range(times):
        for step in range(1, 31):
            actor.y.add(t + HOP * (i + step / 30), ground - 0.15 * math.sin(math.pi * step / 30))
        landed = t + HOP * (i + 1)
        script.tell(landed, landed, f"{actor.name(t)} bounces", "landing", "bounce", who, change="action", salience=0.6)
    actor.busy = t + times * HOP + 1
    return True


def hit(script: Script, shot: Shot, rng: np.random.Generator, t: float, who: int, others: list[int]) -> bool:
    """Meet another object half way, touch it for a while and go back; like two hands that clap."""
    if not others or t + 4 > shot.end:
        return False
    other = others[int(rng.integers(len(others)))]
    a, b = script.actors[who], script.actors[other]
    homes = [(n.x.values[-1], n.y.values[-1]) for n in (a, b)]
    dx, dy = homes[1][0] - homes[0][0], homes[1][1] - homes[0][1]
    length = math.hypot(dx, dy)
    reach = (a.radius * a.scale.values[-1] + b.radius * b.scale.values[-1]) * 0.9
    if length < reach + 0.05:
        return False
    part = (length - reach) / 2 / length
    for actor, (x, y), sign in ((a, homes[0], 1), (b, homes[1], -1)):
        actor.go(t, t + 1.0, x + sign * part * dx, y + sign * part * dy)
        actor.x.hold(t + 2.2)
        actor.y.hold(t + 2.2)
        actor.go(t + 2.2, t + 3.2, x, y)
        actor.busy = t + 3.2 + 0.5
    text = f"{a.name(t)} hits {b.name(t)}"
    script.tell(t + 1.0, t + 2.2, text, "contact", "hit", who, other, change="action")
    return True


def hide(script: Script, shot: Shot, rng: np.random.Generator, t: float, who: int, others: list[int]) -> bool:
    """Go behind the wall, stay there and come out again."""
    actor, stay = script.actors[who], float(rng.uniform(2.2, 5))
    hidden = actor.radius * actor.scale.values[-1] < 0.9 * WALL
    if shot.wall is None or not hidden or shot.wall_free > t or t + stay + 4 > shot.end:
        return False
    home = (actor.x.values[-1], actor.y.values[-1])
    actor.go(t, t + 1.5, *shot.wall)
    out = t + 1.5 + stay
    actor.go(out, out + 1.5, *home)
    name = actor.name(t)
    script.tell(t + 1.5, t + 1.5, f"{name} goes behind the wall", "hide", "hide", who, change="state")
    script.tell(out, out, f"{name} comes out", "show", "show", who, change="state")
    actor.busy = shot.wall_free = out + 2.0
    return True


def enter(script: Script, shot: Shot, rng: np.random.Generator, t: float, who: int, others: list[int]) -> bool:
    """Go into the box, stay for a while and go out again."""
    if shot.box is None or shot.box_free > t or t + 5 > shot.end:
        return False
    actor = script.actors[who]
    home = (actor.x.values[-1], actor.y.values[-1])
    actor.go(t, t + 1.2, *shot.box)
    actor.go(t + 2.8, t + 4.0, *home)
    script.tell(t + 1.2, t + 2.8, f"{actor.name(t)} enters the box", "contact", "enter", who, change="action")
    actor.busy = shot.box_free = t + 4.5
    return True


def circle(script: Script, shot: Shot, rng: np.random.Generator, t: float, who: int, others: list[int]) -> bool:
    """Go around another object, which rests."""
    a, seconds = script.actors[who], float(rng.uniform(4, 6))
    if not others:
        return False
    other = others[int(rng.integers(len(others)))]
    b = script.actors[other]
    home, middle = (a.x.values[-1], a.y.values[-1]), (b.x.values[-1], b.y.values[-1])
    reach = (a.radius * a.scale.values[-1] + b.radius * b.scale.values[-1]) * 1.1
    first = math.atan2(home[1] - middle[1], home[0] - middle[0])
    if t + seconds + 3 > shot.end or not _last(script, shot, t + 1.0, seconds, "circles", who, other):
        return False
    a.go(t, t + 1.0, middle[0] + reach * math.cos(first), middle[1] + reach * math.sin(first))
    steps = round(seconds * 10)
    for i in range(1, steps + 1):
        angle = first + 2 * math.pi * 0.22 * seconds * i / steps
        a.x.add(t + 1 + seconds * i / steps, middle[0] + reach * math.cos(angle))
        a.y.add(t + 1 + seconds * i / steps, middle[1] + reach * math.sin(angle))
    a.go(t + 1 + seconds, t + 2 + seconds, *home)
    return True


def carry(script: Script, shot: Shot, rng: np.random.Generator, t: float, who: int, others: list[int]) -> bool:
    """Go to another object, take it to a free place and come back without it."""
    free = script.free_slots(shot, t)
    if not others or not free:
        return False
    other = others[int(rng.integers(len(others)))]
    a, b = script.actors[who], script.actors[other]
    reach = (a.radius * a.scale.values[-1] + b.radius * b.scale.values[-1]) * 0.8
    home, at = (a.x.values[-1], a.y.values[-1]), (b.x.values[-1], b.y.values[-1])
    if t + 5.5 > shot.end or not _last(script, shot, t + 1.0, 3.0, "carries", who, other):
        return False
    b.slot = free[int(rng.integers(len(free)))]
    to = shot.slots[b.slot]
    a.go(t, t + 1.0, at[0], at[1] + reach)
    a.go(t + 1.0, t + 4.0, to[0], to[1] + reach)
    b.go(t + 1.0, t + 4.0, *to)
    a.go(t + 4.0, t + 5.0, *home)
    return True


DO: dict[str, Activity] = {
    "turn": turn,
    "move": move,
    "leave": leave,
    "spin": spin,
    "grow": grow,
    "shrink": shrink,
    "bounce": bounce,
    "hit": hit,
    "blink": blink,
    "hide": hide,
    "enter": enter,
    "circle": circle,
    "carry": carry,
}
