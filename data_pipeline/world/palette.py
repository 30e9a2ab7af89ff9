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
CELLS = (("northwest", "north", "northeast"), ("west", "center", "east"), ("southwest", "south", "southeast"))
"""Names of the nine thirds of a frame, by row and column; one word each, none of them a direction's word."""

NUMBERS = ("no object", "one object", "two objects")

BACKGROUND_CLASS = 0
IGNORED_PATCH = -100
NUM_PATCH_CLASSES = 1 + len(COLOURS) * len(KINDS)


def patch_class(colour: int, kind: int) -> int:
    """Class of a patch that shows an object: 1 + colour * kinds + kind; class 0 is background."""
    return 1 + colour * len(KINDS) + kind


def cell_word(x: int, y: int, size: int) -> str:
    """Where the pixel (x, y) lies in a frame of `size` pixels, by thirds: `northwest` at the top left."""
    return CELLS[min(2, 3 * y // size)][min(2, 3 * x // size)]
