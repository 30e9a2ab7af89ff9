"""What lies behind everything: textures over twice the width of a picture, so that a camera has somewhere to go."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from data_pipeline.world.palette import COLOUR_RGB
from data_pipeline.world.story.record import Array
from data_pipeline.world.story.sprites import still

REACH = 2
"""Width of a background in widths of a picture; its middle is the picture's middle."""
KINDS_OF = {
    "plain": ("wall",),
    "rich": ("wall", "tiles", "planks", "clouds"),
    "photo": ("wall", "tiles", "planks", "clouds", "grass", "gravel", "bricks", "galaxies"),
}
BRIGHTEST = 95.0
"""Mean brightness that no background exceeds; objects are brighter."""


@lru_cache(maxsize=8)
def background(texture: str, look: int, size: int, similar: bool) -> Array:
    """float32 [2S, 2S, 3]: dark enough for objects of any colour to stand out.

    Args:
        similar: whether there are blotches in the colours of objects.
    """
    rng = np.random.default_rng((look, 21))
    kind = str(rng.choice(KINDS_OF[texture]))
    base = rng.uniform(28, 62, 3).astype(np.float32)
    side = REACH * size
    line = np.linspace(0, REACH, side, endpoint=False, dtype=np.float32)
    tone = _tone(kind, rng, line)
    wall = tone[..., None] * base if tone is not None else _still(f"{kind}.jpg", side, size)
    tilt = rng.uniform(-9, 9, (2, 3)).astype(np.float32)
    wall = wall + (line[:, None, None] - 1) * tilt[0] + (line[None, :, None] - 1) * tilt[1]
    if similar:
        wall = _blotches(wall, rng, line)
    wall *= min(1.0, BRIGHTEST / max(float(wall.mean()), 1.0) * 0.7)
    grain = rng.standard_normal((size, size, 1), dtype=np.float32) * 3
    return np.clip(wall + np.tile(grain, (REACH, REACH, 1)), 0, 150).astype(np.float32)


def _tone(kind: str, rng: np.random.Generator, line: Array) -> Array | None:
    """Brightness relative to the base colour [2S, 2S]; None for a photograph."""
    x, y = line[None, :], line[:, None]
    if kind == "wall":
        return np.asarray(1 + 0.15 * np.sin(3 * x + 2 * y + rng.uniform(0, 6)))
    if kind == "tiles":
        count = int(rng.integers(4, 8))
        tile = (np.floor(x * count) + np.floor(y * count)) % 2
        joint = (((x * count) % 1) < 0.06) | (((y * count) % 1) < 0.06)
        return np.where(joint, 0.6, 0.9 + 0.25 * tile)
    if kind == "planks":
        count = int(rng.integers(4, 8))
        shade = rng.uniform(0.75, 1.2, 2 * count + 1)[np.floor(y * count).astype(int)]
        return np.asarray(shade * (1 + 0.08 * np.sin(40 * y + 3 * np.sin(4 * x))) * np.where((y * count) % 1 < 0.06, 0.6, 1.0))
    if kind == "clouds":
        total = np.ones((line.size, line.size), dtype=np.float32)
        for octave in range(4):
            a, b, c = rng.uniform(1.5, 4, 3) * 1.7**octave
            total += 0.22 / 1.4**octave * np.sin(a * x + 2 * np.sin(c * y)) * np.cos(b * y + np.sin(a * x))
        return total
    return None


def _still(file: str, side: int, size: int) -> Array:
    """A still, mirrored at its edges, over the whole background."""
    from PIL import Image

    picture = Image.fromarray(still(file)).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    tile = np.asarray(picture, dtype=np.float32)
    tile = tile * np.float32(0.6)
    wide = np.concatenate([tile, tile[:, ::-1]], 1)
    return np.concatenate([wide, wide[::-1]], 0)[:side, :side]


def _blotches(wall: Array, rng: np.random.Generator, line: Array) -> Array:
    """Soft stains in the colours of objects, too faint to be one."""
    for _ in range(5):
        x, y = (float(v) for v in rng.uniform(0.5, 1.5, 2))
        reach = float(rng.uniform(0.05, 0.11))
        along, down = (np.exp(-((line - v) ** 2) / (2 * reach**2)) for v in (x, y))
        share = (0.28 * down[:, None] * along[None, :])[..., None]
        wall += share * (COLOUR_RGB[int(rng.integers(len(COLOUR_RGB)))] - wall)
    return wall
