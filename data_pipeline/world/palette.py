"""The words of the world: colours, kinds, cells, directions."""

from __future__ import annotations

import numpy as np

COLOURS = ("red", "green", "blue", "yellow", "purple", "white")
COLOUR_RGB = np.array(
    [(230, 50, 45), (50, 205, 75), (65, 105, 245), (240, 215, 50), (205, 70, 225), (235, 235, 235)], dtype=np.float32
)
"""[6, 3], in the order of `COLOURS`; far apart in chroma, so that 4:2:0 subsampling keeps them apart."""

KINDS = ("ball", "flag", "board", "fence")
"""By texture: shaded disc, horizontal stripes, checker, vertical stripes. Silhouettes alone are hard to learn."""

DIRECTIONS = ("left", "right", "up", "down")
ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "center", "right")
NUMBERS = ("no object", "one object", "two objects")

BACKGROUND_CLASS = 0
IGNORED_PATCH = -100
NUM_PATCH_CLASSES = 1 + len(COLOURS) * len(KINDS)


def patch_class(colour: int, kind: int) -> int:
    """Class of a patch that shows an object: 1 + colour * kinds + kind; class 0 is background."""
    return 1 + colour * len(KINDS) + kind


def cell_words(x: int, y: int, size: int) -> str:
    """Row and column words of the pixel (x, y) in a frame of `size` pixels, by thirds: `top left`."""
    return f"{ROWS[min(2, 3 * y // size)]} {COLUMNS[min(2, 3 * x // size)]}"
