"""Pictures of objects: RGB with a soft edge, made once for a kind, a colour and a size."""

from __future__ import annotations

import io
from functools import cache, lru_cache

import numpy as np

from data_pipeline.world.palette import COLOUR_RGB, COLOURS
from data_pipeline.world.story.figures import SHAPES
from data_pipeline.world.story.record import Array

FINE = 4
"""Points across a pixel of a sprite from which its edge is averaged."""
DARK = 0.3
"""Brightness of the dark parts of a figure."""
EDGE = 0.45
"""Brightness of the outline, which sets a figure apart from what is behind it."""

CROPS = {
    "cat": ("cat.jpg", (0.28, 0.02, 0.92)),
    "cup": ("coffee.jpg", (0.18, 0.0, 1.0)),
    "rocket": ("rocket.jpg", (0.3, 0.1, 0.9)),
    "horse": ("horse.jpg", (0.08, 0.0, 1.0)),
    "astronaut": ("astronaut.jpg", (0.22, 0.0, 0.62)),
    "photographer": ("cameraman.jpg", (0.22, 0.08, 0.6)),
}
"""File, and left, top and side of the square that is cut out: left as a share of the width, top and side of the height."""


@lru_cache(maxsize=512)
def sprite(kind: str, colour: str, pixels: int) -> Array:
    """float32 [P, P, 4]: RGB 0..255 multiplied by the share of the pixel that belongs to the object, and that share, 0..1."""
    if kind in CROPS:
        return _photo(kind, pixels)
    fine = (np.arange(pixels * FINE) + 0.5) / (pixels * FINE) * 2 - 1
    u, v = np.meshgrid(fine * 1.04, fine * 1.04)
    inside, dark = SHAPES[kind](u, v)
    width = max(1, round(pixels * FINE * 0.03))
    inner = inside.copy()
    for axis in (0, 1):
        for shift in (-width, width):
            inner &= np.roll(inside, shift, axis)
    tone = np.where(dark, DARK, 1.0) * (1.0 - 0.3 * (u**2 + v**2) if kind == "ball" else 1.0)
    tone = np.where(inner, tone, EDGE * tone)
    rgb = COLOUR_RGB[COLOURS.index(colour)]
    return _average(np.concatenate([rgb * tone[..., None], np.ones_like(tone)[..., None]], 2) * inside[..., None], pixels)


def _average(fine: Array, pixels: int) -> Array:
    side = fine.shape[0] // pixels
    return np.asarray(fine.reshape(pixels, side, pixels, side, 4).mean((1, 3)), dtype=np.float32)


@cache
def still(file: str) -> Array:
    """uint8 [H, W, 3]: one of the bundled stills."""
    from PIL import Image

    from data_pipeline.assets.real import media_bytes

    return np.asarray(Image.open(io.BytesIO(media_bytes(file))).convert("RGB"))


def _photo(kind: str, pixels: int) -> Array:
    """A round photograph with a white rim."""
    from PIL import Image

    file, (left, top, side) = CROPS[kind]
    picture = still(file)
    height, width = picture.shape[:2]
    x, y, s = left * width, top * height, side * height
    s = min(s, width - x, height - y)
    fine = pixels * FINE
    cut = Image.fromarray(picture).resize((fine, fine), Image.Resampling.BILINEAR, box=(x, y, x + s, y + s))
    line = (np.arange(fine) + 0.5) / fine * 2.08 - 1.04
    distance = np.hypot(*np.meshgrid(line, line))
    inside = distance <= 1
    rgb = np.where((distance > 0.88)[..., None], 245.0, np.asarray(cut, dtype=np.float64))
    return _average(np.concatenate([rgb, np.ones((fine, fine, 1))], 2) * inside[..., None], pixels)
