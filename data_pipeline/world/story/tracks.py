"""Quantities over continuous time: what stands between two keys is drawn in between."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from data_pipeline.world.story.record import Array

STEP = 0.1
"""Seconds between the keys of a smooth curve."""


@dataclass
class Track:
    """A number over time, linear between its keys."""

    times: list[float]
    values: list[float]

    def at(self, times: Sequence[float] | Array) -> Array:
        """float [T]."""
        return np.asarray(np.interp(times, self.times, self.values))

    def now(self, t: float) -> float:
        """The value at one moment."""
        return float(np.interp(t, self.times, self.values))

    def hold(self, t: float) -> float:
        """Keep the value until `t`; returns it."""
        value = self.values[-1]
        if t > self.times[-1]:
            self.add(t, value)
        return value

    def add(self, t: float, value: float) -> None:
        """Another key, later than all so far."""
        self.times.append(t)
        self.values.append(value)

    def ease(self, begin: float, end: float, value: float) -> None:
        """From the last value to another one, slowly at both ends."""
        first = self.hold(begin)
        steps = max(2, round((end - begin) / STEP))
        for i in range(1, steps + 1):
            s = i / steps
            self.add(begin + s * (end - begin), first + (value - first) * s * s * (3 - 2 * s))


@dataclass
class Steps:
    """A word over time that changes at once."""

    times: list[float]
    values: list[str]

    def now(self, t: float) -> str:
        """The value at one moment; empty before the first."""
        index = bisect_right(self.times, t + 1e-9)
        return self.values[index - 1] if index else ""

    def add(self, t: float, value: str) -> None:
        """Another value from `t` on."""
        self.times.append(t)
        self.values.append(value)


@dataclass
class Actor:
    """An object of a story. Lengths are shares of the picture's width; (0, 0) is the top left corner of an unmoved picture."""

    kind: str
    radius: float
    born: float
    dies: float
    x: Track
    y: Track
    colour: Steps
    """Holds the empty word for a photo."""
    angle: Track
    """Radians, clockwise."""
    scale: Track
    blinks: list[tuple[float, float]] = field(default_factory=list)
    """Stretches of time in which it goes dim and bright."""
    slot: int = -1
    """Where it lives while it does nothing."""
    busy: float = 0.0
    """Second from which on it can do something else."""

    def name(self, t: float) -> str:
        """`red ball`."""
        return f"{self.colour.now(t)} {self.kind}".strip()

    def go(self, begin: float, end: float, x: float, y: float) -> None:
        """Move to another place."""
        self.x.ease(begin, end, x)
        self.y.ease(begin, end, y)

    def there(self, times: Array) -> Array:
        """bool [T]."""
        return np.asarray((times >= self.born - 1e-9) & (times < self.dies - 1e-9))
