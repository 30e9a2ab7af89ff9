"""Levels of difficulty: what a story may hold. Each knob can also be set on its own."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from model.errors import InputError

ACTIVITIES = ("turn", "move", "leave", "spin", "grow", "shrink", "bounce", "hit", "blink", "hide", "enter", "circle", "carry")
"""What objects can do; they appear in any case."""
CAMERA = ("pan", "zoom", "shake")
SIGNS = ("word", "counter", "clock")
TEXTURES = ("plain", "rich", "photo")


@dataclass(frozen=True, kw_only=True)
class Level:
    """What a story may hold."""

    objects: int
    """Objects that are there at a time at most, 1 to 6, those that do nothing included."""
    idle: int = 0
    """Objects that are there from the start and never do anything."""
    radius: tuple[float, float] = (0.1, 0.16)
    """Smallest and largest radius of an object as a share of the picture's width, 0.06 to 0.2."""
    pace: float = 2.0
    """Seconds from one beginning to the next on average, 0.3 to 20; what lasts may overlap with what others do."""
    activities: tuple[str, ...] = ("turn", "move", "leave")
    """Out of `ACTIVITIES`."""
    wall: bool = False
    """Whether a wall stands there that objects can go behind (`hide` needs it)."""
    box: bool = False
    """Whether there is a box that objects can enter (`enter` needs it)."""
    camera: tuple[str, ...] = ()
    """Out of `CAMERA`."""
    texture: str = "plain"
    """Background: plain (an uneven wall) | rich (tiles, planks, clouds too) | photo (grass, gravel, bricks, galaxies too)."""
    drawn: float = 0.0
    """Share of objects that are drawn figures (star, heart, house, ...) instead of the four textures of level 1."""
    photos: float = 0.0
    """Share of objects that are photographs (cat, rocket, ...); they have no colour."""
    signs: tuple[str, ...] = ()
    """Out of `SIGNS`; one of them is drawn for a story."""
    lights: bool = False
    """Whether it gets dark and light again."""
    flicker: bool = False
    """Whether a patch of the background flickers, which is not worth a word."""
    similar: bool = False
    """Whether objects may have the same colour as others, and blotches of the background may have it too."""
    cuts: int = 0
    """Cuts to another scene, with other objects, 0 to 3."""


_SECOND = ("turn", "move", "leave", "spin", "grow", "shrink", "bounce")
_THIRD = (*_SECOND, "hit", "blink", "hide", "enter")

LEVELS = {
    2: Level(objects=3, pace=2.2, activities=_SECOND, drawn=0.5),
    3: Level(
        objects=4,
        radius=(0.09, 0.14),
        pace=1.8,
        activities=_THIRD,
        wall=True,
        box=True,
        texture="rich",
        drawn=0.6,
        signs=("word",),
    ),
    4: Level(
        objects=5,
        idle=1,
        radius=(0.08, 0.13),
        pace=1.5,
        activities=ACTIVITIES,
        wall=True,
        box=True,
        camera=("pan", "zoom"),
        texture="photo",
        drawn=0.5,
        photos=0.25,
        signs=SIGNS,
        lights=True,
    ),
    5: Level(
        objects=6,
        idle=2,
        radius=(0.08, 0.12),
        pace=1.1,
        activities=ACTIVITIES,
        wall=True,
        box=True,
        camera=CAMERA,
        texture="photo",
        drawn=0.5,
        photos=0.3,
        signs=SIGNS,
        lights=True,
        flicker=True,
        similar=True,
        cuts=1,
    ),
}
"""Level 1 is the clip of `data_pipeline.world.scene` and has no knobs."""

ALLOWED = {"activities": ACTIVITIES, "camera": CAMERA, "signs": SIGNS}
RANGES = {"objects": (1, 6), "idle": (0, 5), "pace": (0.3, 20), "drawn": (0, 1), "photos": (0, 1), "cuts": (0, 3)}
WHOLE = ("objects", "idle", "cuts")
"""Knobs that are whole numbers."""
SWITCHES = ("wall", "box", "lights", "flicker", "similar")


def level_with(number: int, **knobs: Any) -> Level | None:
    """The level of a number with some knobs set; None for level 1.

    Raises:
        InputError: a knob that there is not, or a value that it cannot have.
    """
    if number == 1:
        if knobs:
            raise InputError(f"story level 1 has no knob {next(iter(knobs))!r}; take level 2 and set it there")
        return None
    names = [f.name for f in dataclasses.fields(Level)]
    for name in knobs:
        if name not in names:
            raise InputError(f"knob of a story is {name!r}; use one of {', '.join(names)}")
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in knobs.items()}
    level = dataclasses.replace(LEVELS[number], **values)
    _check(level)
    return level


def _check(level: Level) -> None:
    for name, (low, high) in RANGES.items():
        check_number(f"knob {name} of a story", getattr(level, name), low, high, name in WHOLE)
    for name in SWITCHES:
        if getattr(level, name) not in (True, False):
            raise InputError(f"knob {name} of a story is {getattr(level, name)!r}; it must be true or false")
    for name, allowed in ALLOWED.items():
        values = getattr(level, name)
        if not isinstance(values, tuple):
            raise InputError(f"knob {name} of a story is {values!r}; it must be a list of some of {', '.join(allowed)}")
        for value in values:
            if value not in allowed:
                raise InputError(f"knob {name} of a story holds {value!r}; use some of {', '.join(allowed)}")
    if not level.activities:
        raise InputError(f"knob activities of a story is empty; use some of {', '.join(ACTIVITIES)}")
    if level.texture not in TEXTURES:
        raise InputError(f"knob texture of a story is {level.texture!r}; use one of {', '.join(TEXTURES)}")
    _check_radius(level.radius)
    if level.idle >= level.objects:
        raise InputError(f"knob idle of a story is {level.idle}; it must be less than objects, {level.objects}")


def _check_radius(radius: object) -> None:
    numbers = isinstance(radius, tuple) and len(radius) == 2 and all(isinstance(v, Real) for v in radius)
    if not (numbers and 0.06 <= radius[0] <= radius[1] <= 0.2):  # type: ignore[index]
        raise InputError(f"knob radius of a story is {radius}; it must be two rising numbers within 0.06..0.2")


def check_number(name: str, value: object, low: float, high: float, whole: bool = False) -> None:
    """Refuse what is no number, or one that lies outside.

    Raises:
        InputError: names what it is, its value and its range.
    """
    if isinstance(value, bool) or not isinstance(value, Integral if whole else Real):
        raise InputError(f"{name} is {value!r}; it must be a {'whole ' if whole else ''}number within {low}..{high}")
    if not low <= value <= high:  # type: ignore[operator]
        raise InputError(f"{name} is {value}; it must lie within {low}..{high}")
