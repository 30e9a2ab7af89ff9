"""Pixels and patch labels of a clip: pure numpy, all frames of a clip in one go."""

from __future__ import annotations

from typing import Any

import numpy as np

from data_pipeline.world.palette import BACKGROUND_CLASS, COLOUR_RGB, IGNORED_PATCH, patch_class
from data_pipeline.world.scene import Clip, Thing

Array = np.ndarray[Any, Any]

DARK = 0.25
"""Brightness of the dark half of a texture relative to the bright half."""


def _texture(thing: Thing, dx: Array, dy: Array, size: int) -> Array:
    """Brightness 0..1 [T, S, S] at the offsets dx [T, 1, S] and dy [T, S, 1] from the object's centre."""
    half = max(2, round(size / 21))
    if thing.kind == 0:
        shade: Array = 1.0 - 0.35 * (dx**2 + dy**2) / np.float32(thing.radius) ** 2
        return shade
    row, column = (dy + 8 * half) // half % 2, (dx + 8 * half) // half % 2
    pattern = (row + 0 * column, (row + column) % 2, column + 0 * row)[thing.kind - 1]
    return np.where(pattern == 0, np.float32(1.0), np.float32(DARK))


def masks(clip: Clip) -> list[Array]:
    """bool [T, S, S] for each object: the pixels in which it is to be seen; later objects hide earlier ones."""
    grid = np.arange(clip.size)
    found: list[Array] = []
    for thing in clip.things:
        dx = grid[None, None, :] - thing.x[:, None, None]
        dy = grid[None, :, None] - thing.y[:, None, None]
        if thing.kind == 0:
            mask = dx**2 + dy**2 <= thing.radius**2
        else:
            mask = (np.abs(dx) <= thing.radius) & (np.abs(dy) <= thing.radius)
        mask &= thing.visible[:, None, None]
        for earlier in found:
            earlier &= ~mask
        found.append(mask)
    return found


def render(clip: Clip) -> Array:
    """uint8 [T, S, S, 3] RGB. The background is dark, uneven and noisy; the noise changes from frame to frame."""
    rng = np.random.default_rng((clip.seed, 1))
    size, steps = clip.size, clip.num_frames
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    tilt = rng.uniform(-8, 8, (2, 3)).astype(np.float32)
    base = rng.uniform(18, 42, 3).astype(np.float32)
    wall = base + ramp[:, None, None] * tilt[0] + ramp[None, :, None] * tilt[1]
    wall += rng.standard_normal((size, size, 1), dtype=np.float32) * 5
    frames = np.broadcast_to(wall, (steps, size, size, 3)).copy()
    grid = np.arange(size, dtype=np.float32)
    for thing, mask in zip(clip.things, masks(clip), strict=True):
        dx = grid[None, None, :] - thing.x[:, None, None].astype(np.float32)
        dy = grid[None, :, None] - thing.y[:, None, None].astype(np.float32)
        bright = _texture(thing, dx, dy, size)[mask]
        rgb = COLOUR_RGB[thing.colour]
        owner = np.broadcast_to(np.arange(steps)[:, None, None], mask.shape)[mask]
        frames[mask] = rgb[owner] * bright[:, None]
    noise = rng.integers(-2, 3, (size + 7 * steps, size, 1), dtype=np.int8).astype(np.float32)
    for step in range(steps):
        frames[step] += noise[7 * step : 7 * step + size]
    pixels: Array = np.clip(frames, 0, 255).astype(np.uint8)
    return pixels


def patch_labels(clip: Clip, patch: int = 8) -> Array:
    """int64 [T, S/patch, S/patch]: class of every patch.

    An object owns a patch that it covers by half or more; a patch covered by less than a tenth is background, and
    what lies between is ignored (-100), because neither answer would be right.
    """
    g = clip.size // patch
    labels = np.full((clip.num_frames, g, g), BACKGROUND_CLASS, dtype=np.int64)
    for thing, mask in zip(clip.things, masks(clip), strict=True):
        share = mask.reshape(clip.num_frames, g, patch, g, patch).mean((2, 4))
        own = np.array([patch_class(int(c), thing.kind) for c in thing.colour])[:, None, None]
        labels = np.where(share >= 0.5, own, np.where((share >= 0.1) & (labels == BACKGROUND_CLASS), IGNORED_PATCH, labels))
    return labels
