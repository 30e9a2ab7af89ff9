"""Frames of a script: pixels, and for every pixel whose it is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from data_pipeline.world.story.backgrounds import REACH, background
from data_pipeline.world.story.camera import View, view
from data_pipeline.world.story.record import Array
from data_pipeline.world.story.script import BOX, WALL, Script, Shot
from data_pipeline.world.story.signs import corner, plate
from data_pipeline.world.story.sprites import sprite

BACKGROUND, WALL_OWNER, SIGN_OWNER = -1, 100, 101
"""Owners of pixels that no actor owns."""
DIM_BLINK = 0.3
"""Brightness of an object that blinks while it is dim."""
BLINK_HALF = 1.0
"""Seconds that it stays dim, then bright."""


@dataclass
class Painter:
    """Draws the frames of one script at some seconds and one size."""

    script: Script
    times: Array
    """float [T]."""
    size: int
    without: frozenset[int] = frozenset()
    """Actors that are left out, to see what they hide."""

    @cached_property
    def view(self) -> View:
        """The camera."""
        return view(self.script, self.times, self.size)

    @cached_property
    def positions(self) -> Array:
        """float [T, N, 2]: centres in world coordinates."""
        return np.stack([np.stack([a.x.at(self.times), a.y.at(self.times)], 1) for a in self.script.actors], 1)

    @cached_property
    def scales(self) -> Array:
        """float [T, N]: radii as shares of an unmoved picture's width."""
        return np.stack([a.radius * a.scale.at(self.times) for a in self.script.actors], 1)

    @cached_property
    def angles(self) -> Array:
        """float [T, N]: radians."""
        return np.stack([a.angle.at(self.times) for a in self.script.actors], 1)

    @cached_property
    def lights(self) -> Array:
        """float [T]: brightness of the scene."""
        return self.script.light.at(self.times)

    def shot(self, t: float) -> Shot:
        """The scene of a moment."""
        return next((s for s in self.script.shots if t < s.end - 1e-9), self.script.shots[-1])

    def paint(self, frame: int) -> tuple[Array, Array, Array]:
        """(uint8 [S, S, 3], owner int8 [S, S], pixels of each whole actor int [N]) of a frame."""
        t = float(self.times[frame])
        shot = self.shot(t)
        picture = self._ground(frame, shot, t)
        owner = np.full((self.size, self.size), BACKGROUND, dtype=np.int8)
        whole = np.zeros(len(self.script.actors), dtype=np.int64)
        if shot.box is not None:
            self._box(picture, frame, shot.box)
        for n in shot.actors:
            actor = self.script.actors[n]
            if n not in self.without and actor.born - 1e-9 <= t < actor.dies - 1e-9:
                whole[n] = self._actor(picture, owner, frame, n, t)
        if shot.wall is not None:
            self._wall(picture, owner, frame, shot.wall)
        picture *= np.float32(self.lights[frame])
        rng = np.random.default_rng((self.script.seed, 31, round(t * 1000)))
        picture += rng.integers(-2, 3, (self.size, self.size, 1), dtype=np.int8)
        if text := self.script.sign.now(t):
            row, column = corner(text, self.size)
            letters = plate(text, self.size)
            area = (slice(row, row + letters.shape[0]), slice(column, column + letters.shape[1]))
            picture[area], owner[area] = letters, SIGN_OWNER
        return np.clip(picture, 0, 255).astype(np.uint8), owner, whole

    def _ground(self, frame: int, shot: Shot, t: float) -> Array:
        level, size = self.script.level, self.size
        texture = background(level.texture, shot.look, size, level.similar)
        columns, rows = self.view.world(frame, np.arange(size))
        # world 0..1 is the middle of a texture that is `REACH` pictures wide
        shift = (REACH - 1) / 2
        c = np.clip(((columns + shift) * size).astype(np.int64), 0, REACH * size - 1)
        r = np.clip(((rows + shift) * size).astype(np.int64), 0, REACH * size - 1)
        picture: Array = texture[r].take(c, axis=1)
        if level.flicker:
            near = np.exp(-((rows - 0.6) ** 2) / 0.05)[:, None] * np.exp(-((columns - 0.75) ** 2) / 0.05)[None, :]
            picture *= (1 + 0.35 * np.sin(5.3 * t) * near).astype(np.float32)[..., None]
        return picture

    def _area(self, frame: int, middle: tuple[float, float], half: float) -> tuple[slice, slice]:
        (left, right), (top, bottom) = self.view.pixels(
            frame, np.array([middle[0] - half, middle[0] + half]), np.array([middle[1] - half, middle[1] + half])
        )
        edges = [min(max(round(float(v)), 0), self.size) for v in (top, bottom, left, right)]
        return slice(edges[0], edges[1]), slice(edges[2], edges[3])

    def _box(self, picture: Array, frame: int, middle: tuple[float, float]) -> None:
        """A bright frame around a dark floor."""
        picture[self._area(frame, middle, BOX)] = (170.0, 130.0, 80.0)
        picture[self._area(frame, middle, BOX - 0.025)] = (30.0, 24.0, 18.0)

    def _wall(self, picture: Array, owner: Array, frame: int, middle: tuple[float, float]) -> None:
        """Bricks."""
        rows, columns = self._area(frame, middle, WALL)
        world_x, world_y = self.view.world(frame, np.arange(self.size))
        x = (world_x[None, columns] - middle[0] + WALL) / (2 * WALL)
        y = (world_y[rows, None] - middle[1] + WALL) / (2 * WALL)
        course = np.floor(y * 5)
        joint = ((y * 5) % 1 < 0.2) | ((x * 3 + 0.5 * (course % 2)) % 1 < 0.12)
        picture[rows, columns] = np.where(joint[..., None], (92.0, 84.0, 78.0), (128.0, 74.0, 56.0))
        owner[rows, columns] = WALL_OWNER

    def _actor(self, picture: Array, owner: Array, frame: int, n: int, t: float) -> int:
        """Draw an actor; returns how many pixels it has where nothing hides or cuts it."""
        actor = self.script.actors[n]
        radius = float(self.scales[frame, n] * self.view.zoom[frame] * self.size)
        x, y = (float(v) for v in self.view.pixels(frame, *self.positions[frame, n]))
        colour = actor.colour.now(t)
        texture = sprite(actor.kind, colour, max(8, int(2 * actor.radius * self.size)))
        turn = float(self.angles[frame, n])
        reach = int(radius * (1.5 if turn else 1.06)) + 2  # a square that turns needs more room
        columns, rows = (int(v) + np.arange(-reach, reach + 1) for v in (x, y))
        dx, dy = (columns + 0.5 - x)[None, :] / radius, (rows + 0.5 - y)[:, None] / radius
        dx, dy = dx.astype(np.float32), dy.astype(np.float32)
        cos, sin = math.cos(turn), math.sin(turn)
        u, v = cos * dx + sin * dy, cos * dy - sin * dx
        rgba = _sample(texture, u, v)
        solid = rgba[..., 3] >= 0.5
        for begin, end in actor.blinks:
            if begin <= t < end and int((t - begin) / BLINK_HALF + 1e-6) % 2 == 0:
                # in the dark no darker than in the light, or nothing would be left of it
                rgba[..., :3] *= DIM_BLINK / np.float32(self.lights[frame])
        inside_c, inside_r = (columns >= 0) & (columns < self.size), (rows >= 0) & (rows < self.size)
        if inside_c.any() and inside_r.any():
            area = (slice(rows[inside_r][0], rows[inside_r][-1] + 1), slice(columns[inside_c][0], columns[inside_c][-1] + 1))
            cut = rgba[inside_r][:, inside_c]
            picture[area] = picture[area] * (1 - cut[..., 3:]) + cut[..., :3]
            owner[area][solid[inside_r][:, inside_c]] = n
        return int(solid.sum())


def _sample(texture: Array, u: Array, v: Array) -> Array:
    """float32 [h, w, 4]: a sprite at points of the square from -1 to 1, linear between its pixels; nothing outside."""
    side = texture.shape[0]
    padded = np.pad(texture, ((1, 2), (1, 2), (0, 0)))
    x = np.clip((u / 1.04 + 1) / 2 * side + 0.5, 0, side + 1)
    y = np.clip((v / 1.04 + 1) / 2 * side + 0.5, 0, side + 1)
    x, y = np.broadcast_arrays(x, y)
    c, r = x.astype(np.int64), y.astype(np.int64)
    a, b = (x - c)[..., None].astype(np.float32), (y - r)[..., None].astype(np.float32)
    upper = padded[r, c] * (1 - a) + padded[r, c + 1] * a
    lower = padded[r + 1, c] * (1 - a) + padded[r + 1, c + 1] * a
    return np.asarray(upper * (1 - b) + lower * b)
