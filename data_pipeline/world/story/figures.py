"""Outlines of the drawn figures: which points of the square from (-1, -1) to (1, 1) belong to each; rows grow downwards."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from data_pipeline.world.story.record import Array

Shape = Callable[[Array, Array], tuple[Array, Array]]
"""(u, v) -> (inside, dark): the whole figure, and the parts of it in a darker tone."""


def _disc(u: Array, v: Array, x: float, y: float, r: float) -> Array:
    return np.asarray((u - x) ** 2 + (v - y) ** 2 <= r * r)


def _bar(u: Array, v: Array, left: float, top: float, right: float, bottom: float) -> Array:
    return np.asarray((u >= left) & (u <= right) & (v >= top) & (v <= bottom))


def _none(u: Array) -> Array:
    return np.zeros(u.shape, dtype=bool)


def ball(u: Array, v: Array) -> tuple[Array, Array]:
    """A plain disc; its shade makes it round."""
    return _disc(u, v, 0, 0, 1), _none(u)


def flag(u: Array, v: Array) -> tuple[Array, Array]:
    """Horizontal stripes."""
    return _bar(u, v, -0.9, -0.9, 0.9, 0.9), np.floor((v + 0.9) / 0.36) % 2 == 1


def fence(u: Array, v: Array) -> tuple[Array, Array]:
    """Vertical stripes."""
    return _bar(u, v, -0.9, -0.9, 0.9, 0.9), np.floor((u + 0.9) / 0.36) % 2 == 1


def board(u: Array, v: Array) -> tuple[Array, Array]:
    """A checker."""
    return _bar(u, v, -0.9, -0.9, 0.9, 0.9), (np.floor((u + 0.9) / 0.45) + np.floor((v + 0.9) / 0.45)) % 2 == 1


def star(u: Array, v: Array) -> tuple[Array, Array]:
    """Five points."""
    angle = (np.arctan2(u, -v) + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5
    # the edge from a point (radius 1, angle 0) to a notch (radius 0.42, angle 36 degrees), as a line in polar coordinates
    tip, notch = np.array([1.0, 0.0]), 0.42 * np.array([np.cos(np.pi / 5), np.sin(np.pi / 5)])
    px, py = np.hypot(u, v) * np.cos(angle), np.hypot(u, v) * np.abs(np.sin(angle))
    edge = notch - tip
    return (px - tip[0]) * edge[1] - (py - tip[1]) * edge[0] <= 0, _none(u)


def heart(u: Array, v: Array) -> tuple[Array, Array]:
    """Two arcs and a point."""
    lobes = _disc(u, v, -0.45, -0.35, 0.5) | _disc(u, v, 0.45, -0.35, 0.5)
    point = (v >= -0.25) & (np.abs(u) <= 0.9 * (0.95 - v) / 1.15) & (v <= 0.95)
    return lobes | point, _none(u)


def house(u: Array, v: Array) -> tuple[Array, Array]:
    """A roof over a wall with a door."""
    roof = (v >= -0.95) & (v <= -0.1) & (np.abs(u) <= (v + 0.95) * 1.12)
    wall = _bar(u, v, -0.7, -0.1, 0.7, 0.9)
    return roof | wall, _bar(u, v, -0.2, 0.3, 0.2, 0.9) | roof


def tree(u: Array, v: Array) -> tuple[Array, Array]:
    """Three tiers of a fir on a trunk."""
    tiers = _none(u)
    for top, bottom, width in ((-1.0, -0.3, 0.5), (-0.6, 0.15, 0.68), (-0.2, 0.65, 0.88)):
        tiers |= (v >= top) & (v <= bottom) & (np.abs(u) <= width * (v - top) / (bottom - top))
    trunk = _bar(u, v, -0.16, 0.6, 0.16, 1.0)
    return tiers | trunk, trunk


def fish(u: Array, v: Array) -> tuple[Array, Array]:
    """A body, a tail and an eye; it looks to the left."""
    body = ((u + 0.2) / 0.8) ** 2 + (v / 0.55) ** 2 <= 1
    tail = (u >= 0.4) & (u <= 1.0) & (np.abs(v) <= (u - 0.3) * 0.9)
    return body | tail, _disc(u, v, -0.6, -0.12, 0.13) | (tail & ~body)


def moon(u: Array, v: Array) -> tuple[Array, Array]:
    """A crescent."""
    return _disc(u, v, 0, 0, 1) & ~_disc(u, v, 0.48, -0.12, 0.78), _none(u)


def ring(u: Array, v: Array) -> tuple[Array, Array]:
    """A disc with a hole."""
    return _disc(u, v, 0, 0, 1) & ~_disc(u, v, 0, 0, 0.55), _none(u)


def cross(u: Array, v: Array) -> tuple[Array, Array]:
    """An upright plus."""
    return _bar(u, v, -0.32, -0.95, 0.32, 0.95) | _bar(u, v, -0.95, -0.32, 0.95, 0.32), _none(u)


def arrow(u: Array, v: Array) -> tuple[Array, Array]:
    """It points to the right."""
    head = (u >= 0.0) & (u <= 1.0) & (np.abs(v) <= (1.0 - u) * 0.85)
    return head | _bar(u, v, -0.95, -0.3, 0.05, 0.3), _none(u)


def face(u: Array, v: Array) -> tuple[Array, Array]:
    """Two eyes and a smile."""
    eyes = _disc(u, v, -0.36, -0.25, 0.16) | _disc(u, v, 0.36, -0.25, 0.16)
    smile = _disc(u, v, 0, 0.05, 0.65) & ~_disc(u, v, 0, 0.05, 0.45) & (v > 0.2)
    return _disc(u, v, 0, 0, 1), eyes | smile


def drop(u: Array, v: Array) -> tuple[Array, Array]:
    """Water that falls."""
    point = (v >= -1.0) & (v <= 0.2) & (np.abs(u) <= 0.62 * (v + 1.0) / 1.2)
    return point | _disc(u, v, 0, 0.3, 0.68), _none(u)


SHAPES: dict[str, Shape] = {
    shape.__name__: shape
    for shape in (ball, flag, board, fence, star, heart, house, tree, fish, moon, ring, cross, arrow, face, drop)
}
