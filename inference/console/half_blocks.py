"""A frame as coloured characters: each shows two pixels, one above the other."""

from __future__ import annotations

import torch
from rich.color import Color
from rich.segment import Segment, Segments
from rich.style import Style

COLUMNS = 32
"""Width of a picture in characters."""


def half_blocks(frame: torch.Tensor, columns: int = COLUMNS) -> Segments:
    """Draw a frame with half blocks.

    Args:
        frame: uint8 [3, S, S].
        columns: width in characters; a character is twice as high as wide, so the picture takes columns / 2 lines.
    """
    rows = columns // 2 * 2
    small = torch.nn.functional.adaptive_avg_pool2d(frame.float(), (rows, columns)).round().to(torch.uint8)
    pixels = small.permute(1, 2, 0).tolist()  # [rows][columns][3]
    segments = []
    for y in range(0, rows, 2):
        for upper, lower in zip(pixels[y], pixels[y + 1], strict=True):
            segments.append(Segment("▀", Style(color=Color.from_rgb(*upper), bgcolor=Color.from_rgb(*lower))))
        segments.append(Segment.line())
    return Segments(segments)
