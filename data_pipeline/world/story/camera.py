"""What the camera looks at: from world coordinates to pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_pipeline.world.story.record import Array
from data_pipeline.world.story.script import Script

SHAKE = 0.02
"""How far a shaking camera goes, as a share of the picture's width."""


@dataclass(frozen=True)
class View:
    """The camera in T frames. World coordinates are shares of an unmoved picture's width."""

    size: int
    x: Array
    """float [T]: column of the world in the middle of the picture."""
    y: Array
    zoom: Array
    """float [T]: pixels of the picture for one of an unmoved picture."""

    def pixels(self, frame: int, x: Array | float, y: Array | float) -> tuple[Array, Array]:
        """Columns and rows in the picture; the left edge of the first pixel is 0."""
        scale = self.zoom[frame] * self.size
        half = self.size / 2
        return np.asarray((x - self.x[frame]) * scale + half), np.asarray((y - self.y[frame]) * scale + half)

    def world(self, frame: int, columns: Array) -> tuple[Array, Array]:
        """World columns and rows of the given pixel columns (rows alike)."""
        offset = (columns + 0.5 - self.size / 2) / (self.zoom[frame] * self.size)
        return np.asarray(offset + self.x[frame]), np.asarray(offset + self.y[frame])


def view(script: Script, times: Array, size: int) -> View:
    """The camera of a script at some seconds."""
    x, y = script.pan_x.at(times), script.pan_y.at(times)
    for begin, end in script.shakes:
        inside = (times >= begin) & (times < end)
        x = x + inside * SHAKE * np.sin(9.7 * (times - begin) + 1)
        y = y + inside * SHAKE * np.sin(13.1 * (times - begin) + 2)
    return View(size, x, y, script.zoom.at(times))
