"""Signs: light letters on a dark plate at the top of the picture, in front of everything."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from data_pipeline.world.story.record import Array

PLATE = (24.0, 40.0, 62.0)
LETTERS = (255.0, 244.0, 190.0)
HEIGHT = 0.15
"""Height of capital letters as a share of the picture's height: ten pixels of 64."""


@lru_cache(maxsize=256)
def plate(text: str, size: int) -> Array:
    """float32 [h, w, 3]: the plate with its text, in PIL's own font."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(max(10, round(HEIGHT * size * 1.1)))
    left, top, right, bottom = (int(v) for v in font.getbbox(text))
    _, capital_top, _, capital_bottom = (int(v) for v in font.getbbox("H"))
    margin = max(2, round(0.02 * size))
    height = max(bottom, capital_bottom) - min(top, capital_top)
    picture = Image.new("L", (min(size - 2, right - left + 2 * margin), height + 2 * margin), 0)
    ImageDraw.Draw(picture).text((margin - left, margin - min(top, capital_top)), text, 255, font=font)
    share = np.asarray(picture, dtype=np.float32)[..., None] / 255
    return np.asarray(share * np.array(LETTERS, np.float32) + (1 - share) * np.array(PLATE, np.float32))


def corner(text: str, size: int) -> tuple[int, int]:
    """Row and column of the plate's top left pixel: in the middle of the upper edge."""
    return max(1, size // 64), (size - plate(text, size).shape[1]) // 2
